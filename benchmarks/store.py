"""What the store costs on each of its databases: a commit, and a start with the rows of 10,000 instances.

.venv/bin/python benchmarks/store.py          a SQLite file, and a PostgreSQL server of its own that is made for this
.venv/bin/python benchmarks/store.py --url postgresql://...      an empty database of yours in the place of that server

The rows are those that a controller wrote for a hundred instances, as often as it takes, each time with other ids. A
commit is what RunInstances writes for one of them: its rows, wake-ups, a client token and an audit event.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
from describe import image_of
from servers import Client, controller

from orchestrator.database import FILE, reading
from orchestrator.model.kinds import KINDS
from orchestrator.model.resource import Resource
from orchestrator.store import Store

SAMPLE = 100
COMMITS = 300
STARTS = 3
BAR_START_S = 5.0  # of a start in all: the store is a part of it
ANSWER = b"x" * 1500  # of RunInstances, kept with its token
_OWN = ("instance", "network-interface", "volume", "layer")  # kinds of which every instance has its own


def sample(scratch: Path) -> list[tuple[str, str, bytes]]:
    """(kind, id, document) of a deployment with so many instances that run."""
    state = scratch / "sample"
    with controller(state, "--host", "memory") as server:
        client = Client(server)
        parameters = {"MinCount": str(SAMPLE), "MaxCount": str(SAMPLE), "InstanceType": "t2.micro"}
        client.call("RunInstances", {"ImageId": image_of(client), **parameters})
        deadline = time.monotonic() + 120
        while client.call("DescribeInstances").count(b"<name>running</name>") < SAMPLE:
            if time.monotonic() > deadline:
                raise SystemExit("the instances of the sample do not come to run")
            time.sleep(0.2)
    with reading(state / FILE) as rows:
        return [(row[0], row[1], row[3]) for row in rows.table("resource")]


def copies(rows: list[tuple[str, str, bytes]], instances: int) -> Iterator[list[Resource]]:
    """What each further hundred instances have, decoded."""
    decoders = {kind.KIND: msgspec.json.Decoder(kind) for kind in KINDS}
    yield [decoders[kind].decode(document) for kind, _, document in rows]
    own = [row for row in rows if row[0] in _OWN and re.search("-[0-9a-f]{17}$", row[1])]
    ids = re.compile("|".join(re.escape(row[1]) for row in own).encode())
    for number in range(1, instances // SAMPLE):
        mark = f"{number:04x}".encode()
        yield [
            decoders[kind].decode(ids.sub(lambda found: found[0][:-4] + mark, document))  # noqa: B023
            for kind, _, document in own
        ]


def of_one_instance(rows: list[tuple[str, str, bytes]]) -> list[Resource]:
    decoders = {kind.KIND: msgspec.json.Decoder(kind) for kind in KINDS}
    first = {kind: document for kind, _, document in reversed(rows) if kind in _OWN}
    return [decoders[kind].decode(document) for kind, document in first.items()]


def commit_ms(store: Store, resources: list[Resource], number: int) -> float:
    started = time.perf_counter()
    with store.write() as tx:
        for resource in resources:
            tx.put(resource)
            tx.wake(resource)
        tx.spend_token("1/us-east-1/ec2/RunInstances", f"{time.time_ns()}-{number}", "f" * 64, ANSWER)
        tx.record({"eventName": "RunInstances", "requestParameters": {"filler": "y" * 800}})
    return (time.perf_counter() - started) * 1000


def measure(name: str, opened: Callable[[], Store], rows: list[tuple[str, str, bytes]], instances: int) -> bool:
    with closing(opened()) as store:
        one = of_one_instance(rows)
        for number in range(20):
            commit_ms(store, one, number)
        times = sorted(commit_ms(store, one, number) for number in range(COMMITS))
        for resources in copies(rows, instances):
            with store.write() as tx:
                tx.put_all(resources)
    starts = []
    for _ in range(STARTS):
        started = time.perf_counter()
        with closing(opened()) as store:
            starts.append(time.perf_counter() - started)
            count = sum(len(table.rows) for table in store._tables.values())
    p99 = times[int(len(times) * 0.99)]
    start_s = statistics.median(starts)
    print(
        f"{name:<11} commit of {len(one)} rows, wake-ups, token, event: median {statistics.median(times):.2f} ms, "
        f"p99 {p99:.2f} ms; open with {count} rows: {start_s:.2f} s (bar {BAR_START_S:g} s)"
    )
    return start_s <= BAR_START_S


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="an empty PostgreSQL database")
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--directory", type=Path, help="where to write: a disk, and no memory")
    given = parser.parse_args()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=given.directory)))
        url = given.url
        if not url:
            sys.path.insert(0, str(Path(__file__).parent.parent))
            from tests.postgres import PostgresServer

            server = PostgresServer()
            stack.callback(server.remove)
            server.start()
            url = server.make_database()
        rows = sample(scratch)
        met = [
            measure("SQLite", lambda: Store(scratch / "sqlite" / FILE), rows, given.instances),
            measure("PostgreSQL", lambda: Store(scratch / "postgres" / FILE, url=url), rows, given.instances),
        ]
    return int(not all(met))


if __name__ == "__main__":
    sys.exit(main())
