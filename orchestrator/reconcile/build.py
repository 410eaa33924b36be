"""Builds: a recipe is run, or an uploaded file is read, and an image stands in the catalogue.

    pending ---> running ---> available    a Layer, a Snapshot, an Image; the image of that name before it is gone
                    |
                    +-------> failed       the message says why; nothing is left

Either can be seen for a week, and its image stays.
The layer's id follows from the build's, so a build that was cut off starts over in the same place.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.host import BuiltImage, HostError, Storage
from orchestrator.model.image import BlockDevice, Build, Image
from orchestrator.model.layer import GIB, Layer
from orchestrator.model.owned import layer_of
from orchestrator.model.resource import EVERY_REGION
from orchestrator.model.snapshot import Snapshot
from orchestrator.reconcile.ageing import forget_after
from orchestrator.reconcile.layer import LayerFiles
from orchestrator.reconcile.loop import Again, Done, Next
from orchestrator.store import Store, Transaction

log = logging.getLogger(__name__)

AT_ONCE = 2
KEPT = timedelta(days=7)
LOOK_EACH_S = 1.0


class Builds:
    def __init__(self, store: Store, files: LayerFiles, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._files = files
        self._storage = files.storage
        self._clock = clock
        self._turns = threading.Semaphore(AT_ONCE)

    def step(self, build_id: str) -> Next:
        """It takes minutes, so it is done beside the loop: all others would wait for one that is free."""
        if not self._files.in_background(build_id, lambda: self._build(build_id), self._turns):
            return Again(LOOK_EACH_S)
        with self._store.write() as tx:
            build = tx.get(Build, build_id)
            if build is None or build.finished is None:
                return Done()
            return forget_after(tx, build, KEPT, build.finished, self._clock())

    def _build(self, build_id: str) -> None:
        build = self._store.get(Build, build_id)
        if build is None or build.state in ("available", "failed"):
            return
        layer_id = layer_of(build)

        def progress(line: str) -> None:
            log.info("build %s of %s: %s", build_id, build.name, line)
            self._change(build_id, state="running", phase=line[:200])

        try:
            if build.source == "upload":
                built = self._storage.import_image(build.upload_id, build.file_format, layer_id, progress)
            else:
                built = self._storage.build_image(build.name, layer_id, progress)
        except HostError as error:
            self._storage.remove_layer(layer_id)
            self._storage.remove_kernel(layer_id)
            if build.upload_id:
                self._storage.remove_upload(build.upload_id)
            self._change(build_id, state="failed", message=str(error)[:2000], finished=self._clock())
            return
        if build.login_user:
            built = replace(built, login_user=build.login_user)
        register(self._store, built, build.name, layer_id, build.account, self._clock(), build_id)

    def _change(self, build_id: str, **changes: object) -> None:
        with self._store.write() as tx:
            _change(tx, build_id, **changes)


def _change(tx: Transaction, build_id: str, **changes: object) -> None:
    build = tx.get(Build, build_id)
    if build is not None:
        tx.put(replace(build, **changes))  # type: ignore[arg-type]


def image_id(name: str, sha512: str) -> str:
    """The same disk under the same name is the same image, on every deployment."""
    return "ami-0" + hashlib.sha256(f"{name}\0{sha512}".encode()).hexdigest()[:16]


def register(
    store: Store, built: BuiltImage, name: str, layer_id: str, account: str, now: datetime, build_id: str = ""
) -> Image:
    """Put an image into the catalogue of every region, in the place of the one that had its name. The build that it
    comes of, if it does, is done in the same moment: one that is begun anew may remove what it has made before."""
    digits = layer_id.partition("-")[2]
    size_gib = -(-built.size_bytes // GIB)
    owned = {"account": account, "region": EVERY_REGION, "created": now}
    kernel = built.kernel_arguments is not None
    layer = Layer(id=layer_id, size_bytes=built.size_bytes, sha512=built.sha512, **owned)  # type: ignore[arg-type]
    snapshot = Snapshot(
        id="snap-" + digits,
        layer_id=layer_id,
        size_gib=size_gib,
        description=f"root of {name}",
        **owned,  # type: ignore[arg-type]
    )
    image = Image(
        id=image_id(name, built.sha512),
        name=name,
        description=built.description,
        public=True,
        root_device=built.root_device,
        block_devices=(BlockDevice(device=built.root_device, snapshot_id=snapshot.id, size_gib=size_gib),),
        login_user=built.login_user,
        kernel_id="aki-" + digits if kernel else "",
        ramdisk_id="ari-" + digits if kernel else "",
        kernel_arguments=built.kernel_arguments or "",
        **owned,  # type: ignore[arg-type]
    )
    with store.write() as tx:
        for old in tx.all(Image, name=name):
            if old.account == account and old.region == EVERY_REGION and old.recycled_at is None:
                tx.delete(old)
                tx.wake(old)  # its kernel may go with it
                for snapshot_id in old.snapshot_ids:
                    old_snapshot = tx.get(Snapshot, snapshot_id)
                    if old_snapshot is None or old_snapshot.id == snapshot.id or old_snapshot.lock is not None:
                        continue
                    if not tx.all(Image, snapshot_ids=snapshot_id):  # somebody may have registered another of it
                        tx.delete(old_snapshot)
                        old_layer = tx.get(Layer, old_snapshot.layer_id)
                        if old_layer is not None:
                            tx.wake(old_layer)
        tx.put_all([layer, snapshot, image])
        _change(tx, build_id, state="available", phase="done", image_id=image.id, finished=now)
    return image


def register_catalogue(store: Store, storage: Storage, account: str, now: datetime) -> None:
    """The images that the host has without building."""
    for name, built in storage.catalogue().items():
        wanted = image_id(name, built.sha512)
        if store.get(Image, wanted) is None:
            register(store, built, name, "layer-" + wanted.partition("-")[2], account, now)
