"""`wire`: our reading and writing against botocore's own."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from orchestrator.cli import shapes, wire

MODEL = ServiceModel(Loader().load_service_model("ec2", "service-2"), "ec2")


def test_the_table_is_what_the_models_say() -> None:
    assert shapes.TABLE.read_text() == shapes.table(), "run python -m orchestrator.cli.shapes"


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("DescribeInstances", {"InstanceIds": ["i-1", "i-2"], "Filters": [{"Name": "tag:a", "Values": ["b", "c&d=é"]}]}),
    ("DescribeInstances", {"MaxResults": 5, "NextToken": "x"}),
    (
        "RunInstances",
        {
            "ImageId": "ami-1",
            "MinCount": 1,
            "MaxCount": 2,
            "ClientToken": "t",
            "UserData": "aGVsbG8=",
            "SecurityGroupIds": ["sg-1", "sg-2"],
            "Placement": {"AvailabilityZone": "us-east-1a"},
            "DisableApiTermination": True,
            "BlockDeviceMappings": [
                {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 9, "DeleteOnTermination": False}}
            ],
            "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": ""}]}],
            "MetadataOptions": {"HttpTokens": "required"},
            "NetworkInterfaces": [{"DeviceIndex": 0, "Groups": ["sg-1"], "AssociatePublicIpAddress": True}],
        },
    ),
    ("ImportKeyPair", {"KeyName": "mine", "PublicKeyMaterial": b"ssh-ed25519 AAAA"}),
    ("CreateTags", {"Resources": ["i-1"], "Tags": [{"Key": "a", "Value": "b"}]}),
    (
        "AuthorizeSecurityGroupIngress",
        {
            "GroupId": "sg-1",
            "IpPermissions": [
                {
                    "IpProtocol": "tcp",
                    "FromPort": 22,
                    "ToPort": 22,
                    "IpRanges": [{"CidrIp": "10.0.0.0/8", "Description": "d"}],
                    "UserIdGroupPairs": [{"GroupId": "sg-2"}],
                }
            ],
        },
    ),
    ("StopInstances", {"InstanceIds": ["i-1"], "Force": False}),
    ("DescribeRegions", {"RegionNames": ["us-east-1"]}),  # not in the table: derived when it is called
]


@pytest.mark.parametrize(("action", "parameters"), REQUESTS)
def test_requests_are_botocores(action: str, parameters: dict[str, Any]) -> None:
    expected = create_serializer("ec2").serialize_to_request(parameters, MODEL.operation_model(action))["body"]
    headers, body = wire.write_request("ec2", action, parameters)
    assert dict(parse_qsl(body.decode(), keep_blank_values=True)) == {k: str(v) for k, v in expected.items()}
    assert headers["Content-Type"].startswith("application/x-www-form-urlencoded")


def test_a_parameter_that_does_not_exist_is_named() -> None:
    with pytest.raises(TypeError, match=r"StopInstances has no parameter Forec; it has .*Force"):
        wire.write_request("ec2", "StopInstances", {"Forec": True})


ANSWER = b"""<?xml version="1.0"?>
<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId>
<reservationSet><item><reservationId>r-1</reservationId><ownerId>1</ownerId><groupSet/><instancesSet><item>
<instanceId>i-1</instanceId><amiLaunchIndex>0</amiLaunchIndex><instanceState><code>16</code><name>running</name>
</instanceState><ebsOptimized>false</ebsOptimized><tagSet><item><key>Name</key><value/></item></tagSet>
<blockDeviceMapping><item><deviceName>/dev/xvda</deviceName><ebs><volumeId>vol-1</volumeId>
<deleteOnTermination>true</deleteOnTermination></ebs></item></blockDeviceMapping>
<notOfThisModel>x</notOfThisModel></item></instancesSet></item></reservationSet></DescribeInstancesResponse>"""


def test_answers_are_botocores() -> None:
    operation = MODEL.operation_model("DescribeInstances")
    expected = create_parser("ec2").parse({"status_code": 200, "headers": {}, "body": ANSWER}, operation.output_shape)
    del expected["ResponseMetadata"]
    assert wire.read_answer("ec2", "DescribeInstances", ANSWER) == expected


def test_numbers_and_times_of_both_protocols() -> None:
    xml = b"<R><volumeSet><item><size>8</size><createTime>2026-01-02T03:04:05.000Z</createTime></item></volumeSet></R>"
    assert wire.read_answer("ec2", "DescribeVolumes", xml)["Volumes"] == [
        {"Size": 8, "CreateTime": "2026-01-02T03:04:05.000Z"}
    ]
    document = b'{"Builds": [{"BuildId": "build-1", "Started": 1767323045.25, "Finished": null, "Later": 1}]}'
    assert wire.read_answer("orc", "DescribeBuilds", document)["Builds"] == [
        {"BuildId": "build-1", "Started": "2026-01-02T03:04:05.250Z", "Later": 1}
    ]


def test_a_list_at_the_top_is_always_there() -> None:
    assert wire.read_answer("ec2", "DescribeVpcs", b"<R/>")["Vpcs"] == []
    assert wire.read_answer("orc", "ListRecipes", b"{}")["Recipes"] == []


def test_a_query_answer_is_inside_its_result() -> None:
    body = (
        b'<GetCallerIdentityResponse xmlns="x"><GetCallerIdentityResult><Account>1</Account></GetCallerIdentityResult>'
    )
    assert wire.read_answer("sts", "GetCallerIdentity", body + b"</GetCallerIdentityResponse>") == {"Account": "1"}


@pytest.mark.parametrize("body", [b"<html><p>hello", b"", b"nonsense"])
def test_what_is_no_answer_is_said(body: bytes) -> None:
    with pytest.raises(ValueError, match="no XML"):
        wire.read_answer("ec2", "DescribeVpcs", body)


@pytest.mark.parametrize("body", [b"[]", b"<a/>"])
def test_what_is_no_json_answer_is_said(body: bytes) -> None:
    with pytest.raises(ValueError):
        wire.read_answer("orc", "ListRecipes", body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b"<Response><Errors><Error><Code>A.B</Code><Message>m</Message></Error></Errors><RequestID>r</RequestID></Response>",
            ("A.B", "m", "r"),
        ),
        (
            b'<ErrorResponse xmlns="x"><Error><Code>A</Code><Message>m</Message></Error>'
            b"<RequestId>r</RequestId></ErrorResponse>",
            ("A", "m", "r"),
        ),
        (b'{"__type": "ns#A", "message": "m"}', ("A", "m", "")),
        (b'{"__type": "A", "Message": "m"}', ("A", "m", "")),
        (b"<html>gateway</html>", ("", "", "")),
        (b"not even that", ("", "", "")),
        (b"{broken", ("", "", "")),
    ],
)
def test_refusals(body: bytes, expected: tuple[str, str, str]) -> None:
    assert wire.read_error(body) == expected
