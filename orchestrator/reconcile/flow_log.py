"""Flow logs: what passed and was refused at interfaces, written down in EC2's format.

    host's counters --every 10 s--> collect --> a window per log --its interval is over--> records
                                                   |                                          |
                                     FLOW-LOG.window (outlives the process)    flow-logs/ACCOUNT/REGION/FLOW-LOG.log

A flow is what has the same interface, direction, addresses, ports, protocol and verdict; its packets and bytes are
summed over the window. An interface that nothing passed gets a NODATA record, and one whose counters could not be read
(the host said no, or there were too many flows) a SKIPDATA one. A thread of its own does it: nothing waits for it.

Source: "Flow log records" and "Flow log limitations" in the Amazon VPC user guide.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec

from orchestrator.host import Flow, HostError, Network, Router
from orchestrator.model.flow_log import DEFAULT_FORMAT, read_format
from orchestrator.model.vpc import FlowLog, NetworkInterface, Subnet
from orchestrator.model.zone import zone_id
from orchestrator.store import Store

log = logging.getLogger(__name__)

COLLECT_EACH_S = 10.0
MAX_FLOWS = 50_000  # of a window
MAX_FILE_BYTES = 16 << 20
KEPT_FILES = 4  # older ones, besides the one that is written
NOT_KNOWN = "-"

# The version of EC2's format in which a field came: a record's own is the highest of its fields'.
_LATER = {
    **dict.fromkeys(("vpc-id", "subnet-id", "instance-id", "tcp-flags", "type", "pkt-srcaddr", "pkt-dstaddr"), 3),
    **dict.fromkeys(("region", "az-id", "sublocation-type", "sublocation-id"), 4),
    **dict.fromkeys(("pkt-src-aws-service", "pkt-dst-aws-service", "flow-direction", "traffic-path"), 5),
}
_FIRST_VERSION = 2

Key = tuple[str, bool, bool, int, str, int, str, int]  # a Flow without its numbers


class Sum(msgspec.Struct):
    """Packets of one flow in one window, and when the first and the last of them were counted (Unix seconds)."""

    key: Key
    packets: int
    octets: int
    start: int
    end: int


class Window(msgspec.Struct):
    """What one flow log has counted since `start`."""

    start: int
    interfaces: list[str] = []  # that it covered
    busy: list[str] = []  # of these: something passed, whether it is logged or not
    skipped: list[str] = []  # of these: not all was counted
    sums: list[Sum] = []


@dataclass(slots=True)
class _Open:
    """A window while it is counted."""

    start: int
    interfaces: set[str] = field(default_factory=set)
    busy: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    sums: dict[Key, Sum] = field(default_factory=dict)

    def add(self, flow: Flow, start: int, end: int) -> None:
        key: Key = (
            flow.port,
            flow.outbound,
            flow.accepted,
            flow.protocol,
            flow.source,
            flow.source_port,
            flow.destination,
            flow.destination_port,
        )
        known = self.sums.get(key)
        if known is not None:
            known.packets += flow.packets
            known.octets += flow.octets
            known.end = end
        elif len(self.sums) < MAX_FLOWS:
            self.sums[key] = Sum(key, flow.packets, flow.octets, start, end)
        else:
            self.skipped.add(flow.port)


class FlowLogs:
    """`router` plans a VPC (None: it is not on the host). `collect` is one pass; `start` does it from time to time."""

    def __init__(
        self,
        store: Store,
        network: Network,
        router: Callable[[str], Router | None],
        directory: Path,
        clock: Callable[[], datetime],
        *,
        each_s: float = COLLECT_EACH_S,
        max_file_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        self._store = store
        self._network = network
        self._router = router
        self._directory = directory
        self._clock = clock
        self._each_s = each_s
        self._max_file_bytes = max_file_bytes
        self._windows: dict[str, _Open] = {}
        self._collected: dict[str, int] = {}  # VPC -> when its counters were last read
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    # --- the timer ---

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="flow-logs", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """What is counted so far is on the disk, and goes on when the next process starts."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._ending.wait(self._each_s):
            try:
                self.collect()
            except Exception:
                log.exception("flow logs could not be written; the next try is in %g s", self._each_s)

    # --- one pass ---

    def collect(self) -> None:
        """Read the counters of every VPC with flow logs, and write the records of each window that is over."""
        now = int(self._clock().timestamp())
        logs: dict[str, list[FlowLog]] = defaultdict(list)
        for each in sorted(self._store.all(FlowLog), key=lambda row: row.id):
            vpc_id = self._vpc_of(each.resource_id)
            if vpc_id:
                logs[vpc_id].append(each)
        self._forget({each.id for every in logs.values() for each in every})
        for vpc_id, every in logs.items():
            self._count(vpc_id, every, now)
            for each in every:
                self._settle(each, now)

    def _vpc_of(self, resource_id: str) -> str:
        if resource_id.startswith("subnet-"):
            subnet = self._store.get(Subnet, resource_id)
            return subnet.vpc_id if subnet else ""
        if resource_id.startswith("eni-"):
            interface = self._store.get(NetworkInterface, resource_id)
            return interface.vpc_id if interface else ""
        return resource_id

    def _count(self, vpc_id: str, logs: Sequence[FlowLog], now: int) -> None:
        router = self._router(vpc_id)
        since = min(now, self._collected.get(vpc_id, now - int(self._each_s)))  # the clock may have been put back
        self._collected[vpc_id] = now
        flows: list[Flow] | None = []
        if router is not None:
            try:
                flows = self._network.flows(router)
            except HostError as error:
                log.warning("the flows of %s could not be read: %s", vpc_id, error)
                flows = None
        by_port: dict[str, list[Flow]] = defaultdict(list)
        for flow in flows or ():
            by_port[flow.port].append(flow)
        for each in logs:
            window = self._window(each, now)
            for port in router.ports if router else ():
                if each.resource_id not in (port.name, port.segment, vpc_id):
                    continue
                window.interfaces.add(port.name)
                if flows is None:
                    window.skipped.add(port.name)
                for flow in by_port.get(port.name, ()):
                    window.busy.add(port.name)
                    if each.traffic in ("ALL", "ACCEPT" if flow.accepted else "REJECT"):
                        window.add(flow, max(since, window.start), now)

    def _settle(self, each: FlowLog, now: int) -> None:
        """Write the records of a window that is over, and begin the next; else keep it where it outlives us."""
        window = self._windows[each.id]
        interval_s = each.interval_s or 600
        if now - window.start >= interval_s:
            self._append(each, self._records(each, window, window.start + interval_s))
            steps = (now - window.start) // interval_s
            self._windows[each.id] = _Open(window.start + steps * interval_s)
        self._keep(each)

    # --- records ---

    def _records(self, each: FlowLog, window: _Open, end: int) -> list[str]:
        names = read_format(each.fields or DEFAULT_FORMAT)
        version = str(max((_LATER.get(name, _FIRST_VERSION) for name in names), default=_FIRST_VERSION))
        about = {name: self._about(name, version) for name in sorted(window.interfaces)}
        lines = []
        for known in window.sums.values():
            port = known.key[0]
            facts = about.get(port) or self._about(port, version)
            lines.append(_line(names, facts | self._of_flow(known)))
        for port in sorted(window.interfaces):
            status = "SKIPDATA" if port in window.skipped else "" if port in window.busy else "NODATA"
            if status:
                times = {"start": str(window.start), "end": str(end), "log-status": status}
                lines.append(_line(names, about[port] | times))
        return lines

    def _about(self, interface_id: str, version: str) -> dict[str, str]:
        """The fields that are the same for all that one interface does."""
        interface = self._store.get(NetworkInterface, interface_id)
        facts = {"version": version, "interface-id": interface_id}
        if interface is None:
            return facts
        return facts | {
            "account-id": interface.account,
            "vpc-id": interface.vpc_id,
            "subnet-id": interface.subnet_id,
            "instance-id": interface.instance_id or NOT_KNOWN,
            "region": interface.region,
            "az-id": zone_id(interface.zone),
        }

    def _of_flow(self, known: Sum) -> dict[str, str]:
        """An interface that sends on, or receives, for others is itself what `srcaddr` and `dstaddr` say; who it was
        for is in the packet's own."""
        port, outbound, accepted, protocol, source, source_port, destination, destination_port = known.key
        interface = self._store.get(NetworkInterface, port)
        here, there = (source, destination) if outbound else (destination, source)
        own = here if interface is None or ":" in here or _has(interface, here) else interface.private_ip
        return {
            "srcaddr": own if outbound else there,
            "dstaddr": there if outbound else own,
            "srcport": str(source_port),
            "dstport": str(destination_port),
            "protocol": str(protocol),
            "packets": str(known.packets),
            "bytes": str(known.octets),
            "start": str(known.start),
            "end": str(known.end),
            "action": "ACCEPT" if accepted else "REJECT",
            "log-status": "OK",
            "type": "IPv6" if ":" in source else "IPv4",
            "pkt-srcaddr": source,
            "pkt-dstaddr": destination,
            "flow-direction": "egress" if outbound else "ingress",
        }

    # --- files ---

    def path(self, each: FlowLog) -> Path:
        return self._directory / each.account / each.region / f"{each.id}.log"

    def _append(self, each: FlowLog, lines: Sequence[str]) -> None:
        """A file begins with its fields' names, as those that EC2 writes to S3 do."""
        if not lines:
            return
        path = self.path(each)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size >= self._max_file_bytes:
            _rotate(path)
        text = "".join(f"{line}\n" for line in lines)
        if not path.exists():
            text = " ".join(read_format(each.fields or DEFAULT_FORMAT)) + "\n" + text
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "a") as file:
            file.write(text)

    def _window(self, each: FlowLog, now: int) -> _Open:
        """The window that is being counted; after a start, the one that was kept, unless it cannot be read."""
        if each.id not in self._windows:
            try:
                kept = msgspec.json.decode(self._window_path(each).read_bytes(), type=Window)
            except (OSError, msgspec.DecodeError):
                kept = Window(start=now - int(self._each_s))
            self._windows[each.id] = _Open(
                kept.start, set(kept.interfaces), set(kept.busy), set(kept.skipped), {one.key: one for one in kept.sums}
            )
        window = self._windows[each.id]
        window.start = min(window.start, now)  # the clock may have been put back
        return window

    def _keep(self, each: FlowLog) -> None:
        window = self._windows[each.id]
        path = self._window_path(each)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = Window(
            start=window.start,
            interfaces=sorted(window.interfaces),
            busy=sorted(window.busy),
            skipped=sorted(window.skipped),
            sums=list(window.sums.values()),
        )
        fresh = path.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(kept))
        fresh.replace(path)

    def _window_path(self, each: FlowLog) -> Path:
        return self.path(each).with_suffix(".window")

    def _forget(self, known: set[str]) -> None:
        """Of flow logs that were deleted, the window; their records stay."""
        for path in self._directory.glob("*/*/fl-*.window"):
            if path.stem not in known:
                path.unlink(missing_ok=True)
        for flow_log_id in [each for each in self._windows if each not in known]:
            del self._windows[flow_log_id]


def _has(interface: NetworkInterface, address: str) -> bool:
    return address in interface.private_ips or any(
        ip_address(address) in ip_network(prefix) for prefix in interface.prefixes
    )


def _line(names: Iterable[str], facts: Mapping[str, str]) -> str:
    return " ".join(facts.get(name) or NOT_KNOWN for name in names)


def _rotate(path: Path) -> None:
    """FLOW-LOG.log becomes FLOW-LOG.log.1, that .2, and the oldest goes."""
    for number in range(KEPT_FILES - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    path.replace(path.with_name(f"{path.name}.1"))
