"""What nftables is told: plans go in, text for `nft -f -` comes out. Nothing here touches the host.

    guest -- tap -- guard -- bridge -- leg -- router -- uplink -- edge -- host
                    table bridge              table inet                table ip (and table ip on the host, for egress)

The guard holds a guest to its own addresses before anything else sees its frames. The router knows policies and
translates public addresses. The edge is the internet's side: what one router sends to a public address of another, or
to one of its own (a hairpin), passes the edge as it passes the internet gateway on EC2, so policies see public sources.

Every text replaces its table as a whole, in one transaction, and connections live through it: what is tracked passes by
the first rule. Of what begins in that very moment, a packet on its way through the old rules may be lost.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, collapse_addresses

from orchestrator.host import Allow, HostError, Port, Router
from orchestrator.host.links import EDGE_TO_HOST, UPLINK, leg_name, plug_name, tap_name

METADATA_ADDRESS = "169.254.169.254"
RESOLVER_ADDRESS = "169.254.169.253"
LINK_LOCAL = "169.254.0.0/16"
UPLINK_RANGE = IPv4Network("198.18.0.0/15")  # the cables between routers and edge: RFC 2544, never routed

ROUTER_TABLE = ("inet", "orc")
EDGE_TABLE = ("ip", "orc")

Table = tuple[str, str]  # family and name


def guard_table(deployment: str) -> Table:
    return ("bridge", f"orc_{deployment}")


def host_table(deployment: str) -> Table:
    return ("ip", f"orc_{deployment}")


# --- the guard -----------------------------------------------------------------------------------------------------

_GUARD = """\
	set ports { type ifname; }
	set unchecked { type ifname; }
	set plugs { type ifname; }
	set macs { type ifname . ether_addr; }
	set addresses { type ifname . ipv4_addr; }
	chain on_prerouting {
		type filter hook prerouting priority -300; policy accept;
		iifname @ports goto from_guest
	}
	chain on_forward {
		type filter hook forward priority -200; policy accept;
		oifname @ports goto to_guest
	}
	chain on_input {
		type filter hook input priority -200; policy accept;
		iifname @ports drop
		iifname @plugs drop
	}
	chain from_guest {
		ether type != { ip, arp } drop
		iifname . ether saddr != @macs drop
		ether type arp goto arp_from_guest
		ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept
		udp sport 67 drop
		ip saddr 169.254.0.0/16 drop
		iifname . ip saddr @addresses accept
		iifname @unchecked accept
		drop
	}
	chain arp_from_guest {
		arp htype 1 arp ptype ip arp hlen 6 arp plen 4 iifname . arp saddr ether @macs goto arp_sender
		drop
	}
	chain arp_sender {
		iifname . arp saddr ip @addresses accept
		arp operation request arp saddr ip 0.0.0.0 accept
		drop
	}
	chain to_guest {
		iifname @ports drop
		oifname . ether daddr @macs accept
		ether daddr ff:ff:ff:ff:ff:ff oifname . arp daddr ip @addresses accept
		ether daddr ff:ff:ff:ff:ff:ff udp sport 67 udp dport 68 accept
		drop
	}
"""


def guard_elements(deployment: str, router: Router) -> str:
    """A router's share of the guard: who its ports are. Rules go by name, so they can be there before the taps."""
    taps = [(f'"{tap_name(port.name)}"', port) for port in sorted(router.ports, key=lambda port: port.name)]
    elements = {
        "ports": [tap for tap, _ in taps],
        "unchecked": [tap for tap, port in taps if not port.check_addresses],
        "plugs": sorted(f'"{plug_name(segment.name)}"' for segment in router.segments),
        "macs": [f"{tap} . {port.mac.lower()}" for tap, port in taps],
        "addresses": [f"{tap} . {port.address}" for tap, port in taps],
    }
    table = " ".join(guard_table(deployment))
    return "".join(
        f"add element {table} {name} {{ {', '.join(values)} }}\n" for name, values in elements.items() if values
    )


def guard(deployment: str, shares: Iterable[str]) -> str:
    """The guard of all routers of a deployment, from their `guard_elements`."""
    return _replacing(guard_table(deployment), _GUARD) + "".join(shares)


# --- the router ----------------------------------------------------------------------------------------------------


def router(plan: Router) -> str:
    """Policies, translation and the services of one router."""
    ports = sorted(plan.ports, key=lambda port: port.name)
    public = {port.public_address: port.address for port in ports if port.public_address}
    known = {policy.name for policy in plan.policies}
    groups = sorted({_group(port, known) for port in ports})
    lines: list[str] = []
    for policy in sorted(plan.policies, key=lambda policy: policy.name):
        members = (port.address for port in ports if policy.name in port.policies)
        lines += _set(f"members-{policy.name}", "ipv4_addr", members)
    lines += _set("guests", "ifname . ether_addr . ipv4_addr", (f"{_source(port)} . {port.address}" for port in ports))
    lines += _map("to_private", "ipv4_addr : ipv4_addr", (f"{address} : {public[address]}" for address in public))
    lines += _map("to_public", "ipv4_addr : ipv4_addr", (f"{public[address]} : {address}" for address in public))
    lines += _set("public_sources", "ipv4_addr", public.values())
    for direction, key_type, key in (("out", "ifname . ether_addr", _source), ("in", "ipv4_addr", _address)):
        verdicts = (f"{key(port)} : jump {direction}-{_chain(_group(port, known))}" for port in ports)
        lines += _map(f"policies_{direction}", f"{key_type} : verdict", verdicts)
    lines += _services(plan)
    lines += _FORWARD
    for policy in sorted(plan.policies, key=lambda policy: policy.name):
        lines += _policy_chain(f"out-{policy.name}", policy.outbound, known, peer="ip daddr", verdict="goto admit")
        lines += _policy_chain(f"in-{policy.name}", policy.inbound, known, peer="ip saddr", verdict="accept")
    for group in groups:
        if len(group) != 1:
            for direction in ("out", "in"):
                jumps = [f"jump {direction}-{name}" for name in group]
                lines += _chain_of(f"{direction}-{_chain(group)}", jumps)
    if plan.uplink:
        lines += _TRANSLATION
    return _replacing(ROUTER_TABLE, "".join(f"\t{line}\n" for line in lines))


_FORWARD = f"""\
chain on_forward {{
	type filter hook forward priority filter; policy drop;
	ct state established,related accept
	ct state invalid drop
	iifname "{UPLINK}" ct status dnat ip daddr vmap @policies_in
	iifname "{UPLINK}" drop
	ip daddr {LINK_LOCAL} drop
	iifname . ether saddr vmap @policies_out
}}
chain admit {{
	oifname "{UPLINK}" ip saddr @public_sources accept
	oifname "{UPLINK}" drop
	ip daddr vmap @policies_in
	drop
}}""".splitlines()

_TRANSLATION = f"""\
chain on_prerouting {{
	type nat hook prerouting priority dstnat; policy accept;
	iifname "{UPLINK}" dnat ip to ip daddr map @to_private
}}
chain on_postrouting {{
	type nat hook postrouting priority srcnat; policy accept;
	oifname "{UPLINK}" snat ip to ip saddr map @to_public
}}""".splitlines()


def _services(plan: Router) -> list[str]:
    """What guests may say to the router itself. Claims of an address are checked here too, though the guard has done
    so, because metadata is given out by source address alone."""
    resolvers = ", ".join(filter(None, (RESOLVER_ADDRESS, plan.resolver)))
    gateways = ", ".join(sorted(segment.gateway for segment in plan.segments))
    legs = ", ".join(sorted(f'"{leg_name(segment.name)}"' for segment in plan.segments))
    rules = [
        "type filter hook input priority filter; policy drop;",
        'iifname "lo" accept',
        "ct state established,related accept",
        "ct state invalid drop",
    ]
    if plan.segments:
        rules += [
            f"iifname {{ {legs} }} udp sport 68 udp dport 67 accept",
            "iifname . ether saddr . ip saddr != @guests drop",
            f"ip daddr {METADATA_ADDRESS} tcp dport 80 accept",
            f"ip daddr {{ {gateways} }} icmp type echo-request accept",
        ]
    if plan.segments and plan.resolver:
        rules += [f"ip daddr {{ {resolvers} }} {protocol} dport 53 accept" for protocol in ("udp", "tcp")]
    return _chain_of("on_input", rules)


def _policy_chain(name: str, rules: Sequence[Allow], known: set[str], *, peer: str, verdict: str) -> list[str]:
    """One rule for each protocol and range of ports; their peers are merged, so that the set has no overlaps."""
    cidrs: dict[str, list[IPv4Network]] = defaultdict(list)
    members: dict[str, set[str]] = defaultdict(set)
    for rule in rules:
        match = _protocol(rule)
        if rule.peer_policy:
            if rule.peer_policy in known:
                members[match].add(rule.peer_policy)
        else:
            cidrs[match].append(IPv4Network(rule.peer_cidr, strict=False))
    lines: list[str] = []
    for match in sorted(cidrs.keys() | members.keys()):
        networks = list(collapse_addresses(cidrs[match]))
        if networks and networks[0].prefixlen == 0:
            lines.append(f"{match} {verdict}")
            continue
        if networks:
            lines.append(f"{match} {peer} {{ {', '.join(map(str, networks))} }} {verdict}")
        lines += [f"{match} {peer} @members-{policy} {verdict}" for policy in sorted(members[match])]
    return _chain_of(name, lines)


_NUMBERED = {"1": "icmp", "6": "tcp", "17": "udp"}


def _protocol(rule: Allow) -> str:
    """The part of a rule that matches protocol and ports. Raises HostError for a protocol that is none."""
    protocol = _NUMBERED.get(rule.protocol, rule.protocol)
    if protocol == "-1":
        return "meta nfproto ipv4"
    if protocol == "icmp":
        match = "ip protocol icmp" if rule.from_port == -1 else f"icmp type {rule.from_port}"
        return match if rule.from_port == -1 or rule.to_port == -1 else f"{match} icmp code {rule.to_port}"
    if protocol in ("tcp", "udp"):
        if rule.from_port == -1 or (rule.from_port, rule.to_port) == (0, 65535):
            return f"ip protocol {protocol}"
        ports = str(rule.from_port) if rule.from_port == rule.to_port else f"{rule.from_port}-{rule.to_port}"
        return f"{protocol} dport {ports}"
    if protocol.isdecimal() and int(protocol) <= 255:
        return f"ip protocol {int(protocol)}"
    raise HostError(f"protocol '{rule.protocol}' must be tcp, udp, icmp, -1 or a number up to 255", retryable=False)


def _group(port: Port, known: set[str]) -> tuple[str, ...]:
    return tuple(sorted(set(port.policies) & known))


def _chain(group: tuple[str, ...]) -> str:
    """Ports of several policies have a chain for the combination; it may be long, and names have a limit."""
    if len(group) == 1:
        return group[0]
    return "all-" + hashlib.sha256(" ".join(group).encode()).hexdigest()[:16] if group else "none"


def _source(port: Port) -> str:
    return f'"{leg_name(port.segment)}" . {port.mac.lower()}'


def _address(port: Port) -> str:
    return port.address


# --- the edge and the host -----------------------------------------------------------------------------------------


def edge(public_range: IPv4Network, *, egress: bool) -> str:
    """Who may pass the edge. Without egress: routers among themselves, and the host itself, by its own address."""
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
    between = f'iifname != "{EDGE_TO_HOST}" oifname != "{EDGE_TO_HOST}"'
    rules.append(f"{between} ip saddr {own} ip daddr {own} accept")
    lines = _chain_of("on_forward", rules)
    lines += _chain_of("on_input", ["type filter hook input priority filter; policy drop;"])
    if egress:
        # Routers ask the host's resolver from their end of the uplink, an address that the host knows no way to.
        masquerade = f'oifname "{EDGE_TO_HOST}" ip saddr {UPLINK_RANGE} masquerade'
        lines += _chain_of("on_postrouting", ["type nat hook postrouting priority srcnat; policy accept;", masquerade])
    return _replacing(EDGE_TABLE, "".join(f"\t{line}\n" for line in lines))


def host(deployment: str, public_range: IPv4Network) -> str:
    """Egress: public addresses leave the host under its own.

    Where the kernel shows bridged packets to the IP hooks, frames between guests would be tracked here, and those of
    two routers with the same addresses taken for one flow: they are exempt. Other deployments see public addresses.
    """
    lines = _chain_of(
        "on_bridged", ["type filter hook prerouting priority raw; policy accept;", 'iifname "sn-*" notrack']
    )
    lines += _chain_of(
        "on_postrouting",
        [
            "type nat hook postrouting priority srcnat; policy accept;",
            f'ip saddr {public_range} oifname != "orc-*" masquerade',
        ],
    )
    return _replacing(host_table(deployment), "".join(f"\t{line}\n" for line in lines))


# --- text ----------------------------------------------------------------------------------------------------------


def _replacing(table: Table, body: str) -> str:
    """`table` made anew, whether it was there or not."""
    name = " ".join(table)
    return f"table {name}\ndelete table {name}\ntable {name} {{\n{body}}}\n"


def _chain_of(name: str, rules: Sequence[str]) -> list[str]:
    return [f"chain {name} {{", *(f"\t{rule}" for rule in rules), "}"]


def _set(name: str, kind: str, elements: Iterable[str]) -> list[str]:
    return _elements("set", name, kind, elements)


def _map(name: str, kind: str, elements: Iterable[str]) -> list[str]:
    return _elements("map", name, kind, elements)


def _elements(word: str, name: str, kind: str, elements: Iterable[str]) -> list[str]:
    listed = ", ".join(sorted(elements))
    body = f"type {kind}; elements = {{ {listed} }};" if listed else f"type {kind};"
    return [f"{word} {name} {{ {body} }}"]
