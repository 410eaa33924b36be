"""The store on a PostgreSQL server: who owns it, whose it is, and what moves between databases."""

from __future__ import annotations

import base64
import random
import shutil
import signal
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

import orchestrator.database as database_module
import orchestrator.database.postgres as postgres_module
from orchestrator import doctor
from orchestrator.__main__ import cli
from orchestrator.backup import BackupError, backup, restore
from orchestrator.config import Config, ConfigError, load
from orchestrator.database import MARK
from orchestrator.host.findings import Standing
from orchestrator.model.vpc import Vpc
from orchestrator.store import SCHEMA_VERSION, Store, StoreError, StoreLost, StoreUnavailable
from orchestrator.trail import verify

from .conftest import Serving
from .postgres import PostgresServer
from .postgres_store import fragile, names, path, rows_of, store, until, until_written, url, write
from .test_store import key_pair

__all__ = ["fragile", "path", "store", "url"]

pytestmark = pytest.mark.host


def other_state(path: Path) -> Path:
    """Of another machine, to which the state directory was copied."""
    other = path.parent.parent / "other" / path.name
    other.parent.mkdir()
    shutil.copy(path.with_name(MARK), other.with_name(MARK))
    return other


# --- one owner --------------------------------------------------------------------------------------------------------


def test_two_state_directories_do_not_share_a_database(
    store: Store, path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "TAKE_WITHIN_S", 0.2)
    write(store, 1)
    other = other_state(path)
    with pytest.raises(StoreError, match="in use by another controller"):
        Store(other, url=url)
    store.close()
    other.with_name(MARK).unlink()
    with pytest.raises(StoreError, match="belongs to another state directory"):
        Store(other, url=url)


def test_a_session_that_was_ended_is_had_again_and_the_lock_with_it(
    store: Store, path: Path, url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "TAKE_WITHIN_S", 0.2)
    write(store, 1)
    for number in range(2, 5):
        assert postgres.end_sessions(url) == 1
        until_written(store, number)
    assert names(store) == ["k1", "k2", "k3", "k4"] and len(rows_of(url)) == 4
    with pytest.raises(StoreError, match="in use by another controller"):
        Store(other_state(path), url=url)


def test_one_that_nobody_writes_to_has_its_session_again_too(store: Store, url: str, postgres: PostgresServer) -> None:
    locked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid <> ALL(%s)"
    before = [row[0] for row in postgres.sql(url, "SELECT pid FROM pg_locks WHERE locktype = 'advisory'")]
    assert before
    postgres.end_sessions(url)
    until(lambda: bool(postgres.sql(url, locked, before)[0][0]))
    write(store, 1)


def test_whoever_was_overtaken_writes_nothing_any_more(
    store: Store, path: Path, url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    store.on_lost(told.set)
    write(store, 1)
    connect = postgres_module._connect
    slow = threading.Event()

    def connect_when_told(*given: Any, **named: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            slow.wait(20)
        return connect(*given, **named)

    monkeypatch.setattr(postgres_module, "_connect", connect_when_told)
    with store._lock:  # so that it is not the first to come back
        postgres.end_sessions(url)
        with closing(Store(other_state(path), url=url)) as successor:
            assert names(successor) == ["k1"]
            write(successor, 2)
            slow.set()
            with pytest.raises(StoreUnavailable), store.write() as tx:
                tx.put(key_pair(3))
            store._lock.release()  # the thread that watches may find it out as well
            try:
                assert told.wait(20)
            finally:
                store._lock.acquire()
            with pytest.raises(StoreLost, match="another controller has taken"), store.write() as tx:
                tx.put(key_pair(4))
            assert "another controller" in store.lost
            write(successor, 5)
            assert names(successor) == ["k1", "k2", "k5"]
            assert successor.events()[0]["eventName"] == "Call5"
    store.trail.note(lambda: {"eventName": "TooLate"})
    store.close()
    assert verify(path.parent, url=url).problems == []
    assert len(rows_of(url)) == 3


def test_a_commit_of_an_older_owner_is_refused_by_the_server(store: Store, url: str) -> None:
    """Should the lock not hold, as behind a pool that gives sessions to others."""
    write(store, 1)
    PostgresServer.sql(url, "UPDATE owner SET generation = generation + 1")
    with pytest.raises(StoreLost, match="another controller has taken"):
        write(store, 2)
    assert names(store) == ["k1"] and len(rows_of(url)) == 1
    with pytest.raises(StoreLost):
        store.set_meta("a", "b")


def test_a_server_that_came_back_as_an_older_copy_is_not_written_to(
    store: Store, url: str, postgres: PostgresServer
) -> None:
    write(store, 1)
    write(store, 2)
    with store._lock:
        postgres.end_sessions(url)
        PostgresServer.sql(url, "UPDATE owner SET commits = commits - 1")
        PostgresServer.sql(url, "DELETE FROM resource WHERE id = %s", key_pair(2).id)
    until(lambda: bool(store.lost))
    assert "not as it was left" in store.lost
    with pytest.raises(StoreLost):
        write(store, 3)


# --- what it is, and whose --------------------------------------------------------------------------------------------


def test_a_state_directory_has_one_store(path: Path, url: str, postgres: PostgresServer) -> None:
    with closing(Store(path, url=url)) as store:
        write(store, 1)
    with pytest.raises(StoreError, match=r"in a PostgreSQL database .*set store.url"):
        Store(path)
    with pytest.raises(StoreError, match=r"is empty, and .* belongs to another database"):
        Store(path, url=postgres.make_database())
    own = path.parent.parent / "own" / path.name
    Store(own).close()
    with pytest.raises(StoreError, match=r"has a store of its own .*orc restore"):
        Store(own, url=url)


def test_a_first_start_that_was_cut_off_goes_on(path: Path, url: str) -> None:
    Store(path, url=url).close()
    path.with_name(MARK).unlink()
    with closing(Store(path, url=url)) as store:
        write(store, 1)


def test_what_is_no_store_is_left_alone(path: Path, url: str) -> None:
    PostgresServer.sql(url, "CREATE SCHEMA orchestrator")
    PostgresServer.sql(url, "CREATE TABLE orchestrator.mine (x int)")
    with pytest.raises(StoreError, match="not a store of orchestrator's"):
        Store(path, url=url)


def test_an_older_store_is_upgraded_after_a_copy_was_made(
    path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Store(path, url=url)) as store:
        write(store, 1)
    monkeypatch.setattr(postgres_module, "SCHEMA_VERSION", SCHEMA_VERSION + 1)

    def upgrade(db: Any) -> None:
        db.execute("ALTER TABLE resource ADD added integer")
        if cut_off:
            raise ZeroDivisionError

    monkeypatch.setitem(postgres_module.UPGRADES, SCHEMA_VERSION, upgrade)
    cut_off = True
    with pytest.raises(ZeroDivisionError):
        Store(path, url=url)
    cut_off = False
    with closing(Store(path, url=url)) as store:
        assert store.meta("schema") == str(SCHEMA_VERSION + 1)
        assert names(store) == ["k1"]
    copy = path.with_name(f"orchestrator.db.{SCHEMA_VERSION}.copy")
    assert copy.stat().st_mode & 0o777 == 0o600
    with database_module.reading(copy) as rows:
        assert rows.ids("key-pair") == [key_pair(1).id] and rows.meta("schema") == str(SCHEMA_VERSION)
    monkeypatch.undo()
    with pytest.raises(StoreError, match="newer orchestrator"):
        Store(path, url=url)


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_what_was_deleted_is_in_no_file_of_the_database(store: Store, url: str, postgres: PostgresServer) -> None:
    def secret(number: int) -> str:
        """As long as rows that are kept apart are, and of no pattern by which it could be made shorter."""
        return base64.b85encode(random.Random(number).randbytes(30 + number % 7 * 700)).decode()

    secrets = [secret(number) for number in range(300)]
    for start in range(0, 300, 50):
        with store.write() as tx:
            for number in range(start, start + 50):
                tx.put(replace(key_pair(number), public_key=secrets[number]))
    postgres.sql(url, "ANALYZE")
    content = postgres.files_of(url)
    assert all(secret[:30].encode() in content for secret in secrets)
    with store.write() as tx:
        tx.put_all(replace(key_pair(number), public_key="gone") for number in range(0, 300, 2))
        tx.scrub()
    content = postgres.files_of(url)
    assert not [secret for secret in secrets[::2] if secret[:30].encode() in content]
    assert not [secret for secret in secrets[::2] if secret[-30:].encode() in content]
    assert all(secret[:30].encode() in content for secret in secrets[1::2])
    assert store.meta("scrub") is None and len(names(store)) == 300 and len(rows_of(url)) == 300


def test_one_who_reads_the_table_meanwhile_is_waited_for(store: Store, url: str) -> None:
    assert isinstance(store._database, postgres_module.Postgres)
    store._database.db.execute("SET lock_timeout = '50ms'")
    write(store, 1)
    with psycopg.connect(url) as reader:
        reader.execute("SELECT count(*) FROM orchestrator.resource")
        with pytest.raises(StoreError, match="still has what was deleted"), store.write() as tx:
            tx.delete(key_pair(1))
            tx.scrub()
        reader.rollback()
    assert store.meta("scrub") == "due"
    store.scrub()
    assert store.meta("scrub") is None and rows_of(url) == []


def test_a_password_is_shown_nowhere(
    path: Path, url: str, postgres: PostgresServer, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "p%40ss-planted"
    postgres.sql(url, "DROP ROLE IF EXISTS needs_password")
    postgres.sql(url, "CREATE ROLE needs_password LOGIN PASSWORD 'p@ss-planted'")
    name = url.partition("/")[2].partition("/")[2].partition("/")[2].partition("?")[0]
    postgres.sql(url, f"GRANT CREATE ON DATABASE {name} TO needs_password")
    right = postgres.url(name, "needs_password", secret)
    Store(path, url=right).close()
    wrong = [
        postgres.url(name, "needs_password", secret + "x"),
        postgres.url("nowhere", "needs_password", secret),
        right.replace("host=", "host=/nowhere"),
        right.replace("%40", "@"),
        right.replace("%40", "/"),
        right + "&unknown=1",
    ]
    for each in wrong:
        with pytest.raises(StoreError) as caught:
            Store(path, url=each)
        assert "planted" not in str(caught.value)
        monkeypatch.setenv("ORC_STORE_URL", each)
        for command in (["serve", "--host", "memory"], ["config"], ["doctor", "--host", "memory"], ["audit", "ls"]):
            done = CliRunner().invoke(cli, [*command, "--state-dir", str(path.parent), "--port", "0"])
            assert "planted" not in done.output
        assert "planted" not in repr(load()[0])
    shown = CliRunner().invoke(cli, ["config"]).output
    assert "needs_password:***@" in shown
    done = CliRunner().invoke(cli, ["serve", "--store-url", right])
    assert done.exit_code == 2 and "PGPASSFILE" in done.output and "planted" not in done.output
    out, err = capfd.readouterr()
    assert "planted" not in out + err


def test_without_its_driver_it_says_what_to_install(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "orchestrator.database.postgres")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install 'orchestrator\[postgres\]'"):
        Store(path, url=url)


def test_only_urls_of_postgresql_are_taken() -> None:
    with pytest.raises(ConfigError, match=r"store\.url"):
        load({"store_url": "mysql://host/database"}, {})


def test_the_doctor_says_whether_it_answers(path: Path, url: str, fragile: PostgresServer) -> None:
    def found(url: str) -> tuple[Standing, str]:
        config = Config(state_dir=path.parent, host="memory", store_url=url)
        [found] = [each for each in doctor.examine(config) if each.check == "store"]
        return found.standing, found.text

    standing, text = found(fragile.url("postgres"))
    assert standing is Standing.OK and "answers in" in text
    standing, text = found(url)
    assert standing is Standing.WARNING and "fsync = off" in text
    standing, text = found("postgresql:///nowhere?host=/nowhere")
    assert standing is Standing.FAILURE and "cannot be used" in text


# --- backups ----------------------------------------------------------------------------------------------------------


def contents(config: Config) -> dict[str, list[Any]]:
    with database_module.reading(config.state_dir / "orchestrator.db", config.store_url) as rows:
        return {name: [tuple(row) for row in rows.table(name)] for name in database_module.TABLES}


@pytest.mark.parametrize("source", ["sqlite", "postgres"])
@pytest.mark.parametrize("target", ["sqlite", "postgres"])
def test_a_backup_is_restored_to_either(postgres: PostgresServer, tmp_path: Path, source: str, target: str) -> None:
    def place(kind: str, name: str) -> Config:
        url = postgres.make_database() if kind == "postgres" else ""
        return Config(state_dir=tmp_path / name, host="memory", port=0, store_url=url)

    ours, theirs = place(source, "ours"), place(target, "theirs")
    path, copy = ours.state_dir / "orchestrator.db", theirs.state_dir / "orchestrator.db"
    with closing(Store(path, url=ours.store_url, kept_events=5)) as store:
        store.trail._segment_events = 5
        for number in range(12):
            write(store, number)
        with store.write() as tx:
            tx.spend_token("scope", "t\x00\u20ac", "f", b"\x00answer\xff")
        store.trail.move_out()
        made = backup(ours, tmp_path / "backup.tar")
        assert (made.resources, made.events) == (12, 12)
        before = contents(ours)
    assert restore(theirs, tmp_path / "backup.tar").resources == 12
    assert contents(theirs) == before
    with closing(Store(copy, url=theirs.store_url)) as store:
        assert len(names(store)) == 12 and len(store.pending_wakes()) == 12
        assert store.token("scope", "t\x00\u20ac") == ("f", b"\x00answer\xff")
        write(store, 20)
    assert verify(theirs.state_dir, url=theirs.store_url).problems == []
    assert theirs.state_dir.joinpath(MARK).exists() == (target == "postgres") != copy.exists()


def test_nothing_is_restored_over_another_store(
    store: Store, path: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "TAKE_WITHIN_S", 0.2)
    write(store, 1)
    file, target = tmp_path / "b.tar", Config(state_dir=tmp_path / "new", host="memory", store_url=url)
    backup(Config(state_dir=path.parent, host="memory", store_url=url), file)
    with pytest.raises(BackupError, match="in use by a controller"):
        restore(target, file)
    store.close()
    with pytest.raises(BackupError, match="is not empty: restore to another database"):
        restore(target, file)
    assert not target.state_dir.exists()
    assert len(rows_of(url)) == 1


# --- a controller -----------------------------------------------------------------------------------------------------


def serve(tmp_path: Path, url: str, name: str = "state") -> Serving:
    return Serving(tmp_path / name, "--host", "memory", environment={"ORC_STORE_URL": url})


def launch(ec2: Any, count: int, **more: Any) -> set[str]:
    image = next(image["ImageId"] for image in ec2.describe_images()["Images"] if image["Name"] == "tiny")
    answer = ec2.run_instances(ImageId=image, MinCount=count, MaxCount=count, InstanceType="t3.micro", **more)
    return {instance["InstanceId"] for instance in answer["Instances"]}


def running(ec2: Any) -> set[str]:
    pages = ec2.get_paginator("describe_instances").paginate()
    found = [each for page in pages for answer in page["Reservations"] for each in answer["Instances"]]
    return {each["InstanceId"] for each in found if each["State"]["Name"] == "running"}


def test_a_controller_that_is_killed_finds_all_that_it_answered(
    url: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    serving = serve(tmp_path, url)
    serving.start()
    ec2 = serving.client("ec2")
    made = launch(ec2, 5)
    until(lambda: running(ec2) == made)
    made |= launch(ec2, 20, ClientToken="once")
    serving.end(signal.SIGKILL)
    serving.start()
    ec2 = serving.client("ec2")
    until(lambda: running(ec2) == made)
    assert launch(ec2, 20, ClientToken="once") < made, "a token was spent before"
    assert postgres.end_sessions(url) == 1
    until(lambda: postgres.sql(url, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")[0][0] > 0)
    assert running(ec2) == made
    command = ["audit", "verify", "--state-dir", str(serving.state_dir), "--host", "memory"]
    done = CliRunner().invoke(cli, command, env={"ORC_STORE_URL": url})
    assert done.exit_code == 0, done.output
    assert serving.end() == 0
    assert not serving.state_dir.joinpath("orchestrator.db").exists()


def test_a_controller_that_was_overtaken_ends(url: str, postgres: PostgresServer, tmp_path: Path) -> None:
    serving = serve(tmp_path, url)
    serving.start()
    assert serving.process is not None
    made = serving.client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    serving.process.send_signal(signal.SIGSTOP)  # a machine that hangs
    try:
        postgres.end_sessions(url)
        with closing(Store(other_state(serving.state_dir / "orchestrator.db"), url=url)) as successor:
            serving.process.send_signal(signal.SIGCONT)
            assert serving.process.wait(30) == 1
            assert "another controller has taken" in serving.log_text
            write(successor, 1)
            assert successor.get(Vpc, made) is not None
    finally:
        if serving.process.poll() is None:
            serving.process.kill()
            serving.process.wait(30)
    assert serving.process.stdout is not None
    serving.process.stdout.close()
    serving.log.close()
