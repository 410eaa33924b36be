"""A guest whose file systems stand still for a snapshot is let go, whoever has to do it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt
import pytest

from orchestrator.host import LayerFile
from orchestrator.host.disks import DomainDisks
from orchestrator.host.qcow2 import QcowStorage
from orchestrator.host.xml import DomainTemplate

MIB = 1 << 20
TOPS = {"vol1": LayerFile("layer-b")}


class Guest:
    """A domain with an agent. libvirtd is gone in the moment in which QEMU has switched its disks."""

    def __init__(self, files: QcowStorage, *, agent: str = "connected") -> None:
        self.frozen = self.switched = False
        self.libvirt_is_there = True
        self.asked: list[str] = []
        self._files = files
        self._agent = agent

    def tree(self) -> ElementTree.Element:
        chain = ["layer-b", "layer-a"] if self.switched else ["layer-a"]
        below = "<backingStore/>"
        for layer in reversed(chain[1:]):
            below = f"<backingStore><source file='{self._files.layer_path(layer)}'/>{below}</backingStore>"
        disk = f"<source file='{self._files.layer_path(chain[0])}'/>{below}<target dev='vda'/><alias name='ua-vol1'/>"
        agent = f"<target type='virtio' name='org.qemu.guest_agent.0' state='{self._agent}'/>"
        return ElementTree.fromstring(
            f"<domain><devices><disk>{disk}</disk><channel type='unix'>{agent}</channel></devices></domain>"
        )

    def _ask(self, question: str) -> int:
        if not self.libvirt_is_there:
            raise libvirt.libvirtError("libvirtd has gone")
        self.asked.append(question)
        return 1

    def name(self) -> str:
        return "i-1"

    def isActive(self) -> int:
        return self._ask("isActive")

    def blockJobInfo(self, target: str, flags: int) -> dict[str, int]:
        return {}

    def agentSetResponseTimeout(self, seconds: int, flags: int) -> None:
        self._ask("agentSetResponseTimeout")

    def fsFreeze(self, mountpoints: Any, flags: int) -> int:
        self._ask("fsFreeze")
        self.frozen = True
        return 1

    def fsThaw(self, mountpoints: Any, flags: int) -> int:
        self._ask("fsThaw")
        self.frozen = False
        return 1

    def snapshotCreateXML(self, xml: str, flags: int) -> None:
        self.switched, self.libvirt_is_there = True, False
        self._ask("snapshotCreateXML")


@pytest.fixture
def files(tmp_path: Path) -> QcowStorage:
    files = QcowStorage(tmp_path / "state", tmp_path / "images")
    files.create_layer("layer-a", size_bytes=MIB)
    files.create_layer("layer-b", size_bytes=MIB, parent="layer-a")
    return files


def switch(files: QcowStorage, guest: Guest, *, freeze: bool = True) -> bool:
    disks = DomainDisks("0f3c5a7e", files, DomainTemplate())
    return disks.switch(None, guest, guest.tree(), TOPS, freeze=freeze)


def test_whoever_finds_the_disks_switched_lets_the_guest_go(files: QcowStorage) -> None:
    guest = Guest(files)
    with pytest.raises(libvirt.libvirtError):
        switch(files, guest)
    assert guest.switched and guest.frozen
    with pytest.raises(libvirt.libvirtError):
        switch(files, guest)  # it is not there yet: not to be taken for done
    guest.libvirt_is_there = True
    assert switch(files, guest) is False
    assert not guest.frozen


@pytest.mark.parametrize(("freeze", "agent"), [(False, "connected"), (True, "disconnected")])
def test_nobody_asks_an_agent_that_is_not_there_or_has_done_nothing(
    files: QcowStorage, freeze: bool, agent: str
) -> None:
    guest = Guest(files, agent=agent)
    guest.switched = True
    assert switch(files, guest, freeze=freeze) is False
    assert guest.asked == []
