"""Every operation, with hostile inputs, over a furnished world: refused or answered, and nothing is broken after.

`ORC_FUZZ_CALLS` says how many calls (a few thousand without it), `ORC_FUZZ_SEED` which ones.
"""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest

from tests.fuzz.deployment import Credentials, Deployment, furnish
from tests.fuzz.generator import MAX_BODY_BYTES, Generator

CALLS = int(os.environ.get("ORC_FUZZ_CALLS", "6000"))
SEED = int(os.environ.get("ORC_FUZZ_SEED", "20260102"))
FURNISH_EVERY = 700


def test_every_operation(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "state")
    deployment.start()
    try:
        _fuzz(deployment)
        _describe_everything(deployment)
    finally:
        deployment.stop()
    figures = deployment.figures
    print(
        f"seed {SEED}: {figures.calls} calls in {figures.seconds:.1f} s, {figures.accepted} accepted; "
        f"{len(figures.reached)} operations, of which {len(figures.succeeded)} succeeded; "
        f"slowest {figures.slowest[0]:.3f} s ({figures.slowest[1]}); {deployment.host_faults.looks} looks at the host"
    )
    before, after = deployment.reopened()
    faults = [f"{what}\n    {about}" for what, about in figures.faults.items()]
    faults += [f"the host was handed: {what}" for what in deployment.host_faults.found]
    faults += [f"logged: {text}" for text in deployment.take_log()]
    faults += [f"{key} is read again as something else" for key in before if before[key] != after.get(key)]
    assert not faults, f"seed {SEED}: {len(faults)} faults\n" + "\n\n".join(faults)
    assert len(before) == len(after)
    assert len(figures.succeeded) > len(figures.reached) * 0.6, "too little is reached: the generator has gone stale"


def _fuzz(deployment: Deployment) -> None:
    generator = Generator(SEED)
    operations = deployment.operations()
    people: list[Credentials] = []
    for number in range(CALLS):
        if number % FURNISH_EVERY == 0:
            furnish(deployment, generator, str(111122223333 + number))
            people = [deployment.root, _user(deployment)]
        operation = operations[number % len(operations)] if number < len(operations) else None
        operation = operation or generator.chance.choice(operations)
        made = generator.request(operation, hostility=0.6 if number % 4 else 0.1, taken=deployment.members(operation))
        who = people[generator.chance.random() < 0.15]
        region = "us-west-2" if generator.chance.random() < 0.03 else "us-east-1"
        response = deployment.throw(made, as_=who, region=region)
        if response.status == 200:
            generator.learn(response.body[:20_000].decode("utf-8", "replace"))
        elif b"NotFound" in response.body:
            generator.unlearn(response.body[:1000].decode("utf-8", "replace"))


def _user(deployment: Deployment) -> Credentials:
    for key in deployment.ask("iam", "ListAccessKeys", UserName="web")["AccessKeyMetadata"]:
        deployment.ask("iam", "DeleteAccessKey", UserName="web", AccessKeyId=key["AccessKeyId"])
    made = deployment.ask("iam", "CreateAccessKey", UserName="web")["AccessKey"]
    return Credentials(made["AccessKeyId"], made["SecretAccessKey"])


def _describe_everything(deployment: Deployment) -> None:
    """Whatever was made can be shown."""
    for operation in deployment.operations():
        shape = operation.input_shape
        if operation.name.startswith(("Describe", "List")) and not (shape and shape.required_members):
            target = operation.service_model.metadata.get("targetPrefix")
            body = (
                b"{}" if target else f"Action={operation.name}&Version={operation.service_model.api_version}".encode()
            )
            for region in ("us-east-1", "us-west-2"):
                began = time.thread_time()
                response = deployment.send(
                    operation.service_model.service_name,
                    body,
                    target=f"{target}.{operation.name}" if target else "",
                    region=region,
                )
                used = time.thread_time() - began
                if response.status >= 500:
                    deployment.figures.fault(f"{operation.name} of everything fails", repr(response.body[:500]))
                if used > 1:
                    deployment.figures.fault(f"{operation.name} of everything took {used:.2f} s", "")
                deployment.read(operation, response)


LARGEST = {
    "values": ("ec2", b"Action=DescribeInstances&" + b"&".join(b"InstanceId.%d=x" % n for n in range(1, 9_990))),
    "structures": ("ec2", b"Action=CreateTags&" + b"&".join(b"Tag.%d.Key=%d" % (n, n) for n in range(1, 9_990))),
    "names": ("ec2", b"Action=DescribeVpcs&" + b"&".join(b"%d%s=x" % (n, b".a" * 30) for n in range(9_990))),
    "more": ("ec2", b"Action=DescribeVpcs&" + b"&".join(b"%d=" % n for n in range(270_000))),
    "escapes": ("ec2", b"Action=DescribeVpcs&VpcId.1=" + b"%3C" * 650_000),
    "no escapes": ("ec2", b"Action=DescribeVpcs&VpcId.1=" + b"%" * 2_000_000),
    "policy": ("iam", b"Action=CreatePolicy&PolicyName=x&PolicyDocument=" + b"%5B" * 600_000),
    "json": ("kms", b'{"KeyId": [' + b"[]," * 600_000 + b"1]}"),
    "json depth": ("kms", b"[" * 2_000_000),
    "json number": ("kms", b'{"KeyId": ' + b"9" * 2_000_000 + b"}"),
    "json text": ("kms", b'{"KeyId": "' + b"\\ud83d\\ude00" * 160_000 + b'"}'),
}


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_bodies_take_little(deployment: Deployment, name: str) -> None:
    """Time of this thread, and memory in all, for a body of up to 2 MiB."""
    service, body = LARGEST[name]
    assert len(body) <= MAX_BODY_BYTES
    target = "TrentService.DescribeKey" if service == "kms" else ""
    tracemalloc.start()
    try:
        assert 400 <= deployment.send(service, body, target=target).status < 500
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    used = time.thread_time()
    deployment.send(service, body, target=target)
    used = time.thread_time() - used
    assert used < 1, f"{used:.2f} s"
    assert peak < 64 << 20, f"{peak >> 20} MiB"
    assert not deployment.take_log()
