"""`orc down --purge` where the state is on a PostgreSQL server: what the controller made there goes, and no more."""

from __future__ import annotations

import io
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
from rich.console import Console

import orchestrator.database.postgres as postgres_module
from orchestrator import database
from orchestrator import down as down_module
from orchestrator.background import Background
from orchestrator.config import Config
from orchestrator.controller import open_store
from orchestrator.database import FILE, MARK, StoreError
from orchestrator.down import Down, Extent
from orchestrator.progress import Progress
from orchestrator.quickstart import Quickstart, Wanted, connector

from .postgres import PostgresServer

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("own_places")]


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.make_database()


@pytest.fixture
def config(tmp_path: Path, url: str) -> Iterator[Config]:
    config = Config(state_dir=tmp_path / "state", host="memory", port=0, store_url=url)
    yield config
    Background(config).stop()


@pytest.fixture
def filled(config: Config) -> Config:
    """A state directory with something in it, and its database."""
    open_store(config).close()
    (config.state_dir / "layers").mkdir()
    (config.state_dir / "layers" / "layer-1.qcow2").touch()
    (config.state_dir / "link").symlink_to("/nowhere")
    return config


def purge(config: Config) -> str:
    """What it says."""
    output = io.StringIO()
    progress = Progress(Console(file=output, width=400, highlight=False))
    assert Down(config, Extent(yes=True, purge=True), connector(config), progress).run() == 0
    return output.getvalue()


def refusal(config: Config) -> str:
    with pytest.raises(click.ClickException) as caught:
        purge(config)
    return caught.value.message


def tables(url: str) -> list[str]:
    sql = "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('orchestrator', 'public')"
    return sorted(row[0] for row in PostgresServer.sql(url, sql))


def schemas(url: str) -> list[str]:
    return [
        row[0] for row in PostgresServer.sql(url, "SELECT nspname FROM pg_namespace WHERE nspname = 'orchestrator'")
    ]


def test_a_deployment_goes_whole_and_the_database_is_as_it_was_given(config: Config, url: str) -> None:
    PostgresServer.sql(url, "CREATE TABLE public.precious AS SELECT 1 AS one")
    Quickstart(config, Wanted(yes=True), connector(config), Progress(Console(file=io.StringIO()))).run()
    assert len(tables(url)) == 7
    said = purge(config)
    assert f"its tables in {database.shown(url)}; the database itself is left" in said
    assert not config.state_dir.exists() and Background(config).pid() is None
    assert tables(url) == ["public.precious"] and schemas(url) == []
    assert PostgresServer.sql(url, "SELECT one FROM public.precious") == [(1,)]
    assert "nothing" in purge(config)
    open_store(config).close()  # it can be used again
    assert len(tables(url)) == 7


def test_a_schema_that_was_given_and_what_is_not_ours_in_it_stay(config: Config, url: str) -> None:
    PostgresServer.sql(url, "CREATE SCHEMA orchestrator")
    open_store(config).close()
    PostgresServer.sql(url, "CREATE TABLE orchestrator.theirs ()")
    purge(config)
    assert tables(url) == ["orchestrator.theirs"] and not config.state_dir.exists()


def test_a_schema_that_its_user_could_not_make_again_stays(tmp_path: Path, url: str, postgres: PostgresServer) -> None:
    name = url.split("@/")[1].split("?")[0]
    PostgresServer.sql(url, f"CREATE ROLE guest_{name} LOGIN")
    PostgresServer.sql(url, f"CREATE SCHEMA orchestrator AUTHORIZATION guest_{name}")
    config = Config(
        state_dir=tmp_path / "state", host="memory", port=0, store_url=postgres.url(name, user=f"guest_{name}")
    )
    open_store(config).close()
    purge(config)
    assert tables(url) == [] and schemas(url) == ["orchestrator"]
    open_store(config).close()


def test_while_another_uses_the_database_all_stays(
    filled: Config, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(postgres_module, "TAKE_WITHIN_S", 0.1)
    other = Config(state_dir=tmp_path / "other", host="memory", port=0, store_url=url)
    other.state_dir.mkdir()
    shutil.copy(filled.state_dir / MARK, other.state_dir / MARK)
    with closing(open_store(other)):
        assert "in use" in refusal(filled)
    assert (filled.state_dir / "layers" / "layer-1.qcow2").exists() and len(tables(url)) == 6


def test_what_belongs_to_another_state_directory_stays(filled: Config, url: str) -> None:
    (filled.state_dir / MARK).write_text("0" * 32)
    assert "belongs to another state directory" in refusal(filled)
    with pytest.raises(StoreError, match="is not the database of"), database.removing(filled.state_dir, url):
        raise AssertionError("it was let in")
    assert (filled.state_dir / "layers").exists() and len(tables(url)) == 6


def test_a_url_of_another_database_removes_nothing(filled: Config, url: str, postgres: PostgresServer) -> None:
    empty = postgres.make_database()
    wrong = Config(state_dir=filled.state_dir, host="memory", port=0, store_url=empty)
    assert "belongs to another database" in refusal(wrong)
    with pytest.raises(StoreError, match="is not the database of"), database.removing(filled.state_dir, empty):
        raise AssertionError("it was let in")
    assert (filled.state_dir / "layers").exists()


def test_a_server_that_is_away_is_said_and_nothing_is_removed(tmp_path: Path) -> None:
    server = PostgresServer(durable=False)
    try:
        server.start()
        config = Config(state_dir=tmp_path / "state", host="memory", port=0, store_url=server.make_database())
        open_store(config).close()
        (config.state_dir / "layers").mkdir()
        server.end(signal.SIGINT)
        said = refusal(config)
        assert "cannot be used" in said and "Nothing was ended or removed" in said
        down = Down(config, Extent(yes=True, purge=True), connector(config), Progress(Console(file=io.StringIO())))
        with pytest.raises(click.ClickException, match="is not removed: run it again"):
            down._purge()  # it has gone since the instances were ended
        assert (config.state_dir / "layers").exists()
        server.start()
        purge(config)
        assert not config.state_dir.exists()
    finally:
        server.remove()


@pytest.mark.parametrize("where", ["before the files", "among the files", "before the commit", "after the commit"])
def test_a_purge_that_was_cut_off_is_run_again(
    filled: Config, url: str, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    class Cut(BaseException):
        pass

    def cut(*_: Any, **__: Any) -> None:
        raise Cut

    empty = down_module._empty

    def then_cut(directory: Path, *, but: frozenset[str]) -> None:
        empty(directory, but=but)
        raise Cut

    cuts: dict[str, tuple[Any, str, Callable[..., None]]] = {
        "before the files": (down_module, "_empty", cut),
        "among the files": (Path, "unlink", cut),
        "before the commit": (down_module, "_empty", then_cut),
        "after the commit": (shutil, "rmtree", lambda path: cut() if Path(path) == filled.state_dir else rmtree(path)),
    }
    rmtree = shutil.rmtree
    with monkeypatch.context() as patch:
        patch.setattr(*cuts[where])
        with pytest.raises(Cut):
            purge(filled)
    assert (filled.state_dir / MARK).exists()
    assert (tables(url) == []) == (where == "after the commit")
    purge(filled)
    assert tables(url) == [] and not filled.state_dir.exists()


def test_what_depends_on_the_tables_is_named(filled: Config, url: str) -> None:
    PostgresServer.sql(url, "CREATE VIEW public.all_of_it AS SELECT id FROM orchestrator.resource")
    assert "all_of_it" in refusal(filled)
    assert (filled.state_dir / "layers").exists() and len(tables(url)) == 6


def test_a_store_of_the_other_sort_is_not_taken_for_nothing(filled: Config, tmp_path: Path, url: str) -> None:
    without = Config(state_dir=filled.state_dir, host="memory", port=0)
    assert "set store.url" in refusal(without)
    local = Config(state_dir=tmp_path / "local", host="memory", port=0)
    open_store(local).close()
    assert "leave store.url out" in refusal(Config(state_dir=local.state_dir, host="memory", port=0, store_url=url))
    assert (local.state_dir / FILE).exists()


def test_a_purge_waits_for_nobody_who_reads(filled: Config, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module, "_LOCK_S", 1)
    with psycopg.connect(url) as reader:
        reader.execute("SELECT count(*) FROM orchestrator.resource")
        assert "lock timeout" in refusal(filled)
    assert (filled.state_dir / "layers").exists() and len(tables(url)) == 6
