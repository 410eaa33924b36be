"""DescribeInstanceTypes and DescribeInstanceTypeOfferings, over the wire as botocore reads it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from typing import Any, cast

import pytest
from botocore.model import ListShape, ServiceModel, Shape, StringShape, StructureShape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from orchestrator.api.ec2 import instance_types
from orchestrator.api.ec2.instance_types import OFFERING_FILTERS, TYPE_FILTERS, show_type
from orchestrator.api.operation import Call, Caller, HostView, Settings, bind_operations
from orchestrator.api.protocol import load_service, protocol_for, read_form
from orchestrator.keys import KeyRing
from orchestrator.model.errors import EC2Error
from orchestrator.model.instance_type import CATALOGUE, parse
from orchestrator.store import Store

SETTINGS = Settings(regions={"us-east-1": ("us-east-1a", "us-east-1b", "us-east-1c"), "us-west-2": ("us-west-2a",)})


@cache
def ec2() -> ServiceModel:
    return load_service("ec2")


@cache
def protocol() -> Any:
    return protocol_for(ec2())


def ask(action: str, region: str = "us-east-1", **params: Any) -> dict[str, Any]:
    """A request as botocore writes it, through parser, handler and serialiser, as botocore reads the answer."""
    model = ec2().operation_model(action)
    body = create_serializer("ec2", include_validation=False).serialize_to_request(params, model)["body"]
    form = "&".join(f"{name}={str(value).replace('*', '%2A')}" for name, value in body.items())
    operation = bind_operations({"ec2": ec2()})["ec2", action]
    call = Call(
        service="ec2",
        action=action,
        caller=Caller(account="123456789012", access_key="AKIA", arn="arn:aws:iam::123456789012:root"),
        region=region,
        params=protocol().parse(model, read_form(form.encode())),
        db=cast(Store, None),
        now=datetime(2024, 5, 1, tzinfo=UTC),
        request_id="request",
        source="127.0.0.1",
        settings=SETTINGS,
        host=cast(HostView, None),
        keys=KeyRing(bytes(32)),
    )
    answer = operation.handler(call, **operation.arguments(call.params))
    payload, _ = protocol().serialise(model, answer, "request")
    response = {"body": payload, "headers": {}, "status_code": 200}
    assert model.output_shape is not None
    read: dict[str, Any] = create_parser("ec2").parse(response, model.output_shape)
    return read


def names(answer: dict[str, Any]) -> list[str]:
    return [kind["InstanceType"] for kind in answer["InstanceTypes"]]


def matching(**values: str | list[str]) -> list[dict[str, Any]]:
    return [
        {"Name": name.replace("__", ".").replace("_", "-"), "Values": [value] if isinstance(value, str) else value}
        for name, value in values.items()
    ]


def all_pages(action: str, member: str, **params: Any) -> list[dict[str, Any]]:
    answer = ask(action, **params)
    found = answer[member]
    while token := answer.get("NextToken"):
        answer = ask(action, NextToken=token, **params)
        found += answer[member]
    return cast(list[dict[str, Any]], found)


def test_what_is_said_arrives() -> None:
    [shown] = ask("DescribeInstanceTypes", InstanceTypes=["r5dn.8xlarge"])["InstanceTypes"]
    assert shown == show_type(CATALOGUE["r5dn.8xlarge"])
    assert shown["VCpuInfo"] == {
        "DefaultVCpus": 32,
        "DefaultCores": 16,
        "DefaultThreadsPerCore": 2,
        "ValidCores": [2, 4, 6, 8, 10, 12, 14, 16],
        "ValidThreadsPerCore": [1, 2],
    }
    assert shown["EbsInfo"] == {
        "EbsOptimizedSupport": "default",
        "EncryptionSupport": "supported",
        "EbsOptimizedInfo": {
            "BaselineBandwidthInMbps": 6800,
            "BaselineThroughputInMBps": 850.0,
            "BaselineIops": 30000,
            "MaximumBandwidthInMbps": 6800,
            "MaximumThroughputInMBps": 850.0,
            "MaximumIops": 30000,
        },
        "NvmeSupport": "required",
        "MaximumEbsAttachments": 25,
        "AttachmentLimitType": "shared",
    }
    assert shown["InstanceStorageInfo"] == {
        "TotalSizeInGB": 1200,
        "Disks": [{"SizeInGB": 600, "Count": 2, "Type": "ssd"}],
        "NvmeSupport": "required",
        "EncryptionSupport": "required",
    }
    assert shown["NetworkInfo"]["NetworkCards"] == [
        {
            "NetworkCardIndex": 0,
            "NetworkPerformance": "25 Gigabit",
            "MaximumNetworkInterfaces": 8,
            "BaselineBandwidthInGbps": 25.0,
            "PeakBandwidthInGbps": 25.0,
            "DefaultEnaQueueCountPerInterface": 32,
            "InterfaceTypes": ["interface"],
        }
    ]


def test_members_that_are_absent_on_ec2_are_absent() -> None:
    metal, plain = (show_type(CATALOGUE[name]) for name in ("m5.metal", "t2.micro"))
    assert metal["BareMetal"] is True and "Hypervisor" not in metal and "ValidCores" not in metal["VCpuInfo"]
    assert plain["BurstablePerformanceSupported"] is True and plain["InstanceStorageSupported"] is False
    for member in ("InstanceStorageInfo", "GpuInfo", "NitroTpmInfo", "FpgaInfo", "NeuronInfo"):
        assert member not in plain
    assert "EbsOptimizedInfo" not in plain["EbsInfo"]


def test_gpus() -> None:
    assert show_type(CATALOGUE["g4dn.12xlarge"])["GpuInfo"] == {
        "Gpus": [
            {
                "Name": "T4",
                "Manufacturer": "NVIDIA",
                "Count": 4,
                "LogicalGpuCount": 4,
                "GpuPartitionSize": 1.0,
                "Workloads": ["graphics", "ml-ai"],
                "MemoryInfo": {"SizeInMiB": 16384},
            }
        ],
        "TotalGpuMemoryInMiB": 65536,
    }
    [shared] = show_type(CATALOGUE["g6f.large"])["GpuInfo"]["Gpus"]
    assert (shared["Count"], shared["LogicalGpuCount"], shared["GpuPartitionSize"]) == (0, 1, 0.125)


def wrong_in(value: Any, shape: Shape, path: str) -> list[str]:
    """What in an answer the model does not have: members and enumerated words."""
    if isinstance(shape, StructureShape):
        members = shape.members
        return [
            wrong
            for name, member in value.items()
            for wrong in (wrong_in(member, members[name], f"{path}.{name}") if name in members else [f"{path}.{name}"])
        ]
    if isinstance(shape, ListShape):
        return [wrong for item in value for wrong in wrong_in(item, shape.member, path)]
    allowed = shape.enum if isinstance(shape, StringShape) else []
    return [f"{path}={value}"] if allowed and value not in allowed else []


def test_every_type_is_shown_in_the_words_of_the_model() -> None:
    shape = ec2().shape_for("InstanceTypeInfo")
    assert [wrong for kind in CATALOGUE.values() for wrong in wrong_in(show_type(kind), shape, kind.name)] == []


def test_every_type_name_of_the_model_can_be_parsed_and_most_are_here() -> None:
    shape = ec2().shape_for("InstanceType")
    assert isinstance(shape, StringShape)
    known = shape.enum
    assert len([parse(name) for name in known]) == len(known)
    assert set(CATALOGUE) & set(known) == set(CATALOGUE)
    assert len(CATALOGUE) > 0.95 * len(known)


def documented_filters(action: str) -> set[str]:
    shape = ec2().operation_model(action).input_shape
    assert shape is not None
    text = shape.members["Filters"].documentation
    return set(re.findall(r"<li> ?<p> ?<code>([^<]*)</code>", text))


def test_the_filters_are_those_that_are_documented() -> None:
    assert set(TYPE_FILTERS) == documented_filters("DescribeInstanceTypes")
    assert set(OFFERING_FILTERS) == documented_filters("DescribeInstanceTypeOfferings")


def test_every_filter_finds_a_type_by_its_value() -> None:
    for name, read in TYPE_FILTERS.items():
        for kind in CATALOGUE.values():
            value = read(kind)
            if value:
                break
        else:
            pytest.fail(f"{name} has a value for no type")
        wanted = value if isinstance(value, str) else next(iter(value))
        filters = [{"Name": name, "Values": [wanted]}]
        assert names(ask("DescribeInstanceTypes", Filters=filters, InstanceTypes=[kind.name])) == [kind.name], name


@pytest.mark.parametrize(
    ("filters", "present", "absent"),
    [
        (matching(instance_type="t3.*"), "t3.micro", "t3a.micro"),
        (matching(free_tier_eligible="true"), "t3.micro", "t3.large"),
        (matching(vcpu_info__default_vcpus=["1", "2"], memory_info__size_in_mib="1024"), "t2.micro", "t2.small"),
        (matching(vcpu_info__valid_threads_per_core="1,2", instance_type="c5*.large"), "c5.large", "c5a.metal"),
        (matching(processor_info__supported_architecture="arm64", bare_metal="true"), "c6g.metal", "c6g.large"),
        (matching(processor_info__sustained_clock_speed_in_ghz="3.1", instance_type="r5*"), "r5.large", "r5a.large"),
        (matching(ebs_info__ebs_optimized_info__baseline_throughput_in_mbps="850"), "r5dn.8xlarge", "r5dn.large"),
        (matching(ebs_info__ebs_optimized_info__baseline_throughput_in_mbps="850.0"), "r5dn.8xlarge", "r5dn.large"),
        (matching(instance_storage_info__disk__type="hdd", current_generation="true"), "d3.xlarge", "i3.large"),
        (matching(supported_boot_mode="uefi", instance_type="t?.nano"), "t3.nano", "t2.nano"),
        (matching(hypervisor="xen"), "t2.micro", "m5.metal"),
        (matching(network_info__network_performance="Up to 5 Gigabit"), "t3.nano", "t2.nano"),
    ],
)
def test_filters(filters: list[dict[str, Any]], present: str, absent: str) -> None:
    found = {kind["InstanceType"] for kind in all_pages("DescribeInstanceTypes", "InstanceTypes", Filters=filters)}
    assert present in found
    assert absent not in found


@pytest.mark.parametrize("name", ["colour", "tag:Name", "tag-key", "vcpu-info", "Instance-Type"])
def test_an_unknown_filter_is_an_error(name: str) -> None:
    for action in ("DescribeInstanceTypes", "DescribeInstanceTypeOfferings"):
        with pytest.raises(EC2Error) as refused:
            ask(action, Filters=[{"Name": name, "Values": ["x"]}])
        assert refused.value.code == "InvalidParameterValue"
        assert name in refused.value.message
        assert "tag-key," not in refused.value.message.partition("Expected")[2]


def test_types_come_a_hundred_at_a_time_and_all_come_once() -> None:
    first = ask("DescribeInstanceTypes")
    assert len(first["InstanceTypes"]) == 100 and first["NextToken"]
    found = [kind["InstanceType"] for kind in all_pages("DescribeInstanceTypes", "InstanceTypes")]
    assert sorted(found) == sorted(CATALOGUE)


def test_max_results() -> None:
    answer = ask("DescribeInstanceTypes", MaxResults=5, Filters=matching(instance_type="t2.*"))
    assert len(names(answer)) == 5
    rest = ask(
        "DescribeInstanceTypes", MaxResults=5, NextToken=answer["NextToken"], Filters=matching(instance_type="t2.*")
    )
    assert len(names(rest)) == 2 and "NextToken" not in rest
    for wrong in (4, 101):
        with pytest.raises(EC2Error) as refused:
            ask("DescribeInstanceTypes", MaxResults=wrong)
        assert refused.value.code == "InvalidParameterValue"


def test_an_unknown_type() -> None:
    with pytest.raises(EC2Error) as refused:
        ask("DescribeInstanceTypes", InstanceTypes=["t3.micro", "t3.gigantic"])
    assert refused.value.code == "InvalidInstanceType"
    assert refused.value.message.endswith("do not exist: [t3.gigantic]")


def test_too_many_types() -> None:
    with pytest.raises(EC2Error) as refused:
        ask("DescribeInstanceTypes", InstanceTypes=list(CATALOGUE)[:101])
    assert refused.value.code == "InvalidParameterValue"


def test_unsupported_types_may_be_asked_for_and_there_are_none() -> None:
    assert names(ask("DescribeInstanceTypes", IncludeUnsupportedInRegion=True, InstanceTypes=["t2.nano"])) == [
        "t2.nano"
    ]


def test_offerings_of_a_region() -> None:
    found = ask("DescribeInstanceTypeOfferings", region="us-west-2", Filters=matching(instance_type="t3.micro"))
    assert found["InstanceTypeOfferings"] == [
        {"InstanceType": "t3.micro", "LocationType": "region", "Location": "us-west-2"}
    ]


@pytest.mark.parametrize(
    ("location_type", "locations"),
    [
        ("availability-zone", ["us-east-1a", "us-east-1b", "us-east-1c"]),
        ("availability-zone-id", ["use1-az1", "use1-az2", "use1-az3"]),
        ("outpost", []),
    ],
)
def test_offerings_of_zones(location_type: str, locations: list[str]) -> None:
    found = ask("DescribeInstanceTypeOfferings", LocationType=location_type, Filters=matching(instance_type="t3.micro"))
    shown = found.get("InstanceTypeOfferings", [])
    assert [offering["Location"] for offering in shown] == locations
    assert {offering["LocationType"] for offering in shown} <= {location_type}


def test_offerings_by_location_and_in_pages() -> None:
    wanted: dict[str, Any] = {
        "LocationType": "availability-zone",
        "Filters": matching(location=["us-east-1b", "us-east-1c"]),
    }
    assert len(ask("DescribeInstanceTypeOfferings", **wanted)["InstanceTypeOfferings"]) == 1000
    found = all_pages("DescribeInstanceTypeOfferings", "InstanceTypeOfferings", **wanted)
    shown = [(offering["InstanceType"], offering["Location"]) for offering in found]
    assert sorted(shown) == sorted((name, zone) for name in CATALOGUE for zone in ("us-east-1b", "us-east-1c"))


def test_an_unknown_location_type() -> None:
    with pytest.raises(EC2Error) as refused:
        ask("DescribeInstanceTypeOfferings", LocationType="planet")
    assert refused.value.code == "InvalidParameterValue"
    assert ", ".join(instance_types.LOCATIONS) in refused.value.message
