"""The controller: every room put together, started in order and ended in order.

    store -> host -> networks, instances, volumes, ... -> loop
                         ^                                    |
                  metadata server                        gateway (HTTP)

One process. The asyncio loop carries the API, the metadata servers and the streams; reconcilers and API calls run in
threads. Guests do not depend on it: they run on when it ends, and are found again when it starts.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from aiohttp import web

from orchestrator import database, heap
from orchestrator.api import patience
from orchestrator.api.gateway import Gateway
from orchestrator.api.operation import LayerUse, Settings
from orchestrator.config import Config
from orchestrator.garbage import short_searches
from orchestrator.host import Host, HostError, Probe, Router, claims, ranges
from orchestrator.host.links import edge_name
from orchestrator.host.probe import boot_id
from orchestrator.keys import open_key_ring
from orchestrator.metadata.server import MetadataServer
from orchestrator.model.account import ANONYMOUS_ACCOUNT, AccessKey, Account
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.image import Build, ExportTask, Image, ImportTask
from orchestrator.model.instance import Instance
from orchestrator.model.kms import Key
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.owned import is_needed
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.trace import Trace
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NatGateway, NetworkInterface, PeeringConnection, Vpc
from orchestrator.reconcile.build import Builds, register_catalogue
from orchestrator.reconcile.flow_log import FlowLogs
from orchestrator.reconcile.image import Images
from orchestrator.reconcile.image_task import ImageTasks
from orchestrator.reconcile.instance import Instances, Limits
from orchestrator.reconcile.key import KeyCalendar
from orchestrator.reconcile.layer import LayerFiles, Layers, only_child
from orchestrator.reconcile.loop import Loop
from orchestrator.reconcile.nat_gateway import NatGateways
from orchestrator.reconcile.network import Networks
from orchestrator.reconcile.peering import Peerings
from orchestrator.reconcile.plan import plan
from orchestrator.reconcile.recycle_bin import RecycleBin
from orchestrator.reconcile.snapshot import Snapshots
from orchestrator.reconcile.trace import trace
from orchestrator.reconcile.volume import Volumes
from orchestrator.store import Store

log = logging.getLogger(__name__)

API_THREADS = 16
SIMULATED_RANGE = "198.18.0.0/16"  # on the in-memory host nothing is routed, so it may be large
_BOOT = "boot"  # meta: the host's boot in which a controller ran last
GRACE_S = 20.0  # for requests and steps in flight, when told to end


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class RealHostView:
    """What API operations may see of the host."""

    host: Host
    router: Callable[[str], Router | None] = lambda vpc_id: None  # what a VPC's rows come to
    egress: bool = True  # whether anything of a guest may leave this host
    verify: Callable[[str], list[str]] = lambda layer_id: []  # what is wrong with a layer's file

    def console(self, instance_id: str) -> bytes:
        return self.host.compute.console(instance_id)

    def screenshot(self, instance_id: str) -> bytes:
        with _as_os_error():
            return self.host.compute.screenshot(instance_id)

    def console_socket(self, instance_id: str) -> socket.socket:
        with _as_os_error():
            return self.host.compute.console_socket(instance_id)

    def connect(self, vpc_id: str, address: str, port: int, timeout_s: float) -> socket.socket:
        return self.host.network.connect(vpc_id, address, port, timeout_s)

    def network_plan(self, vpc_id: str) -> str:
        """What the host would load and run for a VPC, for people to read; empty when nothing is plugged into it."""
        router = self.router(vpc_id)
        if router is None:
            return ""
        with _as_os_error():
            return self.host.network.plan(router)

    def trace(
        self,
        vpc_ids: Sequence[str],
        interface_id: str,
        source: str,
        destination: str,
        protocol: str,
        destination_port: int = 0,
    ) -> Trace:
        """A packet's way through these VPCs, by their rows; from outside when `interface_id` is empty."""
        probe = Probe(
            port=interface_id,
            source=source,
            destination=destination,
            protocol=protocol,
            destination_port=destination_port,
        )
        planned = {vpc_id: router for vpc_id in vpc_ids if (router := self.router(vpc_id)) is not None}
        return trace(planned, probe, egress=self.egress)

    def live_trace(
        self, vpc_id: str, interface_id: str, source: str, destination: str, protocol: str, destination_port: int = 0
    ) -> list[str]:
        """What the host's rules do with a packet that is sent in the place of a guest's: a line for each step."""
        probe = Probe(
            port=interface_id,
            source=source,
            destination=destination,
            protocol=protocol,
            destination_port=destination_port,
        )
        router = self.router(vpc_id)
        if router is None:
            raise OSError(f"nothing of {vpc_id} is on this host")
        with _as_os_error():
            return self.host.network.trace(router, probe)

    def recipes(self) -> list[str]:
        return self.host.storage.recipes()

    def storage(self) -> list[LayerUse]:
        with _as_os_error():
            names = self.host.storage.layers()
            seen = [status for name in names if (status := self.host.storage.observe_layer(name)) is not None]
        return [LayerUse(each.name, each.size_bytes, each.own_bytes, each.parent) for each in seen]

    def storage_room(self) -> tuple[int, int]:
        with _as_os_error():
            return self.host.storage.free_bytes(), self.host.storage.total_bytes()

    def verify_layer(self, layer_id: str) -> list[str]:
        return self.verify(layer_id)

    def receive_upload(self, upload_id: str, chunks: Iterator[bytes], limit_bytes: int) -> str:
        return self.host.storage.receive_upload(upload_id, chunks, limit_bytes)


@contextmanager
def _as_os_error() -> Iterator[None]:
    """The API knows nothing of hosts, nor of their errors."""
    try:
        yield
    except HostError as error:
        raise OSError(str(error)) from error


def open_store(config: Config) -> Store:
    # Others may pass through, since QEMU runs as another user; what is secret is closed file by file.
    config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o711)
    return Store(config.state_dir / database.FILE, url=config.store_url, kept_events=config.audit_kept)


def deployment_id(store: Store) -> str:
    """Eight hexadecimal digits by which this deployment knows its own things on the host."""
    known = store.meta("deployment")
    if known is None:
        known = secrets.token_hex(4)
        store.set_meta("deployment", known)
    return known


def has_booted(store: Store, boot: str) -> bool:
    """Whether the host has booted since a controller of this store ran on it."""
    return store.meta(_BOOT) not in (None, boot)


def settle_public_range(config: Config, store: Store) -> Config:
    """`config` with the range in the place of `auto`: chosen at the first start that needs one, and kept. No other
    deployment on this host gets it while this process lives. Raises OSError when another one has it."""
    auto = config.public_range == "auto"
    known = (store.meta("public_range") or "") if auto else config.public_range
    if config.host != "libvirt":
        if not known:
            store.set_meta("public_range", SIMULATED_RANGE)
        return replace(config, public_range=known or SIMULATED_RANGE)
    own = edge_name(deployment_id(store))
    with claims.one_at_a_time():
        others = {network: owner for network, owner in claims.claimed().items() if owner != own}
        if not known or (auto and _clash(known, others) and not _has_public(store)):
            known = str(ranges.choose())
            store.set_meta("public_range", known)
        if owner := _clash(known, others):
            raise OSError(
                f"the public range {known} is in use by another deployment that runs on this host ({owner}): end that "
                "one, or set network.public_range to another range"
            )
        claims.claim(IPv4Network(known), own)
    return replace(config, public_range=known)


def _clash(wanted: str, others: Mapping[IPv4Network, str]) -> str:
    return next((owner for network, owner in others.items() if network.overlaps(IPv4Network(wanted))), "")


def _has_public(store: Store) -> bool:
    """Whether anybody has been told a public address."""
    return bool(store.all(ElasticIp)) or any(interface.public_ip for interface in store.all(NetworkInterface))


def passphrase_file(config: Config) -> Path | None:
    return Path(config.passphrase_file) if config.passphrase_file else None


def credentials_file(config: Config) -> Path:
    return config.state_dir / "credentials.json"


def first_credentials(store: Store, config: Config, endpoint: str) -> str:
    """The account that the deployment starts with. Its key is made once; the file also says where the API is."""
    path = credentials_file(config)
    account = store.meta("account")
    if account is None:
        account = ANONYMOUS_ACCOUNT if config.auth == "any" else str(10**11 + secrets.randbelow(9 * 10**11))
        key = AccessKey(
            id="AKIA" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16)),
            account=account,
            created=utc_now(),
            secret=secrets.token_urlsafe(30),
        )
        with store.write() as tx:
            tx.put(Account(id=account, account=account, name="first", created=utc_now()))
            tx.put(key)
        store.set_meta("account", account)
    keys = [key for key in store.all(AccessKey, account=account) if not key.user and key.active]
    document = {
        "account": account,
        "access_key_id": keys[0].id,
        "secret_access_key": keys[0].secret,
        "region": next(iter(config.region_zones())),
        "endpoint": endpoint,
    }
    fresh = path.with_suffix(".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(document, file, indent=1)
    fresh.replace(path)
    return account


class Controller:
    """Everything of one deployment; `run` serves until it is told to end."""

    def __init__(self, config: Config, store: Store, host: Host, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.config = config
        self.store = store
        self.host = host
        self._clock = clock
        self._stopped: asyncio.Event | None = None
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self.endpoint = ""

    def stop(self) -> None:
        """From any thread: finish what is in flight, then let `run` return."""
        if self._event_loop is not None and self._stopped is not None:
            self._event_loop.call_soon_threadsafe(self._stopped.set)

    async def run(self, ready: Callable[[str], None] = lambda endpoint: None) -> None:
        """Serve; `ready` is called once with the endpoint's URL when it answers."""
        event_loop = self._event_loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        event_loop.set_default_executor(ThreadPoolExecutor(max_workers=API_THREADS, thread_name_prefix="api"))
        async with AsyncExitStack() as stack:
            boot = boot_id()
            instances: list[Instances] = []

            def saw(instance_id: str, phase: str) -> None:
                instances[0].saw(instance_id, phase)
                loop.wake(Instance.KIND, instance_id)  # a step writes it down

            metadata = MetadataServer(self.store, self._clock, saw, self.config.state_dir)

            def appeared(vpc_id: str, after_s: float) -> None:
                loop.wake(Vpc.KIND, vpc_id, after_s=after_s)

            keys = open_key_ring(self.config.state_dir / "keys", passphrase_file(self.config))
            networks = Networks(self.store, self.host.network, metadata, appeared)
            files = LayerFiles(self.store, self.host.storage, keys)
            depth = self.config.max_depth
            instances.append(Instances(self.store, self.host, networks, files, self._clock, self._limits(), depth))
            builds = Builds(self.store, files, self._clock)
            tasks = ImageTasks(self.store, files, keys, self._clock, import_dir=self.config.import_dir)
            calendar = KeyCalendar(self.store, keys, self._clock)
            steps = {
                Instance.KIND: instances[0].step,
                Vpc.KIND: networks.step,
                NatGateway.KIND: NatGateways(self.store, self._clock).step,
                PeeringConnection.KIND: Peerings(self.store, self._clock).step,
                Build.KIND: builds.step,
                Layer.KIND: Layers(self.store, files).step,
                Volume.KIND: Volumes(self.store, files, self._clock, depth).step,
                Snapshot.KIND: Snapshots(self.store, files, self._clock).step,
                Image.KIND: Images(self.store, self.host.storage).step,
                ImportTask.KIND: tasks.step_import,
                ExportTask.KIND: tasks.step_export,
                Key.KIND: calendar.step,
                RecycleBin.KIND: RecycleBin(self.store, self._clock).step,
            }
            flow_logs = FlowLogs(
                self.store, self.host.network, self._router, self.config.state_dir / "flow-logs", self._clock
            )
            gateway = Gateway(
                self.store,
                self._settings(),
                RealHostView(
                    self.host,
                    self._router,
                    egress=self.config.network_egress == "on",
                    verify=files.verify,
                ),
                keys,
                self._clock,
                any_credentials=self.config.auth == "any",
            )
            loop = Loop(self.store, steps, workers=self.config.workers, calm=gateway.answering.calm)

            def lost() -> None:
                loop.stop(0.0)  # from now on the host is another controller's
                self.stop()

            self.store.on_lost(lost)
            self.store.trail.start()
            stack.push_async_callback(event_loop.run_in_executor, None, self.store.trail.stop)
            metadata.start(event_loop)
            stack.push_async_callback(metadata.stop)
            if self.config.after_host_boot == "stop" and has_booted(self.store, boot):
                instances[0].stop_all()
            if self.store.meta(_BOOT) != boot:
                self.store.set_meta(_BOOT, boot)
            stack.enter_context(short_searches())  # models and the store's rows are there by now
            self._look_at_everything(loop)
            loop.wake_all((Key.KIND, key_id) for key_id in calendar.due())
            self.host.compute.watch(lambda name: loop.wake(Instance.KIND, name))
            loop.start()
            stack.push_async_callback(event_loop.run_in_executor, None, loop.stop, GRACE_S)
            flow_logs.start()
            stack.push_async_callback(event_loop.run_in_executor, None, flow_logs.stop, GRACE_S)

            runner = web.AppRunner(
                gateway.application(), access_log=None, shutdown_timeout=GRACE_S, lingering_time=patience.LINGER_S
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            for door in patience.listen(self.config.address, self.config.port, self.config.connections_per_address):
                await web.SockSite(runner, door, ssl_context=self._tls()).start()
            if runner.server is not None:
                stack.callback(event_loop.create_task(gateway.patience.cut_silent(runner.server)).cancel)
            stack.callback(event_loop.create_task(heap.stay_small()).cancel)
            port = runner.addresses[0][1]
            self.endpoint = self.config.endpoint.rpartition(":")[0] + f":{port}"
            account = first_credentials(self.store, self.config, self.endpoint)
            register_catalogue(self.store, self.host.storage, account, self._clock())

            for number in (signal.SIGTERM, signal.SIGINT):
                event_loop.add_signal_handler(number, self._stopped.set)
            ready(self.endpoint)
            await self._stopped.wait()
            log.info("ending: requests and steps in flight are finished first; guests go on running")

    def _router(self, vpc_id: str) -> Router | None:
        return plan(self.store, vpc_id)

    def _limits(self) -> Limits:
        return Limits(
            stop=timedelta(seconds=self.config.stop_timeout_s),
            reboot=timedelta(seconds=self.config.reboot_timeout_s),
            terminated_kept=timedelta(seconds=self.config.terminated_kept_s),
        )

    def _settings(self) -> Settings:
        processors, memory_mib = self.host.compute.capacity()
        return Settings(
            regions=self.config.region_zones(),
            any_region=self.config.auth == "any",
            endpoint=self.config.endpoint,
            public_range=IPv4Network(self.config.public_range),
            ipv6_range=IPv6Network(self.config.ipv6_range),
            processors=processors * self.config.cpu_overcommit,
            memory_mib=memory_mib * self.config.memory_overcommit,
            import_dir=self.config.import_dir,
            quotas=self.config.quota_table(),
            rates=self.config.rates(),
        )

    def _tls(self) -> ssl.SSLContext | None:
        if not self.config.tls_certificate:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.config.tls_certificate, self.config.tls_key)
        return context

    def _look_at_everything(self, loop: Loop) -> None:
        """Whatever happened while nobody looked: every resource with something behind it is looked at once."""
        settled = (State.STOPPED,)
        loop.wake_all((Instance.KIND, i.id) for i in self.store.all(Instance) if i.state not in settled)
        loop.wake_all((Build.KIND, b.id) for b in self.store.all(Build))
        loop.wake_all((ImportTask.KIND, t.id) for t in self.store.all(ImportTask))
        loop.wake_all((ExportTask.KIND, t.id) for t in self.store.all(ExportTask))
        loop.wake_all((Volume.KIND, v.id) for v in self.store.all(Volume) if not _is_settled(v))
        loop.wake_all((Snapshot.KIND, s.id) for s in self.store.all(Snapshot, state="pending"))
        loop.wake_all((Image.KIND, i.id) for i in self.store.all(Image, state="pending"))
        loop.wake_all((Layer.KIND, each.id) for each in self.store.all(Layer) if self._is_idle(each))
        loop.wake(RecycleBin.KIND, RecycleBin.KEY)
        loop.wake_all((Vpc.KIND, vpc_id) for vpc_id in self.host.network.routers())
        loop.wake_all((NatGateway.KIND, g.id) for g in self.store.all(NatGateway) if g.state != "available")
        loop.wake_all((PeeringConnection.KIND, p.id) for p in self.store.all(PeeringConnection) if p.state != "active")

    def _is_idle(self, layer: Layer) -> bool:
        """Whether nothing needs a layer, or one child alone, into which it is to be merged."""
        return not is_needed(self.store, layer.id) or only_child(self.store, layer.id) is not None


def _is_settled(volume: Volume) -> bool:
    """Whether nothing was asked of it that is not done; what waits for a snapshot is found by that."""
    attachment, modification = volume.attachment, volume.modification
    return (
        volume.state not in ("creating", "deleting")
        and not volume.held_by
        and (attachment is None or attachment.state == "attached")
        and (modification is None or modification.state in ("completed", "failed"))
    )


def build_host(config: Config, deployment: str, accelerator: Callable[[], str]) -> Host:
    """The host that the configuration names. `accelerator` is asked only for a real one."""
    if config.host == "memory":
        from orchestrator.host.memory import memory_host

        return memory_host()
    from orchestrator.host.libvirt import LibvirtCompute, qemu_owner
    from orchestrator.host.netns import NetnsNetwork
    from orchestrator.host.qcow2 import QcowStorage

    run_dir = run_directory(deployment)
    run_dir.mkdir(mode=0o711, exist_ok=True)
    with ExitStack() as undo:
        storage = QcowStorage(config.state_dir, images_dir(config), owner=qemu_owner(config.libvirt_uri))
        network = NetnsNetwork(
            deployment,
            run_dir / "routers",
            public_range=IPv4Network(config.public_range),
            ipv6_range=IPv6Network(config.ipv6_range),
            public_bridge=config.public_bridge,
            egress=config.network_egress == "on",
        )
        undo.callback(network.close)
        compute = LibvirtCompute(
            uri=config.libvirt_uri,
            deployment=deployment,
            files=storage,
            run_dir=run_dir / "serial",
            console_dir=config.state_dir / "consoles",
            accelerator=accelerator(),
            memory_overcommit=config.memory_overcommit,
        )
        undo.pop_all()
    return Host(compute=compute, storage=storage, network=network)


def run_directory(deployment: str) -> Path:
    """Sockets and what routers run on: kept until the host boots, and short, as a socket's path must be."""
    return Path("/run") / f"orc-{deployment}"


def images_dir(config: Config) -> Path:
    """Where the recipes are: as configured, beside a checkout, or in the installed package."""
    if config.images_dir:
        return Path(config.images_dir)
    here = Path(__file__).resolve().parent
    return next((path for path in (here.parent / "images", here / "_images") if path.is_dir()), here / "_images")
