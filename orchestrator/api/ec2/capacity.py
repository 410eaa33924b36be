"""Whether this deployment's host can hold what is to be started."""

from __future__ import annotations

from collections import Counter

from orchestrator.api.operation import Call
from orchestrator.model.errors import EC2Error
from orchestrator.model.instance import Instance
from orchestrator.model.instance_type import CATALOGUE, InstanceType
from orchestrator.model.lifecycle import State


class Room:
    """Processors and memory that the instances which run, or are about to, leave free; overcommit included."""

    def __init__(self, call: Call) -> None:
        settings = call.settings
        present = call.tx.all(Instance, state=State.RUNNING) + call.tx.all(Instance, state=State.PENDING)
        counted = Counter((i.instance_type, i.core_count, i.threads_per_core) for i in present)
        self.processors, self.memory_mib = float(settings.processors), float(settings.memory_mib)
        for (name, cores, threads), count in counted.items():
            kind = CATALOGUE.get(name)
            if kind is not None:
                self.processors -= count * vcpus(kind, cores, threads)
                self.memory_mib -= count * kind.memory_mib

    def take(self, kind: InstanceType, processors: int) -> bool:
        """Whether there is room for one more; if so it is taken."""
        if self.processors < processors or self.memory_mib < kind.memory_mib:
            return False
        self.processors -= processors
        self.memory_mib -= kind.memory_mib
        return True

    def refuse(self, kind: InstanceType, processors: int, count: int, zone: str) -> EC2Error:
        """The error when `count` of a type do not fit; what was taken of them counts as free again."""
        return EC2Error(
            "InsufficientInstanceCapacity",
            f"There is not enough capacity in {zone} for {count} x {kind.name} ({processors} vCPU and "
            f"{kind.memory_mib} MiB each): {max(self.processors, 0):g} vCPU and {max(self.memory_mib, 0):g} MiB are "
            "free after those that fit. Choose a smaller type or fewer instances, or stop or terminate others.",
            500,
        )


def vcpus(kind: InstanceType, cores: int, threads: int) -> int:
    """Of an instance whose cores and threads may have been chosen (zero: as the type has them)."""
    return (cores or kind.cores) * (threads or kind.threads_per_core)
