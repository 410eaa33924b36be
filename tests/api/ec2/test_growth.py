"""What one change costs does not depend on how much there is.

Counted, not timed: how many lines of Python are run for a change, with all that the reconcilers do about it, in a
deployment of a hundred instances and in one of many more. A loop over all instances that somebody adds is seen here,
long before it is slow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta

import pytest

from orchestrator.host.memory import memory_host
from orchestrator.model.image import Image
from orchestrator.model.instance import Instance
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NetworkInterface, Vpc
from orchestrator.reconcile.instance import Instances, Limits
from orchestrator.reconcile.layer import LayerFiles, Layers
from orchestrator.reconcile.loop import Again
from orchestrator.reconcile.network import Networks
from orchestrator.reconcile.volume import Volumes

from .conftest import KEYS

FEW, MANY = 100, 1500
PER_VPC = 50
MORE_LINES = 1.1  # times as many
AND_LINES = 100


class Doors:
    """No guest asks for metadata."""

    def open(self, *given: object) -> None:
        pass

    def shut(self, vpc_id: str) -> None:
        pass


class Reconcilers:
    """Those of what a change of an instance touches, stepped by hand."""

    def __init__(self, api) -> None:
        self.store = api.store
        host = memory_host()
        networks = Networks(api.store, host.network, Doors())
        files = LayerFiles(api.store, host.storage, KEYS)
        instances = Instances(api.store, host, networks, files, lambda: api.now, Limits(), 16)
        self.steps = {
            Instance.KIND: instances.step,
            Vpc.KIND: networks.step,
            Volume.KIND: Volumes(api.store, files, lambda: api.now, 16).step,
            Layer.KIND: Layers(api.store, files).step,
        }

    def settle(self) -> None:
        """Until nothing is to be done now."""
        while wakes := [wake for wake in self.store.pending_wakes() if wake[0] in self.steps]:
            for kind, resource_id, serial in wakes:
                for _ in range(50):
                    found = self.steps[kind](resource_id)
                    if not isinstance(found, Again) or found.after_s > 1:
                        break
                self.store.wake_done(kind, resource_id, serial)


class Fleet:
    """Instances, PER_VPC in each VPC. Changes are made in the first, whose size stays the same."""

    def __init__(self, api) -> None:
        self.api = api
        self.reconcilers = Reconcilers(api)
        self.image = api.make_image().id
        self.subnets: list[str] = []
        self.grow(PER_VPC)
        [self.group] = {
            group for each in api.store.all(NetworkInterface, subnet_id=self.subnets[0]) for group in each.groups
        }
        self.instances = [each.id for each in api.store.all(Instance, subnet_id=self.subnets[0])]
        self.number = 0

    def grow(self, count: int) -> None:
        while len(self.api.store.all(Instance)) < count:
            block = f"10.{len(self.subnets)}"
            vpc = self.api.call("CreateVpc", CidrBlock=f"{block}.0.0/16")["Vpc"]["VpcId"]
            subnet = self.api.call("CreateSubnet", VpcId=vpc, CidrBlock=f"{block}.0.0/20")["Subnet"]["SubnetId"]
            self.subnets.append(subnet)
            self.run(PER_VPC, subnet)
            for _ in range(5):
                self.api.run("CreateVolume", AvailabilityZone="us-east-1a", Size=1)
        self.reconcilers.settle()

    def run(self, count: int, subnet: str = "") -> list[str]:
        about = {"MinCount": count, "MaxCount": count, "ImageId": self.image, "InstanceType": "t2.nano"}
        answer = self.api.call("RunInstances", SubnetId=subnet or self.subnets[0], **about)
        return [instance["InstanceId"] for instance in answer["Instances"]]

    def forget(self, terminated: list[str]) -> None:
        self.api.advance(timedelta(hours=2).total_seconds())
        for instance_id in terminated:
            self.reconcilers.steps[Instance.KIND](instance_id)
            assert self.api.store.get(Instance, instance_id) is None

    def change(self) -> dict[str, Callable[[], object]]:
        """One of each kind, in an order in which they are undone."""
        api, self.number = self.api, self.number + 1
        launched: list[str] = []
        volume = api.call("CreateVolume", AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
        self.reconcilers.settle()
        rule = {"IpProtocol": "tcp", "FromPort": self.number, "ToPort": self.number}
        rules = [{**rule, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}]
        first, tag = self.instances[0], [{"Key": "Number", "Value": str(self.number)}]
        address = api.store.all(NetworkInterface, instance_id=first)[0].private_ip
        return {
            "run": lambda: launched.extend(self.run(1)),
            "authorize": lambda: api.call("AuthorizeSecurityGroupIngress", GroupId=self.group, IpPermissions=rules),
            "revoke": lambda: api.call("RevokeSecurityGroupIngress", GroupId=self.group, IpPermissions=rules),
            "tag": lambda: api.call("CreateTags", Resources=[first], Tags=tag),
            "attach": lambda: api.call("AttachVolume", VolumeId=volume, InstanceId=first, Device="/dev/sdf"),
            "detach": lambda: api.call("DetachVolume", VolumeId=volume),
            "delete": lambda: api.call("DeleteVolume", VolumeId=volume),
            "stop": lambda: api.call("StopInstances", InstanceIds=launched),
            "start": lambda: api.call("StartInstances", InstanceIds=launched),
            "reboot": lambda: api.call("RebootInstances", InstanceIds=launched),
            "terminate": lambda: api.call("TerminateInstances", InstanceIds=launched),
            "forget": lambda: self.forget(launched),
            "describe": lambda: api.call("DescribeInstances", InstanceIds=[first]),
            "find": lambda: api.call(
                "DescribeInstances",
                Filters=[
                    {"Name": "private-ip-address", "Values": [address]},
                    {"Name": "subnet-id", "Values": [self.subnets[0]]},
                ],
            ),
        }


def lines(work: Callable[[], object]) -> int:
    """How many lines of Python a call runs, the turns of loops included, in this thread."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def costs(fleet: Fleet) -> dict[str, int]:
    found = {}
    for name, change in fleet.change().items():

        def whole(change: Callable[[], object] = change) -> None:
            change()
            fleet.reconcilers.settle()

        found[name] = lines(whole)
    return found


@pytest.mark.timeout(120)
def test_a_change_costs_the_same_however_much_there_is(api) -> None:
    fleet = Fleet(api)
    fleet.grow(FEW)
    costs(fleet)  # what is made once for all is made
    few = costs(fleet)
    fleet.grow(MANY)
    many = costs(fleet)
    assert len(api.store.all(Instance, state=State.RUNNING)) >= MANY
    assert len(api.store.all(Image)) == 1
    print(few, many, sep="\n")
    dearer = {name: (few[name], many[name]) for name in few if many[name] > MORE_LINES * few[name] + AND_LINES}
    assert not dearer, "these run more lines the more instances there are (before, after)"
