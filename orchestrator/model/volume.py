"""Volumes, their attachments, and how they are changed.

creating --its layer is there--> available <--attach, detach--> in-use       delete: available --> deleting --> (none)
   |
   +-- cannot be made --> error

attachment:    attaching --the machine has it--> attached --detach--> detaching --the guest has let go--> (none)
modification:  modifying --the machine has it--> optimizing --> completed
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from orchestrator.model.resource import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeAttachment:
    instance_id: str
    device: str
    state: str = "attached"  # attaching | attached | detaching | busy
    delete_on_termination: bool = True
    attached_at: datetime | None = None
    forced: bool = False  # detach without the guest's consent, after a time


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeShape:
    """What ModifyVolume can change."""

    size_gib: int
    volume_type: str
    iops: int
    throughput_mib_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Modification:
    """The newest change of a volume, whose own attributes are the target's from the start."""

    state: str  # modifying | optimizing | completed | failed
    original: VolumeShape
    target: VolumeShape
    started_at: datetime
    ended_at: datetime | None = None
    progress_percent: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Resource):
    KIND: ClassVar[str] = "volume"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "instance_id", "layer_id", "snapshot_id", "key_id", "held_by")

    zone: str
    size_gib: int
    volume_type: str = "gp3"
    iops: int = 3000
    throughput_mib_s: int = 125
    key_id: str = ""  # empty: not encrypted
    snapshot_id: str = ""
    layer_id: str  # the top layer that it should have
    state: str = "creating"  # creating | available | in-use | deleting | error
    state_message: str = ""
    attachment: VolumeAttachment | None = None
    held_by: str = ""  # the instance whose guest has not let go of it, though it was detached by force
    modification: Modification | None = None
    auto_enable_io: bool = False
    fast_restored: bool = False  # made of a snapshot for which fast restore was on in its zone
    initialization_rate_mib_s: int = 0  # as asked for: nothing has to be fetched here; 0: not asked for

    @property
    def instance_id(self) -> str:
        return self.attachment.instance_id if self.attachment else ""

    @property
    def encrypted(self) -> bool:
        return bool(self.key_id)

    @property
    def shape(self) -> VolumeShape:
        return VolumeShape(
            size_gib=self.size_gib,
            volume_type=self.volume_type,
            iops=self.iops,
            throughput_mib_s=self.throughput_mib_s,
        )
