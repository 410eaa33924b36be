"""Fragments of answers: written once, kept under a key that names all that they show, and no longer than they serve."""

from __future__ import annotations

import json
import threading
from typing import Any

from botocore.model import ListShape

from orchestrator.api import protocol as wire
from orchestrator.api.protocol import Fragment
from orchestrator.api.shapes import FragmentCache

EC2 = wire.load_service("ec2")
SSM = wire.load_service("ssm")


def test_a_fragment_is_built_once() -> None:
    ours, operation = wire.PROTOCOLS["ec2"](EC2), EC2.operation_model("DescribeInstances")
    calls: list[int] = []

    def show(number: int, revision: int) -> Fragment:
        def build() -> dict[str, Any]:
            calls.append(number)
            return {"InstanceId": f"i-{number}-{revision}"}

        return Fragment((number, revision), build)

    def ask(revisions: list[int]) -> str:
        shown = [{"Instances": [show(number, revision)]} for number, revision in enumerate(revisions)]
        return ours.serialise(operation, {"Reservations": shown}, "r")[0].decode()

    plain = {"Reservations": [{"Instances": [{"InstanceId": f"i-{number}-1"}]} for number in range(3)]}
    assert ask([1, 1, 1]) == ours.serialise(operation, plain, "r")[0].decode()
    assert calls == [0, 1, 2]
    assert ask([1, 1, 1]) == ask([1, 1, 1])
    assert calls == [0, 1, 2]
    assert "i-1-2" in ask([1, 2, 1])
    assert calls == [0, 1, 2, 1]


def test_the_same_key_elsewhere_is_another_text() -> None:
    ours = wire.PROTOCOLS["ec2"](EC2)
    for name, member in (("DescribeVpcs", "Vpcs"), ("DescribeSubnets", "Subnets")):
        result = {member: [Fragment("key", lambda: {"VpcId": "vpc-1", "State": "available"})]}
        body = ours.serialise(EC2.operation_model(name), result, "r")[0].decode()
        assert ("<vpcSet>" in body, "<subnetSet>" in body) == (member == "Vpcs", member == "Subnets")
    assert len(ours.fragments) == 2


def test_fragments_in_json() -> None:
    ours, operation = wire.PROTOCOLS["json"](SSM), SSM.operation_model("GetParameters")
    result = {"Parameters": [Fragment("a", lambda: {"Name": "a"}), {"Name": "b"}, Fragment("a", dict)]}
    body = ours.serialise(operation, result, "r")[0]
    assert json.loads(body) == {"Parameters": [{"Name": "a"}, {"Name": "b"}, {"Name": "a"}]}


def test_the_cache_is_bounded_and_forgets_the_least_recently_used() -> None:
    cache = FragmentCache(max_entries=3, max_characters=100)
    for key in "abc":
        cache.put(key, "x" * 10)
    assert cache.get("a") is not None
    cache.put("d", "x" * 10)
    assert [cache.get(key) is not None for key in "abcd"] == [True, False, True, True]
    cache.put("e", "x" * 85)
    assert [cache.get(key) is not None for key in "acde"] == [False, False, True, True]
    cache.put("e", "x")
    cache.put("f", "x" * 80)
    assert len(cache) == 3
    cache.put("g", "x" * 101)
    assert (len(cache), cache.get("g")) == (0, None)


def test_the_cache_forgets_what_nobody_has_asked_for_in_a_while() -> None:
    now = [0.0]
    cache = FragmentCache(idle_s=10.0, clock=lambda: now[0])
    for key in "ab":
        cache.put(key, "x" * 10)
    now[0] = 9.0
    assert cache.get("a") is not None
    now[0] = 12.0
    cache.put("c", "x")
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]


def test_threads_share_one_protocol() -> None:
    ours = wire.PROTOCOLS["ec2"](EC2)
    names = ["DescribeInstances", "DescribeVpcs", "DescribeVolumes", "DescribeSubnets", "DescribeSecurityGroups"]
    failures: list[BaseException] = []
    together = threading.Barrier(8)

    def work(number: int) -> None:
        try:
            together.wait(10)
            for turn in range(40):
                name = names[(turn + number) % len(names)]
                operation = EC2.operation_model(name)
                ours.parse(operation, {"Filter.1.Name": "x", "Filter.1.Value.1": "y"})
                assert operation.output_shape is not None
                member = next(m for m, s in operation.output_shape.members.items() if isinstance(s, ListShape))
                shown: dict[str, Any] = {} if name == "DescribeInstances" else {"Tags": [{"Key": "k"}]}
                result = {member: [Fragment(turn % 3, shown.copy)]}
                assert f"<{name}Response".encode() in ours.serialise(operation, result, "r")[0]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures


def test_what_is_built_anew_is_kept_under_its_own_key() -> None:
    """What a key is of has changed before it is built: nobody who asks by that key again gets what was built then."""
    ours, operation = wire.PROTOCOLS["ec2"](EC2), EC2.operation_model("DescribeVpcs")

    def say(key: str, built: str, anew: Fragment | None = None) -> str:
        fragment = Fragment(key, lambda: {"VpcId": built}, (lambda: anew) if anew else None)
        return ours.serialise(operation, {"Vpcs": [fragment]}, "r")[0].decode()

    assert "vpc-new" in say("before", "vpc-mixed", Fragment("after", lambda: {"VpcId": "vpc-new"}))
    assert "vpc-new" in say("after", "vpc-unseen")
    assert "vpc-old" in say("before", "vpc-old")
