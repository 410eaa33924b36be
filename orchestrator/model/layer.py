"""Layers: the qcow2 files that volumes and snapshots are made of, a tree.

    Image --block device mapping--> Snapshot --layer_id--> Layer (immutable)
                                                             ^
    Instance --block device mapping--> Volume --layer_id--> Layer (its top, written by the guest), parent_id

Nothing counts references: what a layer is needed for follows from the rows. A volume's `layer_id` is the top that it
should have. A snapshot freezes the top of the moment and gives the volume a new one, in one transaction:

    before   Volume ----------------> A             after   Volume ------> B (parent A)
                                                            Snapshot ----> A, pending until nothing writes to A

On the host this is so as soon as B is there and the machine, if one runs, writes to B.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from orchestrator.model.resource import Resource

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer(Resource):
    KIND: ClassVar[str] = "layer"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "parent_id", "copy_of", "merging_onto", "key_id")

    parent_id: str = ""
    size_bytes: int
    sha512: str = ""  # of the file, once nothing writes to it
    key_id: str = ""  # the key that `data_key` is wrapped by; empty: not encrypted
    # Wrapped, base64. A child has its parent's, unless it lies on one that is not encrypted.
    data_key: str = field(default="", repr=False)
    merging_live: bool = False  # a machine does it: what its file says holds only after a flush
    copy_of: str = ""  # the layer whose whole content is still to be copied into this one, which has no parent
    merging_onto: str = (
        ""  # the layer below that its file may lie on already, as what is between is being merged into it
    )
    moment: str = ""  # of the snapshots that froze the parent: layers of one moment come on top at one instant
    when: str = "live"  # how that is done while a machine runs: live | frozen (file systems, if it can) | off
