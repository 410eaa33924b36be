"""Flow logs over the in-memory network: records, windows, files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.host import Flow, HostError, Port, Router
from orchestrator.host.memory_network import MemoryNetwork
from orchestrator.model.vpc import FlowLog, InterfaceAttachment, NetworkInterface, Subnet
from orchestrator.reconcile.flow_log import KEPT_FILES, FlowLogs
from orchestrator.store import Store
from tests.conftest import Clock

ACCOUNT = "123456789012"
VPC = "vpc-0000000000000000a"
SUBNET = "subnet-0000000000000000a"
OWNED: dict[str, Any] = {
    "account": ACCOUNT,
    "region": "us-east-1",
    "created": datetime(2026, 1, 2, tzinfo=UTC),
}
START = int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp())


class Logged:
    """A VPC with two interfaces, whose packets a test makes up."""

    def __init__(self, tmp_path: Path, clock: Clock) -> None:
        self.store = Store(tmp_path / "store.db", durable=False)
        self.network = MemoryNetwork()
        self.clock = clock
        self.directory = tmp_path / "flow-logs"
        self.on_host = True
        with self.store.write() as tx:
            tx.put(Subnet(id=SUBNET, **OWNED, vpc_id=VPC, zone="us-east-1a", cidr="10.0.1.0/24"))
            for number in (1, 2):
                tx.put(self.interface(number))
        self.restart()

    def interface(self, number: int) -> NetworkInterface:
        attachment = InterfaceAttachment(id=f"eni-attach-{number}", instance_id=f"i-{number}", device_index=0)
        return NetworkInterface(
            id=f"eni-{number}",
            **OWNED,
            vpc_id=VPC,
            subnet_id=SUBNET,
            zone="us-east-1a",
            mac=f"02:00:00:00:00:0{number}",
            private_ip=f"10.0.1.{number + 3}",
            attachment=attachment,
        )

    def restart(self, **options: Any) -> None:
        self.logs = FlowLogs(self.store, self.network, self.router, self.directory, self.clock, **options)

    def router(self, vpc_id: str) -> Router | None:
        ports = tuple(
            Port(name=each.id, segment=SUBNET, mac=each.mac, address=each.private_ip, host_name="", log=True)
            for each in self.store.all(NetworkInterface, vpc_id=vpc_id)
        )
        empty: dict[str, Any] = {
            "cidrs": ("10.0.0.0/16",),
            "segments": (),
            "policies": (),
            "domain": "",
            "resolver": "",
        }
        return Router(name=vpc_id, ports=ports, **empty) if self.on_host else None

    def add(self, **changes: Any) -> FlowLog:
        given: dict[str, Any] = {"id": "fl-1", "resource_id": VPC, "traffic": "ALL", "interval_s": 60, **changes}
        with self.store.write() as tx:
            return tx.put(FlowLog(**OWNED, **given))

    def pass_(self, *flows: Flow) -> None:
        self.network.flowed.setdefault(VPC, []).extend(flows)

    def collect(self, *, after_s: float = 10) -> None:
        self.clock.pass_(seconds=after_s)
        self.logs.collect()

    def over(self) -> None:
        """Until the window of a minute is over."""
        for _ in range(7):
            self.collect()

    def lines(self, log_id: str = "fl-1") -> list[str]:
        """Without the first, which names the fields."""
        path = self.directory / ACCOUNT / "us-east-1" / f"{log_id}.log"
        return path.read_text().splitlines()[1:] if path.exists() else []


@pytest.fixture
def logged(tmp_path: Path, clock: Clock) -> Iterator[Logged]:
    made = Logged(tmp_path, clock)
    yield made
    made.store.close()


def flow(**changes: Any) -> Flow:
    given: dict[str, Any] = {
        "port": "eni-1",
        "outbound": False,
        "accepted": True,
        "protocol": 6,
        "source": "10.0.1.5",
        "source_port": 49152,
        "destination": "10.0.1.4",
        "destination_port": 80,
        "packets": 3,
        "octets": 180,
    }
    return Flow(**{**given, **changes})


def test_a_window_sums_what_was_seen_in_it(logged: Logged) -> None:
    logged.add()
    logged.pass_(flow())
    logged.collect()
    logged.pass_(flow(packets=2, octets=100), flow(accepted=False, destination_port=22, packets=1, octets=60))
    assert logged.lines() == []
    logged.over()
    first, refused, quiet = logged.lines()
    assert first == f"2 {ACCOUNT} eni-1 10.0.1.5 10.0.1.4 49152 80 6 5 280 {START} {START + 20} ACCEPT OK"
    assert refused == f"2 {ACCOUNT} eni-1 10.0.1.5 10.0.1.4 49152 22 6 1 60 {START + 10} {START + 20} REJECT OK"
    assert quiet == f"2 {ACCOUNT} eni-2 - - - - - - - {START} {START + 60} - NODATA"


def test_a_file_begins_with_the_names_of_its_fields(logged: Logged) -> None:
    row = logged.add()
    logged.over()
    assert logged.logs.path(row).read_text().splitlines()[0] == (
        "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action "
        "log-status"
    )
    assert logged.logs.path(row).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("traffic", "ports"), [("ACCEPT", ["80"]), ("REJECT", ["22"]), ("ALL", ["80", "22"])])
def test_only_the_traffic_that_was_asked_for(logged: Logged, traffic: str, ports: list[str]) -> None:
    logged.add(traffic=traffic)
    logged.pass_(flow(), flow(accepted=False, destination_port=22))
    logged.over()
    assert [line.split()[6] for line in logged.lines() if " eni-1 " in line] == ports


def test_an_interface_that_had_other_traffic_is_not_without_data(logged: Logged) -> None:
    logged.add(traffic="REJECT", resource_id="eni-1")
    logged.pass_(flow())
    logged.over()
    assert logged.lines() == []


@pytest.mark.parametrize(
    ("resource", "seen"), [("eni-1", {"eni-1"}), (SUBNET, {"eni-1", "eni-2"}), (VPC, {"eni-1", "eni-2"})]
)
def test_a_log_covers_its_resource(logged: Logged, resource: str, seen: set[str]) -> None:
    logged.add(resource_id=resource)
    logged.pass_(flow(), flow(port="eni-2"))
    logged.over()
    assert {line.split()[2] for line in logged.lines()} == seen


def test_two_logs_of_one_vpc_each_have_all(logged: Logged) -> None:
    """Though the host's counters can be read once only."""
    logged.add()
    logged.add(id="fl-2", resource_id="eni-1")
    logged.pass_(flow())
    logged.over()
    assert logged.lines("fl-2") == [line for line in logged.lines() if " eni-1 " in line] != []


def test_a_format_of_its_own(logged: Logged) -> None:
    fields = (
        "vpc-id subnet-id instance-id type pkt-srcaddr srcaddr dstaddr pkt-dstaddr region az-id flow-direction "
        "tcp-flags version action"
    )
    logged.add(fields=" ".join(f"${{{name}}}" for name in fields.split()), resource_id="eni-1")
    logged.pass_(
        flow(source="10.9.0.9", destination="8.8.8.8"),
        flow(outbound=True, source="10.9.0.9", destination="8.8.8.8"),
        flow(source="2001:db8::9", destination="2001:db8::4"),
    )
    logged.over()
    head = f"{VPC} {SUBNET} i-1"
    assert logged.lines() == [
        f"{head} IPv4 10.9.0.9 10.9.0.9 10.0.1.4 8.8.8.8 us-east-1 use1-az1 ingress - 5 ACCEPT",
        f"{head} IPv4 10.9.0.9 10.0.1.4 8.8.8.8 8.8.8.8 us-east-1 use1-az1 egress - 5 ACCEPT",
        f"{head} IPv6 2001:db8::9 2001:db8::9 2001:db8::4 2001:db8::4 us-east-1 use1-az1 ingress - 5 ACCEPT",
    ]


def test_what_could_not_be_read_is_told(logged: Logged) -> None:
    logged.add(resource_id="eni-1")

    def fail(action: str, name: str) -> None:
        if action == "flows":
            raise HostError("not now")

    logged.network.fault = fail
    logged.collect()
    logged.network.fault = lambda action, name: None
    logged.pass_(flow())
    logged.over()
    assert [line.split()[-1] for line in logged.lines()] == ["OK", "SKIPDATA"]


def test_too_many_flows_are_told(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.reconcile.flow_log.MAX_FLOWS", 3)
    logged.add(resource_id="eni-1")
    logged.pass_(*(flow(destination_port=port) for port in range(1, 6)))
    logged.over()
    assert [line.split()[-1] for line in logged.lines()] == ["OK", "OK", "OK", "SKIPDATA"]


def test_a_window_goes_on_in_the_next_process(logged: Logged) -> None:
    logged.add()
    logged.pass_(flow())
    logged.collect()
    logged.restart()
    logged.pass_(flow())
    logged.over()
    [first, _] = logged.lines()
    assert first.split()[8:12] == ["6", "360", str(START), str(START + 20)]


def test_a_window_that_cannot_be_read_is_begun_anew(logged: Logged) -> None:
    row = logged.add()
    logged.collect()
    logged.logs.path(row).with_suffix(".window").write_text("{half")
    logged.restart()
    logged.pass_(flow())
    logged.over()
    assert [line.split()[-1] for line in logged.lines()] == ["OK", "NODATA"]


def test_windows_follow_each_other(logged: Logged) -> None:
    logged.add(resource_id="eni-1")
    logged.over()
    logged.over()
    starts = [int(line.split()[10]) for line in logged.lines()]
    assert starts == [START, START + 60]


def test_a_clock_that_is_put_back_costs_no_records(logged: Logged) -> None:
    logged.add()
    logged.pass_(flow())
    logged.collect()
    logged.clock.pass_(days=-2)
    for _ in range(12):
        logged.pass_(flow())
        logged.collect()
    assert [line.split()[-1] for line in logged.lines()].count("OK") >= 1


def test_files_are_bounded(logged: Logged) -> None:
    row = logged.add(resource_id="eni-1")
    logged.restart(max_file_bytes=150)
    for _ in range(12 * (KEPT_FILES + 2)):
        logged.collect()
    found = sorted(path.name for path in logged.logs.path(row).parent.glob("fl-1.log*"))
    assert found == ["fl-1.log", *(f"fl-1.log.{number}" for number in range(1, KEPT_FILES + 1))]
    newest = [path.read_text().splitlines() for path in logged.logs.path(row).parent.glob("fl-1.log*")]
    assert all(lines[0].startswith("version ") for lines in newest)


def test_a_deleted_log_keeps_its_records_and_no_more(logged: Logged) -> None:
    row = logged.add()
    logged.over()
    with logged.store.write() as tx:
        tx.delete(row)
    before = logged.lines()
    logged.over()
    assert logged.lines() == before
    assert not logged.logs.path(row).with_suffix(".window").exists()


def test_a_vpc_that_is_not_on_the_host_has_nothing_to_tell(logged: Logged) -> None:
    logged.add()
    logged.add(id="fl-2", resource_id="eni-gone")
    logged.on_host = False
    logged.over()
    assert logged.lines() == logged.lines("fl-2") == []


def test_the_timer_collects_until_it_is_stopped(logged: Logged, until: Callable[..., None]) -> None:
    logged.add(interval_s=0)
    logged.restart(each_s=0.01)
    logged.pass_(replace(flow(), packets=9))
    logged.logs.start()
    until(lambda: logged.network.flowed == {})
    logged.logs.stop()


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait on a condition, with a deadline."""
    import threading
    import time

    def wait(condition: Callable[[], bool], deadline_s: float = 10) -> None:
        ends, pause = time.monotonic() + deadline_s, threading.Event()
        while not condition():
            assert time.monotonic() < ends, "it did not come to be"
            pause.wait(0.01)

    return wait
