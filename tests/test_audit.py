"""The audit log: what is in it, that nothing of it can be changed unseen, and how it is read."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner

from orchestrator.__main__ import cli
from orchestrator.model.audit import Head, parse_head
from orchestrator.store import Store, StoreUnavailable
from orchestrator.trail import Trail, segments, verify

from .api.test_limits import Door, settings
from .conftest import Serving

Event = dict[str, Any]


def event(number: int, **changes: Any) -> Event:
    return {"eventName": f"Call{number}", "eventTime": "2026-01-02T03:04:05Z", "readOnly": True, **changes}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "orchestrator.db"


def open_store(path: Path, *, kept: int = 20) -> Store:
    store = Store(path, durable=False, kept_events=kept)
    store.trail._segment_events = 10
    return store


@pytest.fixture
def written(path: Path) -> Path:
    """The state directory of a log of 57 events: segments 1-10, 11-20, 21-30, and 31-57 in the store."""
    store = open_store(path)
    for number in range(1, 58):
        if number % 3:
            store.trail.note(lambda number=number: event(number))  # type: ignore[misc]
        else:
            store.trail.flush()
            with store.write() as tx:
                tx.record(event(number))
    store.trail.flush()
    assert store.trail.move_out() == 3
    store.close()
    return path.parent


# --- the chain --------------------------------------------------------------------------------------------------------


def test_segments_and_rows_are_one_chain(written: Path) -> None:
    assert [(each.first, each.last) for each in segments(written / "audit")] == [(1, 10), (11, 20), (21, 30)]
    verifier = verify(written)
    assert verifier.problems == [] and verifier.head.number == 57
    assert {path.stat().st_mode & 0o777 for path in (written / "audit").iterdir()} == {0o400}
    store = open_store(written / "orchestrator.db")
    assert [each["eventName"] for each in store.events(100)] == [f"Call{number}" for number in range(57, 0, -1)]
    assert [tuple(row) for row in store._database.query("SELECT min(number), count(*) FROM audit")] == [(31, 27)]
    store.close()


Tamper = Callable[[Path], None]


def in_segment(change: Callable[[list[bytes]], list[bytes]], which: int = 1) -> Tamper:
    def tamper(state: Path) -> None:
        path = segments(state / "audit")[which].path
        lines = change(path.read_bytes().splitlines(keepends=True))
        path.chmod(0o600)
        path.write_bytes(b"".join(lines))

    return tamper


def in_store(*statements: str) -> Tamper:
    def tamper(state: Path) -> None:
        with closing(sqlite3.connect(state / "orchestrator.db")) as db:
            for statement in statements:
                db.execute(statement)
            db.commit()

    return tamper


def rewrite_hash(lines: list[bytes]) -> list[bytes]:
    """An event changed by somebody who knows how its hash is made."""
    from orchestrator.model.audit import Link, link_hash, parse_line

    before, link = parse_line(lines[3].rstrip()), parse_line(lines[4].rstrip())
    assert before is not None and link is not None
    document = link.document.replace(b"Call", b"Fall")
    changed = Link(link.number, link_hash(before.hash, link.number, document), document)
    return [*lines[:4], changed.line + b"\n", *lines[5:]]


TAMPERED: dict[str, tuple[Tamper, str]] = {
    "a segment's event is changed": (
        in_segment(lambda lines: [line.replace(b"Call14", b"Call15") for line in lines]),
        "event 14 is not what was written",
    ),
    "and its hash too": (in_segment(rewrite_hash), "event 16 is not what was written, or event 15"),
    "a line is removed": (in_segment(lambda lines: lines[:3] + lines[4:]), "event 14 is missing"),
    "lines change places": (
        in_segment(lambda lines: [lines[1], lines[0], *lines[2:]]),
        "event 11 comes after event 12",
    ),
    "a line is there twice": (in_segment(lambda lines: [lines[0], *lines]), "event 11 comes after event 11"),
    "a segment ends early": (in_segment(lambda lines: lines[:-2]), "ends with event 18"),
    "a segment's last line is torn": (
        in_segment(lambda lines: [*lines[:-1], lines[-1][:-5]]),
        "line 10 is not an event",
    ),
    "space is added": (in_segment(lambda lines: [b" " + lines[0], *lines[1:]]), "line 1 is not an event"),
    "the first segment is gone": (
        lambda state: segments(state / "audit")[0].path.unlink(),
        "events 1 to 10 are missing",
    ),
    "a segment in the middle is gone": (
        lambda state: segments(state / "audit")[1].path.unlink(),
        "events 11 to 20 are missing",
    ),
    "the last segment is gone": (
        lambda state: segments(state / "audit")[2].path.unlink(),
        "events 21 to 30 are missing",
    ),
    "a row is changed": (
        in_store("UPDATE audit SET document = replace(document, 'Call40', 'Call41') WHERE number = 40"),
        "event 40 is not what was written",
    ),
    "a row is removed": (in_store("DELETE FROM audit WHERE number = 40"), "event 40 is missing"),
    "the newest row is removed": (in_store("DELETE FROM audit WHERE number = 57"), "event 57 is missing"),
    "rows change places": (
        in_store(
            "UPDATE audit SET number = 1000 WHERE number = 40",
            "UPDATE audit SET number = 40 WHERE number = 41",
            "UPDATE audit SET number = 41 WHERE number = 1000",
        ),
        "event 40 is not what was written",
    ),
    "a row is added": (
        in_store("INSERT INTO audit SELECT 58, hash, document FROM audit WHERE number = 57"),
        "event 58 is more than was written",
    ),
    "the note of the newest is changed": (
        in_store("UPDATE meta SET value = '57:' || printf('%064d', 0) WHERE name = 'audit_head'"),
        "event 57 is not the one that was written last",
    ),
}


@pytest.mark.parametrize(("tamper", "problem"), TAMPERED.values(), ids=TAMPERED)
def test_verify_finds(written: Path, tamper: Tamper, problem: str) -> None:
    tamper(written)
    assert any(problem in found for found in verify(written).problems), verify(written).problems


def test_a_log_that_was_written_anew_is_not_the_one_that_was_known(written: Path, tmp_path: Path) -> None:
    known = verify(written).head
    other = open_store(tmp_path / "other" / "orchestrator.db")
    for number in range(60):
        with other.write() as tx:
            tx.record(event(number, eventName="Invented"))
    other.close()
    assert verify(tmp_path / "other").problems == []
    assert "the log was written anew" in verify(tmp_path / "other", known=[known]).problems[0]
    in_store("DELETE FROM audit WHERE number > 50", "DELETE FROM meta WHERE name = 'audit_head'")(written)
    assert "event 57 is known, and is not here" in verify(written, known=[known]).problems


def test_segments_may_be_kept_elsewhere(written: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    oldest = segments(written / "audit")[0].path
    oldest.rename(archive / oldest.name)
    assert verify(written).problems == ["events 1 to 10 are missing"]
    assert verify(written, archive).problems == []


def test_a_move_that_was_cut_off_is_finished(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(path)
    for number in range(1, 41):
        with store.write() as tx:
            tx.record(event(number))
    monkeypatch.setattr(Trail, "_drop_moved", lambda self: None if segments(self.directory) == [] else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.trail.move_out()
    monkeypatch.undo()
    assert store._database.count("audit") == 40
    assert verify(path.parent).problems == []
    (path.parent / "audit" / "000000000011-000000000020.new").write_bytes(b"half")
    assert store.trail.move_out() == 1
    assert store._database.event_range()[0] == 21
    assert [each["eventName"] for each in store.events()] == [f"Call{number}" for number in range(40, 0, -1)]
    store.close()
    assert verify(path.parent).problems == []


def test_a_segment_is_read_a_little_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others write in between, and little of it is in memory at once."""
    monkeypatch.setattr("orchestrator.trail._READ_AT_ONCE", 4)
    store = open_store(path)
    asked: list[tuple[int, int]] = []
    read = store._database.events
    monkeypatch.setattr(store._database, "events", lambda first, last: asked.append((first, last)) or read(first, last))
    for number in range(1, 32):
        store.trail.note(lambda number=number: event(number))  # type: ignore[misc]
    store.trail.flush()
    assert store.trail.move_out() == 1
    assert asked == [(1, 4), (5, 8), (9, 10)]
    store.close()
    verifier = verify(path.parent)
    assert verifier.problems == [] and verifier.head.number == 31


def test_events_that_are_not_whole_stay_where_they_are(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(path)
    for number in range(1, 32):
        store.trail.note(lambda number=number: event(number))  # type: ignore[misc]
    store.trail.flush()
    store._database.change("DELETE FROM audit WHERE number = 7")
    assert store.trail.move_out() == 0
    assert "events 1 to 10 of the audit log are not whole" in caplog.text
    assert list((path.parent / "audit").iterdir()) == []
    assert store._database.count("audit") == 30
    store.close()


def test_it_can_be_verified_while_it_is_written_and_moved(path: Path) -> None:
    store = open_store(path)
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            with store.write() as tx:
                tx.record(event(number))
            if number % 7 == 0:
                store.trail.move_out()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        deadline = time.monotonic() + 20
        heads: list[Head] = []
        while len(segments(path.parent / "audit")) < 30 and time.monotonic() < deadline:
            verifier = verify(path.parent, known=heads)
            assert verifier.problems == []
            heads = [verifier.head]
        assert len(segments(path.parent / "audit")) >= 30
    finally:
        ended.set()
        writer.join()
        store.close()


def test_what_was_noted_waits_while_it_cannot_be_written(path: Path) -> None:
    store = open_store(path)
    store._database.query("PRAGMA query_only=ON")
    store.trail.note(lambda: event(1))
    with pytest.raises(StoreUnavailable):
        store.trail.flush()
    with pytest.raises(StoreUnavailable), store.write() as tx:
        tx.record(event(2))
    store._database.query("PRAGMA query_only=OFF")
    store.trail.flush()
    assert [each["eventName"] for each in store.events()] == ["Call1"]
    store.close()
    assert verify(path.parent).problems == []


def test_whatever_goes_wrong_it_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("orchestrator.trail.WRITE_EACH_S", 0.01)
    store = open_store(path)
    failing = [ValueError("a mistake of ours")]
    flush = store.trail.flush
    monkeypatch.setattr(store.trail, "flush", lambda: flush() if not failing else _raise(failing.pop()))
    store.trail.start()
    store.trail.note(lambda: event(1))
    deadline, pause = time.monotonic() + 5.0, threading.Event()
    while not (store.trail.head.number == 1 or time.monotonic() > deadline):
        pause.wait(0.01)
    assert [each["eventName"] for each in store.events()] == ["Call1"]
    assert "a mistake of ours" in caplog.text and "Traceback" in caplog.text
    store.close()


def _raise(error: Exception) -> None:
    raise error


def test_too_many_that_wait_are_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.trail.MOST_NOTED", 5)
    store = open_store(path)
    for number in range(9):
        store.trail.note(lambda number=number: event(number))  # type: ignore[misc]
    newest, *rest = store.events()
    assert newest["eventName"] == "EventsLost" and newest["serviceEventDetails"] == {"count": 4}
    assert len(rest) == 5
    store.close()


@pytest.mark.parametrize("odd", ["\ud800", 2**70, float("nan"), "\n\x00\u2028"])
def test_whatever_a_caller_sends_becomes_one_line(path: Path, odd: Any) -> None:
    store = open_store(path, kept=1)
    for number in range(11):
        with store.write() as tx:
            tx.record(event(number, userAgent=odd))
    assert store.trail.move_out() == 1
    store.close()
    assert verify(path.parent).problems == []


def test_heads_are_read_as_they_are_shown() -> None:
    head = Head(7, bytes(range(32)))
    assert parse_head(str(head)) == head
    for wrong in ("", "7", "x:" + "0" * 64, "7:" + "0" * 63, "7:" + "g" * 64):
        with pytest.raises(ValueError, match="NUMBER:HASH"):
            parse_head(wrong)


# --- a controller's log -----------------------------------------------------------------------------------------------


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path / "state", "--host", "memory")
    serving.start()
    yield serving
    if serving.process is not None and serving.process.poll() is None:
        serving.end()


def looked_up(serving: Serving, **params: Any) -> list[Event]:
    pages = serving.client("cloudtrail").get_paginator("lookup_events").paginate(**params)
    return [json.loads(found["CloudTrailEvent"]) for page in pages for found in page["Events"]]


def by_name(serving: Serving, name: str) -> list[Event]:
    return looked_up(serving, LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": name}])


def test_every_call_is_there_with_who_what_where_and_outcome(serving: Serving) -> None:
    ec2 = serving.client("ec2")
    made = ec2.create_vpc(CidrBlock="10.7.0.0/16")
    ec2.describe_vpcs(VpcIds=[made["Vpc"]["VpcId"]])
    with pytest.raises(ClientError):
        ec2.describe_instances(InstanceIds=["i-" + "0" * 17])
    with pytest.raises(ClientError):
        serving.client("ec2", aws_secret_access_key="wrong").describe_vpcs()
    [create] = by_name(serving, "CreateVpc")
    keys = json.loads((serving.state_dir / "credentials.json").read_text())
    assert create["eventVersion"] == "1.11" and create["eventType"] == "AwsApiCall" and create["readOnly"] is False
    assert create["userIdentity"] == {
        "type": "Root",
        "principalId": keys["account"],
        "arn": f"arn:aws:iam::{keys['account']}:root",
        "accountId": keys["account"],
        "accessKeyId": keys["access_key_id"],
    }
    assert create["eventSource"] == "ec2.amazonaws.com" and create["awsRegion"] == keys["region"]
    assert create["sourceIPAddress"] == "127.0.0.1" and "Boto3" in create["userAgent"]
    assert create["requestParameters"] == {"cidrBlock": "10.7.0.0/16"}
    assert create["responseElements"]["vpc"]["vpcId"] == made["Vpc"]["VpcId"]
    assert create["requestID"] == made["ResponseMetadata"]["RequestId"]
    assert re.fullmatch("[0-9a-f-]{36}", create["eventID"]) and create["recipientAccountId"] == keys["account"]
    refused, read = by_name(serving, "DescribeVpcs")
    assert read["readOnly"] is True and read["responseElements"] is None and "errorCode" not in read
    assert read["requestParameters"] == {"vpcIds": [made["Vpc"]["VpcId"]]}
    assert refused["errorCode"] == "Client.SignatureDoesNotMatch" or refused["errorCode"].startswith("Client.Auth")
    assert refused["userIdentity"]["type"] == "Unknown"
    [missing] = by_name(serving, "DescribeInstances")
    assert missing["errorCode"] == "Client.InvalidInstanceID.NotFound" and "i-000" in missing["errorMessage"]


def test_lookup_by_each_attribute_time_and_page(serving: Serving) -> None:
    ec2 = serving.client("ec2")
    made = [ec2.create_vpc(CidrBlock=f"10.{number}.0.0/16")["Vpc"]["VpcId"] for number in range(5)]
    trail = serving.client("cloudtrail")

    def names(key: str, value: str) -> list[str]:
        answer = trail.lookup_events(LookupAttributes=[{"AttributeKey": key, "AttributeValue": value}])
        return [found["EventName"] for found in answer["Events"]]

    found = trail.lookup_events(LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "CreateVpc"}])
    first = found["Events"][-1]
    assert first["Username"] == "root" and first["EventSource"] == "ec2.amazonaws.com" and first["ReadOnly"] == "false"
    assert {"ResourceType": "AWS::EC2::VPC", "ResourceName": made[0]} in first["Resources"]
    assert names("EventId", first["EventId"]) == ["CreateVpc"]
    assert names("ResourceName", made[2]) == ["CreateVpc"]
    assert names("ResourceType", "AWS::EC2::VPC") == ["CreateVpc"] * 5
    assert names("EventSource", "ec2.amazonaws.com") == ["CreateVpc"] * 5
    assert names("ReadOnly", "false") == ["CreateVpc"] * 5
    assert "CreateVpc" not in names("ReadOnly", "true")
    assert names("Username", "root")[-1] == "CreateVpc" and names("Username", "nobody") == []
    assert names("AccessKeyId", first["AccessKeyId"])[-1] == "CreateVpc"
    assert trail.lookup_events(EndTime=datetime.now(UTC) - timedelta(hours=1))["Events"] == []
    later = trail.lookup_events(StartTime=datetime.now(UTC) + timedelta(seconds=5), EndTime=datetime(2100, 1, 1))
    assert later["Events"] == []
    attribute = [{"AttributeKey": "EventName", "AttributeValue": "CreateVpc"}]
    pages = list(
        trail.get_paginator("lookup_events").paginate(LookupAttributes=attribute, PaginationConfig={"PageSize": 2})
    )
    seen = [found["EventId"] for page in pages for found in page["Events"]]
    assert [len(page["Events"]) for page in pages][:3] == [2, 2, 1] and len(set(seen)) == 5
    assert seen[-1] == first["EventId"]
    # Another region and another account have their own.
    assert serving.client("cloudtrail", region_name="us-west-2").lookup_events()["Events"] == []


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"NextToken": "bm9uZQ=="}, "InvalidNextTokenException"),
        ({"NextToken": base64.b64encode(b"[" * 100_000).decode()}, "InvalidNextTokenException"),
        ({"StartTime": 2_000_000_000, "EndTime": 1_900_000_000}, "InvalidTimeRangeException"),
        ({"EventCategory": "insight"}, "InvalidEventCategoryException"),
        (
            {"LookupAttributes": [{"AttributeKey": "ReadOnly", "AttributeValue": "maybe"}]},
            "InvalidLookupAttributesException",
        ),
        (
            {"LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": "A"}] * 2},
            "InvalidLookupAttributesException",
        ),
    ],
)
def test_lookups_that_make_no_sense(serving: Serving, params: dict[str, Any], code: str) -> None:
    client = serving.client("cloudtrail")
    with pytest.raises(ClientError) as caught:
        client.lookup_events(**params)
    assert caught.value.response["Error"]["Code"] == code


def test_a_lookup_reads_so_much_and_says_where_to_go_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.api.cloudtrail._MOST_READ", 15)
    store = open_store(path)
    door = Door(store, settings())
    for number in range(60):
        assert door.ask(f"Action={'DescribeVpcs' if number in (3, 33) else 'DescribeSubnets'}").status == 200
    store.trail.flush()
    assert store.trail.move_out() >= 3
    target = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents"
    asked: Event = {"LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": "DescribeVpcs"}]}
    pages: list[list[str]] = []
    while True:
        answer = door.ask(json.dumps(asked), service="cloudtrail", target=target)
        assert answer.status == 200, answer.body
        page = json.loads(answer.body)
        pages.append([found["EventName"] for found in page["Events"]])
        if "NextToken" not in page:
            break
        asked["NextToken"] = page["NextToken"]
        assert len(pages) < 20
    assert len(pages) >= 4 and [name for page in pages for name in page] == ["DescribeVpcs"] * 2
    other = door.ask(json.dumps({"NextToken": asked["NextToken"]}), service="cloudtrail", target=target)
    assert b"InvalidNextTokenException" in other.body, "a token is for the request that it was given to"
    store.close()


def test_secrets_are_not_in_it(serving: Serving) -> None:
    import base64

    ec2, kms = serving.client("ec2"), serving.client("kms")
    planted = "planted-secret-5f1c"
    material = ec2.create_key_pair(KeyName="web", KeyType="ed25519")["KeyMaterial"]
    with pytest.raises(ClientError):
        ec2.run_instances(ImageId="ami-" + "0" * 17, MinCount=1, MaxCount=1, UserData=planted)
    with pytest.raises(ClientError):
        ec2.modify_instance_attribute(InstanceId="i-" + "0" * 17, UserData={"Value": planted.encode()})
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.encrypt(KeyId=key, Plaintext=planted.encode())
    data_key = kms.generate_data_key(KeyId=key, KeySpec="AES_256")["Plaintext"]
    user = serving.client("iam")
    user.create_user(UserName="ann")
    secret = user.create_access_key(UserName="ann")["AccessKey"]["SecretAccessKey"]
    session = serving.client("sts").get_session_token()["Credentials"]
    serving.end()
    runner = CliRunner()
    listed = runner.invoke(cli, ["audit", "ls", "-o", "json", "--last", "0", "--state-dir", str(serving.state_dir)])
    assert listed.exit_code == 0, listed.output
    events = [json.loads(line) for line in listed.output.splitlines()]
    names = {each["eventName"] for each in events}
    assert {"CreateKeyPair", "RunInstances", "Encrypt", "GenerateDataKey", "CreateAccessKey"} <= names
    [pair] = [each for each in events if each["eventName"] == "CreateKeyPair"]
    assert pair["responseElements"]["keyMaterial"] == "<sensitiveDataRemoved>"
    planted_data = base64.b64encode(planted.encode()).decode()
    hidden = [planted, planted_data, secret, session["SecretAccessKey"], session["SessionToken"]]
    hidden += [material.splitlines()[1], base64.b64encode(data_key).decode()]
    for each in hidden:
        assert each not in listed.output
    with closing(sqlite3.connect(serving.state_dir / "orchestrator.db")) as db:
        documents = b"".join(row[0] for row in db.execute("SELECT document FROM audit"))
    for each in hidden:
        assert each.encode() not in documents


def test_what_is_large_is_left_out_with_its_size(serving: Serving) -> None:
    ec2 = serving.client("ec2")
    ec2.describe_instances(Filters=[{"Name": "tag:x", "Values": ["y" * 200] * 200}])
    [found] = by_name(serving, "DescribeInstances")
    assert found["requestParameters"]["omitted"] is True and found["requestParameters"]["originalSize"] > 40_000


def test_reads_are_written_within_a_second(serving: Serving) -> None:
    serving.client("ec2").describe_vpcs()
    deadline = time.monotonic() + 1.5
    names: list[str] = []
    while "DescribeVpcs" not in names:
        assert time.monotonic() < deadline
        with closing(sqlite3.connect(f"file:{serving.state_dir / 'orchestrator.db'}?mode=ro", uri=True)) as db:
            names = [json.loads(row[0])["eventName"] for row in db.execute("SELECT document FROM audit")]


def test_a_kill_loses_only_what_was_not_written(serving: Serving) -> None:
    ec2 = serving.client("ec2")
    made = []
    for number in range(20):
        made.append(ec2.create_vpc(CidrBlock=f"10.{number}.0.0/16")["Vpc"]["VpcId"])
        ec2.describe_vpcs()
    serving.end(signal.SIGKILL)
    verifier = verify(serving.state_dir)
    assert verifier.problems == []
    serving.start()
    shown = by_name(serving, "CreateVpc")
    assert [each["responseElements"]["vpc"]["vpcId"] for each in reversed(shown)] == made
    serving.end()
    after = verify(serving.state_dir, known=[verifier.head])
    assert after.problems == [] and after.head.number > verifier.head.number


def test_the_command_line(serving: Serving) -> None:
    ec2 = serving.client("ec2")
    ec2.create_vpc(CidrBlock="10.0.0.0/16")
    with pytest.raises(ClientError):
        ec2.describe_vpcs(VpcIds=["vpc-" + "0" * 17])
    serving.end()
    runner = CliRunner(env={name: None for name in os.environ if name.startswith("ORC_")})

    def orc(*words: str) -> tuple[int, str]:
        done = runner.invoke(cli, [*words, "--state-dir", str(serving.state_dir)])
        return done.exit_code, done.output

    code, output = orc("audit", "verify")
    assert code == 0
    head = output.split()[-1]
    assert orc("audit", "verify", "--head", head)[0] == 0
    assert orc("audit", "verify", "--head", "12")[0] == 2
    code, output = orc("audit", "ls", "--error")
    [line] = output.splitlines()
    assert code == 0 and "ec2.DescribeVpcs  Client.InvalidVpcID.NotFound" in line
    assert [line.split()[1] for line in orc("audit", "ls", "--write")[1].splitlines()] == ["ec2.CreateVpc"]
    assert orc("audit", "ls", "--event", "None")[1] == ""
    assert orc("audit", "ls", "--until", "2020-01-01")[1] == ""
    assert len(orc("audit", "ls", "--last", "1")[1].splitlines()) == 1
    in_store("UPDATE audit SET document = replace(document, 'CreateVpc', 'DeleteVpc')")(serving.state_dir)
    code, output = orc("audit", "verify")
    assert code == 1 and "is not what was written" in output
