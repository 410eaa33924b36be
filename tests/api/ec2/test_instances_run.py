"""RunInstances: what it writes, what it answers, and every way in which it refuses."""

from __future__ import annotations

import base64
import threading
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.model.errors import EC2Error
from orchestrator.model.image import ImageAlias
from orchestrator.model.instance import Instance
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.resource import EVERY_REGION
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import CidrAssociation, NetworkInterface, SecurityGroup, Subnet, Vpc

ONE = {"MinCount": 1, "MaxCount": 1}


@pytest.fixture
def image(api):
    return api.make_image()


@pytest.fixture
def run(api, image):
    """RunInstances of one t3.micro of `image`, with other parameters as given; the instances of the answer."""

    def call(**params):
        return api.call("RunInstances", **{**ONE, "ImageId": image.id, "InstanceType": "t3.micro", **params})[
            "Instances"
        ]

    return call


@pytest.fixture
def refused(api, image):
    """The code of the error that such a launch is refused with."""

    def call(**params):
        return api.refused("RunInstances", **{**ONE, "ImageId": image.id, "InstanceType": "t3.micro", **params}).code

    return call


def default_subnet(api, zone="us-east-1a"):
    api.call("DescribeSubnets")
    return next(subnet for subnet in api.store.all(Subnet, account=api.account) if subnet.zone == zone)


def make_vpc(api, cidr="10.0.0.0/24"):
    """A VPC that is not the default one, with a subnet in us-east-1a and its default group."""
    mine = {"account": api.account, "region": api.region, "created": api.now}
    vpc = Vpc(id="vpc-00000000000000001", cidr=cidr, **mine)
    subnet = Subnet(id="subnet-00000000000000001", vpc_id=vpc.id, zone="us-east-1a", cidr=cidr, **mine)
    group = SecurityGroup(id="sg-00000000000000001", name="default", description="", vpc_id=vpc.id, **mine)
    api.put(vpc, subnet, group)
    return vpc, subnet, group


# --- what is written --------------------------------------------------------------------------------------------------


def test_rows_of_one_launch(api, image, run):
    api.make_key_pair()
    shown = run(KeyName="MyKeyPair", InstanceType="t2.micro")[0]
    instance = api.get(Instance, shown["InstanceId"])
    assert instance.state is State.PENDING
    assert instance.goal.power is State.RUNNING and instance.goal.since == api.now
    assert instance.timeline == {"requested": api.now}
    assert instance.image_id == image.id and instance.login_user == "admin"
    assert instance.public_key.startswith("ssh-ed25519 ")

    (volume,) = api.store.all(Volume, instance_id=instance.id)
    snapshot = api.get(Snapshot, image.block_devices[0].snapshot_id)
    layer = api.get(Layer, volume.layer_id)
    assert (volume.state, volume.attachment.state, volume.attachment.device) == ("creating", "attaching", "/dev/xvda")
    assert (volume.size_gib, volume.volume_type, volume.iops, volume.throughput_mib_s) == (8, "gp3", 3000, 125)
    assert volume.snapshot_id == snapshot.id and volume.zone == instance.zone
    assert layer.parent_id == snapshot.layer_id and layer.size_bytes == 8 << 30

    (interface,) = api.store.all(NetworkInterface, instance_id=instance.id)
    assert interface.private_ip == "172.31.0.4"
    assert interface.subnet_id == instance.subnet_id and interface.auto_public_ip
    assert interface.mac == f"02:{interface.vpc_id[-2:]}:ac:1f:00:04"
    assert interface.public_ip.startswith("203.0.113.")
    assert [(kind, name) for kind, name, _ in api.store.pending_wakes()] == [("instance", instance.id)]


def test_answer_is_what_describe_says(api, run):
    shown = run()[0]
    described = api.call("DescribeInstances", InstanceIds=[shown["InstanceId"]])["Reservations"][0]
    assert described["Instances"] == [shown]
    assert described["OwnerId"] == api.account and described["ReservationId"].startswith("r-")
    assert shown["State"] == {"Code": 0, "Name": "pending"}


def test_type_is_ec2s_default_when_none_is_given(api, image):
    assert api.call("RunInstances", **ONE, ImageId=image.id)["Instances"][0]["InstanceType"] == "m1.small"


def test_user_data_and_protection_and_behaviour_are_kept(api, run):
    text = base64.b64encode(b"#!/bin/sh\necho hello\n").decode()
    shown = run(
        UserData=text[:8] + "\n" + text[8:],
        DisableApiTermination=True,
        DisableApiStop=True,
        InstanceInitiatedShutdownBehavior="terminate",
        Monitoring={"Enabled": True},
        EbsOptimized=True,
        MaintenanceOptions={"AutoRecovery": "disabled"},
        CapacityReservationSpecification={"CapacityReservationPreference": "none"},
        HibernationOptions={"Configured": False},
        EnclaveOptions={"Enabled": False},
        PrivateDnsNameOptions={"HostnameType": "ip-name", "EnableResourceNameDnsARecord": False},
    )[0]
    instance = api.get(Instance, shown["InstanceId"])
    assert instance.user_data == text
    assert instance.disable_api_termination and instance.disable_api_stop
    assert instance.shutdown_behavior == "terminate"
    assert shown["Monitoring"] == {"State": "enabled"} and shown["EbsOptimized"] is True
    assert shown["MaintenanceOptions"]["AutoRecovery"] == "disabled"
    assert shown["CapacityReservationSpecification"] == {"CapacityReservationPreference": "none"}


def test_tags_go_to_their_kinds(api, run):
    def specification(kind, value):
        return {"ResourceType": kind, "Tags": [{"Key": "Name", "Value": value}]}

    shown = run(TagSpecifications=[specification(k, k) for k in ("instance", "volume", "network-interface")])[0]
    assert shown["Tags"] == [{"Key": "Name", "Value": "instance"}]
    assert api.store.all(Volume, instance_id=shown["InstanceId"])[0].tags == {"Name": "volume"}
    assert api.store.all(NetworkInterface, instance_id=shown["InstanceId"])[0].tags == {"Name": "network-interface"}


def test_an_alias_names_the_image_and_is_what_the_instance_shows(api, image, run):
    api.put(ImageAlias(id="ami-0abcdef1234567890", name=image.name, region=EVERY_REGION, created=api.now))
    assert run(ImageId="ami-0abcdef1234567890")[0]["ImageId"] == "ami-0abcdef1234567890"


def test_metadata_options(api, image, run):
    def options(**params):
        shown = run(**params)[0]["MetadataOptions"]
        return shown["HttpTokens"], shown["HttpPutResponseHopLimit"], shown["State"]

    assert options() == ("optional", 1, "applied")
    assert options(MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 64}) == (
        "required",
        64,
        "applied",
    )
    api.change(image, imds_v2_required=True)
    assert options() == ("required", 2, "applied")
    assert options(MetadataOptions={"HttpTokens": "optional"}) == ("optional", 2, "applied")


def test_credits_follow_the_type(api, run):
    def kept(**params):
        return api.get(Instance, run(**params)[0]["InstanceId"]).cpu_credits

    assert kept(InstanceType="t2.micro") == "standard"
    assert kept(InstanceType="t3.micro") == "unlimited"
    assert kept(InstanceType="t3.micro", CreditSpecification={"CpuCredits": "standard"}) == "standard"
    assert kept(InstanceType="m5.large", CreditSpecification={"CpuCredits": "standard"}) == ""


def test_cpu_options(run):
    def shown(**options):
        return run(InstanceType="c5.2xlarge", **({"CpuOptions": options} if options else {}))[0]["CpuOptions"]

    assert shown() == {"CoreCount": 4, "ThreadsPerCore": 2}
    assert shown(CoreCount=2, ThreadsPerCore=1) == {"CoreCount": 2, "ThreadsPerCore": 1}
    assert shown(ThreadsPerCore=1) == {"CoreCount": 4, "ThreadsPerCore": 1}


# --- counts, tokens, rehearsal ----------------------------------------------------------------------------------------


def test_fifty_in_one_reservation(api, run):
    shown = run(MinCount=50, MaxCount=50)
    assert [instance["AmiLaunchIndex"] for instance in shown] == list(range(50))
    assert len({instance["PrivateIpAddress"] for instance in shown}) == 50
    assert len({instance["PublicIpAddress"] for instance in shown}) == 50
    assert len({instance["NetworkInterfaces"][0]["MacAddress"] for instance in shown}) == 50
    assert len(api.call("DescribeInstances")["Reservations"]) == 1
    assert len(api.store.pending_wakes()) == 50


@pytest.mark.parametrize(
    ("least", "most", "code"),
    [
        (0, 1, "InvalidParameterValue"),
        (1, 0, "InvalidParameterValue"),
        (-1, 1, "InvalidParameterValue"),
        (3, 2, "InvalidParameterCombination"),
        (1001, 1001, "InstanceLimitExceeded"),
    ],
)
def test_counts_that_cannot_be(refused, least, most, code):
    assert refused(MinCount=least, MaxCount=most) == code


def test_as_many_as_fit(api, image, run, refused):
    api.configure(processors=8, memory_mib=3 * 1024)  # t3.micro: 2 vCPU, 1024 MiB
    assert refused(MinCount=4, MaxCount=9) == "InsufficientInstanceCapacity"
    assert len(run(MinCount=1, MaxCount=9)) == 3
    error = api.refused("RunInstances", **ONE, ImageId=image.id, InstanceType="t3.micro")
    assert (error.code, error.http_status) == ("InsufficientInstanceCapacity", 500)
    assert "0 MiB" in error.message


def test_stopped_instances_leave_room(api, run):
    api.configure(processors=2, memory_mib=1024)
    first = run()[0]["InstanceId"]
    api.settle(first, State.STOPPED)
    assert len(run()) == 1


def test_client_token_gives_the_same_answer(api, image, run):
    first = run(ClientToken="a")
    api.advance(5)
    assert run(ClientToken="a") == first
    assert first[0]["ClientToken"] == "a"
    assert len(api.store.all(Instance)) == 1
    other = api.refused("RunInstances", **ONE, ImageId=image.id, InstanceType="t3.small", ClientToken="a")
    assert other.code == "IdempotentParameterMismatch"
    assert run(ClientToken="b") != first


def test_one_token_in_two_threads_launches_once(api, image):
    answers, together = [], threading.Barrier(2)

    def launch():
        together.wait(timeout=10)
        answers.append(api.call("RunInstances", **ONE, ImageId=image.id, ClientToken="race"))

    threads = [threading.Thread(target=launch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(answers) == 2 and answers[0] == answers[1]
    assert len(api.store.all(Instance)) == 1


def test_dry_run_changes_nothing_and_spends_no_token(api, image, refused, run):
    assert refused(DryRun=True, ClientToken="a") == "DryRunOperation"
    assert refused(DryRun=True, KeyName="none") == "InvalidKeyPair.NotFound"
    assert api.store.pending_wakes() == []
    assert run(ClientToken="a", MaxCount=2)


# --- image, key, user data, type --------------------------------------------------------------------------------------


def test_images_that_cannot_be_launched(api, image, refused):
    assert refused(ImageId="debian") == "InvalidAMIID.Malformed"
    assert refused(ImageId="ami-00000000000000000") == "InvalidAMIID.NotFound"
    assert api.refused("RunInstances", **ONE).code == "MissingParameter"
    api.change(image, state="pending")
    assert refused() == "InvalidAMIID.Unavailable"


def test_key_pair_of_the_caller_in_this_region(api, refused):
    api.by().make_key_pair()
    api.within("us-west-2").make_key_pair()
    assert refused(KeyName="MyKeyPair") == "InvalidKeyPair.NotFound"


def test_user_data_that_cannot_be(run, refused):
    assert refused(UserData="#!/bin/sh") == "InvalidUserData.Malformed"
    assert refused(UserData=base64.b64encode(b"x" * 16385).decode()) == "InvalidParameterValue"
    assert run(UserData=base64.b64encode(b"x" * 16384).decode())


@pytest.mark.parametrize(
    ("instance_type", "code", "word"),
    [
        ("t3.gigantic", "InvalidParameterValue", "t3.gigantic"),
        (
            "t4g.micro",
            "InvalidParameterValue",
            "The architecture 'arm64' of the specified instance type does not match",
        ),
        ("m5.metal", "Unsupported", "bare metal"),
    ],
)
def test_types_that_cannot_be(api, image, instance_type, code, word):
    error = api.refused("RunInstances", **ONE, ImageId=image.id, InstanceType=instance_type)
    assert error.code == code and word in error.message


def test_arm_image(api, image, refused):
    api.change(image, architecture="arm64")
    assert refused() == "InvalidParameterValue"
    assert refused(InstanceType="t4g.micro") == "Unsupported"


# --- network ----------------------------------------------------------------------------------------------------------


def test_zone_by_name_and_id(run, refused):
    assert run(Placement={"AvailabilityZone": "us-east-1b"})[0]["Placement"] == {
        "AvailabilityZone": "us-east-1b",
        "AvailabilityZoneId": "use1-az2",
        "GroupName": "",
        "Tenancy": "default",
    }
    assert run(Placement={"AvailabilityZoneId": "use1-az3"})[0]["Placement"]["AvailabilityZone"] == "us-east-1c"
    assert refused(Placement={"AvailabilityZone": "us-west-2a"}) == "InvalidParameterValue"
    assert refused(Placement={"AvailabilityZoneId": "use1-az9"}) == "InvalidParameterValue"
    assert refused(Placement={"AvailabilityZone": "us-east-1a", "AvailabilityZoneId": "use1-az2"}) == (
        "InvalidParameterCombination"
    )
    assert refused(Placement={"Tenancy": "dedicated"}) == "UnsupportedOperation"
    assert refused(Placement={"GroupName": "cluster"}) == "UnsupportedOperation"
    assert refused(Placement={"HostId": "h-1"}) == "UnsupportedOperation"


def test_subnet(api, run, refused):
    subnet = default_subnet(api, "us-east-1c")
    shown = run(SubnetId=subnet.id)[0]
    assert shown["SubnetId"] == subnet.id and shown["Placement"]["AvailabilityZone"] == "us-east-1c"
    assert refused(SubnetId="subnet") == "InvalidSubnetID.Malformed"
    assert refused(SubnetId="subnet-00000000000000000") == "InvalidSubnetID.NotFound"
    assert refused(SubnetId=subnet.id, Placement={"AvailabilityZone": "us-east-1a"}) == "InvalidParameterValue"
    assert refused(SubnetId=default_subnet(api.by()).id) == "InvalidSubnetID.NotFound"


def test_without_a_default_vpc_a_subnet_is_needed(api, refused):
    default_subnet(api)
    vpc = next(vpc for vpc in api.store.all(Vpc) if vpc.is_default)
    for subnet in api.store.all(Subnet, vpc_id=vpc.id):
        api.change(subnet, default_for_zone=False)
    assert refused() == "MissingInput"
    api.change(vpc, is_default=False)
    assert refused() == "VPCIdNotSpecified"


def test_other_vpc_has_private_addresses_unless_asked(api, run):
    vpc, subnet, group = make_vpc(api)
    shown = run(SubnetId=subnet.id)[0]
    assert "PublicIpAddress" not in shown and shown["PublicDnsName"] == ""
    assert shown["VpcId"] == vpc.id and [g["GroupId"] for g in shown["SecurityGroups"]] == [group.id]
    asked = run(
        NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": subnet.id, "AssociatePublicIpAddress": True}],
    )[0]
    assert asked["PublicIpAddress"] and asked["PublicDnsName"] == ""  # its VPC gives no names


def test_private_address(api, run, refused):
    subnet = default_subnet(api)
    assert run(SubnetId=subnet.id, PrivateIpAddress="172.31.0.99")[0]["PrivateIpAddress"] == "172.31.0.99"
    assert refused(SubnetId=subnet.id, PrivateIpAddress="172.31.0.99") == "InvalidIPAddress.InUse"
    assert refused(SubnetId=subnet.id, PrivateIpAddress="172.31.0.2") == "InvalidParameterValue"
    assert refused(SubnetId=subnet.id, PrivateIpAddress="172.31.15.255") == "InvalidParameterValue"
    assert refused(SubnetId=subnet.id, PrivateIpAddress="172.31.16.9") == "InvalidParameterValue"
    assert refused(SubnetId=subnet.id, PrivateIpAddress="here") == "InvalidParameterValue"
    assert refused(PrivateIpAddress="172.31.0.7", MaxCount=2) == "InvalidParameterCombination"


def test_addresses_run_out(api, run, refused):
    _, subnet, _ = make_vpc(api, "10.0.0.0/28")  # eleven addresses
    assert refused(SubnetId=subnet.id, MinCount=12, MaxCount=12) == "InsufficientFreeAddressesInSubnet"
    shown = run(SubnetId=subnet.id, MinCount=1, MaxCount=20)
    assert [i["PrivateIpAddress"] for i in shown] == [f"10.0.0.{n}" for n in range(4, 15)]
    assert refused(SubnetId=subnet.id) == "InsufficientFreeAddressesInSubnet"
    api.settle(shown[3]["InstanceId"], State.TERMINATED)
    assert run(SubnetId=subnet.id)[0]["PrivateIpAddress"] == "10.0.0.7"


def test_a_full_subnet_moves_a_launch_to_the_next_zone(api, run):
    first = default_subnet(api)
    api.change(first, cidr="172.31.0.0/28")
    assert {i["Placement"]["AvailabilityZone"] for i in run(MinCount=12, MaxCount=12)} == {"us-east-1b"}


def test_public_addresses_run_out(api, run, refused):
    api.configure(public_range=IPv4Network("198.51.100.8/29"))
    shown = run(MinCount=1, MaxCount=9)
    assert {i["PublicIpAddress"] for i in shown} == {f"198.51.100.{n}" for n in (11, 12, 13, 14)}
    assert refused() == "InsufficientAddressCapacity"
    interfaces = [{"DeviceIndex": 0, "AssociatePublicIpAddress": False}]
    assert "PublicIpAddress" not in run(NetworkInterfaces=interfaces)[0]
    api.by().launch(settled=None, NetworkInterfaces=interfaces)
    api.settle(shown[0]["InstanceId"], State.TERMINATED)
    assert run()[0]["PublicIpAddress"] == shown[0]["PublicIpAddress"]


def test_security_groups(api, run, refused):
    subnet = default_subnet(api)
    mine = {"account": api.account, "region": api.region, "created": api.now}
    web = SecurityGroup(id="sg-0000000000000000a", name="web", description="", vpc_id=subnet.vpc_id, **mine)
    api.put(web)
    assert run()[0]["SecurityGroups"][0]["GroupName"] == "default"
    assert run(SecurityGroupIds=[web.id])[0]["SecurityGroups"] == [{"GroupId": web.id, "GroupName": "web"}]
    assert run(SecurityGroups=["web"])[0]["SecurityGroups"] == [{"GroupId": web.id, "GroupName": "web"}]
    assert len(run(SecurityGroups=["web", "default"])[0]["SecurityGroups"]) == 2
    assert refused(SecurityGroupIds=["web"]) == "InvalidGroupId.Malformed"
    assert refused(SecurityGroupIds=["sg-00000000000000000"]) == "InvalidGroup.NotFound"
    assert refused(SecurityGroups=["nobody"]) == "InvalidGroup.NotFound"
    assert refused(SecurityGroups=["web"], SubnetId=subnet.id) == "InvalidParameterCombination"
    _, _, elsewhere = make_vpc(api)
    assert refused(SecurityGroupIds=[elsewhere.id]) == "InvalidParameter"
    more = [replace(web, id=f"sg-0000000000000001{n}", name=f"g{n}") for n in range(6)]
    api.put(*more)
    assert refused(SecurityGroupIds=[group.id for group in more]) == "SecurityGroupsPerInterfaceLimitExceeded"


def test_one_interface_in_the_request(api, run):
    subnet = default_subnet(api, "us-east-1b")
    shown = run(
        NetworkInterfaces=[
            {
                "DeviceIndex": 0,
                "SubnetId": subnet.id,
                "PrivateIpAddresses": [{"Primary": True, "PrivateIpAddress": "172.31.20.7"}],
                "AssociatePublicIpAddress": False,
                "DeleteOnTermination": False,
                "Description": "the only one",
            }
        ]
    )[0]
    interface = shown["NetworkInterfaces"][0]
    assert interface["Description"] == "the only one"
    assert interface["PrivateIpAddress"] == "172.31.20.7"
    assert interface["Attachment"]["DeleteOnTermination"] is False
    assert "Association" not in interface


@pytest.mark.parametrize(
    ("interfaces", "code"),
    [
        ([{"Description": "which?"}], "MissingParameter"),
        ([{"DeviceIndex": 1}], "InvalidParameterValue"),
        ([{"DeviceIndex": -1}], "InvalidParameterValue"),
        ([{"DeviceIndex": 0}, {"DeviceIndex": 0}], "InvalidParameterValue"),
        ([{"DeviceIndex": 0}, {"DeviceIndex": 2}], "InvalidParameterValue"),  # a t3.micro has two
        ([{"DeviceIndex": 0}, {"DeviceIndex": 1}, {"DeviceIndex": 2}], "AttachmentLimitExceeded"),
        ([{"DeviceIndex": 0, "NetworkInterfaceId": "eni"}], "InvalidNetworkInterfaceID.Malformed"),
        ([{"DeviceIndex": 0, "NetworkInterfaceId": "eni-00000000000000000"}], "InvalidNetworkInterfaceID.NotFound"),
        ([{"DeviceIndex": 0, "SecondaryPrivateIpAddressCount": 2}], "InvalidInterface.IpAddressLimitExceeded"),
        ([{"DeviceIndex": 0, "Ipv4PrefixCount": 2}], "InvalidInterface.IpAddressLimitExceeded"),
        ([{"DeviceIndex": 0, "Ipv6AddressCount": 3}], "InvalidInterface.IpAddressLimitExceeded"),
        ([{"DeviceIndex": 0, "Ipv6AddressCount": 1}], "InvalidParameterValue"),  # the subnet has no range
        ([{"DeviceIndex": 0, "Ipv6PrefixCount": 1}], "UnsupportedOperation"),
        ([{"DeviceIndex": 0, "InterfaceType": "efa"}], "UnsupportedOperation"),
        ([{"DeviceIndex": 0, "NetworkCardIndex": 1}], "UnsupportedOperation"),
        ([{"DeviceIndex": 0, "PrimaryIpv6": True}], "UnsupportedOperation"),
        ([{"DeviceIndex": 0, "AssociateCarrierIpAddress": True}], "UnsupportedOperation"),
        ([{"DeviceIndex": 0, "Description": "x" * 256}], "InvalidParameterValue"),
        ([{"DeviceIndex": 0}, {"DeviceIndex": 1, "AssociatePublicIpAddress": True}], "InvalidParameterCombination"),
        ([{"DeviceIndex": 0, "AssociatePublicIpAddress": True}, {"DeviceIndex": 1}], "InvalidParameterCombination"),
        (
            [
                {"DeviceIndex": 0, "NetworkInterfaceId": "eni-00000000000000000"},
                {"DeviceIndex": 1, "NetworkInterfaceId": "eni-00000000000000000"},
            ],
            "InvalidParameterValue",
        ),
        (
            [{"DeviceIndex": 0, "PrivateIpAddress": "172.31.0.9", "PrivateIpAddresses": [{"PrivateIpAddress": "::"}]}],
            "InvalidParameterCombination",
        ),
    ],
)
def test_interfaces_that_cannot_be(refused, interfaces, code):
    assert refused(NetworkInterfaces=interfaces) == code


def interfaces_of(api, instance_id):
    """The rows, by device index."""
    return sorted(api.store.all(NetworkInterface, instance_id=instance_id), key=lambda eni: eni.attachment.device_index)


def test_several_interfaces(api, run):
    subnet = default_subnet(api)
    mine = {"account": api.account, "region": api.region, "created": api.now}
    web = SecurityGroup(id="sg-0000000000000000a", name="web", description="", vpc_id=subnet.vpc_id, **mine)
    beside = replace(subnet, id="subnet-0000000000000000a", cidr="172.31.128.0/24", default_for_zone=False)
    api.put(web, beside)
    shown = run(
        NetworkInterfaces=[
            {"DeviceIndex": 1, "SubnetId": beside.id, "Description": "second", "DeleteOnTermination": False},
            {"DeviceIndex": 0, "SubnetId": subnet.id, "Groups": [web.id], "SecondaryPrivateIpAddressCount": 1},
        ],
        TagSpecifications=[{"ResourceType": "network-interface", "Tags": [{"Key": "a", "Value": "b"}]}],
    )[0]
    first, second = shown["NetworkInterfaces"]
    assert [first["SubnetId"], second["SubnetId"]] == [subnet.id, beside.id]
    assert [each["Attachment"]["DeviceIndex"] for each in (first, second)] == [0, 1]
    assert [each["Attachment"]["DeleteOnTermination"] for each in (first, second)] == [True, False]
    assert [group["GroupName"] for each in (first, second) for group in each["Groups"]] == ["web", "default"]
    assert [each["PrivateIpAddress"] for each in first["PrivateIpAddresses"]] == ["172.31.0.4", "172.31.0.5"]
    assert second["PrivateIpAddress"] == "172.31.128.4" and second["Description"] == "second"
    assert shown["SubnetId"] == subnet.id and shown["PrivateIpAddress"] == "172.31.0.4"
    assert "PublicIpAddress" not in shown  # only an only interface gets one
    rows = interfaces_of(api, shown["InstanceId"])
    assert [row.tags for row in rows] == [{"a": "b"}] * 2 and not any(row.auto_public_ip for row in rows)


def test_several_interfaces_for_several_instances(api, run, refused):
    _, subnet, _ = make_vpc(api, "10.0.0.0/28")  # eleven addresses
    interfaces = [
        {"DeviceIndex": 0, "SubnetId": subnet.id, "SecondaryPrivateIpAddressCount": 1},
        {"DeviceIndex": 1, "SubnetId": subnet.id},
    ]
    assert refused(NetworkInterfaces=interfaces, MinCount=4, MaxCount=4) == "InsufficientFreeAddressesInSubnet"
    shown = run(NetworkInterfaces=interfaces, MinCount=2, MaxCount=9)  # three fit
    addresses = [row.private_ips for each in shown for row in interfaces_of(api, each["InstanceId"])]
    assert addresses == [
        ("10.0.0.4", "10.0.0.5"),
        ("10.0.0.6",),
        ("10.0.0.7", "10.0.0.8"),
        ("10.0.0.9",),
        ("10.0.0.10", "10.0.0.11"),
        ("10.0.0.12",),
    ]


def test_an_interface_without_a_subnet_goes_where_the_first_is(api, run):
    _, subnet, _ = make_vpc(api)
    shown = run(NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": subnet.id}, {"DeviceIndex": 1}])[0]
    assert {each["SubnetId"] for each in shown["NetworkInterfaces"]} == {subnet.id}


def test_a_named_address_is_not_given_to_another_interface(api, run):
    interfaces = [{"DeviceIndex": 0}, {"DeviceIndex": 1, "PrivateIpAddress": "172.31.0.4"}]
    shown = run(NetworkInterfaces=interfaces)[0]
    assert [each["PrivateIpAddress"] for each in shown["NetworkInterfaces"]] == ["172.31.0.5", "172.31.0.4"]


def test_named_addresses_prefixes_and_ipv6(api, run, refused):
    subnet = default_subnet(api)
    ipv6 = (CidrAssociation(id="subnet-cidr-assoc-00000000000000001", cidr="2001:db8:ec00::/64"),)
    api.change(subnet, ipv6_cidrs=ipv6)
    one = {
        "DeviceIndex": 0,
        "SubnetId": subnet.id,
        "PrivateIpAddress": "172.31.0.9",
        "Ipv4Prefixes": [{"Ipv4Prefix": "172.31.1.0/28"}],
        "Ipv6Addresses": [{"Ipv6Address": "2001:db8:ec00::9"}],
    }
    shown = run(NetworkInterfaces=[one])[0]
    interface = shown["NetworkInterfaces"][0]
    assert interface["PrivateIpAddress"] == "172.31.0.9"
    assert interface["Ipv4Prefixes"] == [{"Ipv4Prefix": "172.31.1.0/28"}]
    assert shown["Ipv6Address"] == interface["Ipv6Addresses"][0]["Ipv6Address"] == "2001:db8:ec00::9"
    assert refused(NetworkInterfaces=[one]) == "InvalidIPAddress.InUse"
    for name in ("PrivateIpAddress", "Ipv4Prefixes", "Ipv6Addresses"):
        some = {"DeviceIndex": 0, "SubnetId": subnet.id, name: one[name]}
        assert refused(NetworkInterfaces=[some], MaxCount=2) == "InvalidParameterCombination", name
    # The same at the top of the request, and by number.
    top = run(SubnetId=subnet.id, Ipv6Addresses=[{"Ipv6Address": "2001:db8:ec00::a"}])[0]
    assert top["Ipv6Address"] == "2001:db8:ec00::a"
    drawn = [each["Ipv6Address"] for each in run(SubnetId=subnet.id, Ipv6AddressCount=1, MaxCount=2)]
    assert len(set(drawn)) == 2
    assert "Ipv6Address" not in run(SubnetId=subnet.id)[0]
    api.change(subnet, ipv6_cidrs=ipv6, assign_ipv6_on_creation=True)
    assert run(SubnetId=subnet.id)[0]["Ipv6Address"].startswith("2001:db8:ec00:")
    assert "Ipv6Address" not in run(SubnetId=subnet.id, Ipv6AddressCount=0)[0]
    assert refused(SubnetId=subnet.id, EnablePrimaryIpv6=True) == "UnsupportedOperation"
    assert refused(SubnetId=subnet.id, InstanceType="t1.micro") == "InvalidInterface.IpAddressLimitExceeded"


def test_an_interface_that_is_there(api, run, refused):
    subnet = default_subnet(api, "us-east-1b")
    given = {"SubnetId": subnet.id, "Description": "mine", "SecondaryPrivateIpAddressCount": 1}
    made = api.call("CreateNetworkInterface", **given)["NetworkInterface"]
    own = {"DeviceIndex": 0, "NetworkInterfaceId": made["NetworkInterfaceId"]}
    for changes in ({"SubnetId": subnet.id}, {"PrivateIpAddress": "172.31.16.9"}, {"AssociatePublicIpAddress": True}):
        assert refused(NetworkInterfaces=[{**own, **changes}]) == "InvalidParameterCombination"
    assert refused(NetworkInterfaces=[own], MaxCount=2) == "InvalidParameterCombination"
    assert refused(NetworkInterfaces=[own], Placement={"AvailabilityZone": "us-east-1a"}) == "InvalidParameterValue"
    elsewhere = {"DeviceIndex": 1, "SubnetId": default_subnet(api).id}
    assert refused(NetworkInterfaces=[own, elsewhere]) == "InvalidParameterValue"
    _, foreign, _ = make_vpc(api)
    api.change(foreign, zone="us-east-1b")
    other_vpc = {"DeviceIndex": 1, "SubnetId": foreign.id}
    assert refused(NetworkInterfaces=[own, other_vpc]) == "InvalidParameterCombination"
    shown = run(NetworkInterfaces=[own])[0]
    interface = shown["NetworkInterfaces"][0]
    assert interface["NetworkInterfaceId"] == made["NetworkInterfaceId"] and interface["Status"] == "in-use"
    assert interface["MacAddress"] == made["MacAddress"] and interface["Description"] == "mine"
    assert interface["Attachment"]["DeleteOnTermination"] is False
    assert shown["SubnetId"] == subnet.id and shown["Placement"]["AvailabilityZone"] == "us-east-1b"
    assert "PublicIpAddress" not in shown
    assert len(api.store.all(NetworkInterface)) == 1
    assert refused(NetworkInterfaces=[own]) == "InvalidNetworkInterface.InUse"


def test_an_own_interface_beside_a_new_one(api, run):
    made = api.call("CreateNetworkInterface", SubnetId=default_subnet(api).id)["NetworkInterface"]
    own = {"DeviceIndex": 1, "NetworkInterfaceId": made["NetworkInterfaceId"], "DeleteOnTermination": True}
    shown = run(NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": made["SubnetId"]}, own])[0]
    rows = interfaces_of(api, shown["InstanceId"])
    assert rows[1].id == made["NetworkInterfaceId"] and rows[1].attachment.delete_on_termination


def test_another_accounts_interface_by_permission(api, run):
    other = api.by()
    subnet = default_subnet(other)
    made = other.call("CreateNetworkInterface", SubnetId=subnet.id)["NetworkInterface"]["NetworkInterfaceId"]
    own = [{"DeviceIndex": 0, "NetworkInterfaceId": made}]
    with pytest.raises(EC2Error) as caught:
        run(NetworkInterfaces=own)
    assert caught.value.code == "InvalidNetworkInterfaceID.NotFound"
    other.call(
        "CreateNetworkInterfacePermission",
        NetworkInterfaceId=made,
        AwsAccountId=api.account,
        Permission="INSTANCE-ATTACH",
    )
    shown = run(NetworkInterfaces=own)[0]
    assert shown["VpcId"] == subnet.vpc_id and shown["NetworkInterfaces"][0]["OwnerId"] == other.account


@pytest.mark.parametrize(
    "params",
    [
        {"SubnetId": "subnet-00000000000000000"},
        {"SecurityGroupIds": ["sg-00000000000000000"]},
        {"SecurityGroups": ["default"]},
        {"PrivateIpAddress": "172.31.0.9"},
    ],
)
def test_an_interface_is_described_in_one_place(refused, params):
    assert refused(NetworkInterfaces=[{"DeviceIndex": 0}], **params) == "InvalidParameterCombination"


def test_an_instance_is_called_as_its_subnet_and_the_request_say(api, run):
    [old] = run()
    subnet_id = old["SubnetId"]

    def set_default(**attribute):
        api.call("ModifySubnetAttribute", SubnetId=subnet_id, **attribute)

    set_default(PrivateDnsHostnameTypeOnLaunch="resource-name")
    set_default(EnableResourceNameDnsARecordOnLaunch={"Value": True})
    [made] = run(SubnetId=subnet_id)
    assert made["PrivateDnsNameOptions"] == {
        "HostnameType": "resource-name",
        "EnableResourceNameDnsARecord": True,
        "EnableResourceNameDnsAAAARecord": False,
    }
    assert made["PrivateDnsName"] == f"{made['InstanceId']}.ec2.internal"
    own = {"HostnameType": "ip-name", "EnableResourceNameDnsAAAARecord": True}
    [chosen] = run(SubnetId=subnet_id, PrivateDnsNameOptions=own)
    assert chosen["PrivateDnsNameOptions"] == {**own, "EnableResourceNameDnsARecord": True}
    assert chosen["PrivateDnsName"].startswith("ip-172-31-")

    def found(name, value):
        answer = api.call("DescribeInstances", Filters=[{"Name": name, "Values": [value]}])
        return {each["InstanceId"] for one in answer["Reservations"] for each in one["Instances"]}

    options = "private-dns-name-options"
    assert found(f"{options}.hostname-type", "ip-name") == {old["InstanceId"], chosen["InstanceId"]}
    assert found(f"{options}.enable-resource-name-dns-a-record", "false") == {old["InstanceId"]}
    assert found(f"{options}.enable-resource-name-dns-aaaa-record", "true") == {chosen["InstanceId"]}
    assert found("private-dns-name", made["PrivateDnsName"]) == {made["InstanceId"]}


# --- options that are refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"InstanceInitiatedShutdownBehavior": "hibernate"}, "InvalidParameterValue"),
        ({"MetadataOptions": {"HttpTokens": "maybe"}}, "InvalidParameterValue"),
        ({"MetadataOptions": {"HttpPutResponseHopLimit": 65}}, "InvalidParameterValue"),
        ({"MaintenanceOptions": {"AutoRecovery": "no"}}, "InvalidParameterValue"),
        ({"CreditSpecification": {"CpuCredits": "free"}}, "InvalidParameterValue"),
        (
            {"CreditSpecification": {"CpuCredits": "unlimited"}, "InstanceType": "m5.large"},
            "InstanceCreditSpecification.NotSupported",
        ),
        ({"CpuOptions": {"CoreCount": 3}, "InstanceType": "c5.large"}, "InvalidParameterValue"),
        ({"CpuOptions": {"ThreadsPerCore": 3}, "InstanceType": "c5.large"}, "InvalidParameterValue"),
        ({"CpuOptions": {"CoreCount": 2}, "InstanceType": "t2.micro"}, "InvalidParameterCombination"),
        ({"CpuOptions": {"AmdSevSnp": "enabled"}}, "UnsupportedOperation"),
        ({"EbsOptimized": True, "InstanceType": "t2.micro"}, "Unsupported"),
        ({"HibernationOptions": {"Configured": True}}, "UnsupportedOperation"),
        ({"EnclaveOptions": {"Enabled": True}}, "UnsupportedOperation"),
        ({"PrivateDnsNameOptions": {"HostnameType": "chosen"}}, "InvalidParameterValue"),
        ({"InstanceMarketOptions": {"MarketType": "spot"}}, "UnsupportedOperation"),
        ({"LaunchTemplate": {"LaunchTemplateName": "web"}}, "UnsupportedOperation"),
        ({"IamInstanceProfile": {"Name": "web"}}, "InvalidParameterValue"),
        (
            {"CapacityReservationSpecification": {"CapacityReservationPreference": "capacity-reservations-only"}},
            "InvalidParameterValue",
        ),
        (
            {"TagSpecifications": [{"ResourceType": "spot-instances-request", "Tags": [{"Key": "a", "Value": ""}]}]},
            "InvalidParameterValue",
        ),
        (
            {"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "aws:a", "Value": ""}]}]},
            "InvalidParameterValue",
        ),
    ],
)
def test_options_that_cannot_be(refused, params, code):
    assert refused(**params) == code


# --- whatever is launched and ended, no address is given twice --------------------------------------------------------


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(["run", "end", "stop"]), st.integers(1, 6)), max_size=12))
def test_no_address_belongs_to_two(api, steps):
    api.configure(public_range=IPv4Network("203.0.113.0/28"))
    account = api.by(f"{api.world.requests:012}")  # a fresh one for each example
    for interface in api.store.all(NetworkInterface):
        with api.store.write() as tx:
            tx.delete(interface)
    image = api.make_image()
    for action, count in steps:
        alive = [i.id for i in account.store.all(Instance, account=account.account) if i.state is State.RUNNING]
        if action == "run":
            used = len([i for i in api.store.all(NetworkInterface) if i.public_ip])
            if used + count <= 12:
                account.launch(count, ImageId=image.id)
            else:
                params = {"MinCount": count, "MaxCount": count, "ImageId": image.id}
                assert account.refused("RunInstances", **params).code == "InsufficientAddressCapacity"
        else:
            for instance_id in alive[:count]:
                account.settle(instance_id, State.TERMINATED if action == "end" else State.STOPPED)
        interfaces = api.store.all(NetworkInterface)
        for found in ([i.private_ip for i in interfaces], [i.mac for i in interfaces]):
            assert len(found) == len(set(found))
        public = [i.public_ip for i in interfaces if i.public_ip]
        assert len(public) == len(set(public))
        assert all(3 <= int(IPv4Address(address)) % 16 <= 14 for address in public)
