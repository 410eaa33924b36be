"""What indexes find for a request's filters is what looking at every instance finds, and no more is looked at."""

from __future__ import annotations

import pytest

from orchestrator.api.ec2 import instances
from orchestrator.api.ec2.instance_search import _INDEXED, candidates
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import NetworkInterface, SecurityGroup


def listed(api, *filters):
    given = [{"Name": name, "Values": values} for name, values in filters]
    found = api.call("DescribeInstances", Filters=given)["Reservations"]
    return sorted(instance["InstanceId"] for reservation in found for instance in reservation["Instances"])


@pytest.fixture
def fleet(api):
    """Twelve instances of one account in three states, one of them in a second subnet and group; some of another."""
    made = api.launch(9)
    subnet = api.call("DescribeSubnets")["Subnets"][1]["SubnetId"]
    vpc = api.get(Instance, made[0]).vpc_id
    group = api.call("CreateSecurityGroup", GroupName="web", Description="of some", VpcId=vpc)["GroupId"]
    made += api.launch(2, SubnetId=subnet, SecurityGroupIds=[group])
    made += api.launch(1)
    api.settle(made[0], State.STOPPED)
    api.settle(made[1], State.TERMINATED)
    api.by().launch(3)
    address = api.call("AllocateAddress", Domain="vpc")
    api.call("AssociateAddress", AllocationId=address["AllocationId"], InstanceId=made[4])
    return made, address["PublicIp"]


def values_of(api, instance_id, public_ip):
    """For each indexed filter one that lets some instance through."""
    instance = api.get(Instance, instance_id)
    [interface] = api.store.all(NetworkInterface, instance_id=instance_id)
    [shown] = api.call("DescribeInstances", InstanceIds=[instance_id])["Reservations"][0]["Instances"]
    return {
        "block-device-mapping.volume-id": shown["BlockDeviceMappings"][0]["Ebs"]["VolumeId"],
        "group-id": interface.groups[0],
        "image-id": instance.image_id,
        "instance-id": instance_id,
        "instance-state-name": "running",
        "instance.group-id": interface.groups[0],
        "ip-address": public_ip,
        "kernel-id": "aki-0123456789abcdef0",
        "network-interface.addresses.private-ip-address": interface.private_ip,
        "network-interface.group-id": interface.groups[0],
        "network-interface.network-interface-id": interface.id,
        "network-interface.subnet-id": interface.subnet_id,
        "network-interface.vpc-id": interface.vpc_id,
        "private-ip-address": interface.private_ip,
        "reservation-id": instance.reservation_id,
        "subnet-id": instance.subnet_id,
        "vpc-id": instance.vpc_id,
    }


def test_each_index_finds_what_a_look_at_all_finds(api, fleet, monkeypatch):
    made, public_ip = fleet
    api.change(api.get(Instance, made[5]), kernel_id="aki-0123456789abcdef0")
    values = {**values_of(api, made[9], public_ip)}
    assert values.keys() == _INDEXED.keys()
    cases = [[(name, [value])] for name, value in values.items()]
    cases += [[(name, [value, "no-such"]), ("tag-key", ["*"])] for name, value in values.items()]
    cases += [
        [("instance-state-name", ["stopped", "terminated"])],
        [("instance-state-name", ["nonsense"])],
        [("subnet-id", [values["subnet-id"]]), ("instance-state-name", ["stopped"])],
        [("private-ip-address", ["172.31.*"])],
        [("ip-address", [api.store.all(NetworkInterface, instance_id=made[2])[0].public_ip])],
    ]
    found = [listed(api, *case) for case in cases]
    monkeypatch.setattr(instances, "candidates", lambda rows, filters: None)
    assert found == [listed(api, *case) for case in cases]
    assert all(found[: len(values)]), "a value that lets nothing through proves nothing"


def test_the_index_that_finds_fewest_is_used(api, fleet):
    made, public_ip = fleet
    values = values_of(api, made[9], public_ip)
    filters = [{"Name": name, "Values": [values[name]]} for name in ("vpc-id", "private-ip-address", "image-id")]
    assert [instance.id for instance in candidates(api.store, filters)] == [made[9]]
    assert candidates(api.store, [{"Name": "vpc-id", "Values": ["vpc-*"]}]) is None
    assert candidates(api.store, [{"Name": "key-name", "Values": ["mine"]}]) is None
    assert candidates(api.store, []) is None


def test_nobody_elses_are_found(api, fleet):
    other = api.by()
    [group] = other.store.all(SecurityGroup, account=other.account)
    assert listed(api, ("group-id", [group.id])) == []
    assert len(listed(other, ("group-id", [group.id]))) == 3


@pytest.mark.parametrize("values", [["running", "pending"], ["pending", "running"], ["stopping", "running", "pending"]])
def test_what_moves_from_one_value_to_another_meanwhile_is_found(api, fleet, values):
    """A reconciler commits between two looks at an index: an instance that is `pending` or `running` at each instant
    is not left out of those that are either, and is there once."""
    made, _ = fleet
    api.settle(made[0], State.PENDING)
    looks = []

    class Meanwhile:
        def all(self, kind, **where):
            found = api.store.all(kind, **where)
            looks.append(where)
            if len(looks) == 1:
                api.settle(made[0], State.RUNNING)
            return found

        get = api.store.get

    found = [each.id for each in candidates(Meanwhile(), [{"Name": "instance-state-name", "Values": values}])]
    assert found.count(made[0]) == 1 and len(set(found)) == len(found)
