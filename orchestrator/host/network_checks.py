"""What a host must have for networks of guests, and what of its own networks and firewalls stands in their way.

Nothing here changes the host but for what it makes to try something, and removes at once.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
from pathlib import Path
from typing import Final

from orchestrator.host import bpf, findings, ranges
from orchestrator.host.findings import Command, Expectation, Finding, dotted, fail, last_line, ok, read_version, warn

OLDEST_DNSMASQ: Final = (2, 80)
_BRIDGED_FRAMES_SEE_IPTABLES = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_NEIGHBOURS = {"arp_cache": "ipv4", "ndisc_cache": "ipv6"}
_NEIGHBOURS_KNOWN, _NEIGHBOURS_LIMIT = "/proc/net/stat/{}", "/proc/sys/net/{}/neigh/default/gc_thresh3"
_NEIGHBOURS_MOST = 16384
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")

# --- networks -------------------------------------------------------------------------------------------------------

# Each part of what a VPC is made of, how it is tried in a namespace that goes away with its process, and its module.
_PARTS = (
    (
        "a bridge with isolated ports",
        "ip link add b0 type bridge && ip link add v0 type veth peer name v1 && ip link set v0 master b0"
        " && bridge link set dev v0 isolated on",
        "bridge",
    ),
    ("taps (/dev/net/tun)", "ip tuntap add t0 mode tap", "tun"),
    ("answering ARP for a subnet", "test -e /proc/sys/net/ipv4/conf/all/proxy_arp_pvlan", ""),
    (
        "nftables with connection tracking",
        "nft 'add table inet t; add chain inet t c { type filter hook forward priority 0; };"
        " add rule inet t c ct state established accept'",
        "nf_tables",
    ),
    (
        "address translation by nftables",
        "nft 'add table ip n; add chain ip n c { type nat hook postrouting priority 100; };"
        " add rule ip n c masquerade'",
        "nft_chain_nat",
    ),
    (
        "nftables on bridges",
        "nft 'add table bridge b; add chain bridge b c { type filter hook prerouting priority 0; };"
        " add rule bridge b c ether type arp drop'",
        "nf_tables",
    ),
)


def check_networking(_: Expectation) -> Finding:
    if os.geteuid() != 0:
        return warn("networking", "only root can try namespaces, bridges and nftables: run orc doctor with sudo")
    name = f"orc-try-{os.getpid()}"
    code, text = findings.ask("sh", "-c", f"ip netns add {name} && ip netns delete {name}")
    if code:
        return fail("networking", f"network namespaces cannot be made here: {last_line(text)}")
    broken, modules = [], []
    for part, script, module in _PARTS:
        code, text = findings.ask("unshare", "--net", "sh", "-c", script)
        if code:
            broken.append(f"{part} ({last_line(text)})" if text.strip() else part)
            if module and ("modprobe", module) not in modules and not Path("/sys/module", module).exists():
                modules.append(("modprobe", module))
    if broken:
        return fail("networking", f"this does not work on this kernel: {'; '.join(broken)}", *modules)
    return ok("networking", "namespaces, taps, bridges with isolated ports, and nftables (inet, nat, bridge) work")


def check_shortcuts(_: Expectation) -> Finding:
    if os.geteuid() != 0:
        return ok("shortcuts", "only root can ask for programs at links")
    try:
        bpf.attached(socket.if_nametoindex("lo"))
    except OSError as error:
        text = f"packets of guests take the long way, by the bridge (Linux 6.6 or newer has shortcuts): {error}"
        if _says_yes(_BRIDGED_FRAMES_SEE_IPTABLES):
            text += "; and the host's iptables see them there, since br_netfilter is loaded, which costs them more"
        return warn("shortcuts", text)
    return ok("shortcuts", "the kernel lets packets of guests pass by the bridge")


def check_neighbours(_: Expectation) -> Finding:
    """The kernel has one table of neighbours per family for all namespaces, so those of all VPCs share it."""
    for cache, family in _NEIGHBOURS.items():
        try:
            known = int(Path(_NEIGHBOURS_KNOWN.format(cache)).read_text().splitlines()[1].split()[0], 16)
            most = int(Path(_NEIGHBOURS_LIMIT.format(family)).read_text())
        except OSError:
            continue
        if known * 2 > most:
            raised = max(_NEIGHBOURS_MOST, 4 * known)
            return warn(
                "neighbours",
                f"{known} of {most} places for neighbours ({family}) are taken; without one, a guest is not reached",
                ("sysctl", "-w", f"net.{family}.neigh.default.gc_thresh3={raised}"),
            )
    return ok("neighbours", "there is room for the neighbours of more guests")


def check_dnsmasq(_: Expectation) -> Finding:
    code, text = findings.ask("dnsmasq", "--version")
    if code:
        return fail("dnsmasq", last_line(text))
    found = read_version(text)
    if found < OLDEST_DNSMASQ:
        return fail("dnsmasq", f"dnsmasq {dotted(found)} is too old: {dotted(OLDEST_DNSMASQ)} or newer is needed")
    if "no-DHCP " in text:
        return fail("dnsmasq", f"dnsmasq {dotted(found)} is built without DHCP")
    return ok("dnsmasq", f"dnsmasq {dotted(found)}")


# --- what else is on the host ---------------------------------------------------------------------------------------


def check_ranges(expected: Expectation) -> Finding:
    own = f"orc-{expected.deployment}" if expected.deployment else ""
    try:
        public = ipaddress.IPv4Network(expected.public_range)
        reason = ranges.clash(public, own_device=own, bridge=expected.public_bridge)
        routes = ranges.routes()
    except OSError as error:
        return fail("ranges", str(error))
    if reason is not None:
        return fail("ranges", f"the public range {public} {reason}: choose another network.public_range")
    inside = [ipaddress.IPv4Network(text) for text in expected.router_ranges]
    shadowed = [
        f"{route} ({device})"
        for route, device in routes
        if not device.startswith("orc-") and any(route.overlaps(network) for network in inside)
    ]
    if shadowed and expected.egress:
        return warn(
            "ranges", f"guests cannot reach the host's network {', '.join(shadowed)}: their VPC has the same addresses"
        )
    return ok("ranges", f"the public range {public} is free on this host")


def check_forwarding(expected: Expectation) -> Finding:
    on = _FORWARD.read_text().strip() == "1"
    if expected.egress and not on:
        return ok("forwarding", "net.ipv4.ip_forward is 0; it is set to 1 with the first VPC, since egress is on")
    return ok("forwarding", f"net.ipv4.ip_forward is {int(on)}; egress is {'on' if expected.egress else 'off'}")


def check_firewall(expected: Expectation) -> Finding:
    """Whether a firewall of the host drops by default what it forwards, and does not let ours pass."""
    if os.geteuid() != 0:
        return ok("firewall", "only root can look at the host's firewalls")
    dropping = _dropping_chains()
    # With br_netfilter loaded, frames that a bridge carries within a subnet see these chains too.
    if dropping and _says_yes(_BRIDGED_FRAMES_SEE_IPTABLES):
        inside = (("-i", "sn-+", "-o", "sn-+"), 'iifname "sn-*" oifname "sn-*"')
        mend = [command for chain in dropping for command in _let_pass(chain, inside)]
        if mend:
            return fail(
                "firewall",
                "bridged frames pass the host's FORWARD chain (br_netfilter is loaded), which drops by default (docker "
                "does both): guests have no network at all. The rule lasts until the host or docker starts anew",
                *mend,
            )
    if not expected.egress:
        return ok("firewall", "guests may not leave this host, so its firewalls do not matter")
    public = expected.public_range
    if (
        findings.ask("firewall-cmd", "--state")[0] == 0
        and findings.ask("firewall-cmd", "--zone=trusted", f"--query-source={public}")[0]
    ):
        return warn(
            "firewall",
            f"firewalld drops what guests send beyond this host unless it trusts {public}",
            ("firewall-cmd", "--permanent", "--zone=trusted", f"--add-source={public}"),
            ("firewall-cmd", "--reload"),
        )
    ways = ((("-s", public), f"ip saddr {public}"), (("-d", public), f"ip daddr {public}"))
    mend = [command for chain in dropping for way in ways for command in _let_pass(chain, way)]
    if mend:
        return warn(
            "firewall",
            f"the FORWARD chain drops by default (docker and ufw do that) and does not let {public} pass: guests "
            "cannot reach beyond this host. The rules last until the host or its firewall starts anew",
            *mend,
        )
    return ok("firewall", "no firewall of the host drops what guests send")


def _says_yes(path: Path) -> bool:
    try:
        return path.read_text().strip() == "1"
    except OSError:
        return False


Chain = tuple[str, str, str]  # family, table, name; the family iptables is for what only iptables shows


def _dropping_chains() -> list[Chain]:
    """The IPv4 chains at the forward hook whose policy is drop, other than ours."""
    code, text = findings.ask("nft", "-j", "list", "chains")
    try:
        entries = json.loads(text)["nftables"] if code == 0 else []
    except (json.JSONDecodeError, KeyError):
        entries = []
    chains = [entry["chain"] for entry in entries if "chain" in entry]
    found = [
        (chain["family"], chain["table"], chain["name"])
        for chain in chains
        if chain.get("hook") == "forward" and chain.get("policy") == "drop" and chain["family"] in ("ip", "inet")
    ]
    if not any(chain[1:] == ("filter", "FORWARD") for chain in found):
        code, text = findings.ask("iptables", "-S", "FORWARD")
        if code == 0 and "-P FORWARD DROP" in text:
            found.append(("iptables", "filter", "FORWARD"))
    return found


def _let_pass(chain: Chain, way: tuple[Command, str]) -> list[Command]:
    """The command that lets `way` (in iptables' words and in nft's) pass `chain`; none when it passes already."""
    family, table, name = chain
    in_iptables, in_nft = way
    if (table, name) == ("filter", "FORWARD") and family in ("ip", "iptables"):
        # docker empties FORWARD but leaves this chain of its own alone.
        target = "DOCKER-USER" if findings.ask("iptables", "-S", "DOCKER-USER")[0] == 0 else "FORWARD"
        if findings.ask("iptables", "-C", target, *in_iptables, "-j", "ACCEPT")[0] == 0:
            return []
        return [("iptables", "-I", target, *in_iptables, "-j", "ACCEPT")]
    if f"{in_nft} accept" in findings.ask("nft", "list", "chain", family, table, name)[1]:
        return []
    return [("nft", "insert", "rule", family, table, name, in_nft, "accept")]
