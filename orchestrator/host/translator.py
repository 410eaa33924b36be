"""Translators: ports with no machine behind them, whose part the host itself plays (on EC2: NAT gateways).

      root namespace                        VPC.PORT (a namespace)
    +-----------------------------+       +----------------------------------+
    | sn-0123... bridge           |       | eth0: the port's MAC and address |
    |   eni-0123456789a (a veth) ========== sends on under its own address   |
    +-----------------------------+       +----------------------------------+

To the router, it is a machine like others: what is routed to the port goes in and comes back under the port's address,
so access lists see it, and its public address is translated at the uplink like any other. Its namespace is named after
the router and the port, so that those of one router are found by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from orchestrator.host import Port, Router, Segment, ruleset
from orchestrator.host.command import (
    NAMESPACES,
    address_changes,
    delete_links,
    forget_namespace,
    ip,
    namespace_exists,
    write_sysctls,
)
from orchestrator.host.edge import link_settings
from orchestrator.host.links import MTU_BYTES, bridge_name, tap_name, translator_name
from orchestrator.host.netlink import Link, links
from orchestrator.host.nft_tables import Tables
from orchestrator.host.routing import MAIN, Entry, Forwarding, settle

_LINK = "eth0"


def translators(router: Router) -> list[tuple[Port, Segment]]:
    """The ports that have one, each with its segment."""
    segments = {segment.name: segment for segment in router.segments}
    return [
        (port, segments[port.segment])
        for port in sorted(router.ports, key=lambda port: port.name)
        if port.translator and port.segment in segments
    ]


def namespaces(router: str) -> set[str]:
    """The translators of a router that are there, by namespace."""
    names = os.listdir(NAMESPACES) if NAMESPACES.is_dir() else []
    return {name for name in names if name.startswith(f"{router}.")}


def plug_commands(router: Router, present: Mapping[str, Link], alias: str) -> list[str]:
    """In the root namespace: the namespaces, and their cables into the bridges, which are there."""
    commands = []
    for port, segment in translators(router):
        namespace, tap = translator_name(router.name, port.name), tap_name(port.name)
        is_there = namespace_exists(namespace)
        if not is_there:
            forget_namespace(namespace)
            delete_links([tap] if tap in present else [])  # its other end is in a namespace that lost its name
            commands.append(f"netns add {namespace}")
        if not is_there or tap not in present:
            commands.append(
                f"link add {tap} mtu {MTU_BYTES} type veth peer name {_LINK} "
                f"mtu {MTU_BYTES} address {port.mac} netns {namespace}"
            )
        commands += [
            f"link set {tap} alias {alias} master {bridge_name(segment.name)} up",
            f"link set {tap} type bridge_slave isolated on",
        ]
    return commands


def make(port: Port, segment: Segment, alias: str, tables: Tables, namespace: str) -> None:
    """In the translator's namespace: nothing passes before its rules are there."""
    tables.load(namespace, ruleset.translator(port))
    write_sysctls({"ipv4/ip_forward": "1", "ipv4/conf/all/rp_filter": "0", "ipv6/conf/all/disable_ipv6": "1"})
    write_sysctls({key: value for key, value in link_settings(_LINK).items() if key.startswith("ipv4/")})
    present = links(with_addresses=True)
    commands = [f"link set lo alias {alias} up"] if present["lo"].alias != alias else []
    if present[_LINK].mac != port.mac.lower():
        commands.append(f"link set dev {_LINK} address {port.mac}")
    own = [each if "/" in each else f"{each}/32" for each in (port.address, *port.more_addresses)]
    ip([*commands, *address_changes(present, {_LINK: own})])
    settle(Forwarding(entries=frozenset({Entry(MAIN, "0.0.0.0/0", _LINK, segment.gateway, onlink=True)})))


def forget(names: Iterable[str], tables: Tables) -> None:
    """Their cables go with their taps."""
    for name in names:
        tables.forget(name)
        forget_namespace(name)
