"""The guard: holds a guest to what is its own before anything else sees its frames, and hands it nothing else.

    guest -- tap --> from_guest: its hardware address; its addresses, in ARP and in neighbour discovery as well;
                     nothing that a router or a DHCP server says
    guest <-- tap -- to_guest: what is for its addresses, and what a router says to all

One table of the bridge family for all routers of a deployment. What a router puts into it is its share: elements of the
sets below, kept as text in a file per router, since a controller that has just begun knows one router at a time. Rules
go by the names of taps, so they can be there before the taps.

A guest's own IPv6 addresses are those it was given, and the link-local one that follows from its hardware address
(RFC 4291, appendix A). A port whose addresses are not checked may send what comes from elsewhere, but nothing as the
metadata server, the router, the resolver or a neighbour on the link. Sources of the rules on neighbour discovery: RFC
4861, 6105.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address

from orchestrator.host import HostError, Port, Router
from orchestrator.host.links import PLUGS, TAPS, plug_name, tap_name
from orchestrator.host.nft import Part, Ruleset, Set, Table
from orchestrator.host.shaping import class_of
from orchestrator.host.well_known import IPV6_LINK_LOCAL, SERVICES_IPV6

# Names and types of the first five are older than the rest: shares of an earlier version fill them.
_TYPES = {
    "ports": "ifname",
    "unchecked": "ifname",
    "plugs": "ifname",
    "macs": "ifname . ether_addr",
    "addresses": "ifname . ipv4_addr",
    "addresses6": "ifname . ipv6_addr",
    # nft 1.0.6 has no word for these fields of ICMPv6: the target, and the address in the first option.
    "targets": "typeof iifname . @th,64,128",
    "option_macs": "typeof iifname . @th,208,48",
    "routers": "ifname . ipv4_addr",  # what a port that may send for others may not send as
    # Of the queues that hold ports to their rates: see shaping.py.
    "classes": "ifname : classid",
    "senders": "ifname . ether_addr . ipv4_addr : classid",
}
_RETIRED = {"claims"}  # in shares of an earlier version, until their routers are applied anew

_NEVER = "0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3"
_NEVER6 = f"::/127, {IPV6_LINK_LOCAL}, {SERVICES_IPV6}, ff00::/8"

# What a guest mostly sends and gets costs one look at a set in each direction, which tells its class as well; the first
# rules see to that, and say nothing that those below would not say. They look at the type because the kernel takes a
# tagged frame for what it carries. Ports are isolated, so a frame on its way to a plug is one that a guest may send.
# In neighbour discovery, lengths are those of ICMPv6 with no option, or with one of 8 octets; an option begins with its
# type (1: the sender's hardware address, 2: the target's, 14: a nonce) and its length in units of 8 octets.
_CHAINS = {
    "on_prerouting": (
        "type filter hook prerouting priority -300; policy accept;",
        f'iifname != "{TAPS}" accept',
        "udp sport 67 iifname @ports goto from_guest",
        "ether type ip meta priority set iifname . ether saddr . ip saddr map @senders accept",
        "iifname @ports goto from_guest",
    ),
    "on_forward": (
        "type filter hook forward priority -200; policy accept;",
        f'oifname "{PLUGS}" accept',
        f'iifname "{PLUGS}" oifname . ip daddr @addresses accept',
        f'oifname "{TAPS}" oifname @ports goto to_guest',
    ),
    "on_input": (
        "type filter hook input priority -200; policy accept;",
        "iifname @ports drop",
        "iifname @plugs drop",
    ),
    "from_guest": (
        "meta priority set iifname map @classes",
        "iifname . ether saddr != @macs drop",
        "ether type vmap { ip : goto ip_from_guest, ip6 : goto ip6_from_guest, arp : goto arp_from_guest }",
        "drop",
    ),
    "ip_from_guest": (
        "udp sport 67 drop",
        "iifname . ip saddr @addresses accept",
        "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept",
        "iifname . ip saddr @routers drop",
        f"iifname @unchecked ip saddr != {{ {_NEVER} }} accept",
        "drop",
    ),
    "arp_from_guest": (
        "arp htype 1 arp ptype ip arp hlen 6 arp plen 4 iifname . arp saddr ether @macs goto arp_sender",
        "drop",
    ),
    "arp_sender": (
        "iifname . arp saddr ip @addresses accept",
        "arp operation request arp saddr ip 0.0.0.0 accept",
        "drop",
    ),
    "ip6_from_guest": (
        "udp sport 547 drop",
        "meta l4proto ipv6-icmp icmpv6 type { 133-137 } goto discovery_from_guest",
        f"ip6 daddr {{ {IPV6_LINK_LOCAL}, ff00::/8 }} exthdr frag exists drop",
        "iifname . ip6 saddr @addresses6 accept",
        f"iifname @unchecked ip6 saddr != {{ {_NEVER6} }} accept",
        "drop",
    ),
    "discovery_from_guest": (
        "ip6 hoplimit != 255 drop",
        "ip6 nexthdr != ipv6-icmp drop",
        "icmpv6 type nd-neighbor-solicit ip6 saddr :: goto address_detection",
        "icmpv6 type nd-router-solicit ip6 saddr :: ip6 length 8 accept",
        "iifname . ip6 saddr != @addresses6 drop",
        "icmpv6 type vmap { nd-router-solicit : goto router_solicit, nd-neighbor-solicit : goto neighbor_solicit, "
        "nd-neighbor-advert : goto neighbor_advert }",
        "drop",
    ),
    "address_detection": (
        "iifname . @th,64,128 != @targets drop",
        "ip6 length 24 accept",
        "ip6 length 32 @th,192,16 0x0e01 accept",
        "drop",
    ),
    "router_solicit": (
        "ip6 length 8 accept",
        "ip6 length 16 @th,64,16 0x0101 iifname . @th,80,48 @option_macs accept",
        "drop",
    ),
    "neighbor_solicit": (
        "ip6 length 24 accept",
        "ip6 length 32 @th,192,16 0x0101 iifname . @th,208,48 @option_macs accept",
        "drop",
    ),
    "neighbor_advert": (
        "iifname . @th,64,128 != @targets drop",
        "ip6 length 24 accept",
        "ip6 length 32 @th,192,16 0x0201 iifname . @th,208,48 @option_macs accept",
        "drop",
    ),
    "to_guest": (
        "iifname @ports drop",
        "oifname . ip daddr @addresses accept",
        "oifname . ip6 daddr @addresses6 accept",
        "oifname . ether daddr @macs goto own_frame",
        "ether daddr ff:ff:ff:ff:ff:ff oifname . arp daddr ip @addresses accept",
        "ether daddr ff:ff:ff:ff:ff:ff udp sport 67 udp dport 68 accept",
        "ip6 daddr ff02::1 icmpv6 type nd-router-advert accept",
        "icmpv6 type nd-neighbor-solicit oifname . @th,64,128 @targets accept",
        "drop",
    ),
    "own_frame": (
        "ether type arp accept",
        "oifname @unchecked accept",
        "udp sport 67 udp dport 68 accept",
        "drop",
    ),
}


def guard_table(deployment: str) -> Table:
    return ("bridge", f"orc_{deployment}")


def guard_elements(deployment: str, router: Router) -> str:
    """A router's share of the guard: who its ports are. `read_share` reads it."""
    elements: dict[str, list[str]] = {name: [] for name in _TYPES}
    elements["plugs"] = sorted(f'"{plug_name(segment.name)}"' for segment in router.segments)
    segments = {segment.name: segment for segment in router.segments}
    routers = _own_addresses(router)
    for port in sorted(router.ports, key=lambda port: port.name):
        tap = f'"{tap_name(port.name)}"'
        own6 = (*own_ipv6(port), link_local(port.mac)) if port.ipv6_addresses else ()
        limited = port.rate is not None and port.segment in segments
        its_class = class_of(port, segments[port.segment]) if limited else "none"
        elements["ports"].append(tap)
        if port.translator or not port.check_addresses:
            elements["unchecked"].append(tap)
            elements["routers"] += [f"{tap} . {address}" for address in routers]
        elements["macs"].append(f"{tap} . {port.mac.lower()}")
        elements["addresses"] += [f"{tap} . {address}" for address in own_ipv4(port)]
        elements["senders"] += [f"{tap} . {port.mac.lower()} . {address} : {its_class}" for address in own_ipv4(port)]
        elements["addresses6"] += [f"{tap} . {address}" for address in own6]
        elements["targets"] += [f"{tap} . {_number(address)}" for address in own6]
        elements["option_macs"] += [f"{tap} . 0x{port.mac.lower().replace(':', '')}"] if own6 else []
        elements["classes"] += [f"{tap} : {its_class}"] if limited else []
    table = " ".join(guard_table(deployment))
    return "".join(
        f"add element {table} {name} {{ {', '.join(values)} }}\n" for name, values in elements.items() if values
    )


def _own_addresses(router: Router) -> list[str]:
    """What the router itself has, and what means everybody: it takes no source of a packet for a false one by itself
    (`accept_local`). Its other addresses are among those that nobody may send as."""
    everybody = (str(IPv4Network(segment.cidr).broadcast_address) for segment in router.segments)
    gateways = (segment.gateway for segment in router.segments)
    return sorted({*everybody, *gateways, *([router.resolver] if router.resolver else [])})


_SHARE = re.compile(r"add element bridge orc_\w+ (\w+) \{ ([^{}]+) \}")


def guard(deployment: str, shares: Mapping[str, Part]) -> Ruleset:
    """The guard of all routers of a deployment, from the share of each by its name."""
    return Ruleset(*guard_table(deployment), {name: Set(kind) for name, kind in _TYPES.items()}, _CHAINS, shares)


def read_share(share: str) -> Part:
    """A router's `guard_elements`, by set. Raises HostError for what is none: without it, its guests would pass
    unguarded."""
    found: dict[str, frozenset[str]] = {}
    for line in share.splitlines():
        match = _SHARE.fullmatch(line)
        if match is None or match[1] not in _TYPES.keys() | _RETIRED:
            raise HostError(f"'{line[:80]}' is no line of a router's share of the guard", retryable=False)
        if match[1] in _RETIRED:
            continue
        found[match[1]] = found.get(match[1], frozenset()) | {element.strip() for element in match[2].split(",")}
    return found


# --- what is a port's own ------------------------------------------------------------------------------------------


_REMEMBERED = 65536  # plans are compiled again and again, and to read addresses takes most of the time


def own_ipv4(port: Port) -> list[str]:
    """Each of its IPv4 addresses; of a range (16 at most on EC2) each one."""
    own = [port.address]
    for text in port.more_addresses:
        own += [str(address) for address in IPv4Network(text, strict=False)] if "/" in text else [text]
    return own


def own_ipv6(port: Port) -> list[str]:
    return [_ipv6(text) for text in port.ipv6_addresses]


@lru_cache(maxsize=_REMEMBERED)
def _ipv6(text: str) -> str:
    return str(IPv6Address(text))


@lru_cache(maxsize=_REMEMBERED)
def _number(text: str) -> str:
    return f"0x{int(IPv6Address(text)):032x}"


@lru_cache(maxsize=_REMEMBERED)
def link_local(mac: str) -> str:
    """The address that a guest makes of its hardware address (modified EUI-64)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([octets[0] ^ 0x02]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + identifier))
