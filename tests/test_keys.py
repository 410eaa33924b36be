"""The master key's file, and what is wrapped by it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import keys
from orchestrator.keys import KeyFileError, KeyRing, change_passphrase, is_protected, open_key_ring
from orchestrator.model.kms import DESTROYED, Key, KeyUnavailable, Rotation, destroyed, rotated
from orchestrator.model.layer import Layer
from orchestrator.store import Store, StoreError

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RING = KeyRing(bytes(32))


@pytest.fixture(autouse=True)
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_SCRYPT", {"n": 1 << 4, "r": 8, "p": 1})


def new_key(ring: KeyRing = RING, **fields: str) -> Key:
    return Key(id="0" * 8, account="1", region="r", created=NOW, material=ring.new_material(), **fields)  # type: ignore[arg-type]


def secret_file(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_master_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    key = new_key(open_key_ring(directory))
    data_key = open_key_ring(directory).new_data_key(key)
    assert len(open_key_ring(directory).unwrap(key, data_key)) == 32
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "master").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in directory.iterdir()] == ["master"]


def test_one_who_was_ended_while_writing_leaves_nothing_that_is_taken_for_the_key(tmp_path: Path) -> None:
    half = secret_file(tmp_path / "master.new", '{"mas')
    ring = open_key_ring(tmp_path)
    assert not half.exists()
    key = new_key(ring)
    assert open_key_ring(tmp_path).new_data_key(key)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key(open_key_ring(tmp_path))
    before = (tmp_path / "master").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyFileError, match="No space left"):
        change_passphrase(tmp_path, None, secret_file(tmp_path / "phrase", "x"))
    monkeypatch.undo()
    assert (tmp_path / "master").read_bytes() == before
    assert open_key_ring(tmp_path).new_data_key(key)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"master": "AAAA"}', '{"master": 1}', '{"wrapped": "x"}'])
def test_a_damaged_file_is_said_to_be_so_and_never_replaced(tmp_path: Path, content: str) -> None:
    secret_file(tmp_path / "master", content)
    phrase = secret_file(tmp_path / "phrase", "x") if "wrapped" in content else None
    with pytest.raises(KeyFileError, match=r"damaged.*backup"):
        open_key_ring(tmp_path, phrase)
    assert (tmp_path / "master").read_text() == content


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    open_key_ring(tmp_path)
    (tmp_path / "master").chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        open_key_ring(tmp_path)
    phrase = secret_file(tmp_path / "phrase", "x")
    phrase.chmod(0o644)
    with pytest.raises(KeyFileError, match=f"chmod 600 {phrase}"):
        open_key_ring(tmp_path / "other", phrase)


# --- passphrases ------------------------------------------------------------------------------------------------------


@pytest.fixture
def phrases(tmp_path: Path) -> tuple[Path, Path]:
    return secret_file(tmp_path / "one", "correct horse\n"), secret_file(tmp_path / "two", "battery staple")


def test_a_passphrase_is_added_changed_and_taken_off(tmp_path: Path, phrases: tuple[Path, Path]) -> None:
    one, two = phrases
    directory = tmp_path / "keys"
    key = new_key(open_key_ring(directory))
    assert not is_protected(directory)
    for current, new in ((None, one), (one, two), (two, None)):
        change_passphrase(directory, current, new)
        assert is_protected(directory) == (new is not None)
        assert open_key_ring(directory, new).new_data_key(key)
        assert (directory / "master").stat().st_mode & 0o777 == 0o600


def test_a_key_file_can_be_protected_from_its_first_moment(tmp_path: Path, phrases: tuple[Path, Path]) -> None:
    directory = tmp_path / "keys"
    key = new_key(open_key_ring(directory, phrases[0]))
    assert set(json.loads((directory / "master").read_text())) == {"wrapped", "scrypt"}
    assert open_key_ring(directory, phrases[0]).new_data_key(key)


def test_what_does_not_fit_is_named(tmp_path: Path, phrases: tuple[Path, Path]) -> None:
    one, two = phrases
    directory = tmp_path / "keys"
    with pytest.raises(KeyFileError, match="first start"):
        change_passphrase(directory, None, one)
    open_key_ring(directory)
    with pytest.raises(KeyFileError, match="not protected by a passphrase"):
        open_key_ring(directory, one)
    change_passphrase(directory, None, one)
    with pytest.raises(KeyFileError, match=r"keys\.passphrase_file"):
        open_key_ring(directory)
    with pytest.raises(KeyFileError, match=f"{two} is not the one"):
        open_key_ring(directory, two)
    with pytest.raises(KeyFileError, match=f"{two} is not the one"):
        change_passphrase(directory, two, None)
    with pytest.raises(KeyFileError, match="cannot be read"):
        open_key_ring(directory, tmp_path / "none")
    with pytest.raises(KeyFileError, match="empty"):
        open_key_ring(directory, secret_file(tmp_path / "empty", "\n"))


def test_the_plain_master_key_is_written_over_once_a_passphrase_protects_it(
    tmp_path: Path, phrases: tuple[Path, Path]
) -> None:
    directory = tmp_path / "keys"
    open_key_ring(directory)
    with (directory / "master").open("rb") as old:
        plain = json.loads(old.read())["master"].encode()
        change_passphrase(directory, None, phrases[0])
        old.seek(0)
        assert not old.read().strip(b"\0")
    assert plain not in (directory / "master").read_bytes()


# --- wrapping ---------------------------------------------------------------------------------------------------------


def test_what_is_wrapped_is_of_one_key_one_master_and_one_use() -> None:
    key, other = new_key(), new_key()
    data_key = RING.new_data_key(key)
    assert RING.unwrap(key, data_key) == RING.unwrap(key, data_key)
    assert RING.unwrap(key, data_key) != RING.unwrap(key, RING.new_data_key(key))
    with pytest.raises(KeyUnavailable, match="not one of key"):
        RING.unwrap(other, data_key)
    with pytest.raises(KeyUnavailable, match="another master key"):
        KeyRing(b"1" * 32).unwrap(key, data_key)
    with pytest.raises(KeyUnavailable, match="not one of key"):
        RING.unwrap(key, key.material)
    for damaged in ("", "no base64!", data_key[:-4] + "AAAA", "é"):
        with pytest.raises(KeyUnavailable):
            RING.unwrap(key, damaged)


@given(
    plaintext=st.binary(max_size=4096), context=st.dictionaries(st.text(), st.text(), max_size=4), bit=st.integers(0)
)
def test_a_secret_comes_back_only_as_it_was(plaintext: bytes, context: dict[str, str], bit: int) -> None:
    key = new_key()
    sealed = RING.encrypt(key, plaintext, context)
    assert RING.decrypt(key, sealed, dict(reversed(context.items()))) == plaintext
    with pytest.raises(KeyUnavailable, match="context"):
        RING.decrypt(key, sealed, {**context, "more": "x", "less": ""})
    damaged = bytearray(sealed)
    damaged[bit // 8 % len(sealed)] ^= 1 << bit % 8
    with pytest.raises(KeyUnavailable):
        RING.decrypt(key, bytes(damaged), context)


@pytest.mark.parametrize("state", ["Disabled", "PendingDeletion", DESTROYED])
def test_a_key_is_used_only_while_it_is_enabled(state: str) -> None:
    key = new_key()
    data_key, sealed = RING.new_data_key(key), RING.encrypt(key, b"x", {})
    still = replace(key, state=state)
    for use in (
        lambda: RING.unwrap(still, data_key),
        lambda: RING.new_data_key(still),
        lambda: RING.encrypt(still, b"x", {}),
        lambda: RING.decrypt(still, sealed, {}),
    ):
        with pytest.raises(KeyUnavailable, match="destroyed" if state == DESTROYED else state):
            use()


def test_a_rotated_key_reads_what_it_wrapped_before_and_a_destroyed_one_nothing() -> None:
    key = new_key()
    old, sealed = RING.new_data_key(key), RING.encrypt(key, b"x", {})
    for _ in range(3):
        key = rotated(key, RING.new_material(), Rotation(at=NOW, kind="ON_DEMAND"))
    assert len(RING.unwrap(key, old)) == 32
    assert RING.decrypt(key, sealed, {}) == b"x"
    with pytest.raises(KeyUnavailable):
        RING.unwrap(replace(key, earlier_materials=key.earlier_materials[:-1]), old)
    gone = destroyed(key)
    assert (gone.material, gone.earlier_materials) == ("", ())
    with pytest.raises(KeyUnavailable, match="destroyed"):
        RING.unwrap(gone, old)


def test_nothing_that_is_printed_shows_what_is_wrapped() -> None:
    key = rotated(new_key(), RING.new_material(), Rotation(at=NOW, kind="ON_DEMAND"))
    layer = Layer(id="layer-1", size_bytes=1, key_id=key.id, data_key=RING.new_data_key(key), created=NOW)
    for text in (repr(key), str(key), repr(layer), f"{layer}"):
        for secret in (key.material, *key.earlier_materials, layer.data_key):
            assert secret not in text


# --- shredding --------------------------------------------------------------------------------------------------------


def files_of(store: Store) -> bytes:
    return b"".join(path.read_bytes() for path in store.path.parent.iterdir())


def fill(store: Store, count: int) -> list[Key]:
    """Rows that move between pages as they grow."""
    made = [replace(new_key(), id=f"{number:08}", description="x" * (number * 37 % 900)) for number in range(count)]
    for start in range(0, count, 20):
        with store.write() as tx:
            tx.put_all(made[start : start + 20])
        with store.write() as tx:
            tx.put_all(replace(key, description=key.description * 2) for key in made[start : start + 20 : 3])
    return made


def test_a_destroyed_key_is_nowhere_in_the_stores_files(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db", durable=False)
    try:
        made = fill(store, 200)
        gone, kept = made[::7], [key for key in made if key not in made[::7]]
        assert all(key.material.encode() in files_of(store) for key in gone)
        with store.write() as tx:
            tx.put_all(destroyed(key) for key in gone)
            tx.scrub()
        content = files_of(store)
        assert not [key.id for key in gone if key.material.encode()[:40] in content]
        assert not [key.id for key in gone if key.material.encode()[-40:] in content]
        assert all(key.material.encode() in content for key in kept)
        assert store.meta("scrub") is None
    finally:
        store.close()


def test_one_who_was_ended_before_the_files_were_clean_cleans_them_at_its_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store.db", durable=False)
    [key, *_] = fill(store, 50)

    def ended(_: Store) -> None:
        raise StoreError("ended")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "scrub", ended)
        with pytest.raises(StoreError, match="ended"), store.write() as tx:
            tx.put(destroyed(key))
            tx.scrub()
    assert key.material.encode() in files_of(store)
    store.close()
    again = Store(tmp_path / "store.db", durable=False)
    try:
        assert key.material.encode() not in files_of(again)
        assert again.get(Key, key.id) is not None
    finally:
        again.close()


def test_one_who_reads_the_store_meanwhile_is_named(tmp_path: Path) -> None:
    import sqlite3

    store = Store(tmp_path / "store.db", durable=False)
    store._database.query("PRAGMA busy_timeout=10")
    [key, *_] = fill(store, 5)
    reader = sqlite3.connect(store.path)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM resource").fetchall()
        with pytest.raises(StoreError, match="still has what was deleted"), store.write() as tx:
            tx.put(destroyed(key))
            tx.scrub()
        reader.execute("COMMIT")
        store.scrub()
        assert key.material.encode() not in files_of(store)
    finally:
        reader.close()
        store.close()


def test_what_could_not_be_scrubbed_is_scrubbed_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import sqlite3

    store = Store(tmp_path / "store.db", durable=False)
    store._database.query("PRAGMA busy_timeout=10")
    [key, *_] = fill(store, 5)
    reader = sqlite3.connect(store.path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM resource").fetchall()
    with pytest.raises(StoreError), store.write() as tx:
        tx.put(destroyed(key))
        tx.scrub()
    store.close()
    again = Store(tmp_path / "store.db", durable=False)  # somebody still reads, and it starts all the same
    assert "still has what was deleted" in caplog.text
    reader.close()
    again.tidy()
    assert again.meta("scrub") is None
    assert key.material.encode() not in files_of(again)
    again.close()
