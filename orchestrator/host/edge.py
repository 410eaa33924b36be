"""The edge: a deployment's namespace where its routers, the host and, if it is wanted, a LAN meet.

      root namespace                         the edge: orc-DEPLOYMENT

    orc-DEPLOYMENT ========================== host       default route, with egress
      the public range, the IPv6 range
                                              vpc-0123456789a ======== uplink of a router: its public addresses,
    br0 (public_bridge)                       vpc-...                  and its IPv6 ranges
      orl-DEPLOYMENT ======================== lan        answers ARP for public addresses

The first address of the public range is the host's, the second the edge's; the first of the IPv6 range is the host's.
Next hops are link-local addresses for IPv6, and for IPv4 pairs of a range that is never routed.

With a public bridge, the public range is a part of its LAN that nobody else uses. Machines of the LAN, and the host by
its own address there, reach public addresses as neighbours; the host needs no route for the range then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from orchestrator.host import HostError, Router
from orchestrator.host.command import (
    address_changes,
    ask,
    delete_links,
    has_ipv6,
    inside,
    ip,
    write_sysctls,
)
from orchestrator.host.links import (
    EDGE_TO_HOST,
    EDGE_TO_LAN,
    FAR_SIDE,
    MTU_BYTES,
    NEAR_SIDE,
    UPLINK,
    edge_name,
    lan_plug_name,
    uplink_name,
)
from orchestrator.host.netlink import Link, addresses, routes
from orchestrator.host.ranges import lan_clash
from orchestrator.host.routing import MAIN, Entry, Forwarding, parsed, settle
from orchestrator.host.well_known import UPLINK_RANGE

_FIRST_UPLINK_INDEX = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What a deployment shows of itself. `bridge` is the public bridge; empty without one."""

    deployment: str
    public_range: IPv4Network
    ipv6_range: IPv6Network | None = None
    egress: bool = False
    bridge: str = ""

    @property
    def name(self) -> str:
        """Of the edge's namespace, and of the host's end of the cable to it."""
        return edge_name(self.deployment)

    @property
    def host(self) -> IPv4Address:
        return self.public_range[1]

    @property
    def edge(self) -> IPv4Address:
        return self.public_range[2]

    @property
    def host_ipv6(self) -> IPv6Address | None:
        return self.ipv6_range[1] if self.ipv6_range is not None else None


@dataclass(frozen=True, slots=True)
class Lan:
    """What the host knows of the public bridge's network."""

    networks: tuple[IPv4Network, ...]
    gateway: str  # to the rest of the world; empty: by the host


# --- in the root namespace -----------------------------------------------------------------------------------------


def cable_commands(outside: Outside, present: Mapping[str, Link]) -> list[str]:
    """The host's cables to the edge, whose namespace is there. Raises HostError when there is no public bridge."""
    name, commands = outside.name, []
    if name not in present:
        commands += [
            f"link add {name} mtu {MTU_BYTES} type veth peer name {EDGE_TO_HOST} mtu {MTU_BYTES} netns {name}",
            f"link set {name} alias {name}",
        ]
    if name not in present or f"{outside.host}/32" not in addresses().get(present[name].index, ()):
        commands.append(f"address replace {outside.host} peer {outside.edge}/32 dev {name}")
    if name not in present or not present[name].is_up:
        commands.append(f"link set dev {name} up")
    plug = lan_plug_name(outside.deployment)
    if not outside.bridge:
        commands += [f"link delete {plug}"] if plug in present else []
        way = (MAIN, str(outside.public_range), name, str(outside.edge))
        own = {present[name].index: name} if name in present else {}
        if way not in ((each.table, each.destination, each.link, each.via) for each in routes(4, own)):
            commands.append(f"route replace {outside.public_range} via {outside.edge} dev {name} src {outside.host}")
        return commands
    if outside.bridge not in present:
        raise HostError(
            f"network.public_bridge: this host has no bridge '{outside.bridge}'. Make it, or name another one, or none"
        )
    told = ask(4, f"route show dev {name}")[0] if name in present else []
    if any(each["dst"] == str(outside.public_range) for each in told):
        commands.append(f"route delete {outside.public_range} dev {name}")  # from before there was a bridge
    if plug not in present:
        commands += [
            f"link add {plug} mtu {MTU_BYTES} type veth peer name {EDGE_TO_LAN} mtu {MTU_BYTES} netns {name}",
            f"link set {plug} alias {name}",
        ]
    commands.append(f"link set {plug} master {outside.bridge} up")
    return commands


def open_to_ipv6(outside: Outside, router: Router) -> bool:
    """Have the host speak IPv6 with the edge once a router has IPv6 addresses, if the host speaks it at all. Whether it
    does. If another deployment has the same range, only that one can be reached from the host."""
    conf = f"ipv6/conf/{outside.name}"
    settings = {f"{conf}/addr_gen_mode": "1", f"{conf}/accept_ra": "0", f"{conf}/disable_ipv6": "0"}
    if outside.ipv6_range is None or not has_ipv6():
        return False
    if not any(segment.ipv6_cidr for segment in router.segments):
        return all(Path("/proc/sys/net", key).read_text().strip() == value for key, value in settings.items())
    write_sysctls(settings)
    commands = [
        f"address replace {FAR_SIDE}/64 dev {outside.name} nodad",
        f"address replace {outside.host_ipv6}/128 dev {outside.name} nodad",
    ]
    (there,) = ask(6, f"route show {outside.ipv6_range}")
    if all(each.get("dev") == outside.name for each in there):
        way = f"via {NEAR_SIDE} dev {outside.name} src {outside.host_ipv6}"
        commands.append(f"route replace {outside.ipv6_range} {way}")
    ip(commands)
    return True


def look_at_lan(outside: Outside) -> Lan | None:
    """None without a public bridge. Raises HostError when the public range cannot be on it."""
    if not outside.bridge:
        return None
    addresses, defaults = ask(4, f"address show dev {outside.bridge}", "route show default")
    networks = {
        IPv4Interface(f"{each['local']}/{each['prefixlen']}").network
        for link in addresses
        for each in link["addr_info"]
        if "local" in each
    }
    reason = lan_clash(outside.public_range, outside.bridge, networks)
    if reason is not None:
        raise HostError(f"the public range {outside.public_range} {reason}")
    gateway = next(
        (each["gateway"] for each in defaults if each.get("dev") == outside.bridge and "gateway" in each), ""
    )
    return Lan(tuple(sorted(network for network in networks if network.prefixlen < 32)), gateway)


# --- in the edge ---------------------------------------------------------------------------------------------------


def make(
    outside: Outside, lan: Lan | None, router: Router, *, alias: str, fresh: bool, present: Mapping[str, Link]
) -> IPv4Address | None:
    """The edge's links and routes, and the uplink of one router. Returns the edge's address there; None without one.

    The rules are loaded. `present` are the edge's links; `fresh` says that the router's namespace is a new one.
    """
    # A router may send only from the public addresses that are routed to it: that is what rp_filter looks at.
    write_sysctls(ROUTING)
    present = dict(present)
    write_sysctls({**link_settings(EDGE_TO_HOST), "ipv4/conf/all/rp_filter": "0"})
    if lan is not None:
        write_sysctls({**link_settings(EDGE_TO_LAN), **_LAN_SETTINGS})
    uplink = uplink_name(router.name)
    if uplink in present and (fresh or not router.uplink):
        delete_links([uplink])
        del present[uplink]
    wanted = {EDGE_TO_HOST: [f"{outside.edge}/32", f"{NEAR_SIDE}/64"]}
    lo = present["lo"]
    commands = [f"link set lo alias {outside.name} up"] if lo.alias != outside.name or not lo.is_up else []
    if f"{outside.edge}/32" not in present[EDGE_TO_HOST].addresses:
        commands.append(f"address replace {outside.edge} peer {outside.host}/32 dev {EDGE_TO_HOST}")
        link = present[EDGE_TO_HOST]
        present[EDGE_TO_HOST] = replace(link, addresses=(*link.addresses, f"{outside.edge}/32"))
    if lan is not None:
        wanted[EDGE_TO_LAN] = [f"{outside.edge}/32"]
    address = None
    if router.uplink:
        address = _cable_address(present, uplink)
        wanted[uplink] = [f"{address}/31", f"{NEAR_SIDE}/64"]
        if uplink not in present:
            commands += _uplink_commands(uplink, address, router.name, alias=alias, fresh=fresh)
            ip(commands)
            commands = []
        write_sysctls({**link_settings(uplink), f"ipv4/conf/{uplink}/rp_filter": "1"})
    ip([*commands, *address_changes(present, wanted)])
    own = {"", *wanted, uplink}
    settle(
        Forwarding(entries=frozenset([*_entries(outside, lan), *_ways_in(router, uplink, address)])),
        scope=lambda entry: entry.link in own,
    )
    return address


def _uplink_commands(uplink: str, address: IPv4Address, router: str, *, alias: str, fresh: bool) -> list[str]:
    # The other end of one whose edge has just gone may still be there.
    inside(router, lambda: delete_links([UPLINK] if not fresh else []))
    # The kernel takes two ends with the same index for one link, and then a second to notice that they are up.
    index = _FIRST_UPLINK_INDEX + (int(address) - int(UPLINK_RANGE[0])) // 2
    return [
        f"link add {uplink} index {index} mtu {MTU_BYTES} type veth peer name {UPLINK} mtu {MTU_BYTES} netns {router}",
        f"link set {uplink} alias {alias}",
    ]


def _entries(outside: Outside, lan: Lan | None) -> list[Entry]:
    """Where the edge sends what is for no router."""
    if lan is None:
        entries = [Entry(MAIN, str(outside.public_range)), Entry(MAIN, f"{outside.host}/32", EDGE_TO_HOST)]
    else:
        entries = [Entry(MAIN, str(network), EDGE_TO_LAN) for network in lan.networks]
    if outside.egress:
        by_lan = lan is not None and lan.gateway
        link, via = (EDGE_TO_LAN, lan.gateway) if lan is not None and by_lan else (EDGE_TO_HOST, str(outside.host))
        entries.append(Entry(MAIN, "0.0.0.0/0", link, via, onlink=True))
        entries.append(Entry(MAIN, "::/0", EDGE_TO_HOST, FAR_SIDE))
    if outside.ipv6_range is not None:
        entries.append(Entry(MAIN, str(outside.ipv6_range)))
        entries.append(Entry(MAIN, f"{outside.host_ipv6}/128", EDGE_TO_HOST, FAR_SIDE))
    return entries


def _ways_in(router: Router, uplink: str, address: IPv4Address | None) -> list[Entry]:
    """What leads to a router: its public addresses and its IPv6 ranges."""
    if address is None:
        return []
    public = {public for port in router.ports for _, public in port.public}
    ranges = {parsed(text) for text in router.cidrs if ":" in text}
    for segment in router.segments:
        own = parsed(segment.ipv6_cidr) if segment.ipv6_cidr else None
        if isinstance(own, IPv6Network) and not any(
            isinstance(each, IPv6Network) and own.subnet_of(each) for each in ranges
        ):
            ranges.add(own)
    return [
        *(Entry(MAIN, f"{target}/32", uplink, str(address + 1), onlink=True) for target in public),
        *(Entry(MAIN, str(each), uplink, FAR_SIDE) for each in ranges),
    ]


def _cable_address(present: Mapping[str, Link], uplink: str) -> IPv4Address:
    """The edge's end of the uplink's own pair of addresses: the one it has, or the first that is free."""
    taken = {
        IPv4Address(each.partition("/")[0]): name
        for name, link in present.items()
        for each in link.addresses
        if ":" not in each
    }
    for address, link in taken.items():
        if link == uplink and address in UPLINK_RANGE:
            return address
    for number in range(0, UPLINK_RANGE.num_addresses, 2):
        if UPLINK_RANGE[number] not in taken:
            return UPLINK_RANGE[number]
    raise HostError(f"{UPLINK_RANGE} has no pair of addresses left", retryable=False)


# --- settings of namespaces that route -----------------------------------------------------------------------------

ROUTING = {
    "ipv4/ip_forward": "1",
    "ipv4/ip_early_demux": "0",  # to look for a socket first is lost on what is sent on
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/all/accept_redirects": "0",
    "ipv4/conf/all/rp_filter": "0",
    "ipv6/conf/all/disable_ipv6": "0",
    "ipv6/conf/all/forwarding": "1",
    "ipv6/conf/all/accept_redirects": "0",
    "ipv6/conf/default/addr_gen_mode": "1",
    "ipv6/conf/default/accept_ra": "0",
}

_LAN_SETTINGS = {
    f"ipv4/conf/{EDGE_TO_LAN}/proxy_arp": "1",
    f"ipv4/neigh/{EDGE_TO_LAN}/proxy_delay": "0",
    # The edge's other addresses are nobody's business there.
    f"ipv4/conf/{EDGE_TO_LAN}/arp_ignore": "1",
    f"ipv4/conf/{EDGE_TO_LAN}/arp_announce": "2",
    f"ipv6/conf/{EDGE_TO_LAN}/disable_ipv6": "1",
}


def link_settings(name: str) -> dict[str, str]:
    """One leg routes in and out of itself, and must not tell guests to take the short way. Its IPv6 addresses are those
    that it is given, and it learns nothing from others."""
    conf, conf6 = f"ipv4/conf/{name}", f"ipv6/conf/{name}"
    return {
        f"{conf}/send_redirects": "0",
        f"{conf}/accept_redirects": "0",
        f"{conf}/accept_source_route": "0",
        f"{conf}/rp_filter": "0",
        f"{conf6}/disable_ipv6": "0",
        f"{conf6}/addr_gen_mode": "1",
        f"{conf6}/accept_ra": "0",
        f"{conf6}/accept_redirects": "0",
    }
