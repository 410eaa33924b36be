"""What callers write and the host gets to see: each text field with each hostile text, and what a host makes of it.

What the API takes must come out of the XML as it went in, and must be one word of nft's, dnsmasq's or a command's.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.reconcile.plan import plan
from tests.fuzz.deployment import Deployment
from tests.fuzz.generator import CIDRS, ODD_ADDRESSES, TEXTS, Generator
from tests.fuzz.strict_host import check_router, router_texts

HOSTILE = (*TEXTS, *ODD_ADDRESSES)
Ask = Callable[..., dict[str, Any] | None]


class Scene:
    """A VPC with a running instance, to which hostile words are said."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        images = self.need("DescribeImages")["Images"]
        self.image = next(each["ImageId"] for each in images if each["Name"] == "tiny")
        vpc = self.need("CreateVpc", CidrBlock="10.0.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]
        self.vpc = vpc["VpcId"]
        self.need("ModifyVpcAttribute", VpcId=self.vpc, EnableDnsHostnames={"Value": True})
        described = self.need("DescribeVpcs", VpcIds=[self.vpc])["Vpcs"][0]
        self.ipv6 = described["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"].replace("/56", "/64")
        subnet = self.need("CreateSubnet", VpcId=self.vpc, CidrBlock="10.0.1.0/24", Ipv6CidrBlock=self.ipv6)
        self.subnet = subnet["Subnet"]["SubnetId"]
        self.group = self.need("CreateSecurityGroup", GroupName="web", Description="web", VpcId=self.vpc)["GroupId"]
        self.acl = self.need("CreateNetworkAcl", VpcId=self.vpc)["NetworkAcl"]["NetworkAclId"]
        self.table = self.need("CreateRouteTable", VpcId=self.vpc)["RouteTable"]["RouteTableId"]
        self.need("AssociateRouteTable", RouteTableId=self.table, SubnetId=self.subnet)
        gateway = self.need("CreateInternetGateway")["InternetGateway"]["InternetGatewayId"]
        self.gateway = gateway
        self.need("AttachInternetGateway", InternetGatewayId=gateway, VpcId=self.vpc)
        made = self.need("RunInstances", **self.launch())["Instances"][0]
        self.eni = made["NetworkInterfaces"][0]["NetworkInterfaceId"]

    def launch(self) -> dict[str, Any]:
        return {
            "ImageId": self.image,
            "MinCount": 1,
            "MaxCount": 1,
            "InstanceType": "t3.micro",
            "SubnetId": self.subnet,
            "SecurityGroupIds": [self.group],
        }

    def need(self, action: str, **params: Any) -> dict[str, Any]:
        return self.deployment.ask("ec2", action, **params)

    def say(self, action: str, **params: Any) -> dict[str, Any] | None:
        """The answer, when it is not refused."""
        operation = self.deployment.model("ec2").operation_model(action)
        response = self.deployment.send("ec2", Generator(0)._form(operation, params, False))
        assert response.status < 500, (action, params, response.body)
        answer = Deployment.read(operation, response)
        return answer if response.status == 200 else None

    def look(self) -> None:
        router = plan(self.deployment.store, self.vpc)
        assert router is not None
        check_router(router)


@pytest.fixture(scope="module")
def scene(deployment: Deployment) -> Iterator[Scene]:
    made = Scene(deployment)
    yield made
    assert not deployment.host_faults.found
    assert deployment.host_faults.looks > 10


DHCP_OPTIONS = (
    "domain-name",
    "domain-name-servers",
    "ntp-servers",
    "netbios-name-servers",
    "netbios-node-type",
    "ipv6-address-preferred-lease-time",
)


@pytest.mark.parametrize("key", DHCP_OPTIONS)
def test_dhcp_options(scene: Scene, key: str) -> None:
    taken = 0
    for text in (*HOSTILE, "example.com", "10.0.0.2", "2", "300"):
        answer = scene.say("CreateDhcpOptions", DhcpConfigurations=[{"Key": key, "Values": [text]}])
        if answer is not None:
            scene.need("AssociateDhcpOptions", VpcId=scene.vpc, DhcpOptionsId=answer["DhcpOptions"]["DhcpOptionsId"])
            scene.look()
            taken += 1
    assert taken


def odd_addresses(scene: Scene) -> tuple[str, ...]:
    inside = scene.ipv6.partition("::")[0] + "::"
    made = [f"{inside}a{number}{text}" for number, text in enumerate(HOSTILE[:60])]
    return (*HOSTILE, f"{inside}aaaa", f"{inside}bbbb%x\nserver=192.0.2.66", f"{inside}cccc%eth0", *made)


def test_addresses_of_interfaces(scene: Scene) -> None:
    assert scene.say("AssignIpv6Addresses", NetworkInterfaceId=scene.eni, Ipv6AddressCount=1)
    for text in odd_addresses(scene):
        scene.say("UnassignIpv6Addresses", NetworkInterfaceId=scene.eni, Ipv6Addresses=[text])
        for action, member in (
            ("AssignIpv6Addresses", "Ipv6Addresses"),
            ("AssignPrivateIpAddresses", "PrivateIpAddresses"),
            ("AssignPrivateIpAddresses", "Ipv4Prefixes"),
        ):
            if scene.say(action, NetworkInterfaceId=scene.eni, **{member: [text]}):
                scene.look()
                scene.say(action.replace("Assign", "Unassign"), NetworkInterfaceId=scene.eni, **{member: [text]})
        for given in ({"PrivateIpAddress": text}, {"Ipv6Addresses": [{"Ipv6Address": text}]}, {"Description": text}):
            made = scene.say("CreateNetworkInterface", SubnetId=scene.subnet, **given)
            if made is not None:
                scene.look()
                scene.need("DeleteNetworkInterface", NetworkInterfaceId=made["NetworkInterface"]["NetworkInterfaceId"])


def test_ranges(scene: Scene) -> None:
    """Of rules, lists and routes."""
    listed = scene.need("CreateManagedPrefixList", PrefixListName="odd", MaxEntries=20, AddressFamily="IPv4")
    prefix_list = listed["PrefixList"]["PrefixListId"]
    permission = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 2}
    scene.need(
        "AuthorizeSecurityGroupIngress",
        GroupId=scene.group,
        IpPermissions=[{**permission, "PrefixListIds": [{"PrefixListId": prefix_list}]}],
    )
    rule = {"NetworkAclId": scene.acl, "RuleNumber": 100, "RuleAction": "allow", "Egress": False, "Protocol": "-1"}
    taken = 0
    for text in (*HOSTILE, *CIDRS):
        for member, word in (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6")):
            given = [{**permission, member: [{word: text, "Description": "x"}]}]
            if scene.say("AuthorizeSecurityGroupIngress", GroupId=scene.group, IpPermissions=given):
                taken += 1
                scene.look()
                scene.say("RevokeSecurityGroupIngress", GroupId=scene.group, IpPermissions=given)
        for word in ("IpProtocol",):
            given = [{**permission, word: text, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}]
            if scene.say("AuthorizeSecurityGroupEgress", GroupId=scene.group, IpPermissions=given):
                scene.look()
        for entry in ({"CidrBlock": text}, {"Ipv6CidrBlock": text}, {"CidrBlock": "10.0.0.0/8", "Protocol": text}):
            if scene.say("CreateNetworkAclEntry", **(rule | entry)):
                scene.look()
                scene.need("DeleteNetworkAclEntry", NetworkAclId=scene.acl, RuleNumber=100, Egress=False)
        for word in ("DestinationCidrBlock", "DestinationIpv6CidrBlock"):
            if scene.say("CreateRoute", RouteTableId=scene.table, GatewayId=scene.gateway, **{word: text}):
                scene.look()
                scene.say("DeleteRoute", RouteTableId=scene.table, **{word: text})
        version = scene.need("DescribeManagedPrefixLists", PrefixListIds=[prefix_list])["PrefixLists"][0]["Version"]
        added = {"PrefixListId": prefix_list, "CurrentVersion": version, "AddEntries": [{"Cidr": text}]}
        if scene.say("ModifyManagedPrefixList", **added):
            scene.look()
    assert taken


def test_machines(scene: Scene) -> None:
    """Names, keys, user data, devices: what an instance may be told at its start. The strict host looks at it."""
    looks = scene.deployment.host_faults.looks
    for number, text in enumerate((*HOSTILE, "plain")):
        device = {"DeviceName": text, "Ebs": {"VolumeSize": 1}}
        said: list[dict[str, Any]] = [
            {"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": text or "x", "Value": text}]}]},
            {"UserData": text},
            {"BlockDeviceMappings": [device]},
            {"PrivateIpAddress": text},
            {"KeyName": text},
            {"KernelId": text},
            {"CpuOptions": {"CoreCount": text, "ThreadsPerCore": 1}},
            {"MetadataOptions": {"HttpEndpoint": text}},
            {"PrivateDnsNameOptions": {"HostnameType": text}},
        ]
        scene.say("ImportKeyPair", KeyName=text, PublicKeyMaterial="c3NoLXJzYSBB")
        scene.say("CreateKeyPair", KeyName=text)
        for params in said if number % 6 == 0 else said[number % len(said) :][:1]:
            made = scene.say("RunInstances", **(scene.launch() | params))
            if made is not None:
                instance_id = made["Instances"][0]["InstanceId"]
                scene.deployment.until(lambda wanted=instance_id: _is_up(scene, wanted))  # type: ignore[misc]
                scene.look()
                scene.need("TerminateInstances", InstanceIds=[instance_id])
    assert scene.deployment.host_faults.looks > looks + 5


def _is_up(scene: Scene, instance_id: str) -> bool:
    found = scene.need("DescribeInstances", InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    return bool(found["State"]["Name"] != "pending")


@pytest.mark.host
def test_nft_and_dnsmasq_take_what_comes_of_it(scene: Scene, tmp_path: Path) -> None:
    """The last plan, checked by those that it is for; nothing is loaded."""
    router = plan(scene.deployment.store, scene.vpc)
    assert router is not None
    texts = router_texts(router)
    (tmp_path / "rules").write_text(texts["nft"])
    subprocess.run(["nft", "--check", "--file", str(tmp_path / "rules")], check=True, timeout=30)
    (tmp_path / "dnsmasq.conf").write_text(texts["dnsmasq.conf"])
    subprocess.run(
        ["dnsmasq", "--test", f"--conf-file={tmp_path / 'dnsmasq.conf'}"], check=True, timeout=30, capture_output=True
    )


def test_names_of_exports_stay_below_their_folder(scene: Scene) -> None:
    """An export's prefix is a caller's word that becomes a path."""
    for text in HOSTILE:
        for place in ({"S3Bucket": text, "S3Prefix": "x/"}, {"S3Bucket": "bucket", "S3Prefix": text}):
            scene.say("ExportImage", ImageId=scene.image, DiskImageFormat="RAW", S3ExportLocation=place)
    tasks = scene.need("DescribeExportImageTasks")
    assert json.dumps(tasks, default=str)
