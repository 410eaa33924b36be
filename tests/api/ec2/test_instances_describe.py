"""DescribeInstances and DescribeInstanceStatus: complete answers, filters, pages, and nothing stale."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from orchestrator.api import operation
from orchestrator.api.ec2 import instance_view
from orchestrator.api.protocol import Fragment
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.image import Image
from orchestrator.model.instance import Instance, Reason
from orchestrator.model.lifecycle import State
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NetworkInterface, SecurityGroup, Subnet, Vpc


def described(api, **params):
    found = api.call("DescribeInstances", **params)["Reservations"]
    return [instance for reservation in found for instance in reservation["Instances"]]


def ids_of(api, name, *values):
    return {i["InstanceId"] for i in described(api, Filters=[{"Name": name, "Values": list(values)}])}


# What typed clients read without asking whether it is there.
ALWAYS = {
    "AmiLaunchIndex",
    "Architecture",
    "BlockDeviceMappings",
    "CapacityReservationSpecification",
    "ClientToken",
    "CpuOptions",
    "EbsOptimized",
    "EnaSupport",
    "EnclaveOptions",
    "HibernationOptions",
    "Hypervisor",
    "ImageId",
    "InstanceId",
    "InstanceType",
    "LaunchTime",
    "MaintenanceOptions",
    "MetadataOptions",
    "Monitoring",
    "NetworkInterfaces",
    "Placement",
    "PlatformDetails",
    "PrivateDnsName",
    "PrivateDnsNameOptions",
    "ProductCodes",
    "PublicDnsName",
    "RootDeviceName",
    "RootDeviceType",
    "SecurityGroups",
    "State",
    "StateTransitionReason",
    "Tags",
    "UsageOperation",
    "UsageOperationUpdateTime",
    "VirtualizationType",
}


def test_a_running_instance_is_complete(api):
    api.make_key_pair()
    (instance_id,) = api.launch(KeyName="MyKeyPair", InstanceType="t3.micro")
    (shown,) = described(api)
    assert set(shown) >= ALWAYS
    assert shown["State"] == {"Code": 16, "Name": "running"}
    assert shown["KeyName"] == "MyKeyPair"
    assert shown["LaunchTime"] == api.now
    assert shown["PrivateDnsName"] == "ip-172-31-0-4.ec2.internal"
    assert shown["PublicDnsName"] == f"ec2-{shown['PublicIpAddress'].replace('.', '-')}.compute-1.amazonaws.com"
    (interface,) = shown["NetworkInterfaces"]
    assert interface["Attachment"]["DeviceIndex"] == 0 and interface["Attachment"]["Status"] == "attached"
    assert interface["Association"]["PublicIp"] == shown["PublicIpAddress"]
    assert interface["PrivateIpAddresses"][0]["Association"] == interface["Association"]
    assert shown["BlockDeviceMappings"][0]["Ebs"]["Status"] == "attached"
    assert shown["SubnetId"] == interface["SubnetId"] and shown["VpcId"] == interface["VpcId"]
    assert api.get(Instance, instance_id).zone == shown["Placement"]["AvailabilityZone"]


def test_a_terminated_instance_lists_without_network_and_disks(api):
    (instance_id,) = api.launch(settled=State.TERMINATED)
    reason = Reason(code="Server.InternalError", message="Server.InternalError: Internal error on launch")
    api.change(api.get(Instance, instance_id), reason=reason)
    (shown,) = described(api)
    assert set(shown) >= ALWAYS
    assert shown["StateReason"] == {"Code": reason.code, "Message": reason.message}
    assert shown["NetworkInterfaces"] == shown["BlockDeviceMappings"] == shown["SecurityGroups"] == []
    assert not {"PrivateIpAddress", "PublicIpAddress", "SubnetId", "VpcId"} & set(shown)
    assert ids_of(api, "vpc-id", "*") == ids_of(api, "private-ip-address", "*") == set()


@pytest.mark.parametrize("kind", [Subnet, Vpc, SecurityGroup, Image, Volume, NetworkInterface])
def test_what_is_gone_does_not_break_it(api, kind):
    (instance_id,) = api.launch()
    described(api)
    with api.store.write() as tx:
        for row in api.store.all(kind):
            tx.delete(row)
    assert described(api)[0]["InstanceId"] == instance_id
    for name in ("group-name", "dns-name", "block-device-mapping.status", "network-interface.group-name"):
        ids_of(api, name, "x")


def test_grouped_by_launch(api):
    first, second = api.launch(3), api.launch(1)
    found = api.call("DescribeInstances")["Reservations"]
    assert [[i["InstanceId"] for i in r["Instances"]] for r in found] == [first, second]
    (one,) = api.call("DescribeInstances", InstanceIds=[first[1]])["Reservations"]
    assert one["ReservationId"] == found[0]["ReservationId"]
    assert [i["InstanceId"] for i in one["Instances"]] == [first[1]]


def test_ids(api):
    (mine,) = api.launch()
    (theirs,) = api.by().launch()
    (elsewhere,) = api.within("us-west-2").launch()
    assert [i["InstanceId"] for i in described(api)] == [mine]
    assert api.refused("DescribeInstances", InstanceIds=["instance"]).code == "InvalidInstanceID.Malformed"
    for other in (theirs, elsewhere, "i-00000000000000000"):
        error = api.refused("DescribeInstances", InstanceIds=[mine, other])
        assert error.code == "InvalidInstanceID.NotFound" and other in error.message
    assert api.refused("DescribeInstances", DryRun=True).code == "DryRunOperation"


def test_pages(api):
    made = sorted(api.launch(4) + api.launch(3) + api.launch(5))
    seen, token = [], {}
    while True:
        answer = api.call("DescribeInstances", MaxResults=5, **token)
        seen.append([i["InstanceId"] for r in answer["Reservations"] for i in r["Instances"]])
        if "NextToken" not in answer:
            break
        token = {"NextToken": answer["NextToken"]}
    assert [len(page) for page in seen] == [5, 5, 2]
    assert sorted(name for page in seen for name in page) == made
    for wrong in (4, 1001):
        assert api.refused("DescribeInstances", MaxResults=wrong).code == "InvalidParameterValue"
    both = api.refused("DescribeInstances", MaxResults=5, InstanceIds=made[:1])
    assert both.code == "InvalidParameterCombination"
    assert api.refused("DescribeInstances", NextToken="x").code == "InvalidNextToken"


def test_kept_text_follows_every_row_that_it_shows(api):
    (instance_id, _) = api.launch(2, InstanceType="t3.micro")
    (single,) = api.launch(InstanceType="t3.micro")

    def shown(of):
        return described(api, InstanceIds=[of])[0]

    for target in (instance_id, single):
        shown(target)
        instance = api.change(api.get(Instance, target), tags={"Name": "web"})
        assert shown(target)["Tags"] == [{"Key": "Name", "Value": "web"}]
        (interface,) = api.store.all(NetworkInterface, instance_id=target)
        api.change(interface, public_ip="203.0.113.200")
        assert shown(target)["PublicIpAddress"] == "203.0.113.200"
        address = elastic(api, interface)
        assert shown(target)["PublicIpAddress"] == address.public_ip
        with api.store.write() as tx:
            tx.delete(address)
        assert shown(target)["PublicIpAddress"] == "203.0.113.200"
        (volume,) = api.store.all(Volume, instance_id=target)
        api.change(volume, attachment=replace(volume.attachment, delete_on_termination=False))
        assert shown(target)["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"] is False
        group = api.change(api.get(SecurityGroup, interface.groups[0]), name=f"renamed-{target}")
        assert shown(target)["SecurityGroups"][0]["GroupName"] == group.name
        vpc = api.get(Vpc, instance.vpc_id)
        api.change(vpc, enable_dns_hostnames=not vpc.enable_dns_hostnames)
        assert bool(shown(target)["PublicDnsName"]) is not vpc.enable_dns_hostnames
        api.settle(target, State.TERMINATED)
        assert shown(target)["NetworkInterfaces"] == []


def elastic(api, interface, private_ip=""):
    """An Elastic IP for an address of the interface."""
    address = ElasticIp(
        id="eipalloc-00000000000000001",
        account=api.account,
        region=api.region,
        created=api.now,
        public_ip="203.0.113.210",
        interface_id=interface.id,
        private_ip=private_ip,
        association_id="eipassoc-00000000000000001",
    )
    api.put(address)
    return address


def with_everything(api):
    """Two instances; the first has a second interface and on its first all that one can have."""
    first, second = api.launch(2, InstanceType="t3.micro")
    (interface,) = api.store.all(NetworkInterface, instance_id=first)
    interface = api.change(
        interface,
        more_private_ips=("172.31.0.100",),
        prefixes=("172.31.1.0/28",),
        ipv6_addresses=("2001:db8:ec00::5",),
        tags={"Name": "front"},
    )
    made = api.call("CreateNetworkInterface", SubnetId=interface.subnet_id, Description="second")["NetworkInterface"]
    attached = {"NetworkInterfaceId": made["NetworkInterfaceId"], "InstanceId": first, "DeviceIndex": 1}
    api.call("AttachNetworkInterface", **attached)
    elastic(api, interface, "172.31.0.100")
    return first, second


def test_all_interfaces_and_addresses(api):
    (first, _) = with_everything(api)
    (shown,) = described(api, InstanceIds=[first])
    primary, second = shown["NetworkInterfaces"]
    assert [each["Attachment"]["DeviceIndex"] for each in (primary, second)] == [0, 1]
    assert second["Attachment"]["Status"] == "attaching" and second["Description"] == "second"
    assert set(primary["Attachment"]) == {
        "AttachTime",
        "AttachmentId",
        "DeleteOnTermination",
        "DeviceIndex",
        "NetworkCardIndex",
        "Status",
    }
    one, other = primary["PrivateIpAddresses"]
    assert (one["Primary"], other["Primary"]) == (True, False)
    assert one["Association"]["PublicIp"] == shown["PublicIpAddress"] and one["Association"]["IpOwnerId"] == "amazon"
    assert other["Association"] == {
        "IpOwnerId": api.account,
        "PublicIp": "203.0.113.210",
        "PublicDnsName": "ec2-203-0-113-210.compute-1.amazonaws.com",
    }
    assert primary["Ipv6Addresses"] == [{"Ipv6Address": "2001:db8:ec00::5", "IsPrimaryIpv6": False}]
    assert primary["Ipv4Prefixes"] == [{"Ipv4Prefix": "172.31.1.0/28"}]
    assert shown["Ipv6Address"] == "2001:db8:ec00::5"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ipv6-address", "2001:db8:ec00::5"),
        ("network-interface.addresses.association.allocation-id", "eipalloc-00000000000000001"),
        ("network-interface.addresses.association.association-id", "eipassoc-00000000000000001"),
        ("network-interface.addresses.association.ip-owner-id", "111122223333"),
        ("network-interface.addresses.association.public-dns-name", "ec2-203-0-113-210.*"),
        ("network-interface.addresses.association.public-ip", "203.0.113.210"),
        ("network-interface.addresses.primary", "false"),
        ("network-interface.addresses.private-dns-name", "ip-172-31-0-100.*"),
        ("network-interface.addresses.private-ip-address", "172.31.0.100"),
        ("network-interface.association.allocation-id", "eipalloc-00000000000000001"),
        ("network-interface.attachment.device-index", "1"),
        ("network-interface.attachment.status", "attaching"),
        ("network-interface.description", "second"),
        ("network-interface.ipv4-prefixes.ipv4-prefix", "172.31.1.0/28"),
        ("network-interface.ipv6-address", "2001:db8:ec00::5"),
        ("network-interface.ipv6-addresses.ipv6-address", "2001:db8:ec00::5"),
        ("network-interface.ipv6-addresses.is-primary-ipv6", "false"),
        ("network-interface.tag-key", "Name"),
        ("network-interface.tag-value", "front"),
    ],
)
def test_filters_on_interfaces(api, name, value):
    (first, _) = with_everything(api)
    assert ids_of(api, name, value) == {first}
    assert ids_of(api, name, "no" + value) == set()


def test_ip_address_filter_sees_the_elastic_ip(api):
    first, _ = api.launch(2, InstanceType="t3.micro")
    (interface,) = api.store.all(NetworkInterface, instance_id=first)
    elastic(api, interface)
    assert ids_of(api, "ip-address", "203.0.113.210") == {first}
    assert ids_of(api, "dns-name", "ec2-203-0-113-210.*") == {first}


def test_unchanged_instances_are_not_built_again(api, monkeypatch):
    api.launch(3)
    api.launch(1)
    first = api.call("DescribeInstances")

    def unexpected(self):
        raise AssertionError("built again")

    for reservation in api.run("DescribeInstances")["Reservations"]:
        assert isinstance(reservation, Fragment) or all(isinstance(i, Fragment) for i in reservation["Instances"])
    monkeypatch.setattr("orchestrator.api.ec2.instance_view.view", unexpected)
    assert api.call("DescribeInstances") == first


# --- filters ----------------------------------------------------------------------------------------------------------


def documented_filters(api, action):
    text = api.world.protocol.model.operation_model(action).input_shape.members["Filters"].documentation
    names = set(re.findall(r"<li>\s*<p>\s*<code>([^<]+)</code>", text))
    assert len(names) > 10
    return sorted(name for name in names if not name.startswith("tag:"))


@pytest.mark.parametrize("action", ["DescribeInstances", "DescribeInstanceStatus"])
def test_every_documented_filter_is_known(api, action):
    api.launch(2)
    for name in documented_filters(api, action):
        api.call(action, Filters=[{"Name": name, "Values": ["no such value"]}])
        api.call(action, Filters=[{"Name": name, "Values": ["*"]}])
    assert api.refused(action, Filters=[{"Name": "colour", "Values": ["red"]}]).code == "InvalidParameterValue"


def test_a_filter_finds_what_the_answer_shows(api):
    api.make_key_pair()
    first, second = api.launch(2, KeyName="MyKeyPair", InstanceType="t3.micro", ClientToken="abc")
    (third,) = api.launch(
        settled=State.STOPPED,
        InstanceType="t2.micro",
        Placement={"AvailabilityZone": "us-east-1b"},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web-1"}]}],
    )
    shown = {i["InstanceId"]: i for i in described(api)}
    both, everything = {first, second}, {first, second, third}
    interface = shown[second]["NetworkInterfaces"][0]
    volume = shown[second]["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    for name, value, expected in [
        ("instance-state-name", "running", both),
        ("instance-state-code", "80", {third}),
        ("instance-type", "t?.micro", everything),
        ("instance-type", "t2.*", {third}),
        ("key-name", "MyKeyPair", both),
        ("client-token", "abc", both),
        ("launch-index", "1", {second}),
        ("availability-zone", "us-east-1b", {third}),
        ("availability-zone-id", "use1-az1", both),
        ("tag:Name", "web-*", {third}),
        ("tag-key", "Name", {third}),
        ("private-ip-address", shown[second]["PrivateIpAddress"], {second}),
        ("ip-address", shown[first]["PublicIpAddress"], {first}),
        ("dns-name", shown[first]["PublicDnsName"], {first}),
        ("network-interface.network-interface-id", interface["NetworkInterfaceId"], {second}),
        ("network-interface.addresses.private-ip-address", interface["PrivateIpAddress"], {second}),
        ("network-interface.attachment.device-index", "0", everything),
        ("network-interface.mac-address", interface["MacAddress"], {second}),
        ("instance.group-name", "default", everything),
        ("block-device-mapping.volume-id", volume, {second}),
        ("block-device-mapping.device-name", "/dev/xvda", everything),
        ("reservation-id", api.get(Instance, first).reservation_id, both),
        ("source-dest-check", "true", everything),
        ("metadata-options.http-tokens", "required", set()),
        ("monitoring-state", "disabled", everything),
        ("launch-time", "2026-01-02T*", everything),
        ("ipv6-address", "*", set()),
    ]:
        assert ids_of(api, name, value) == expected, name
    two = [{"Name": "instance-type", "Values": ["t3.*"]}, {"Name": "launch-index", "Values": ["0", "7"]}]
    assert [i["InstanceId"] for i in described(api, Filters=two)] == [first]


# --- status -----------------------------------------------------------------------------------------------------------


def test_a_page_looks_at_no_more_than_it_shows(api, monkeypatch):
    made = sorted(api.launch(12))
    odd = made[1::2]
    api.call("CreateTags", Resources=odd, Tags=[{"Key": "odd", "Value": "yes"}])
    looked_at = []
    compile_filters = operation.compile_filters

    def counted(*given):
        test = compile_filters(*given)
        return lambda resource: looked_at.append(resource.id) or test(resource)

    monkeypatch.setattr(operation, "compile_filters", counted)
    filters = [{"Name": "tag:odd", "Values": ["*"]}]
    first = api.call("DescribeInstances", MaxResults=5, Filters=filters)
    assert {i["InstanceId"] for r in first["Reservations"] for i in r["Instances"]} == set(odd[:5])
    assert looked_at == made[: made.index(odd[5]) + 1], "and one more, to know whether there is another page"
    looked_at.clear()
    rest = api.call("DescribeInstances", MaxResults=5, Filters=filters, NextToken=first["NextToken"])
    assert [i["InstanceId"] for r in rest["Reservations"] for i in r["Instances"]] == odd[5:]
    assert "NextToken" not in rest and looked_at == made[made.index(odd[4]) + 1 :]


def test_status_of_running_instances(api):
    first, second = api.launch(2)
    api.settle(second, State.STOPPED)
    (shown,) = api.call("DescribeInstanceStatus")["InstanceStatuses"]
    assert shown["InstanceId"] == first and shown["Events"] == []
    assert shown["InstanceState"] == {"Code": 16, "Name": "running"}
    passed = {"Status": "ok", "Details": [{"Name": "reachability", "Status": "passed"}]}
    assert shown["InstanceStatus"] == shown["SystemStatus"] == shown["AttachedEbsStatus"] == passed
    assert api.call("DescribeInstanceStatus", InstanceIds=[second])["InstanceStatuses"] == []


def test_status_of_all_instances(api):
    first, second = api.launch(2)
    api.settle(second, State.STOPPED)
    since = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    impaired = {"instance_status": "impaired", "impaired_since": since, "system_status": "initializing"}
    api.change(api.get(Instance, first), **impaired)
    shown = {
        s["InstanceId"]: s for s in api.call("DescribeInstanceStatus", IncludeAllInstances=True)["InstanceStatuses"]
    }
    assert shown[first]["InstanceStatus"]["Details"] == [
        {"Name": "reachability", "Status": "failed", "ImpairedSince": since}
    ]
    assert shown[first]["SystemStatus"]["Details"] == [{"Name": "reachability", "Status": "initializing"}]
    assert shown[second]["InstanceStatus"] == shown[second]["SystemStatus"] == {"Status": "not-applicable"}

    def found(name, value):
        filters = [{"Name": name, "Values": [value]}]
        answer = api.call("DescribeInstanceStatus", IncludeAllInstances=True, Filters=filters)
        return [status["InstanceId"] for status in answer["InstanceStatuses"]]

    assert found("instance-status.status", "impaired") == [first]
    assert found("instance-status.reachability", "failed") == [first]
    assert found("system-status.status", "not-applicable") == [second]
    assert found("event.code", "*") == []


def test_status_by_ids_and_pages(api):
    made = api.launch(7)
    assert len(api.call("DescribeInstanceStatus", MaxResults=5)["InstanceStatuses"]) == 5
    both = api.refused("DescribeInstanceStatus", MaxResults=5, InstanceIds=made[:1])
    assert both.code == "InvalidParameterCombination"
    missing = api.refused("DescribeInstanceStatus", InstanceIds=["i-00000000000000000"])
    assert missing.code == "InvalidInstanceID.NotFound"


@pytest.mark.parametrize("count", [1, 2])
def test_what_changes_while_an_answer_is_written_is_not_kept(api, monkeypatch, count):
    """An address that is associated between the gathering and the writing of an answer, and disassociated later, leaves
    the instance with the rows that it had at first: what was written in between is no answer then."""
    made = api.launch(count, settled=State.RUNNING)
    api.change(api.store.all(NetworkInterface, instance_id=made[0])[0], public_ip="", auto_public_ip=False)
    allocation = api.call("AllocateAddress", Domain="vpc")
    writes = []
    written = instance_view.view

    def view(shown):
        if not writes:
            given = {"AllocationId": allocation["AllocationId"], "InstanceId": made[0]}
            writes.append(api.call("AssociateAddress", **given)["AssociationId"])
        return written(shown)

    monkeypatch.setattr(instance_view, "view", view)
    described(api, InstanceIds=made)
    monkeypatch.undo()
    assert described(api, InstanceIds=made)[0]["PublicIpAddress"] == allocation["PublicIp"]
    api.call("DisassociateAddress", AssociationId=writes[0])
    assert "PublicIpAddress" not in described(api, InstanceIds=made)[0]
