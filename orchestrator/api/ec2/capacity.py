"""Whether this deployment's host can hold what is to be started."""

from __future__ import annotations

from orchestrator.api.operation import Call
from orchestrator.model.errors import EC2Error
from orchestrator.model.instance import Instance
from orchestrator.model.instance_type import CATALOGUE, InstanceType


class Room:
    """Processors and memory that the instances which run, or are about to, leave free; overcommit included."""

    def __init__(self, call: Call) -> None:
        settings = call.settings
        self.processors, self.memory_mib = float(settings.processors), float(settings.memory_mib)
        for drawn, count in call.tx.counts(Instance, "draws").items():
            name, _, options = str(drawn).partition("/")
            kind = CATALOGUE.get(name)
            if kind is not None:
                cores, _, threads = options.partition("/")
                self.processors -= count * vcpus(kind, int(cores), int(threads))
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
