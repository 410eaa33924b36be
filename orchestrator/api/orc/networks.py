"""What networks do with a packet, and what the host is told of them: for `orc trace` and `orc vpc plan`.

Ends of a trace are what people call things: an instance's id, the beginning of it, or its name; an interface's id; an
address of either, private or public; or an address outside. What belongs to another account is not told: of its
networks a trace says only whether the packet passed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model import ids
from orchestrator.model.elastic_ip import ElasticIp, public_addresses
from orchestrator.model.errors import EC2Error, invalid_parameter, one_of
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.trace import Step, Trace
from orchestrator.model.vpc import NatGateway, NetworkInterface, PeeringConnection, Vpc

PROTOCOLS = ("tcp", "udp", "icmp", "icmpv6")
_PLUGGED = frozenset({State.PENDING, State.RUNNING, State.STOPPING, State.SHUTTING_DOWN})
_INTERFACE_ID = re.compile(r"\beni-[0-9a-f]+\b")
_INSTANCE_ID_START = re.compile(r"i-[0-9a-f]*")
_RULES = ("security group", "network ACL")
_BEYOND = ("internet gateway", "egress-only gateway", "peering", "NAT gateway", "instance")  # what follows is not seen
_DROPPED = re.compile(r"\b(verdict|policy) drop\b")


@operation("DescribeNetworkPlan", service="orc")
def describe_network_plan(call: Call, *, vpc_id: str) -> Answer:
    """Empty when nothing of the VPC is on the host."""
    vpc = call.find(Vpc, "vpc", vpc_id)
    try:
        plan = call.host.network_plan(vpc.id)
    except OSError as error:
        raise EC2Error("IncorrectState", f"{vpc.id} has no plan: {error}") from error
    return {"VpcId": vpc.id, "Plan": plan}


@operation("TracePacket", service="orc")
def trace_packet(
    call: Call,
    *,
    source: str,
    destination: str,
    protocol: str | None = None,
    port: int | None = None,
    live: bool = False,
) -> Answer:
    chosen = one_of("Protocol", protocol or ("icmp" if port is None else "tcp"), PROTOCOLS)
    if port is not None and not 0 <= port <= 65535:
        raise invalid_parameter("Port", port, "an integer from 0 to 65535")
    if port is None and chosen in ("tcp", "udp"):
        raise EC2Error("MissingParameter", f"The request must contain the parameter Port, for {chosen}")
    sender, receiver = _ends(call, source, destination)
    if ":" in receiver.address and chosen == "icmp":
        chosen = "icmpv6"
    answer: Answer = {
        "Source": sender.address,
        "Destination": receiver.address,
        "Protocol": chosen,
        "SourceInterfaceId": sender.interface.id if sender.interface else None,
    }
    absent = _absence(call, sender) or _absence(call, receiver)
    if absent is not None:
        return {**answer, "Passed": False, "Steps": [_step(absent)]}
    packet = (sender.interface_id, sender.address, receiver.address, chosen, port or 0)
    found = call.host.trace(_vpcs(call, sender, receiver), *packet)
    answer |= {"Passed": found.passed, "Steps": [_step(step) for step in _of_own(call, found.steps)]}
    return {**answer, **_on_host(call, sender, packet, found)} if live else answer


def _on_host(call: Call, sender: _End, packet: tuple[str, str, str, str, int], found: Trace) -> Answer:
    """What the host's own rules say, and whether that is what was computed."""
    if sender.interface is None:
        raise EC2Error("InvalidParameterCombination", "A live trace begins at an instance or interface, not outside")
    try:
        lines = call.host.live_trace(sender.interface.vpc_id, *packet)
    except OSError as error:
        raise EC2Error("IncorrectState", f"The packet cannot be followed on the host: {error}") from error
    agrees = _agrees(found, any(_DROPPED.search(line) for line in lines)) if lines else None
    return {"Live": lines} | ({} if agrees is None else {"HostAgrees": agrees})


def _agrees(found: Trace, dropped: bool) -> bool | None:
    """Whether the rules that the packet met on the host say the same. They are those of the first router alone, and
    what has no route there meets none: then there is nothing to compare."""
    for step in found.steps:
        if not step.passed and step.decision in _RULES and not step.answer:
            return dropped
        if step.answer or (step.passed and step.decision in _BEYOND):
            break
        if not step.passed:
            return None
    return not dropped


# --- what was meant ---


@dataclass(frozen=True, slots=True)
class _End:
    """One end of a trace. Without an interface it is outside, or nobody has it."""

    address: str
    interface: NetworkInterface | None = None

    @property
    def interface_id(self) -> str:
        return self.interface.id if self.interface else ""


@dataclass(frozen=True, slots=True)
class _Named:
    """What a word may mean: an address where one was given, and the caller's interfaces that it stands for."""

    word: str
    address: str
    interfaces: tuple[NetworkInterface, ...]


def _ends(call: Call, source: str, destination: str) -> tuple[_End, _End]:
    here, there = _named(call, "Source", source), _named(call, "Destination", destination)
    from_outside = not here.interfaces
    if from_outside:
        if not there.interfaces:
            raise invalid_parameter(
                "Source", source, "one end at least that is an instance, an interface, or an address of one of yours"
            )
        to = _one(there, there.interfaces)
        return _End(here.address), _End(_from_outside(call, there, to, here.address), to)
    vpcs = {each.vpc_id for each in there.interfaces}
    near = [each for each in here.interfaces if vpcs & {each.vpc_id, *_peers(call, each.vpc_id)}]
    sender = _one(here, near or here.interfaces)
    reachable = [each for each in there.interfaces if each.vpc_id == sender.vpc_id]
    reachable = reachable or [each for each in there.interfaces if each.vpc_id in _peers(call, sender.vpc_id)]
    if there.address:
        known = there.interfaces if ":" in there.address else reachable
        held = [each for each in known if _holds(each, there.address)]
        public = [each for each in there.interfaces if not _holds(each, there.address)]
        target = _End(there.address, next(iter(held or public), None))
    else:
        to = _one(there, reachable or there.interfaces)
        target = _End(to.private_ip if reachable else _public_of(call, to) or to.private_ip, to)
    return _End(_source_address(here, sender, target.address), sender), target


def _source_address(named: _Named, interface: NetworkInterface, destination: str) -> str:
    if named.address and _holds(interface, named.address):
        address = named.address
    elif ":" in destination:
        address = next(iter(interface.ipv6_addresses), "")
    else:
        address = interface.private_ip
    if not address or (":" in address) is not (":" in destination):
        family = "IPv6" if ":" in destination else "IPv4"
        raise invalid_parameter("Destination", destination, f"an address that {named.word} can send to: by {family}")
    return address


def _from_outside(call: Call, named: _Named, interface: NetworkInterface, source: str) -> str:
    """The address by which an interface is known outside."""
    if ":" in source:
        address = named.address if ":" in named.address else next(iter(interface.ipv6_addresses), "")
        wanted = "an interface that has an IPv6 address"
    else:
        public = {held.public_ip for held in public_addresses(call.db, interface).values()}
        address = named.address if named.address in public else _public_of(call, interface, named.address)
        wanted = "an interface that has a public address: nobody outside can send to another"
    if not address:
        raise invalid_parameter("Destination", named.word, wanted)
    return address


def _public_of(call: Call, interface: NetworkInterface, private: str = "") -> str:
    found = public_addresses(call.db, interface).get(private or interface.private_ip)
    return found.public_ip if found else ""


def _one(named: _Named, interfaces: Sequence[NetworkInterface]) -> NetworkInterface:
    if len(interfaces) > 1:
        listed = ", ".join(f"{each.id} in {each.vpc_id}" for each in interfaces)
        raise EC2Error("InvalidParameterValue", f"'{named.word}' may be any of {listed}: say which by its id")
    return interfaces[0]


def _named(call: Call, name: str, word: str) -> _Named:
    try:
        if "%" in word:  # a zone, which may be any text
            raise ValueError(word)
        address = str(ip_address(word))
    except ValueError:
        return _Named(word, "", tuple(_by_name(call, name, word)))
    return _Named(word, address, tuple(_holders(call, address)))


def _by_name(call: Call, name: str, word: str) -> list[NetworkInterface]:
    if word.startswith("eni-"):
        return [call.find(NetworkInterface, "eni", word)]
    if ids.is_well_formed("i", word):
        return [_primary(call, call.find(Instance, "i", word))]
    alive = [each for each in call.mine(Instance) if each.state is not State.TERMINATED]
    if _INSTANCE_ID_START.fullmatch(word):
        found = [each for each in alive if each.id.startswith(word)]
    else:
        found = [each for each in alive if each.tags.get("Name") == word]
    if not found:
        raise invalid_parameter(name, word, "an instance's id or name, an interface's id, or an address")
    if len(found) > 1:
        listed = ", ".join(f"{each.id} ({each.state.value})" for each in found)
        raise EC2Error("InvalidParameterValue", f"'{word}' may be any of {listed}: say which by its id")
    return [_primary(call, found[0])]


def _primary(call: Call, instance: Instance) -> NetworkInterface:
    for each in call.db.all(NetworkInterface, instance_id=instance.id):
        if each.attachment is not None and each.attachment.device_index == 0:
            return each
    raise EC2Error("IncorrectInstanceState", f"{instance.id} is {instance.state.value} and has no interface")


def _holders(call: Call, address: str) -> list[NetworkInterface]:
    """The caller's interfaces that have an address, privately or publicly."""
    found = {each.id: each for each in call.mine(NetworkInterface, addresses=address)}
    found |= {each.id: each for each in call.mine(NetworkInterface, public_ip=address)}
    for elastic in call.mine(ElasticIp, public_ip=address):
        interface = call.db.get(NetworkInterface, elastic.interface_id)
        if interface is not None and call.sees(interface):
            found[interface.id] = interface
    if not found:
        found = {each.id: each for each in call.mine(NetworkInterface) if _holds(each, address)}
    return list(found.values())


def _holds(interface: NetworkInterface, address: str) -> bool:
    return address in interface.addresses or any(
        ip_address(address) in ip_network(prefix) for prefix in interface.prefixes
    )


# --- what is asked ---


def _absence(call: Call, end: _End) -> Step | None:
    """Why no packet comes or goes there at all."""
    interface = end.interface
    if interface is None or any(call.db.all(NatGateway, interface_id=interface.id)):
        return None
    instance = call.db.get(Instance, interface.instance_id)
    if instance is None:
        detail = "is attached to no instance: no packet passes"
        return Step(where=interface.id, decision="interface", detail=detail, passed=False, vpc_id=interface.vpc_id)
    if instance.state in _PLUGGED:
        return None
    detail = f"is {instance.state.value}: no packet passes"
    return Step(where=instance.id, decision="instance", detail=detail, passed=False, vpc_id=interface.vpc_id)


def _peers(call: Call, vpc_id: str) -> list[str]:
    active = (each for each in call.db.all(PeeringConnection, vpc_ids=vpc_id) if each.state == "active")
    return [each.other(vpc_id).vpc_id for each in active]


def _vpcs(call: Call, sender: _End, receiver: _End) -> list[str]:
    """Those that the packet may come through: the ends' own, their peers, and whose the public address is."""
    found: list[str] = []
    for end in (sender, receiver):
        if end.interface is not None:
            found += [end.interface.vpc_id, *_peers(call, end.interface.vpc_id)]
    address = receiver.address
    found += [each.vpc_id for each in call.db.all(NetworkInterface, public_ip=address)]
    if ":" in address:
        found += [each.vpc_id for each in call.db.all(NetworkInterface, addresses=address)]
    for elastic in call.db.all(ElasticIp, public_ip=address):
        interface = call.db.get(NetworkInterface, elastic.interface_id)
        if interface is not None:
            found.append(interface.vpc_id)
    return list(dict.fromkeys(found))


def _of_own(call: Call, steps: Sequence[Step]) -> list[Step]:
    """Of other accounts' networks, only whether the packet passed: in one step for all that happens there at once."""
    shown: list[Step] = []
    for step in steps:
        vpc = call.db.get(Vpc, step.vpc_id) if step.vpc_id else None
        if vpc is None or vpc.account == call.account:
            shown.append(_with_gateways(call, step))
            continue
        detail = "passes" if step.passed else f"does not pass; account {vpc.account} can see why"
        hidden = replace(step, where=vpc.id, decision="another account's VPC", detail=detail)
        before = shown[-1] if shown else None
        if before is not None and (before.where, before.answer) == (hidden.where, hidden.answer):
            shown.pop()
        shown.append(hidden)
    return shown


def _with_gateways(call: Call, step: Step) -> Step:
    """A NAT gateway is known by its own id, not by that of the interface that it stands on."""
    for interface_id in {step.where, *_INTERFACE_ID.findall(step.detail)}:
        for gateway in call.db.all(NatGateway, interface_id=interface_id):
            where = gateway.id if step.where == interface_id else step.where
            step = replace(step, where=where, detail=step.detail.replace(interface_id, gateway.id))
    return step


def _step(step: Step) -> Answer:
    return {
        "Where": step.where,
        "Decision": step.decision,
        "Detail": step.detail,
        "Passed": step.passed,
        "VpcId": step.vpc_id,
        "Answer": step.answer,
    }
