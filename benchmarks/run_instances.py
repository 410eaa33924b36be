"""RunInstances, durable: how long until it is answered, ours against moto's server (which keeps nothing), in one run.

Bar: under 15 ms at the median.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from describe import image_of
from servers import Client, controller, median_ms, moto, verdict

ROUNDS = 100
BAR_MS = 15.0
MOTO_PORT = 8798


def main() -> int:
    with (
        tempfile.TemporaryDirectory() as scratch,
        controller(Path(scratch) / "state", "--host", "memory") as ours,
        moto(MOTO_PORT) as theirs,
    ):
        times: tuple[list[float], list[float]] = ([], [])
        clients = [Client(ours), Client(theirs)]
        images = [image_of(client) for client in clients]
        for _ in range(ROUNDS):
            for client, image, taken in zip(clients, images, times, strict=True):
                parameters = {"ImageId": image, "MinCount": "1", "MaxCount": "1", "InstanceType": "t2.micro"}
                taken.append(client.timed("RunInstances", parameters))
    ours_ms, moto_ms = (median_ms(taken) for taken in times)
    print(f"RunInstances at the median: ours {ours_ms:.2f} ms, moto {moto_ms:.2f} ms")
    return verdict(ours_ms / BAR_MS, ours_ms < BAR_MS, f"our median over the bar of {BAR_MS:g} ms")


if __name__ == "__main__":
    sys.exit(main())
