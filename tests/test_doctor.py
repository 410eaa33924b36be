"""The doctor: what each check makes of a host, what is mended, and what counts as left over."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator import doctor
from orchestrator.config import Config
from orchestrator.controller import deployment_id, open_store
from orchestrator.host import Disk, Host, LayerFile, Machine
from orchestrator.host.findings import Expectation, Finding, Standing
from orchestrator.host.memory import memory_host
from orchestrator.host.probe import boot_id
from orchestrator.model.layer import Layer

# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(state_dir=tmp_path / "state")


def stub_findings(monkeypatch: pytest.MonkeyPatch, *rounds: list[Finding]) -> None:
    left = list(rounds)
    monkeypatch.setattr(doctor, "check_host", lambda expected: left.pop(0) if len(left) > 1 else left[0])


OK = Finding(check="one", standing=Standing.OK, text="fine")


def test_exit_code_and_json(
    monkeypatch: pytest.MonkeyPatch, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = Finding(check="two", standing=Standing.WARNING, text="slow", mend=(("true",),))
    stub_findings(monkeypatch, [OK, warning])
    assert doctor.doctor(config, None, fix=False, yes=False, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"check": "one", "standing": "ok", "text": "fine", "mend": []},
        {"check": "two", "standing": "warning", "text": "slow", "mend": [["true"]]},
    ]
    stub_findings(monkeypatch, [OK, Finding(check="two", standing=Standing.FAILURE, text="broken")])
    assert doctor.doctor(config, None, fix=False, yes=False, as_json=False) == 1
    assert "FAIL" in capsys.readouterr().out


def test_fix_runs_the_commands_in_order_and_looks_again(
    monkeypatch: pytest.MonkeyPatch, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    made = tmp_path / "made"
    mend = (("mkdir", str(made)), ("touch", str(made / "file")), ("false",), ("touch", str(made / "never")))
    stub_findings(monkeypatch, [Finding(check="one", standing=Standing.FAILURE, text="broken", mend=mend)], [OK])
    assert doctor.doctor(config, None, fix=True, yes=True, as_json=True) == 0
    assert [path.name for path in made.iterdir()] == ["file"]
    captured = capsys.readouterr()
    assert json.loads(captured.out)[0]["standing"] == "ok"
    assert "false ended with 1" in captured.err


def test_fix_without_yes_and_without_a_terminal_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CI", raising=False)
    mend = (("touch", str(tmp_path / "file")),)
    stub_findings(monkeypatch, [Finding(check="one", standing=Standing.FAILURE, text="broken", mend=mend)])
    assert doctor.doctor(config, None, fix=True, yes=False, as_json=False) == 1
    assert not (tmp_path / "file").exists()
    assert "--yes" in capsys.readouterr().err


def test_examining_makes_no_state(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    seen: list[Expectation] = []

    def check(expected: Expectation) -> list[Finding]:
        seen.append(expected)
        return [OK]

    monkeypatch.setattr(doctor, "check_host", check)
    doctor.examine(config)
    assert seen[0].deployment == "" and seen[0].router_ranges == ("172.31.0.0/16",)
    assert not config.state_dir.exists()

    with closing(open_store(config)) as store:  # its lock is held meanwhile, as by a controller
        mark = deployment_id(store)
        store.set_meta("accelerator", f"{boot_id()} tcg")
        doctor.examine(config)
        assert seen[1].deployment == mark
        assert doctor.recorded_accelerator(config) == "tcg"
        store.set_meta("accelerator", "another-boot kvm")
        assert doctor.recorded_accelerator(config) == ""


def test_the_in_memory_host_needs_nothing(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    monkeypatch.setattr(doctor, "check_host", lambda expected: pytest.fail("looked at the host"))
    assert not doctor.fails(doctor.examine(Config(state_dir=config.state_dir, host="memory")))


# --- leaks ----------------------------------------------------------------------------------------------------------


def machine(name: str) -> Machine:
    return Machine(
        name=name,
        uuid="ec2e1916-9099-7caf-fd21-012345abcdef",
        vcpus=1,
        cores=1,
        threads=1,
        memory_mib=128,
        disks=(Disk(chain=(LayerFile(f"layer-of-{name}"),), serial="vol"),),
        nics=(),
    )


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host with a machine and a layer that may be somebody's."""
    host = memory_host()
    monkeypatch.setattr(doctor, "build_host", lambda config, deployment, accelerator: host)
    host.storage.create_layer("layer-of-i-1", size_bytes=1 << 30)
    host.compute.start(machine("i-1"))
    return host


def answering(**names: list[str]) -> doctor.Ask:
    return lambda action: {"Owned": {"Machines": [], "Layers": [], "Routers": [], "Ports": [], **names}}


def with_state(config: Config) -> Config:
    open_store(config).close()
    return config


def test_without_state_nothing_is_left_over_and_nothing_is_made(
    monkeypatch: pytest.MonkeyPatch, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "build_host", lambda *_: pytest.fail("touched the host"))
    assert doctor.leaks(config, None, fix=True, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert not config.state_dir.exists()


def test_what_the_controller_owns_is_no_leak(config: Config, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    with_state(config)
    ask = answering(Machines=["i-1"], Layers=["layer-of-i-1"])
    assert doctor.leaks(config, ask, fix=False, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_leaks_are_listed_and_left_alone(config: Config, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.leaks(with_state(config), answering(), fix=False, as_json=True) == 1
    assert json.loads(capsys.readouterr().out) == ["machine i-1", "layer layer-of-i-1"]
    assert host.compute.names() == ["i-1"]


def test_fix_removes_leaks_and_nothing_else(config: Config, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.storage.create_layer("layer-of-i-2", size_bytes=1 << 30)
    host.compute.start(machine("i-2"))
    ask = answering(Machines=["i-2"], Layers=["layer-of-i-2"])
    assert doctor.leaks(with_state(config), ask, fix=True, as_json=False) == 0
    assert host.compute.names() == ["i-2"]
    assert host.storage.layers() == ["layer-of-i-2"]
    assert "removed machine i-1" in capsys.readouterr().err


def test_the_store_is_read_when_no_controller_answers(
    config: Config, host: Host, clock: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(open_store(config)) as store, store.write() as tx:
        tx.put(Layer(id="layer-of-i-1", size_bytes=1 << 30, account="1", region="*", created=clock()))
    assert doctor.leaks(config, None, fix=False, as_json=True) == 1
    assert json.loads(capsys.readouterr().out) == ["machine i-1"]


def test_a_machine_that_is_started_while_we_look_is_no_leak(
    config: Config, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its row is there before it is; what was asked before that does not have it."""
    answers = iter([[], ["i-1"], ["i-1"], ["i-1"], ["i-1"], ["i-1"]])

    def ask(action: str) -> dict[str, Any]:
        return answering(Machines=next(answers), Layers=["layer-of-i-1"])(action)

    assert doctor.leaks(with_state(config), ask, fix=True, as_json=True) == 0
    assert host.compute.names() == ["i-1"]


def test_the_doctor_hints_at_leftovers(
    monkeypatch: pytest.MonkeyPatch, config: Config, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    stub_findings(monkeypatch, [OK])
    assert doctor.doctor(with_state(config), answering(), fix=False, yes=False, as_json=True) == 0
    finding = json.loads(capsys.readouterr().out)[-1]
    assert finding["check"] == "leftovers" and finding["standing"] == "warning"
    assert "--leaks" in finding["text"]
