"""Networks as Linux has them: a router is a namespace, a segment a bridge, a port a tap with isolation on.

      root namespace                     router's namespace             the deployment's edge
                                         vpc-0123456789abcdef0          orc-DEPLOYMENT
    +---------------------------+       +------------------------+     +--------------------------+
    | eni-0123456789a (tap) -+  |       |  metadata, DNS on lo   |     |                          |
    |                sn-0123... bridge  |  dnsmasq               |     |  /32 routes of public    |
    | eni-... (tap) ---------+--- sl-... === sn-... (gateway)    |     |  addresses               |
    |                           |       |  policies, NAT  uplink ===== vpc-0123456789a           |
    | orc-DEPLOYMENT ================================================== host                      |
    +---------------------------+       +------------------------+     +--------------------------+

Taps are isolated from each other and the leg answers ARP for everybody (proxy_arp_pvlan), so all traffic passes the
router. Traffic of routers meets in the edge only, so their addresses may overlap. What the host itself gets is one
link, one address, one route, one nftables table, and with egress a second.

Everything is looked at before it is changed, and made in an order in which nothing passes before its rules are there.
The links of the root namespace say in their alias whose they are (`orc-DEPLOYMENT/ROUTER`), and so does lo of each
namespace. Only the shares of the routers in the guard's table are kept in files, since the table is one and a
controller that has just started knows of one router at a time.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import Future
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from orchestrator.host import HostError, Router, dnsmasq, ruleset
from orchestrator.host.command import (
    NAMESPACES,
    Link,
    Tables,
    addresses,
    alongside,
    delete_links,
    entering,
    forget_namespace,
    inside,
    ip,
    links,
    namespace_exists,
    routes,
    write_sysctls,
)
from orchestrator.host.links import (
    EDGE_TO_HOST,
    MTU_BYTES,
    UPLINK,
    bridge_name,
    edge_name,
    leg_mac,
    leg_name,
    plug_name,
    tap_name,
    uplink_name,
)

DEFAULT_PUBLIC_RANGE = IPv4Network("203.0.113.0/24")

_HOST = ""  # the name of the namespace that we were started in
_GUARD_SHARE = "guard.nft"
_FORWARDER = ".forwarder"
_BACKLOG = 128
_FIRST_UPLINK_INDEX = 100_000


class NetnsNetwork:
    """`deployment` is 8 hexadecimal digits. The first address of `public_range` becomes the host's, the second the
    edge's. `run_dir` holds a directory per router; dnsmasq runs as its own user if that one can get there."""

    def __init__(
        self, deployment: str, run_dir: Path, *, public_range: IPv4Network = DEFAULT_PUBLIC_RANGE, egress: bool = False
    ) -> None:
        self.deployment = deployment
        self._run_dir = run_dir.absolute()
        self._public_range = public_range
        self._egress = egress
        self._edge = edge_name(deployment)
        self._tables = Tables()
        self._shared = threading.Lock()  # the guard, the edge and the host's side
        self._routers: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._seen: set[str] = set()  # routers that this process has applied
        self._cleared = False  # of what another setting of `egress` left

    # --- the Protocol ----------------------------------------------------------------------------------------------

    def apply(self, router: Router) -> None:
        share = ruleset.guard_elements(self.deployment, router)
        directory = self._run_dir / router.name
        with self._routers[router.name]:
            with self._shared:
                directory.mkdir(parents=True, exist_ok=True)
                dnsmasq.write(directory / _GUARD_SHARE, share)
                fresh = self._make_host_side(router)
                guard = alongside(self._load_guard)
                edge = entering(self._edge, lambda: self._make_edge(router, fresh=fresh))
                rest = entering(router.name, lambda: self._make_router(router, edge))
                # Whatever fails: nothing of it goes on after the locks are given back.
                guard.exception()
                edge.exception()
            rest.exception()
            try:
                guard.result()
                edge.result()
                rest.result()
            except OSError as error:
                raise HostError(f"{router.name} could not be made: {error}") from error
            self._seen.add(router.name)

    def remove(self, router: str) -> None:
        """Raises HostError, and removes nothing, while a tap is plugged in."""
        with self._routers[router]:
            present = links()
            own = {name for name, link in present.items() if self._owner(link.alias) == router}
            plugged = sorted(name for name, link in present.items() if link.master in own and name not in own)
            if plugged:
                raise HostError(f"{router} cannot go: {', '.join(plugged)} is still plugged in")
            dnsmasq.Dnsmasq(self._run_dir / router).stop()
            with self._shared:
                if namespace_exists(self._edge):
                    inside(self._edge, lambda: delete_links([uplink_name(router)]))
                delete_links(sorted(own, key=_plugs_first))
                if router in self._directories() or self._is_ours(router):
                    forget_namespace(router)
                self._tables.forget(router)
                self._seen.discard(router)
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
        for router in sorted({router for _, _, router in found if router}):
            self.remove(router)
        with self._shared:
            if not routers and not self._directories():
                self._remove_host_side()

    def listen(self, router: str, address: str, port: int) -> socket.socket:
        def make() -> socket.socket:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
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
        connection = inside(router, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        try:
            connection.settimeout(timeout_s)
            connection.connect((address, port))
            connection.settimeout(None)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Nothing is held."""

    # --- the host's side -------------------------------------------------------------------------------------------

    def _make_host_side(self, router: Router) -> bool:
        """The namespaces, the bridges and the cables to them, down. Whether the router's namespace is a new one."""
        present = links()
        host, edge = self._public_range[1], self._public_range[2]
        commands = []
        if not namespace_exists(self._edge):
            forget_namespace(self._edge)
            self._tables.forget(self._edge)
            delete_links([self._edge] if present.pop(self._edge, None) is not None else [])
            commands.append(f"netns add {self._edge}")
        if self._edge not in present:
            commands += [
                f"link add {self._edge} mtu {MTU_BYTES} type veth "
                f"peer name {EDGE_TO_HOST} mtu {MTU_BYTES} netns {self._edge}",
                f"link set {self._edge} alias {self._edge}",
            ]
        commands += [
            f"address replace {host} peer {edge}/32 dev {self._edge}",
            f"link set dev {self._edge} up",
            f"route replace {self._public_range} via {edge} dev {self._edge} src {host}",
        ]
        fresh = not namespace_exists(router.name)
        if fresh:
            forget_namespace(router.name)
            self._tables.forget(router.name)
            commands.append(f"netns add {router.name}")
        commands += self._bridge_commands(router, present, fresh=fresh)
        ip(commands)
        _close_to_ipv6([self._edge, *(name(segment.name) for segment in router.segments for name in _ENDS)])
        if self._egress:
            self._make_egress()
        elif not self._cleared:
            self._remove_egress()
        self._cleared = True
        return fresh

    def _bridge_commands(self, router: Router, present: dict[str, Link], *, fresh: bool) -> list[str]:
        alias = self._alias(router.name)
        own = {name for name, link in present.items() if link.alias == alias}
        wanted = {name(segment.name) for segment in router.segments for name in _ENDS}
        # The router's ends of these may live on in a namespace that has lost its name.
        lost = {name for name in own if fresh and not name.startswith("sn-")}
        in_use = {link.master for name, link in present.items() if name not in own}
        stale = lost | (own - wanted - in_use)
        delete_links(sorted(stale, key=_plugs_first))
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
            commands += [
                f"link set {bridge} alias {alias} arp off up",
                f"link set {plug} alias {alias} master {bridge} up",
            ]
        for port in router.ports:  # those that a bridge lost when it was removed by hand
            tap, bridge = tap_name(port.name), bridge_name(port.segment)
            if tap in present and present[tap].master != bridge:
                commands += [f"link set {tap} master {bridge}", f"link set {tap} type bridge_slave isolated on"]
        return commands

    def _make_egress(self) -> None:
        address = str(self._public_range[1])
        write_sysctls({"ipv4/ip_forward": "1"})
        table = ruleset.host_table(self.deployment)
        self._tables.load(_HOST, table, ruleset.host(self.deployment, self._public_range))
        directory = self._run_dir / _FORWARDER
        text = dnsmasq.forwarder(address, directory, user=dnsmasq.user_for(directory))
        dnsmasq.Dnsmasq(directory).start(text, {})

    def _remove_egress(self) -> None:
        dnsmasq.Dnsmasq(self._run_dir / _FORWARDER).stop()
        shutil.rmtree(self._run_dir / _FORWARDER, ignore_errors=True)
        self._tables.drop(_HOST, ruleset.host_table(self.deployment))

    def _load_guard(self) -> None:
        shares = [path.read_text() for path in sorted(self._run_dir.glob(f"*/{_GUARD_SHARE}"))]
        self._tables.load(_HOST, ruleset.guard_table(self.deployment), ruleset.guard(self.deployment, shares))

    def _remove_host_side(self) -> None:
        """What is left when the last router has gone."""
        delete_links([self._edge])
        if (NAMESPACES / self._edge).exists():
            forget_namespace(self._edge)
        self._tables.forget(self._edge)
        self._remove_egress()
        self._tables.drop(_HOST, ruleset.guard_table(self.deployment))

    # --- the edge --------------------------------------------------------------------------------------------------

    def _make_edge(self, router: Router, *, fresh: bool) -> IPv4Address | None:
        """The edge, and the router's uplink in it. Returns the edge's address there; None without one."""
        self._tables.load(self._edge, ruleset.EDGE_TABLE, ruleset.edge(self._public_range, egress=self._egress))
        host, edge = self._public_range[1], self._public_range[2]
        present = addresses()
        uplink = uplink_name(router.name)
        # A router may send only from the public addresses that are routed to it: that is what rp_filter looks at.
        write_sysctls({**_ROUTING, "ipv4/conf/all/rp_filter": "0"})
        write_sysctls(_link_settings(EDGE_TO_HOST))
        commands = [
            f"link set lo alias {self._edge} up",
            f"address replace {edge} peer {host}/32 dev {EDGE_TO_HOST}",
            f"link set dev {EDGE_TO_HOST} up",
            f"route replace blackhole {self._public_range}",
        ]
        if self._egress:
            commands.append(f"route replace default via {host} dev {EDGE_TO_HOST}")
        if uplink in present and (fresh or not router.uplink):
            delete_links([uplink])
            del present[uplink]
        if not router.uplink:
            ip(commands)
            return None
        address = _cable_address(present, uplink)
        if uplink not in present:
            # The other end of one whose edge has just gone may still be there.
            inside(router.name, lambda: delete_links([UPLINK] if not fresh else []))
            # The kernel takes two ends with the same index for one link, and then a second to notice that they are up.
            index = _FIRST_UPLINK_INDEX + (int(address) - int(ruleset.UPLINK_RANGE[0])) // 2
            commands.append(
                f"link add {uplink} index {index} mtu {MTU_BYTES} "
                f"type veth peer name {UPLINK} mtu {MTU_BYTES} netns {router.name}"
            )
        commands += [
            f"address replace {address}/31 dev {uplink}",
            f"link set {uplink} alias {self._alias(router.name)} up",
        ]
        public = {port.public_address for port in router.ports if port.public_address}
        if uplink in present:
            routed = {target for target, link in routes() if link == uplink and "/" not in target}
            commands += [f"route delete {target} dev {uplink}" for target in sorted(routed - public)]
        commands += [f"route replace {target}/32 via {address + 1} dev {uplink}" for target in sorted(public)]
        ip(commands)
        write_sysctls({**_link_settings(uplink), f"ipv4/conf/{uplink}/rp_filter": "1"})
        return address

    # --- the router ------------------------------------------------------------------------------------------------

    def _make_router(self, router: Router, edge: Future[IPv4Address | None]) -> None:
        rules = alongside(lambda: self._tables.load(router.name, ruleset.ROUTER_TABLE, ruleset.router(router)))
        try:
            present = addresses()
            write_sysctls(_ROUTING)
            cable = edge.result()
        finally:
            rules.exception()
        rules.result()
        wanted: dict[str, list[str]] = {"lo": [f"{ruleset.METADATA_ADDRESS}/32", f"{ruleset.RESOLVER_ADDRESS}/32"]}
        wanted["lo"] += [f"{router.resolver}/32"] if router.resolver else []
        for segment in router.segments:
            length = IPv4Network(segment.cidr).prefixlen
            wanted[leg_name(segment.name)] = [f"{segment.gateway}/{length}"]
        if cable is not None:
            wanted[UPLINK] = [f"{cable + 1}/31"]
        commands = [f"link set lo alias {self._alias(router.name)} up"]
        for name, own in wanted.items():
            strange = set(present.get(name, ())) - set(own) - {"127.0.0.1/8"}
            commands += [f"address delete {address} dev {name}" for address in sorted(strange)]
            commands += [f"address replace {address} dev {name}" for address in own]
            if name != "lo":
                write_sysctls(_link_settings(name))
        for segment in router.segments:
            leg = leg_name(segment.name)
            write_sysctls({f"ipv4/conf/{leg}/proxy_arp_pvlan": "1", f"ipv4/neigh/{leg}/proxy_delay": "0"})
        commands += [f"link set dev {name} up" for name in wanted if name != "lo"]
        # What is of the network but of no segment must not take the default route.
        commands.append(f"route replace blackhole {router.cidr}")
        commands += [f"route replace default via {cable} dev {UPLINK}"] if cable is not None else []
        ip(commands)
        self._start_dnsmasq(router)

    def _start_dnsmasq(self, router: Router) -> None:
        directory = self._run_dir / router.name
        upstream = str(self._public_range[1]) if self._egress and router.uplink else ""
        user = dnsmasq.user_for(directory)
        text = dnsmasq.configuration(router, directory, user=user, upstream=upstream)
        tables = {"hosts": dnsmasq.hosts(router), "names": dnsmasq.names(router)}
        dnsmasq.Dnsmasq(directory).start(text, tables, reread=router.name not in self._seen)

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
        return {name for name in names if self._is_ours(name)}

    def _is_ours(self, namespace: str) -> bool:
        """By what its lo says."""
        try:
            return inside(namespace, _alias_of_lo) == self._alias(namespace)
        except OSError:  # it is none, or went in this moment
            return False

    def _leaks(self, routers: set[str], ports: set[str]) -> list[tuple[str, str, str]]:
        """Kind, name, and the router that it goes with."""
        present = links()
        taps = {tap_name(port) for port in ports}
        bridges = {name for name, link in present.items() if self._owner(link.alias) and name.startswith("sn-")}
        plugged = {name for name, link in present.items() if link.master in bridges and not self._owner(link.alias)}
        found = [("tap", name, "") for name in sorted(plugged - taps)]
        found += [("namespace", name, name) for name in sorted(self._namespaces() - routers)]
        owners = {name: self._owner(link.alias) for name, link in sorted(present.items())}
        found += [("link", name, owner) for name, owner in owners.items() if owner and owner not in routers]
        if namespace_exists(self._edge):
            beyond = {name: self._owner(link.alias) for name, link in sorted(inside(self._edge, links).items())}
            found += [("uplink", name, owner) for name, owner in beyond.items() if owner and owner not in routers]
            found += [("namespace", self._edge, "")] if not routers else []
        found += [("directory", name, name) for name in sorted(self._directories() - routers)]
        return found


_ENDS = (bridge_name, plug_name)

_ROUTING = {
    "ipv4/ip_forward": "1",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/all/accept_redirects": "0",
    "ipv4/conf/all/rp_filter": "0",
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
}


def _link_settings(name: str) -> dict[str, str]:
    """One leg routes in and out of itself, and must not tell guests to take the short way."""
    conf = f"ipv4/conf/{name}"
    return {
        f"{conf}/send_redirects": "0",
        f"{conf}/accept_redirects": "0",
        f"{conf}/accept_source_route": "0",
        f"{conf}/rp_filter": "0",
    }


def _close_to_ipv6(names: Iterable[str]) -> None:
    """The host itself has no business on these links, and would talk IPv6 on them by itself."""
    write_sysctls({f"ipv6/conf/{name}/disable_ipv6": "1" for name in names})


def _cable_address(present: dict[str, list[str]], uplink: str) -> IPv4Address:
    """The edge's end of the uplink's own pair of addresses: the one it has, or the first that is free."""
    taken = {IPv4Address(each.partition("/")[0]): link for link, own in present.items() for each in own}
    for address, link in taken.items():
        if link == uplink and address in ruleset.UPLINK_RANGE:
            return address
    for number in range(0, ruleset.UPLINK_RANGE.num_addresses, 2):
        if ruleset.UPLINK_RANGE[number] not in taken:
            return ruleset.UPLINK_RANGE[number]
    raise HostError(f"{ruleset.UPLINK_RANGE} has no pair of addresses left", retryable=False)


def _alias_of_lo() -> str:
    return links()["lo"].alias


def _plugs_first(name: str) -> tuple[bool, str]:
    return name.startswith("sn-"), name
