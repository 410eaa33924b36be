"""The rules beyond the routers: at a deployment's edge, on the host, and in the namespace of a translator port."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from orchestrator.host import Port
from orchestrator.host.links import EDGE_TO_HOST, EDGE_TO_LAN
from orchestrator.host.nft import Ruleset, Set, Table
from orchestrator.host.well_known import UPLINK_RANGE

EDGE_TABLE = ("inet", "orc")
TRANSLATOR_TABLE = ("inet", "orc")
TRANSLATOR_LINK = "eth0"


def host_table(deployment: str) -> Table:
    return ("ip", f"orc_{deployment}")


def edge(
    public_range: IPv4Network, *, egress: bool, ipv6_range: IPv6Network | None = None, lan: bool = False
) -> Ruleset:
    """Who may pass the edge. Without egress: routers among themselves, and the host itself, by its own address. With a
    LAN: it and the public addresses, and IPv6 of the deployment, both ways."""
    own, host = str(public_range), str(public_range[1])
    rules = ["type filter hook forward priority filter; policy drop;"]
    if egress:
        rules += [
            f'iifname "{EDGE_TO_HOST}" ip daddr {own} accept',
            f'oifname "{EDGE_TO_HOST}" ip saddr {own} accept',
            f'ct state established,related iifname "{EDGE_TO_HOST}" ip daddr {UPLINK_RANGE} accept',
            f'oifname "{EDGE_TO_HOST}" ip saddr {UPLINK_RANGE} ip daddr {host} udp dport 53 accept',
            f'oifname "{EDGE_TO_HOST}" ip saddr {UPLINK_RANGE} ip daddr {host} tcp dport 53 accept',
        ]
    else:
        rules += [
            f'iifname "{EDGE_TO_HOST}" ip saddr {host} ip daddr {own} accept',
            f'oifname "{EDGE_TO_HOST}" ip saddr {own} ip daddr {host} accept',
        ]
    if lan:
        rules += [
            f'iifname "{EDGE_TO_LAN}" oifname != @beyond ip saddr != {own} ip daddr {own} accept',
            f'iifname != @beyond oifname "{EDGE_TO_LAN}" ip saddr {own} ip daddr != {own} accept',
        ]
    rules.append(f"iifname != @beyond oifname != @beyond ip saddr {own} ip daddr {own} accept")
    if ipv6_range is not None:
        rules += _ipv6(ipv6_range, egress=egress, lan=lan)
    # Neighbours are asked for on the cables; all else that is for the edge itself is not for it.
    neighbours = ("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",) if ipv6_range is not None else ()
    chains = {
        "on_forward": tuple(rules),
        "on_input": ("type filter hook input priority filter; policy drop;", *neighbours),
    }
    if egress:
        # Routers ask the host's resolver from their end of the uplink, an address that the host knows no way to.
        masquerade = f'oifname "{EDGE_TO_HOST}" ip saddr {UPLINK_RANGE} masquerade'
        chains["on_postrouting"] = ("type nat hook postrouting priority srcnat; policy accept;", masquerade)
    beyond = frozenset(f'"{name}"' for name in (EDGE_TO_HOST, *([EDGE_TO_LAN] if lan else [])))
    return Ruleset(*EDGE_TABLE, {"beyond": Set("ifname", beyond)}, chains)


def _ipv6(own: IPv6Network, *, egress: bool, lan: bool) -> list[str]:
    """The host itself has an address of the range, its first, and with egress it sends on."""
    host = str(own[1])
    if egress:
        rules = [
            f'iifname "{EDGE_TO_HOST}" ip6 daddr {own} accept',
            f'oifname "{EDGE_TO_HOST}" ip6 saddr {own} accept',
        ]
    else:
        rules = [
            f'iifname "{EDGE_TO_HOST}" ip6 saddr {host} ip6 daddr {own} accept',
            f'oifname "{EDGE_TO_HOST}" ip6 saddr {own} ip6 daddr {host} accept',
        ]
    if lan:
        rules += [
            f'iifname "{EDGE_TO_LAN}" oifname != @beyond ip6 saddr != {own} ip6 daddr {own} accept',
            f'iifname != @beyond oifname "{EDGE_TO_LAN}" ip6 saddr {own} ip6 daddr != {own} accept',
        ]
    return [*rules, f"iifname != @beyond oifname != @beyond ip6 saddr {own} ip6 daddr {own} accept"]


def host(deployment: str, public_range: IPv4Network, *, bridge: str = "") -> Ruleset:
    """Egress: public addresses leave the host under its own, but for a public bridge, where they are known.

    Where the kernel shows bridged packets to the IP hooks, frames between guests would be tracked here, and those of
    two routers with the same addresses taken for one flow: they are exempt. Other deployments see public addresses.
    """
    known = f'oifname != "{bridge}" ' if bridge else ""
    chains = {
        "on_bridged": ("type filter hook prerouting priority raw; policy accept;", 'iifname "sn-*" notrack'),
        "on_postrouting": (
            "type nat hook postrouting priority srcnat; policy accept;",
            f'ip saddr {public_range} oifname != "orc-*" {known}masquerade',
        ),
    }
    return Ruleset(*host_table(deployment), {}, chains)


def translator(port: Port) -> Ruleset:
    """The namespace behind a translator port: what comes in by its only link goes out by it again, as if it came from
    the port's own address. Only what was begun on the inner side comes back, since nothing else is translated back;
    what is for the address itself ends here, and is not answered."""
    rules = (
        "type filter hook forward priority filter; policy drop;",
        "ct state established,related accept",
        "ct state invalid drop",
        f'iifname "{TRANSLATOR_LINK}" oifname "{TRANSLATOR_LINK}" meta nfproto ipv4 '
        f"meta l4proto {{ tcp, udp, icmp }} accept",
    )
    chains = {
        "on_forward": rules,
        "on_input": (
            "type filter hook input priority filter; policy drop;",
            "ct state established,related accept",
        ),
        "on_postrouting": (
            "type nat hook postrouting priority srcnat; policy accept;",
            f'oifname "{TRANSLATOR_LINK}" meta l4proto {{ tcp, udp }} snat ip to {port.address}:1024-65535',
            f'oifname "{TRANSLATOR_LINK}" ip protocol icmp snat ip to {port.address}',
        ),
    }
    return Ruleset(*TRANSLATOR_TABLE, {}, chains)
