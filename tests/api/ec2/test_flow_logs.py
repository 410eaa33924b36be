"""Flow logs: made for several resources, listed, deleted."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.vpc import FlowLog

from .conftest import ACCOUNT, Api
from .networks import forget_wakes, make_subnet, make_vpc, put_interface, woken

TO_GROUP = {"TrafficType": "ALL", "LogGroupName": "flows", "DeliverLogsPermissionArn": "arn:aws:iam::1:role/x"}
TO_BUCKET = {"TrafficType": "REJECT", "LogDestinationType": "s3", "LogDestination": "arn:aws:s3:::logs/folder/"}


def make(api: Api, *resource_ids: str, kind: str = "VPC", **params: Any) -> dict[str, Any]:
    given = {**TO_GROUP, **params} if "LogDestination" not in params else params
    return api.call("CreateFlowLogs", ResourceIds=list(resource_ids), ResourceType=kind, **given)


def test_one_for_each_resource(api: Api) -> None:
    first, second = make_vpc(api), make_vpc(api)
    forget_wakes(api)
    tags = [{"Key": "Name", "Value": "x"}]
    answer = make(
        api,
        first,
        second,
        first,
        ClientToken="t",
        TagSpecifications=[{"ResourceType": "vpc-flow-log", "Tags": tags}],
    )
    assert answer["ClientToken"] == "t" and answer["Unsuccessful"] == [] and len(answer["FlowLogIds"]) == 2
    assert woken(api) == {first, second}
    [shown] = api.call("DescribeFlowLogs", FlowLogIds=answer["FlowLogIds"][:1])["FlowLogs"]
    assert shown == {
        "FlowLogId": answer["FlowLogIds"][0],
        "FlowLogStatus": "ACTIVE",
        "DeliverLogsStatus": "SUCCESS",
        "CreationTime": api.now,
        "ResourceId": first,
        "TrafficType": "ALL",
        "LogDestinationType": "cloud-watch-logs",
        "LogDestination": f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:flows",
        "LogGroupName": "flows",
        "DeliverLogsPermissionArn": "arn:aws:iam::1:role/x",
        "LogFormat": "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} "
        "${protocol} ${packets} ${bytes} ${start} ${end} ${action} ${log-status}",
        "MaxAggregationInterval": 600,
        "Tags": tags,
    }


def test_to_a_bucket(api: Api) -> None:
    subnet_id = make_subnet(api, make_vpc(api))
    interface = put_interface(api, subnet_id)
    options = {"FileFormat": "parquet", "HiveCompatiblePartitions": True, "PerHourPartition": False}
    for kind, resource_id in (("Subnet", subnet_id), ("NetworkInterface", interface.id)):
        [log_id] = make(
            api,
            resource_id,
            kind=kind,
            **TO_BUCKET,
            LogFormat="${vpc-id}  ${flow-direction}",
            MaxAggregationInterval=60,
            DestinationOptions=options,
        )["FlowLogIds"]
        [shown] = api.call("DescribeFlowLogs", FlowLogIds=[log_id])["FlowLogs"]
        assert (shown["LogDestination"], shown["LogDestinationType"]) == ("arn:aws:s3:::logs/folder/", "s3")
        assert (shown["LogFormat"], shown["MaxAggregationInterval"]) == ("${vpc-id}  ${flow-direction}", 60)
        assert shown["DestinationOptions"] == options and "LogGroupName" not in shown


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"TrafficType": None}, "MissingParameter"),
        ({"TrafficType": "SOME"}, "InvalidParameterValue"),
        ({"MaxAggregationInterval": 61}, "InvalidParameterValue"),
        ({"LogFormat": "${colour}"}, "InvalidParameterValue"),
        ({"LogFormat": "version"}, "InvalidParameterValue"),
        ({"LogFormat": " "}, "InvalidParameterValue"),
        ({"LogGroupName": None}, "MissingParameter"),
        ({"LogDestination": "arn:aws:logs:r:1:log-group:x"}, "InvalidParameterCombination"),
        ({"LogGroupName": None, "LogDestination": "arn:aws:s3:::b"}, "InvalidParameterValue"),
        ({"LogDestinationType": "s3"}, "InvalidParameterCombination"),
        ({"LogDestinationType": "s3", "LogGroupName": None}, "MissingParameter"),
        ({"LogDestinationType": "s3", "LogGroupName": None, "LogDestination": "b"}, "InvalidParameterValue"),
        ({"LogDestinationType": "tape"}, "InvalidParameterValue"),
        ({"DestinationOptions": {"PerHourPartition": True}}, "InvalidParameterCombination"),
        ({"ResourceType": "TransitGateway"}, "InvalidParameterValue"),
        ({"ResourceIds": ["vpc-00000000000000000"]}, "InvalidVpcID.NotFound"),
        ({"ResourceIds": ["subnet-00000000000000000"]}, "InvalidVpcID.Malformed"),
        ({"ResourceIds": []}, "MissingParameter"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_what_is_refused(api: Api, given: dict[str, Any], code: str) -> None:
    params = {"ResourceIds": [make_vpc(api)], "ResourceType": "VPC", **TO_GROUP, **given}
    asked = {name: value for name, value in params.items() if value is not None}
    assert api.refused("CreateFlowLogs", **asked).code == code


def test_the_same_twice_is_told_of(api: Api) -> None:
    first, second = make_vpc(api), make_vpc(api)
    make(api, first)
    answer = make(api, first, second)
    assert len(answer["FlowLogIds"]) == 1
    [refused] = answer["Unsuccessful"]
    assert (refused["ResourceId"], refused["Error"]["Code"]) == (first, "FlowLogAlreadyExists")
    assert len(make(api, first, **TO_BUCKET)["FlowLogIds"]) == 1


def test_filters(api: Api) -> None:
    vpc_id = make_vpc(api)
    [to_group] = make(api, vpc_id)["FlowLogIds"]
    [to_bucket] = make(api, vpc_id, **TO_BUCKET)["FlowLogIds"]

    def found(name: str, value: str) -> list[str]:
        answer = api.call("DescribeFlowLogs", Filter=[{"Name": name, "Values": [value]}])
        return [log["FlowLogId"] for log in answer["FlowLogs"]]

    assert found("log-destination-type", "s3") == [to_bucket]
    assert found("log-group-name", "fl*") == [to_group]
    assert found("flow-log-id", to_group) == [to_group]
    assert found("resource-id", vpc_id) == [to_group, to_bucket]
    assert found("traffic-type", "REJECT") == [to_bucket]
    assert found("deliver-log-status", "FAILED") == []
    assert found("tag:Name", "x") == []
    wrong = api.refused("DescribeFlowLogs", Filter=[{"Name": "colour", "Values": ["x"]}])
    assert wrong.code == "InvalidParameterValue"
    assert api.by().call("DescribeFlowLogs", FlowLogIds=[to_group])["FlowLogs"] == []
    assert api.refused("DescribeFlowLogs", FlowLogIds=["x"]).code == "InvalidFlowLogId.Malformed"


def test_delete(api: Api) -> None:
    vpc_id = make_vpc(api)
    [log_id] = make(api, vpc_id)["FlowLogIds"]
    forget_wakes(api)
    [refused] = api.by().call("DeleteFlowLogs", FlowLogIds=[log_id])["Unsuccessful"]
    assert (refused["ResourceId"], refused["Error"]["Code"]) == (log_id, "InvalidFlowLogId.NotFound")
    absent = "fl-00000000000000000"
    answer = api.call("DeleteFlowLogs", FlowLogIds=[log_id, absent, log_id])
    assert [each["ResourceId"] for each in answer["Unsuccessful"]] == [absent]
    assert api.store.all(FlowLog) == [] and woken(api) == {vpc_id}


def test_one_of_an_interface_that_is_gone_can_be_deleted(api: Api) -> None:
    interface = put_interface(api, make_subnet(api, make_vpc(api)))
    [log_id] = make(api, interface.id, kind="NetworkInterface")["FlowLogIds"]
    with api.store.write() as tx:
        tx.delete(interface)
    assert api.call("DescribeFlowLogs")["FlowLogs"][0]["ResourceId"] == interface.id
    assert api.call("DeleteFlowLogs", FlowLogIds=[log_id])["Unsuccessful"] == []
