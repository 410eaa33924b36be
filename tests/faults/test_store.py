"""The store's files torn in the middle of a write: it opens as of a commit, or says that it is damaged; never between.

What cannot be written (a full disk, another's lock, a file that became read-only) is in `tests/test_store.py`. Here the
files are what a kill, or the host's end, leaves of them: the log cut off, or spoilt, at each frame and within it.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.model.key_pair import KeyPair
from orchestrator.store import Store, StoreError, StoreUnavailable
from tests.conftest import Clock

COMMITS = 12
_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24  # of the log: https://www.sqlite.org/fileformat2.html#walformat


def pair(clock: Clock, name: str, number: int) -> KeyPair:
    return KeyPair(
        id=f"key-{name}",
        account="111122223333",
        region="us-east-1",
        created=clock(),
        name=f"{number}",
        key_type="ed25519",
        fingerprint="f" * (number * 200),  # rows move between pages as they grow
        public_key="p",
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as it is on the disk after so many commits, each of three rows, a wake-up, a token and an event. Nobody
    tidies up meanwhile, so all of them are in the log."""
    clock = Clock()
    place = tmp_path_factory.mktemp("store")
    store = Store(place / "open" / "store.db")
    for number in range(1, COMMITS + 1):
        with store.write() as tx:
            tx.put(pair(clock, "one", number))
            tx.wake(tx.put(pair(clock, "two", number)))
            tx.put(pair(clock, f"new-{number}", number))
            tx.spend_token("scope", f"{number}", "fingerprint", b"answer")
            tx.record({"eventName": f"Call{number}"})
    shutil.copytree(place / "open", place / "killed")
    store.close()
    killed = place / "killed"
    with open(log(killed), "r+b") as file:
        file.truncate(frames(killed)[-1] + 65536)  # some of the room behind its last commit
    return killed


@pytest.fixture
def torn(written: Path, tmp_path: Path) -> Callable[[Callable[[Path], None]], int | None]:
    """Tear a copy of it: the number of the commit that it opens at, 0 before the first; None: it is damaged."""
    place = tmp_path / "torn"

    def tear(how: Callable[[Path], None]) -> int | None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(written, place)
        how(place)
        try:
            store = Store(place / "store.db", durable=False)
        except StoreError as error:
            says(error, "is damaged")
            return None
        try:
            return commit_of(store)
        finally:
            store.close()

    return tear


def says(error: StoreError, *texts: str) -> None:
    assert any(text in str(error) for text in texts), error


def commit_of(store: Store) -> int:
    rows = {row.id: int(row.name) for row in store.all(KeyPair)}
    number = rows.pop("key-one", 0)
    assert rows.pop("key-two", 0) == number, "half of a transaction"
    assert rows == {f"key-new-{each}": each for each in range(1, number + 1)}, "half of a transaction"
    assert [each[1] for each in store.pending_wakes()] == (["key-two"] if number else [])
    for each in range(1, COMMITS + 1):
        assert (store.token("scope", f"{each}") is not None) is (each <= number), "half of a transaction"
    return number


def log(place: Path) -> Path:
    return place / "store.db-wal"


def frames(written: Path) -> list[int]:
    """Where each frame of the log begins, and where the last one ends."""
    data = log(written).read_bytes()
    [page_bytes] = struct.unpack_from(">I", data, 8)
    starts = [_HEADER_BYTES]
    while data[starts[-1] + 8 : starts[-1] + 16] == data[16:24]:  # its salts are the header's; behind there is room
        starts.append(starts[-1] + _FRAME_HEADER_BYTES + page_bytes)
    return starts


def test_it_is_as_of_the_last_commit_when_it_is_whole(torn: Callable[..., int | None], written: Path) -> None:
    assert torn(lambda place: None) == COMMITS
    assert len(frames(written)) > 2 * COMMITS


def test_the_log_is_cut_off(torn: Callable[..., int | None], written: Path) -> None:
    """At each frame, in the middle of its header, and in the middle of its page."""
    starts = frames(written)
    found = []
    for start in (0, *starts):
        for more in (0, 12, 2000):
            cut = start + more
            if cut <= starts[-1]:

                def truncate(place: Path, cut: int = cut) -> None:
                    with open(log(place), "r+b") as file:
                        file.truncate(cut)

                found.append(torn(truncate))
    assert None not in found, "what a kill leaves behind is not damage"
    numbers = [number for number in found if number is not None]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(numbers[0], COMMITS + 1)), "each commit is there at some cut"


def test_a_frame_of_the_log_was_never_written(torn: Callable[..., int | None], written: Path) -> None:
    """Zeros in its place, as a file system leaves them that had grown the file and not yet written to it."""
    starts = frames(written)
    found = []
    for start, end in pairwise(starts):

        def blank(place: Path, start: int = start, end: int = end) -> None:
            with open(log(place), "r+b") as file:
                file.seek(start)
                file.write(bytes(end - start))

        found.append(torn(blank))
    numbers = [number for number in found if number is not None]
    assert len(numbers) == len(found)
    assert numbers == sorted(numbers)


def test_a_frame_of_the_log_is_spoilt(torn: Callable[..., int | None], written: Path) -> None:
    """One bit of it: its checksum tells."""
    starts = frames(written)
    before = 0
    for start in starts[:-1]:
        for more in (4, 20, 600):

            def spoil(place: Path, at: int = start + more) -> None:
                with open(log(place), "r+b") as file:
                    file.seek(at)
                    byte = file.read(1)[0]
                    file.seek(at)
                    file.write(bytes([byte ^ 0x40]))

            number = torn(spoil)
            assert number is not None
            assert number >= before
        before = number if number is not None else before


def test_the_log_is_gone(torn: Callable[..., int | None]) -> None:
    """What was checkpointed is there, and no half of anything."""
    assert torn(lambda place: log(place).unlink()) in (None, *range(COMMITS + 1))


def test_a_page_of_the_file_was_never_written(written: Path, tmp_path: Path) -> None:
    """After everything has come from the log into the file: it says that it is damaged, or nothing was on that page."""
    whole = tmp_path / "whole"
    shutil.copytree(written, whole)
    Store(whole / "store.db", durable=False).close()
    size = (whole / "store.db").stat().st_size
    damaged = 0
    for start in range(0, size, 4096):
        place = tmp_path / "torn"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)
        with open(place / "store.db", "r+b") as file:
            file.seek(start)
            file.write(bytes(4096))
        try:
            store = Store(place / "store.db", durable=False)
        except StoreError as error:
            says(error, "is damaged", "is not a store")
            damaged += 1
            continue
        try:
            assert commit_of(store) == COMMITS
        finally:
            store.close()
    assert damaged > size // 4096 // 2


@pytest.mark.host
def test_on_a_full_disk_there_is_room_for_some_commits(tmp_path: Path, clock: Clock) -> None:
    """What befalls a guest then is written down. After that nothing is, and nothing is lost."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(tmp_path)], check=True)
    try:
        store = Store(tmp_path / "store.db")
        with store.write() as tx:
            tx.put(pair(clock, "impaired", 0))
        ballast = tmp_path / "ballast"
        fill(ballast)
        written = 0
        with suppress(StoreUnavailable):
            while True:
                with store.write() as tx:
                    tx.put(replace(pair(clock, "impaired", 1), name=f"{written + 1}"))
                    tx.put(pair(clock, f"new-{written}", 1))
                    tx.record({"eventName": "Call"})
                written += 1
        print(f"{written} commits on a full disk")
        assert written > 200
        assert len(store.all(KeyPair)) == written + 1
        ballast.unlink()
        with store.write() as tx:
            tx.put(pair(clock, "after", 0))
        store.close()
        store = Store(tmp_path / "store.db")
        assert {row.id: row.name for row in store.all(KeyPair)}["key-impaired"] == f"{written}"
        assert len(store.all(KeyPair)) == written + 2
        store.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def fill(ballast: Path) -> None:
    """Take all room that there is on its file system."""
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
