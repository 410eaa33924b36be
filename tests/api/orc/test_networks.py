"""What a trace's ends may be, what is told of them, and a VPC's plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.api.operation import Answer
from orchestrator.api.orc.networks import describe_network_plan, trace_packet
from orchestrator.controller import RealHostView
from orchestrator.host.memory import MemoryHost, memory_host
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.errors import EC2Error
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import (
    NatGateway,
    NetworkInterface,
    PeeringConnection,
    PeeringSide,
    RouteTable,
    SecurityGroup,
    Subnet,
    Vpc,
)
from orchestrator.model.vpc import Route as RouteRow
from orchestrator.reconcile.plan import plan
from tests.api.ec2.conftest import OTHER_ACCOUNT, Api
from tests.matrix.scenario import found_country

OUTSIDE = "198.51.100.7"


@pytest.fixture
def host(api: Api) -> MemoryHost:
    """Behind `api` from now on."""
    made = memory_host()
    view = RealHostView(made, lambda vpc_id: plan(api.store, vpc_id))
    api.host.allow(trace=view.trace, live_trace=view.live_trace, network_plan=view.network_plan)
    return made


def trace(api: Api, source: str, destination: str, port: int | None = 80, **more: Any) -> Answer:
    return trace_packet(api._call("TracePacket", {}), source=source, destination=destination, port=port, **more)


def launch(api: Api, name: str, **more: Any) -> str:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}]
    [instance_id] = api.launch(TagSpecifications=tags, **more)
    return instance_id


def interface(api: Api, instance_id: str) -> NetworkInterface:
    [found] = api.store.all(NetworkInterface, instance_id=instance_id)
    return found


def last(answer: Answer) -> tuple[str, str]:
    assert answer["Passed"] is False
    return answer["Steps"][-1]["Where"], answer["Steps"][-1]["Decision"]


def refused(api: Api, source: str, destination: str, **more: Any) -> EC2Error:
    with pytest.raises(EC2Error) as caught:
        trace(api, source, destination, **more)
    return caught.value


def test_ends_may_be_called_by_all_that_they_have(api: Api, host: MemoryHost) -> None:
    web, db = launch(api, "web"), launch(api, "db")
    one, other = interface(api, web), interface(api, db)
    for source in ("web", web, web[:12], one.id, one.private_ip, one.public_ip):
        if source == web[:12] and db.startswith(source):
            continue
        for destination in ("db", db, other.id, other.private_ip):
            found = trace(api, source, destination)
            assert found["Passed"], (source, destination)
            assert (found["Source"], found["Destination"]) == (one.private_ip, other.private_ip)
            assert found["SourceInterfaceId"] == one.id


def test_a_public_address_goes_out_and_comes_in(api: Api, host: MemoryHost) -> None:
    web, db = launch(api, "web"), launch(api, "db")
    found = trace(api, "web", interface(api, db).public_ip)
    assert [step["Decision"] for step in found["Steps"]].count("internet gateway") == 2
    [group] = {group for each in (web, db) for group in interface(api, each).groups}
    assert last(found) == (group, "security group")


def test_from_outside(api: Api, host: MemoryHost) -> None:
    web = launch(api, "web")
    assert last(trace(api, OUTSIDE, "web"))[1] == "security group"
    api.call(
        "AuthorizeSecurityGroupIngress",
        GroupName="default",
        IpProtocol="tcp",
        FromPort=80,
        ToPort=80,
        CidrIp="0.0.0.0/0",
    )
    found = trace(api, OUTSIDE, interface(api, web).private_ip)
    assert found["Passed"] and found["Destination"] == interface(api, web).public_ip
    api.change(interface(api, web), public_ip="")
    error = refused(api, OUTSIDE, "web")
    assert error.code == "InvalidParameterValue" and "public address" in error.message


def test_an_elastic_ip(api: Api, host: MemoryHost) -> None:
    web, _ = launch(api, "web"), launch(api, "db")
    eni = interface(api, web)
    api.put(
        ElasticIp(
            id="eipalloc-0123456789abcdef0",
            account=api.account,
            region=api.region,
            created=api.now,
            public_ip="203.0.113.77",
            interface_id=eni.id,
            private_ip=eni.private_ip,
        )
    )
    assert trace(api, OUTSIDE, "web")["Destination"] == "203.0.113.77"
    assert trace(api, "203.0.113.77", "db")["Source"] == eni.private_ip


def test_what_does_not_run_says_so(api: Api, host: MemoryHost) -> None:
    web, db = launch(api, "web"), launch(api, "db")
    api.settle(db, State.STOPPED)
    for source, destination in (("web", "db"), ("db", "web"), ("web", interface(api, db).private_ip)):
        found = trace(api, source, destination)
        assert last(found) == (db, "instance")
        assert found["Steps"][-1]["Detail"] == "is stopped: no packet passes"
    api.settle(web, State.STOPPED)
    assert last(trace(api, "web", "db")) == (web, "instance")


def test_an_interface_that_is_attached_to_nothing(api: Api, host: MemoryHost) -> None:
    launch(api, "web")
    subnet = api.store.all(Subnet, account=api.account)[0]
    eni = api.call("CreateNetworkInterface", SubnetId=subnet.id)["NetworkInterface"]["NetworkInterfaceId"]
    assert last(trace(api, "web", eni)) == (eni, "interface")


@pytest.mark.parametrize(
    ("source", "destination", "more", "words"),
    [
        ("nobody", "web", {}, "'nobody' for Source"),
        (OUTSIDE, "8.8.8.8", {}, "one end at least"),
        ("web", "8.8.8.8", {"port": 70000}, "0 to 65535"),
        ("web", "8.8.8.8", {"protocol": "sctp"}, "tcp, udp, icmp, icmpv6"),
        ("web", "8.8.8.8", {"port": None, "protocol": "udp"}, "Port"),
        ("web", "2001:db8::1", {}, "IPv6"),
        ("eni-0123456789abcdef0", "web", {}, "does not exist"),
        (OUTSIDE, "web", {"live": True}, "begins at an instance"),
        ("twin", "web", {}, "say which by its id"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    api: Api, host: MemoryHost, source: str, destination: str, more: dict[str, Any], words: str
) -> None:
    for name in ("web", "twin", "twin"):
        launch(api, name)
    assert words in refused(api, source, destination, **more).message


def test_icmp_is_what_is_asked_without_a_port(api: Api, host: MemoryHost) -> None:
    launch(api, "web")
    assert trace(api, "web", "8.8.8.8", None)["Protocol"] == "icmp"
    assert trace(api, "web", "8.8.8.8")["Protocol"] == "tcp"


def test_nothing_is_told_of_another_account(api: Api, host: MemoryHost) -> None:
    web, theirs = launch(api, "web"), launch(api.by(), "theirs")
    assert refused(api, "web", theirs).code == "InvalidInstanceID.NotFound"
    assert refused(api, "web", "theirs").code == "InvalidParameterValue"
    assert refused(api, "web", interface(api, theirs).id).code == "InvalidNetworkInterfaceID.NotFound"
    public = interface(api, theirs).public_ip
    found = trace(api, "web", public)
    [vpc] = api.store.all(Vpc, account=OTHER_ACCOUNT)
    assert last(found) == (vpc.id, "another account's VPC")
    assert [step for step in found["Steps"] if step["VpcId"] == vpc.id] == [
        {
            "Where": vpc.id,
            "Decision": "another account's VPC",
            "Detail": f"does not pass; account {OTHER_ACCOUNT} can see why",
            "Passed": False,
            "VpcId": vpc.id,
            "Answer": False,
        }
    ]
    assert not any(interface(api, theirs).id in str(step) for step in found["Steps"])
    assert trace(api, web, "8.8.8.8")["Passed"]


def peered(api: Api) -> str:
    """A second VPC, 10.9.0.0/16, peered with the default one, and an instance `far` in it; its interface's id."""
    vpc = api.call("CreateVpc", CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = api.call("CreateSubnet", VpcId=vpc, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
    far = interface(api, launch(api, "far", SubnetId=subnet))
    [default] = [each for each in api.store.all(Vpc, account=api.account) if each.is_default]
    sides = [PeeringSide(account=api.account, region=api.region, vpc_id=each) for each in (default.id, vpc)]
    api.put(
        PeeringConnection(
            id="pcx-0123456789abcdef0",
            account=api.account,
            region=api.region,
            created=api.now,
            requester=sides[0],
            accepter=sides[1],
            state="active",
        )
    )
    for vpc_id, cidr in ((default.id, "10.9.0.0/16"), (vpc, default.cidr)):
        [table] = api.store.all(RouteTable, vpc_id=vpc_id)
        route = RouteRow(destination=cidr, target="pcx-0123456789abcdef0")
        api.change(table, routes=(*table.routes, route))
    [group] = api.store.all(SecurityGroup, vpc_id=vpc)
    everyone = replace(group.rules[0], group_id="", cidr_ipv4="0.0.0.0/0")
    api.change(group, rules=(everyone, *group.rules[1:]))
    return far.id


def test_over_a_peering_by_private_address(api: Api, host: MemoryHost) -> None:
    launch(api, "web")
    far = peered(api)
    for destination in ("far", far, "10.9.1.4"):
        found = trace(api, "web", destination)
        assert found["Passed"] and found["Destination"] == "10.9.1.4", destination
        assert "peering" in [step["Decision"] for step in found["Steps"]]


def test_live_sends_one_on_the_host_and_compares(api: Api, host: MemoryHost) -> None:
    web, _ = launch(api, "web"), launch(api, "db")
    assert refused(api, "web", "db", live=True).code == "IncorrectState"
    router = plan(api.store, interface(api, web).vpc_id)
    assert router is not None
    host.network.apply(router)
    found = trace(api, "web", "db", live=True)
    assert interface(api, web).id in found["Live"][0] and found["HostAgrees"] is True
    api.host.allow(live_trace=lambda *packet: ["on_forward: verdict drop"])
    assert trace(api, "web", "db", live=True)["HostAgrees"] is False
    assert "HostAgrees" not in trace(api, "web", "172.31.15.200", live=True), "no rule is met there"


def test_a_plan_is_of_what_is_on_the_host(api: Api, host: MemoryHost) -> None:
    def read(caller: Api, vpc_id: str) -> str:
        plan_text: str = describe_network_plan(caller._call("DescribeNetworkPlan", {}), vpc_id=vpc_id)["Plan"]
        return plan_text

    web = launch(api, "web")
    vpc_id = interface(api, web).vpc_id
    assert interface(api, web).id in read(api, vpc_id)
    api.settle(web, State.STOPPED)
    assert read(api, vpc_id) == ""
    with pytest.raises(EC2Error, match=r"InvalidVpcID\.NotFound"):
        read(api.by(), vpc_id)


def test_a_nat_gateway_is_called_by_its_own_id(api: Api, host: MemoryHost) -> None:
    country = found_country(api)
    [gateway] = api.store.all(NatGateway)
    found = trace(api, country.interfaces["red-app"], "192.0.2.1", 53, protocol="udp")
    told = [(step["Where"], step["Detail"]) for step in found["Steps"]]
    assert any(where == gateway.id for where, _ in told), told
    assert any(detail == f"0.0.0.0/0 -> {gateway.id}" for _, detail in told), told
    assert not any(gateway.interface_id in word for step in told for word in step)
