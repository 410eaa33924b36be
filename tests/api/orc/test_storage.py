"""What is told of layers: who needs each, which nobody does, and that those go when asked for and not before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.api.operation import Answer, Call
from orchestrator.api.orc.storage import collect_storage, describe_storage, verify_layer
from orchestrator.controller import RealHostView
from orchestrator.host.memory import MemoryHost, memory_host
from orchestrator.model.errors import EC2Error
from orchestrator.model.image import BlockDevice, Image
from orchestrator.model.layer import GIB, Layer
from orchestrator.model.resource import EVERY_REGION
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from orchestrator.store import Transaction
from tests.api.ec2.conftest import Api

BASE, TOP, IDLE, LOST = (f"layer-0{digit * 16}" for digit in "1234")
SNAPSHOT, VOLUME, IMAGE = "snap-0" + "1" * 16, "vol-0" + "1" * 16, "ami-0" + "1" * 16


@pytest.fixture
def host(api: Api) -> MemoryHost:
    """A snapshot that an image is of, a volume on it, a layer that nobody needs, and a file without a row."""
    made = memory_host()
    view = RealHostView(made, verify=lambda layer_id: [f"{layer_id}: damaged"] if layer_id == TOP else [])
    api.host.allow(storage=view.storage, storage_room=view.storage_room, verify_layer=view.verify_layer)
    for name, parent in ((BASE, ""), (TOP, BASE), (IDLE, BASE), (LOST, "")):
        made.storage.create_layer(name, size_bytes=GIB, parent=parent)
    owned = {"account": api.account, "region": api.region, "created": api.now}
    api.put(
        Layer(id=BASE, size_bytes=GIB, **owned),
        Layer(id=TOP, size_bytes=GIB, parent_id=BASE, key_id="key", **owned),
        Layer(id=IDLE, size_bytes=GIB, parent_id=BASE, **owned),
        Snapshot(id=SNAPSHOT, layer_id=BASE, size_gib=1, **owned),
        Volume(id=VOLUME, zone="us-east-1a", size_gib=1, layer_id=TOP, **owned),
        Image(id=IMAGE, name="one", block_devices=(BlockDevice(device="/dev/xvda", snapshot_id=SNAPSHOT),), **owned),
    )
    return made


def found(api: Api) -> dict[str, Answer]:
    answer = describe_storage(api._call("DescribeStorage", {}))
    return {layer["LayerId"]: layer for layer in answer["Layers"]}


def collect(api: Api, **asked: bool) -> list[str]:
    with api.store.write() as tx:
        call = api._call("CollectStorage", {})
        answer = collect_storage(_within(call, tx), **asked)
    return [each["LayerId"] for each in answer["Collected"]]


def _within(call: Call, tx: Transaction) -> Call:
    return replace(call, db=tx)


def test_each_layer_says_what_it_is_for(api: Api, host: MemoryHost) -> None:
    layers = found(api)
    assert layers[BASE]["UsedBy"] == [SNAPSHOT, IMAGE]
    assert (layers[TOP]["UsedBy"], layers[TOP]["ParentId"], layers[TOP]["Encrypted"]) == ([VOLUME], BASE, True)
    assert {name: layer["State"] for name, layer in layers.items()} == {
        BASE: "present",
        TOP: "present",
        IDLE: "present",
        LOST: "leftover",
    }
    host.storage.remove_layer(TOP)
    assert found(api)[TOP]["State"] == "absent"


def test_what_nothing_needs_is_shown_before_it_goes(api: Api, host: MemoryHost) -> None:
    assert collect(api, preview=True) == [IDLE, LOST]
    assert api.store.get(Layer, LOST) is None
    assert api.store.pending_wakes() == []
    assert collect(api) == [IDLE, LOST]
    row = api.get(Layer, LOST)
    assert row.region == EVERY_REGION  # its reconciler finds that nobody needs it
    assert {(kind, name) for kind, name, _ in api.store.pending_wakes()} == {("layer", IDLE), ("layer", LOST)}


def test_a_file_below_one_that_is_needed_is_none_to_collect(api: Api, host: MemoryHost) -> None:
    """A merge that was cut off has told the file of its parent, and not yet the row."""
    host.storage.remove_layer(TOP)
    host.storage.create_layer(TOP, size_bytes=GIB, parent=LOST)
    assert collect(api, preview=True) == [IDLE]


def test_a_layer_is_verified_by_its_id(api: Api, host: MemoryHost) -> None:
    call = api._call("VerifyLayer", {})
    assert verify_layer(call, layer_id=TOP) == {"LayerId": TOP, "Problems": [f"{TOP}: damaged"]}
    assert verify_layer(call, layer_id=BASE)["Problems"] == []
    with pytest.raises(EC2Error) as refused:
        verify_layer(call, layer_id="layer-0" + "f" * 16)
    assert refused.value.code == "InvalidLayer.NotFound"
