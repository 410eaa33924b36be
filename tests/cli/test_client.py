"""`client`: what is sent, what is tried again, and what every failure says. The fake controller checks signatures."""

from __future__ import annotations

import io
import socket
import time

import click
import pytest

from orchestrator.cli import client as client_module
from orchestrator.cli.client import APIError, Client, NotFound, Unreachable, escape
from orchestrator.cli.session import Endpoint
from tests.cli.conftest import ACCESS_KEY, INSTANCE, OTHER, FakeApi, instance


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_AGAIN_AFTER_S", 0.0)


def test_each_service_is_signed_for_itself(client: Client, api: FakeApi) -> None:
    api.answer("DescribeVpcs", "<vpcSet/>")
    api.answer("ListRecipes", {"Recipes": ["tiny"]})
    api.answer("GetCallerIdentity", "<GetCallerIdentityResult><Account>1</Account></GetCallerIdentityResult>")
    assert client.ec2("DescribeVpcs") == {"Vpcs": []}
    assert client.orc("ListRecipes") == {"Recipes": ["tiny"]}
    assert client.call("sts", "GetCallerIdentity") == {"Account": "1"}
    assert [seen.service for seen in api.seen] == ["ec2", "orc", "sts"]
    assert api.seen[1].headers["X-Amz-Target"] == "Orchestrator_20261101.ListRecipes"


def test_a_session_token_goes_along(api: FakeApi) -> None:
    api.answer("DescribeVpcs", "<vpcSet/>")
    Client(Endpoint(api.url, "eu-west-1", ACCESS_KEY, "secret/of+the=test", "tok")).ec2("DescribeVpcs")
    assert api.seen[0].headers["X-Amz-Security-Token"] == "tok"
    assert api.seen[0].region == "eu-west-1"


def test_pages_are_put_together(client: Client, api: FakeApi) -> None:
    api.answer(
        "DescribeVpcs",
        "<vpcSet><item><vpcId>vpc-1</vpcId></item></vpcSet><nextToken>more</nextToken>",
        "<vpcSet><item><vpcId>vpc-2</vpcId></item></vpcSet>",
    )
    assert [one["VpcId"] for one in client.pages("DescribeVpcs", "Vpcs", MaxResults=5)] == ["vpc-1", "vpc-2"]
    assert [form.get("NextToken") for form in api.forms("DescribeVpcs")] == [None, "more"]


def test_a_read_is_tried_again_and_a_write_is_not(client: Client, api: FakeApi) -> None:
    busy = (503, b"<Response><Errors><Error><Code>Unavailable</Code><Message>m</Message></Error></Errors></Response>")
    api.answer("DescribeVpcs", busy, busy, "<vpcSet/>")
    assert client.ec2("DescribeVpcs") == {"Vpcs": []}
    api.answer("StopInstances", busy, "<instancesSet/>")
    with pytest.raises(APIError) as caught:
        client.ec2("StopInstances", InstanceIds=[INSTANCE])
    assert (caught.value.code, caught.value.exit_code, len(api.forms("StopInstances"))) == ("Unavailable", 1, 1)


def test_a_read_is_not_tried_for_ever(client: Client, api: FakeApi) -> None:
    api.refuse("DescribeVpcs", "RequestLimitExceeded", status=503)
    with pytest.raises(APIError, match="no"):
        client.ec2("DescribeVpcs")
    assert len(api.seen) == 4


@pytest.mark.parametrize(
    ("code", "exit_code", "words"),
    [
        ("InvalidParameterValue", 1, "InvalidParameterValue: no"),
        ("InvalidKeyPair.NotFound", 3, "orc key ls"),
        ("InvalidVpcID.NotFound", 3, "InvalidVpcID.NotFound: no"),
    ],
)
def test_a_refusal_shows_code_and_message(client: Client, api: FakeApi, code: str, exit_code: int, words: str) -> None:
    api.refuse("DescribeVpcs", code)
    with pytest.raises(APIError) as caught:
        client.ec2("DescribeVpcs")
    assert caught.value.exit_code == exit_code
    assert words in caught.value.format_message()


def test_nobody_there(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unreachable, match=rf"no controller answers at http://127.0.0.1:{port}.*orc serve") as caught:
        Client(Endpoint(f"http://127.0.0.1:{port}", "r", "a", "s")).ec2("DescribeVpcs")
    assert caught.value.exit_code == 5


def test_somebody_else_there(client: Client, api: FakeApi) -> None:
    api.answer("DescribeVpcs", b"<html>hello")
    with pytest.raises(Unreachable, match="is not a controller's"):
        client.ec2("DescribeVpcs")
    api.answer("DescribeVpcs", (502, b"<html>bad gateway</html>"))
    with pytest.raises(Unreachable, match="HTTP 502 <html>bad gateway"):
        client.ec2("DescribeVpcs")


def test_somebody_who_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(Unreachable, match="has not answered"):
            Client(Endpoint(url, "r", "a", "s"), timeout_s=0.1).ec2("DescribeVpcs")
        assert time.monotonic() - began < 5


def test_upload(client: Client, api: FakeApi) -> None:
    api.answer("upload", {"UploadId": "upload-1", "Sha512": "ff"})
    content = b"\x01" * 3_000_000
    assert client.upload(io.BytesIO(content), len(content)) == {"UploadId": "upload-1", "Sha512": "ff"}
    (seen,) = api.seen
    assert (seen.method, seen.body, seen.service) == ("PUT", content, "orc")
    assert seen.headers["X-Amz-Content-SHA256"] == "UNSIGNED-PAYLOAD"
    api.answer("upload", (400, b'{"__type": "InvalidParameterValue", "message": "too large"}'))
    with pytest.raises(APIError, match="too large"):
        client.upload(io.BytesIO(content), len(content))


# --- instances by what people call them ---


def test_an_id_is_taken_as_it_is(client: Client, api: FakeApi) -> None:
    assert client.find([INSTANCE, "i-01234567", INSTANCE]) == [INSTANCE, "i-01234567"]
    assert api.seen == []


def test_a_name_is_looked_up_literally_among_the_living(client: Client, api: FakeApi) -> None:
    api.instances(instance(name="we*b"))
    assert client.find(["we*b"]) == [INSTANCE]
    (form,) = api.forms("DescribeInstances")
    assert (form["Filter.1.Name"], form["Filter.1.Value.1"]) == ("tag:Name", "we\\*b")
    assert form["Filter.2.Name"] == "instance-state-name"
    assert "terminated" not in form.values()


def test_the_beginning_of_an_id(client: Client, api: FakeApi) -> None:
    api.instances(instance())
    assert client.find(["i-0123"]) == [INSTANCE]
    assert api.forms("DescribeInstances")[0]["Filter.1.Value.1"] == "i-0123*"


def test_an_ambiguous_name_lists_its_instances(client: Client, api: FakeApi) -> None:
    api.instances(instance(), instance(OTHER, "stopped"))
    with pytest.raises(click.UsageError, match=rf"{INSTANCE} \(running\), {OTHER} \(stopped\)"):
        client.find(["twin"])


def test_a_name_that_was_given_again(client: Client, api: FakeApi) -> None:
    api.instances(instance(OTHER, "shutting-down", "web"), instance(INSTANCE, "pending", "web"))
    assert client.find(["web"]) == [INSTANCE]


@pytest.mark.parametrize("name", ["nobody", ""])
def test_an_unknown_name(client: Client, api: FakeApi, name: str) -> None:
    api.instances()
    with pytest.raises(NotFound, match="orc ls") as caught:
        client.find([name])
    assert caught.value.exit_code == 3


def test_an_ended_one_by_name_where_that_helps(client: Client, api: FakeApi) -> None:
    none = "<reservationSet/>"
    two = "".join(
        f"<item><instancesSet>{instance(one, 'terminated', 'web')}</instancesSet></item>" for one in (OTHER, INSTANCE)
    )
    api.answer("DescribeInstances", none, f"<reservationSet>{two}</reservationSet>")
    assert client.find(["web"], terminated=True) == [OTHER]  # the newest, by time and then id


@pytest.mark.parametrize(("text", "expected"), [("a*b?c", r"a\*b\?c"), ("a\\b", r"a\\b"), ("plain", "plain")])
def test_escape(text: str, expected: str) -> None:
    assert escape(text) == expected
