"""DescribeInstances with 1,000 instances: ours (in-memory host) against moto's server, in one run, call by call.

Bars: all of them at least 10 times faster than moto, one of them by id no slower.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from servers import Client, controller, median_ms, moto, verdict

INSTANCES = 1000
ROUNDS_ALL = 7
ROUNDS_ONE = 100
BAR_ALL = 10.0
BAR_ONE = 1.0
MOTO_PORT = 8799


def fill(client: Client, image: str) -> str:
    """1,000 instances; the id of one in the middle."""
    for _ in range(INSTANCES // 100):
        parameters = {"ImageId": image, "MinCount": "100", "MaxCount": "100", "InstanceType": "t2.micro"}
        answer = client.call("RunInstances", parameters)
    return re.findall(r"<instanceId>(i-[0-9a-f]+)</instanceId>", answer.decode())[50]


def image_of(client: Client) -> str:
    found = re.search(r"<imageId>(ami-[0-9a-f]+)</imageId>", client.call("DescribeImages").decode())
    if found is None:
        raise SystemExit("the server has no image")
    return found[1]


def main() -> int:
    with (
        tempfile.TemporaryDirectory() as scratch,
        controller(Path(scratch) / "state", "--host", "memory") as ours,
        moto(MOTO_PORT) as theirs,
    ):
        mine, other = Client(ours), Client(theirs)
        ids = [fill(client, image_of(client)) for client in (mine, other)]
        for client in (mine, other):
            count = client.call("DescribeInstances").count(b"<instanceState>")
            if count < INSTANCES:
                raise SystemExit(f"only {count} instances are listed")
        everything: tuple[list[float], list[float]] = ([], [])
        one: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS_ALL):
            for client, times in zip((mine, other), everything, strict=True):
                times.append(client.timed("DescribeInstances"))
        for _ in range(ROUNDS_ONE):
            for client, instance_id, times in zip((mine, other), ids, one, strict=True):
                times.append(client.timed("DescribeInstances", {"InstanceId.1": instance_id}))
    all_ms = [median_ms(times) for times in everything]
    one_ms = [median_ms(times) for times in one]
    by_id = one_ms[1] / one_ms[0]
    ratio = all_ms[1] / all_ms[0]
    print(f"all of {INSTANCES}: ours {all_ms[0]:.1f} ms, moto {all_ms[1]:.1f} ms")
    print(f"one by id: ours {one_ms[0]:.2f} ms, moto {one_ms[1]:.2f} ms, {by_id:.2f} times faster (bar {BAR_ONE})")
    return verdict(
        ratio,
        ratio >= BAR_ALL and by_id >= BAR_ONE,
        f"moto's time over ours, {INSTANCES} instances; bar {BAR_ALL:g}, and {BAR_ONE:g} by id",
    )


if __name__ == "__main__":
    sys.exit(main())
