"""What a guest reads of its instance profile: credentials that are renewed every hour, and refusals in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.model.iam import EC2_SERVICE, InstanceProfile, Role
from orchestrator.model.instance import Instance, ProfileAssociation
from orchestrator.model.session import make_deployment_secret, open_token
from tests.conftest import Clock
from tests.metadata.conftest import ACCOUNT, World

ROLE, PROFILE = "AROAAAAAAAAAAAAAAAAAA", "AIPAAAAAAAAAAAAAAAAAA"
CREDENTIALS = "/latest/meta-data/iam/security-credentials/"


def trust(**principal: str) -> str:
    return json.dumps({"Statement": {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}})


@pytest.fixture
def guest(world: World) -> Instance:
    """An instance with a profile with the role `web`."""
    make_deployment_secret(world.store)
    now = world.clock()
    arn = f"arn:aws:iam::{ACCOUNT}:instance-profile/web"
    with world.store.write() as tx:
        tx.put(Role(id=ROLE, account=ACCOUNT, created=now, name="web", trust=trust(Service=EC2_SERVICE)))
        tx.put(InstanceProfile(id=PROFILE, account=ACCOUNT, created=now, name="web", role_id=ROLE))
    association = ProfileAssociation(id="iip-assoc-0123456789abcdef0", profile_id=PROFILE, arn=arn, since=now)
    return world.launch(2, profile=association)


def read(world: World, path: str) -> dict[str, Any]:
    answer = world.ask(2, path)
    assert answer.status == 200
    found: dict[str, Any] = json.loads(answer.text)
    return found


def moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def test_a_profile_and_its_role(world: World, guest: Instance) -> None:
    assert "iam/" in world.ask(2, "/latest/meta-data/").text.split("\n")
    info = read(world, "/latest/meta-data/iam/info")
    assert (info["Code"], info["InstanceProfileId"]) == ("Success", PROFILE)
    assert info["InstanceProfileArn"] == f"arn:aws:iam::{ACCOUNT}:instance-profile/web"
    assert world.ask(2, CREDENTIALS).text == "web"
    found = read(world, CREDENTIALS + "web")
    assert (found["Code"], found["Type"]) == ("Success", "AWS-HMAC")
    assert found["AccessKeyId"].startswith("ASIA") and len(found["AccessKeyId"]) == 20
    secret = make_deployment_secret(world.store)
    opened = open_token(secret, found["Token"])
    assert opened.secret_key == found["SecretAccessKey"]
    assert (opened.session.principal, opened.session.name, opened.session.instance) == (ROLE, guest.id, guest.id)
    assert opened.session.access_key == found["AccessKeyId"]
    assert world.ask(2, CREDENTIALS + "other").status == 404


def test_credentials_are_renewed_long_before_they_end(world: World, guest: Instance, clock: Clock) -> None:
    first = read(world, CREDENTIALS + "web")
    for _ in range(48):
        clock.pass_(minutes=15)
        found = read(world, CREDENTIALS + "web")
        assert (moment(found["Expiration"]) - clock()).total_seconds() > 4 * 3600
    assert found["AccessKeyId"] != first["AccessKeyId"]
    assert found["Token"] != first["Token"]
    again = read(world, CREDENTIALS + "web")
    assert again == found


def test_another_instance_has_others(world: World, guest: Instance) -> None:
    world.launch(3, profile=guest.profile)
    mine, theirs = (json.loads(world.ask(number, CREDENTIALS + "web").text) for number in (2, 3))
    assert mine["AccessKeyId"] != theirs["AccessKeyId"]
    assert mine["Token"] != theirs["Token"]


def test_without_a_profile_there_is_no_iam(world: World, guest: Instance) -> None:
    world.change(guest, profile=None)
    assert world.ask(2, "/latest/meta-data/iam/").status == 404
    assert "iam/" not in world.ask(2, "/latest/meta-data/").text.split("\n")
    assert world.ask(2, CREDENTIALS + "web").status == 404


def test_a_role_that_does_not_trust_ec2(world: World, guest: Instance) -> None:
    role = world.store.get(Role, ROLE)
    assert role is not None
    for document in (trust(AWS=ACCOUNT), trust(Service="lambda.amazonaws.com"), trust(AWS="*"), "broken"):
        with world.store.write() as tx:
            tx.put(replace(role, trust=document))
        found = read(world, CREDENTIALS + "web")
        assert found["Code"] == "AssumeRoleUnauthorizedAccess"
        assert "SecretAccessKey" not in found


def test_a_profile_or_a_role_that_is_gone(world: World, guest: Instance) -> None:
    profile, role = world.store.get(InstanceProfile, PROFILE), world.store.get(Role, ROLE)
    assert profile is not None and role is not None
    with world.store.write() as tx:
        tx.delete(role)
    assert world.ask(2, CREDENTIALS).status == 404
    with world.store.write() as tx:
        tx.delete(profile)
    assert read(world, "/latest/meta-data/iam/info")["Code"] == "InstanceProfileNotFound"


def test_before_the_deployment_has_a_secret(start_world: Callable[..., World]) -> None:
    world = start_world()
    world.open()
    now = world.clock()
    with world.store.write() as tx:
        tx.put(Role(id=ROLE, account=ACCOUNT, created=now, name="web", trust=trust(Service=EC2_SERVICE)))
        tx.put(InstanceProfile(id=PROFILE, account=ACCOUNT, created=now, name="web", role_id=ROLE))
    association = ProfileAssociation(id="iip-assoc-0123456789abcdef0", profile_id=PROFILE, arn="a", since=now)
    world.launch(2, profile=association)
    assert read(world, CREDENTIALS + "web")["Code"] == "Failed"
