"""Networks as Linux has them: a router is a namespace, a segment a bridge, a port a tap with isolation on.

      root namespace                     router's namespace             the deployment's edge
                                         vpc-0123456789abcdef0          orc-DEPLOYMENT
    +---------------------------+       +------------------------+     +--------------------------+
    | eni-0123456789a (tap) -+  |       |  metadata, DNS on lo   |     |                          |
    |                sn-0123... bridge  |  dnsmasq               |     |  /32 routes of public    |
    | eni-... (tap) ---------+--- sl-... === sn-... (gateway)    |     |  addresses               |
    |                           |       |  policies, NAT  uplink ===== vpc-0123456789a           |
    |                           |       |                pcx-... ===== another router (peering.py)
    | orc-DEPLOYMENT ================================================== host   (edge.py)          |
    +---------------------------+       +------------------------+     +--------------------------+

Taps are isolated from each other and the leg answers ARP for everybody (proxy_arp_pvlan), so all traffic passes the
router, which forwards it by the table of its segment (routing.py). A port without a machine has a namespace of its own
behind its tap (translator.py). Traffic of routers meets in the edge and on cables between two of them, so their
addresses may overlap. What the host itself gets is one link, one address, one route, one nftables table, and with
egress a second table; an IPv6 address and route too, once a router has IPv6.

Everything is looked at before it is changed, and made in an order in which nothing passes before its rules are there.
A launch adds a port to a router that was looked at moments ago: then only what hangs on ports is (`_change_ports`).
The links of the root namespace say in their alias whose they are (`orc-DEPLOYMENT/ROUTER`), and so does lo of each
namespace. Only the shares of the routers in the guard's table are kept in files, since the table is one and a
controller that has just started knows of one router at a time.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_interface
from pathlib import Path

from orchestrator.host import (
    Flow,
    HostError,
    Port,
    Probe,
    Router,
    Way,
    dnsmasq,
    edge,
    peering,
    routing,
    ruleset,
    shaping,
    shortcut,
    tracing,
    translator,
)
from orchestrator.host.command import (
    NAMESPACES,
    address_changes,
    alongside,
    delete_links,
    entering,
    forget_namespace,
    inside,
    ip,
    namespace_exists,
    write_sysctls,
)
from orchestrator.host.edge import ROUTING, link_settings
from orchestrator.host.flows import FlowCounts
from orchestrator.host.links import (
    FAR_SIDE,
    MTU_BYTES,
    UPLINK,
    bridge_name,
    lan_plug_name,
    leg_address,
    leg_mac,
    leg_name,
    peer_name,
    plug_name,
    tap_name,
    translator_name,
    uplink_name,
)
from orchestrator.host.netlink import Link, Links, links
from orchestrator.host.nft import Part
from orchestrator.host.nft_tables import Tables

log = logging.getLogger(__name__)

DEFAULT_PUBLIC_RANGE = IPv4Network("203.0.113.0/24")

_HOST = ""  # the name of the namespace that we were started in
_GUARD_SHARE = "guard.nft"
_FORWARDER = ".forwarder"
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class _Compiled:
    """The rules of a router: its share of the guard, and its own table."""

    router: Router
    share: str
    ruleset: ruleset.Ruleset


@dataclass(frozen=True, slots=True)
class _Share:
    text: str
    part: Part


class NetnsNetwork:
    """`deployment` is 8 hexadecimal digits. The first address of `public_range` becomes the host's, the second the
    edge's. `run_dir` holds a directory per router; dnsmasq runs as its own user if that one can get there."""

    def __init__(
        self,
        deployment: str,
        run_dir: Path,
        *,
        public_range: IPv4Network = DEFAULT_PUBLIC_RANGE,
        ipv6_range: IPv6Network | None = None,
        public_bridge: str = "",
        egress: bool = False,
    ) -> None:
        self.deployment = deployment
        self._run_dir = run_dir.absolute()
        self._outside = edge.Outside(
            deployment=deployment,
            public_range=public_range,
            ipv6_range=ipv6_range,
            egress=egress,
            bridge=public_bridge,
        )
        self._edge = self._outside.name
        self._links = Links()  # of the namespace that we were started in
        self._tables = Tables()
        self._queues = shaping.Queues()
        self._shortcuts = shortcut.Shortcuts()
        self._flows = FlowCounts()
        self._shared = threading.Lock()  # the guard, the edge and the host's side
        self._routers: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._cables = peering.Cables(self._edge, self._settle)
        self._forwarding: dict[str, threading.Lock] = defaultdict(threading.Lock)  # taken last
        self._seen: set[str] = set()  # routers that this process has applied
        self._whole: set[str] = set()  # those that it has looked at as a whole, without a failure since
        self._compiled: dict[str, _Compiled] = {}
        self._shares: dict[str, _Share] = {}  # of the guard, as they are in their files
        self._cleared = False  # of what another setting of `egress` left

    # --- the Protocol ----------------------------------------------------------------------------------------------

    def apply(self, router: Router, before: Router | None = None) -> None:
        with self._routers[router.name]:
            rules = self._compile(router)
            if before is not None and self._is_standing(router) and _frame(before) == _frame(router):
                try:
                    self._change_ports(before, router, rules)
                except (HostError, OSError) as error:
                    log.info("%s is looked at as a whole: %s", router.name, error)
                else:
                    return
            self._whole.discard(router.name)
            with self._shared:
                self._write_share(router.name, rules.share)
                fresh = self._make_host_side(router)
                lan = edge.look_at_lan(self._outside)
                guard = alongside(lambda: self._hold_ports(router))
                uplink = entering(self._edge, lambda: self._make_edge(router, lan, fresh=fresh))
                rest = entering(router.name, lambda: self._make_router(router, rules.ruleset, uplink))
                translators = self._make_translators(router)
                # Whatever fails: nothing of it goes on after the locks are given back.
                guard.exception()
                uplink.exception()
            inner = [rest, *translators]
            for job in inner:
                job.exception()
            try:
                guard.result()
                uplink.result()
                for job in inner:
                    job.result()
            except OSError as error:
                raise HostError(f"{router.name} could not be made: {error}") from error
            self._seen.add(router.name)
            self._whole.add(router.name)

    def plan(self, router: Router) -> str:
        directory = self._run_dir / router.name
        cables = {peer_name(each.name) for each in router.peerings}
        legs = {leg_name(segment.name) for segment in router.segments}
        # The addresses of the uplink are those that it would get if it were the first.
        gateway = str(ruleset.UPLINK_RANGE[0]) if router.uplink else ""
        forwarding = routing.wanted(router, {UPLINK, *legs, *cables}, gateway)
        parts = {
            "nftables, in the router": ruleset.router(router).text(),
            "nftables, at its ports": ruleset.guard_elements(self.deployment, router),
            "past the bridge": "".join(f"{each.text}\n" for each in sorted(shortcut.wanted(router))),
            **{
                f"nftables, behind {port.name}": ruleset.translator(port).text()
                for port, _ in translator.translators(router)
            },
            "rules and routes": forwarding.text,
            "dnsmasq.conf": self._dnsmasq_text(router, directory),
            "hosts, for DHCP": dnsmasq.hosts(router),
            "names, for DNS": dnsmasq.names(router),
        }
        return "\n".join(f"# {title}\n{text}" for title, text in parts.items() if text)

    def flows(self, router: Router) -> list[Flow]:
        with self._routers[router.name]:
            return self._flows.since(router)

    def trace(self, router: Router, probe: Probe) -> list[str]:
        with self._routers[router.name]:
            return tracing.trace(router, probe)

    def remove(self, router: str) -> None:
        """Raises HostError, and removes nothing, while a tap is plugged in."""
        with self._routers[router]:
            present = self._links.now()
            own = {name for name, link in present.items() if self._owner(link.alias) == router}
            plugged = sorted(name for name, link in present.items() if link.master in own and name not in own)
            if plugged:
                raise HostError(f"{router} cannot go: {', '.join(plugged)} is still plugged in")
            dnsmasq.Dnsmasq(self._run_dir / router).stop()
            with self._shared:
                if namespace_exists(self._edge):
                    inside(self._edge, lambda: delete_links([uplink_name(router)]))
                delete_links(sorted(own, key=_plugs_first))
                translator.forget(translator.namespaces(router), self._tables)
                if router in self._directories() or self._is_ours(router):
                    forget_namespace(router)
                self._tables.forget(router)
                self._queues.forget(router)
                self._queues.forget(_HOST, own)
                self._shortcuts.forget(router)
                self._flows.forget(router)
                self._cables.forget(router)
                self._seen.discard(router)
                self._whole.discard(router)
                self._compiled.pop(router, None)
                shutil.rmtree(self._run_dir / router, ignore_errors=True)
                if self._directories():
                    self._load_guard()
                else:
                    self._remove_host_side()

    def routers(self) -> list[str]:
        return sorted(self._namespaces())

    def leaks(self, routers: set[str], ports: set[str]) -> list[str]:
        return [f"{kind} {name}" for kind, name, _ in self._leaks(routers, ports)]

    def remove_leaks(self, routers: set[str], ports: set[str]) -> None:
        found = self._leaks(routers, ports)
        delete_links(name for kind, name, _ in found if kind == "tap")
        with self._shared:
            delete_links(tap_name(name.rpartition(".")[2]) for kind, name, _ in found if kind == "translator")
            translator.forget((name for kind, name, _ in found if kind == "translator"), self._tables)
        for router in sorted({router for _, _, router in found if router}):
            self.remove(router)
        with self._shared:
            if not routers and not self._directories():
                self._remove_host_side()

    def listen(self, router: str, address: str, port: int) -> socket.socket:
        def make() -> socket.socket:
            listener = socket.socket(_family(address), socket.SOCK_STREAM)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((address, port))
                listener.listen(_BACKLOG)
            except BaseException:
                listener.close()
                raise
            return listener

        try:
            return inside(router, make)
        except OSError as error:
            raise HostError(f"cannot listen on {address}:{port} inside {router}: {error}") from error

    def connect(self, router: str, address: str, port: int, timeout_s: float) -> socket.socket:
        connection = inside(router, lambda: socket.socket(_family(address), socket.SOCK_STREAM))
        try:
            connection.settimeout(timeout_s)
            connection.connect((address, port))
            connection.settimeout(None)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        self._links.close()
        self._tables.close()

    # --- what differs from the plan before -------------------------------------------------------------------------

    def _is_standing(self, router: Router) -> bool:
        """Whether it is as this process left it, at a glance: nobody has to be asked. The caller holds its lock."""
        if router.name not in self._whole or not all(map(namespace_exists, (self._edge, router.name))):
            return False
        present, alias = self._links.now(), self._alias(router.name)
        for segment in router.segments:
            bridge, plug = present.get(bridge_name(segment.name)), present.get(plug_name(segment.name))
            if bridge is None or not _is_set(bridge, alias=alias, master=""):
                return False
            if plug is None or not _is_set(plug, alias=alias, master=bridge.name):
                return False
        return True

    def _change_ports(self, before: Router, router: Router, rules: _Compiled) -> None:
        """The rest is as it is for both: links, addresses, routes."""

        def inner() -> None:
            self._load_router(router, rules.ruleset, trust=True)
            self._start_dnsmasq(router)

        with self._shared:
            self._write_share(router.name, rules.share)
            lan = edge.look_at_lan(self._outside)
            jobs: list[Future[None] | Future[IPv4Address | None]] = [entering(router.name, inner)]
            if _public(before) != _public(router):
                jobs.append(entering(self._edge, lambda: self._make_edge(router, lan, fresh=False)))
            try:
                self._load_guard()
                self._shape_plugs(router, trust=True)
                if shortcut.are_stale(before, router):
                    self._shortcuts.hold(router, self._links.now())
            finally:  # whatever fails: nothing of it goes on after the locks are given back
                for job in jobs:
                    job.exception()
        for job in jobs:
            job.result()

    # --- the host's side -------------------------------------------------------------------------------------------

    def _make_host_side(self, router: Router) -> bool:
        """The namespaces, the bridges and the cables to them, down. Whether the router's namespace is a new one."""
        present = self._links.now()
        commands = []
        if not namespace_exists(self._edge):
            forget_namespace(self._edge)
            self._tables.forget(self._edge)
            lost = [name for name in (self._edge, lan_plug_name(self.deployment)) if name in present]
            delete_links(lost)
            present = {name: link for name, link in present.items() if name not in lost}
            commands.append(f"netns add {self._edge}")
        commands += edge.cable_commands(self._outside, present)
        fresh = not namespace_exists(router.name)
        if fresh:
            if namespace_exists(self._edge):  # what leads to one that has lost its name
                inside(self._edge, lambda: delete_links([uplink_name(router.name)]))
            forget_namespace(router.name)
            self._tables.forget(router.name)
            self._queues.forget(router.name)
            commands.append(f"netns add {router.name}")
        commands += self._bridge_commands(router, present, fresh=fresh)
        commands += translator.plug_commands(router, present, self._alias(router.name))
        ip(commands)
        taps = [tap_name(port.name) for port, _ in translator.translators(router)]
        _close_to_ipv6([*taps, *(name(segment.name) for segment in router.segments for name in _ENDS)])
        if not edge.open_to_ipv6(self._outside, router):
            _close_to_ipv6([self._edge])
        if self._outside.bridge:
            _close_to_ipv6([lan_plug_name(self.deployment)])
        if self._outside.egress:
            self._make_egress()
        elif not self._cleared:
            self._remove_egress()
        self._cleared = True
        return fresh

    def _bridge_commands(self, router: Router, present: Mapping[str, Link], *, fresh: bool) -> list[str]:
        alias = self._alias(router.name)
        own = {name for name, link in present.items() if link.alias == alias}
        wanted = {name(segment.name) for segment in router.segments for name in _ENDS}
        behind = {translator_name(router.name, port.name): tap_name(port.name) for port in _translated(router)}
        translator.forget(translator.namespaces(router.name) - behind.keys(), self._tables)
        wanted |= set(behind.values())
        # The router's ends of these may live on in a namespace that has lost its name.
        lost = {name for name in own if fresh and name.startswith("sl-")}
        in_use = {link.master for name, link in present.items() if name not in own}
        stale = lost | (own - wanted - in_use)
        delete_links(sorted(stale, key=_plugs_first))
        self._queues.forget(_HOST, stale)

        commands = []
        for segment in router.segments:
            bridge, plug = bridge_name(segment.name), plug_name(segment.name)
            if bridge not in present:
                settings = "stp_state 0 forward_delay 0 mcast_snooping 0"
                commands.append(f"link add {bridge} mtu {MTU_BYTES} type bridge {settings}")
            if plug not in present or plug in lost:
                commands.append(
                    f"link add {plug} mtu {MTU_BYTES} type veth peer name {leg_name(segment.name)} "
                    f"mtu {MTU_BYTES} address {leg_mac(segment.name)} netns {router.name}"
                )
            if not _is_set(present.get(bridge), alias=alias, master="") or present[bridge].has_arp:
                commands.append(f"link set {bridge} alias {alias} arp off up")
            if not _is_set(present.get(plug), alias=alias, master=bridge) or plug in lost:
                commands.append(f"link set {plug} alias {alias} master {bridge} up")
        for port in _machines(router):  # those that a bridge lost when it was removed by hand
            tap, bridge = tap_name(port.name), bridge_name(port.segment)
            if tap in present and present[tap].master != bridge:
                commands += [f"link set {tap} master {bridge}", f"link set {tap} type bridge_slave isolated on"]
        return commands

    def _make_egress(self) -> None:
        write_sysctls({"ipv4/ip_forward": "1"})
        outside = self._outside
        self._tables.load(_HOST, ruleset.host(self.deployment, outside.public_range, bridge=outside.bridge))
        directory = self._run_dir / _FORWARDER
        text = dnsmasq.forwarder(str(self._outside.host), directory, user=dnsmasq.user_for(directory))
        dnsmasq.Dnsmasq(directory).start(text, {})

    def _remove_egress(self) -> None:
        dnsmasq.Dnsmasq(self._run_dir / _FORWARDER).stop()
        shutil.rmtree(self._run_dir / _FORWARDER, ignore_errors=True)
        self._tables.drop(_HOST, ruleset.host_table(self.deployment))

    def _hold_ports(self, router: Router) -> None:
        """To their addresses, and to their rates; and let past the bridge what both allow."""
        self._load_guard()
        self._shape_plugs(router)
        self._shortcuts.hold(router, self._links.now())

    def _shape_plugs(self, router: Router, *, trust: bool = False) -> None:
        queues = shaping.classes(router)
        self._queues.shape(_HOST, {plug_name(segment): queue for segment, queue in queues.items()}, trust=trust)

    def _compile(self, router: Router) -> _Compiled:
        """The rules of a plan. Most are looked at again and again as they are. The caller holds the router's lock."""
        before = self._compiled.get(router.name)
        if before is not None and before.router == router:
            return before
        share = ruleset.guard_elements(self.deployment, router)
        made = self._compiled[router.name] = _Compiled(router, share, ruleset.router(router))
        return made

    def _write_share(self, router: str, share: str) -> None:
        path = self._run_dir / router / _GUARD_SHARE
        known = self._shares.get(router)
        if known is None or known.text != share or not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            dnsmasq.write(path, share)
            self._shares[router] = _Share(share, ruleset.read_share(share))

    def _load_guard(self) -> None:
        """Of all routers whose shares are there, those that only earlier processes knew of too."""
        present = set(os.listdir(self._run_dir))
        for router in self._shares.keys() - present:
            del self._shares[router]
        for router in present - self._shares.keys():
            path = self._run_dir / router / _GUARD_SHARE
            if path.exists():
                share = path.read_text()
                self._shares[router] = _Share(share, ruleset.read_share(share))
        parts = {router: share.part for router, share in self._shares.items()}
        self._tables.load(_HOST, ruleset.guard(self.deployment, parts))

    def _remove_host_side(self) -> None:
        """What is left when the last router has gone."""
        delete_links([self._edge, lan_plug_name(self.deployment)])
        if (NAMESPACES / self._edge).exists():
            forget_namespace(self._edge)
        self._tables.forget(self._edge)
        self._remove_egress()
        self._tables.drop(_HOST, ruleset.guard_table(self.deployment))

    # --- the edge and the router -----------------------------------------------------------------------------------

    def _make_edge(self, router: Router, lan: edge.Lan | None, *, fresh: bool) -> IPv4Address | None:
        """The edge, and the router's uplink in it. Returns the edge's address there; None without one."""
        outside = self._outside
        rules = ruleset.edge(
            outside.public_range, egress=outside.egress, ipv6_range=outside.ipv6_range, lan=lan is not None
        )
        self._tables.load(self._edge, rules)
        present = links(with_addresses=True)
        return edge.make(outside, lan, router, alias=self._alias(router.name), fresh=fresh, present=present)

    def _make_translators(self, router: Router) -> list[Future[None]]:
        alias = self._alias(router.name)
        jobs = []
        for port, segment in translator.translators(router):
            name = translator_name(router.name, port.name)
            make = partial(translator.make, port, segment, alias, self._tables, name)
            jobs.append(entering(name, make))
        return jobs

    def _make_router(self, router: Router, own: ruleset.Ruleset, edge: Future[IPv4Address | None]) -> None:
        rules = alongside(lambda: self._load_router(router, own))
        try:
            write_sysctls(ROUTING)
            cable = edge.result()
        finally:
            rules.exception()
        rules.result()
        present = self._cables.make(router)
        wanted = _addresses(router)
        if cable is not None:
            wanted[UPLINK] = [f"{cable + 1}/31", f"{FAR_SIDE}/64"]
        for name in wanted:
            write_sysctls(link_settings(name))
        turned = routing.turned_segments(router)
        for segment in router.segments:
            conf, neigh = f"ipv4/conf/{leg_name(segment.name)}", f"ipv4/neigh/{leg_name(segment.name)}"
            # Beside the leg's own guests, it answers for those of this segment that a route leads to elsewhere.
            other = "1" if segment.name in turned else "0"
            write_sysctls(
                {
                    f"{conf}/proxy_arp_pvlan": "1",
                    f"{conf}/proxy_arp": other,
                    f"{neigh}/proxy_delay": "0",
                    # The guard has looked at the source; the kernel would look up a route to it for each packet.
                    f"{conf}/accept_local": "1",
                },
            )
        alias = self._alias(router.name)
        commands = [f"link set lo alias {alias}"] if present["lo"].alias != alias else []
        ip([*commands, *address_changes(present, wanted)])
        self._settle(router)
        self._start_dnsmasq(router)

    def _load_router(self, router: Router, own: ruleset.Ruleset, *, trust: bool = False) -> None:
        """Its table, and the queues of its legs."""
        self._tables.load(router.name, own)
        queues = shaping.classes(router)
        self._queues.shape(router.name, {leg_name(segment): queue for segment, queue in queues.items()}, trust=trust)

    def _settle(self, router: Router) -> None:
        """Make the rules and routes of a router what its plan says, with the links that it has now."""

        def look_and_settle() -> None:
            up = {name: link for name, link in links(with_addresses=True).items() if link.is_up}
            routing.settle(routing.wanted(router, up, _next_hop(up)))

        with self._forwarding[router.name]:
            inside(router.name, look_and_settle)

    def _start_dnsmasq(self, router: Router) -> None:
        directory = self._run_dir / router.name
        text = self._dnsmasq_text(router, directory)
        tables = {"hosts": dnsmasq.hosts(router), "names": dnsmasq.names(router)}
        dnsmasq.Dnsmasq(directory).start(text, tables, reread=router.name not in self._seen)

    def _dnsmasq_text(self, router: Router, directory: Path) -> str:
        upstream = str(self._outside.host) if self._outside.egress and router.uplink else ""
        user, public_range = dnsmasq.user_for(directory), self._outside.public_range
        return dnsmasq.configuration(router, directory, user=user, upstream=upstream, public_range=public_range)

    # --- who is there ----------------------------------------------------------------------------------------------

    def _alias(self, router: str) -> str:
        return f"{self._edge}/{router}"

    def _owner(self, alias: str) -> str:
        """The router that a link of ours belongs to; empty when it is not ours, or of no router."""
        prefix, _, router = alias.partition("/")
        return router if prefix == self._edge else ""

    def _directories(self) -> set[str]:
        return {path.parent.name for path in self._run_dir.glob(f"*/{_GUARD_SHARE}")}

    def _namespaces(self) -> set[str]:
        """The namespaces of our routers."""
        names = os.listdir(NAMESPACES) if NAMESPACES.is_dir() else []
        return {name for name in names if "." not in name and self._is_ours(name)}

    def _translators(self) -> set[str]:
        """The namespaces of our routers' translators."""
        names = os.listdir(NAMESPACES) if NAMESPACES.is_dir() else []
        return {name for name in names if "." in name and self._is_ours(name)}

    def _is_ours(self, namespace: str) -> bool:
        """By what its lo says."""
        try:
            return inside(namespace, _alias_of_lo) == self._alias(namespace.partition(".")[0])
        except OSError:  # it is none, or went in this moment
            return False

    def _leaks(self, routers: set[str], ports: set[str]) -> list[tuple[str, str, str]]:
        """Kind, name, and the router that it goes with."""
        present = self._links.now()
        taps = {tap_name(port) for port in ports}
        bridges = {name for name, link in present.items() if self._owner(link.alias) and name.startswith("sn-")}
        plugged = {name for name, link in present.items() if link.master in bridges and not self._owner(link.alias)}
        found = [("tap", name, "") for name in sorted(plugged - taps)]
        found += [("namespace", name, name) for name in sorted(self._namespaces() - routers)]
        for name in sorted(self._translators()):
            router, _, port = name.partition(".")
            found += [("translator", name, "")] if router not in routers or port not in ports else []
        owners = {name: self._owner(link.alias) for name, link in sorted(present.items())}
        found += [("link", name, owner) for name, owner in owners.items() if owner and owner not in routers]
        if namespace_exists(self._edge):
            beyond = {name: self._owner(link.alias) for name, link in sorted(inside(self._edge, links).items())}
            found += [("uplink", name, owner) for name, owner in beyond.items() if owner and owner not in routers]
            found += [("namespace", self._edge, "")] if not routers else []
        found += [("directory", name, name) for name in sorted(self._directories() - routers)]
        return found


_ENDS = (bridge_name, plug_name)


def _is_set(link: Link | None, *, alias: str, master: str) -> bool:
    return link is not None and (link.alias, link.master, link.is_up) == (alias, master, True)


def _frame(router: Router) -> Router:
    """A plan without its ports, but those that routes lead to, and without what ports may do and are called."""
    targets = {route.target for table in router.tables for route in table.routes if route.way is Way.PORT}
    kept = tuple(port for port in router.ports if port.translator or port.name in targets)
    return replace(router, ports=kept, policies=(), address_sets=(), acls=(), records=())


def _public(router: Router) -> set[tuple[str, str]]:
    return {pair for port in router.ports for pair in port.public}


def _addresses(router: Router) -> dict[str, list[str]]:
    """Those of the router's own links, by link. The uplink's are known when it is there."""
    services = [ruleset.METADATA_ADDRESS, ruleset.RESOLVER_ADDRESS, *([router.resolver] if router.resolver else [])]
    services6 = [ruleset.METADATA_IPV6_ADDRESS, ruleset.RESOLVER_IPV6_ADDRESS]
    wanted = {"lo": [*(f"{each}/32" for each in services), *(f"{each}/128" for each in services6)]}
    for segment in router.segments:
        own = [f"{segment.gateway}/{IPv4Network(segment.cidr).prefixlen}", f"{leg_address(segment.name)}/64"]
        if segment.ipv6_cidr:
            network = IPv6Network(segment.ipv6_cidr)
            own.append(f"{network[1]}/{network.prefixlen}")
        wanted[leg_name(segment.name)] = own
    return wanted


def _next_hop(present: Mapping[str, Link]) -> str:
    """The edge's address on the uplink, which has a pair of addresses; empty when there is none."""
    own = present[UPLINK].addresses if UPLINK in present else ()
    return next((str(IPv4Address(int(ip_interface(each).ip) ^ 1)) for each in own if each.endswith("/31")), "")


def _machines(router: Router) -> list[Port]:
    return [port for port in router.ports if not port.translator]


def _translated(router: Router) -> list[Port]:
    return [port for port, _ in translator.translators(router)]


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _close_to_ipv6(names: Iterable[str]) -> None:
    """The host itself has no business on these links, and would talk IPv6 on them by itself."""
    write_sysctls({f"ipv6/conf/{name}/disable_ipv6": "1" for name in names})


def _alias_of_lo() -> str:
    return links()["lo"].alias


def _plugs_first(name: str) -> tuple[bool, str]:
    return name.startswith("sn-"), name
