"""How a host does it: the words that reconcilers use, and the errors that they get.

Three Protocols, each implemented twice: for libvirt, qcow2 files and network namespaces, and in memory for tests and
simulation (`memory.py`). Every object is named after the id that it serves, so what nobody owns can be found. Every
call is idempotent: asked for what is so already, it changes nothing.

This room knows nothing of the store and nothing of the API.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class HostError(Exception):
    """The host could not do it. `retryable` when the same call may succeed later."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class CapacityError(HostError):
    """The host has no room for it (memory, disk, processors): trying again at once is of no use."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=False)


# --- compute -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LayerFile:
    """One layer of a disk, and what it is encrypted with: 32 bytes, or none."""

    layer: str
    secret: bytes = field(default=b"", repr=False)

    @property
    def passphrase(self) -> str:
        """What opens its file: the secret in hexadecimal, since QEMU takes nothing but text. Empty without one."""
        return self.secret.hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a disk may do: so many operations and bytes a second, 0 for no limit. More of both, `burst_...`, for as long
    as `burst_s` in one go, which is earned back at the rate that is left. An operation of more than `operation_bytes`
    counts as several."""

    iops: int = 0
    bytes_per_s: int = 0
    burst_iops: int = 0
    burst_bytes_per_s: int = 0
    burst_s: int = 0
    operation_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Layers as a virtio disk: `chain` is the whole of them, top first, and only the top is written to. `serial` is at
    most 20 characters and unique in the machine. `index` is its number in the machine, from which its slot follows and
    the name that the guest gives it; -1: its place in `Machine.disks`, or the first number that is free."""

    chain: tuple[LayerFile, ...]
    serial: str
    index: int = -1
    limits: Limits | None = None

    @property
    def layer(self) -> str:
        return self.chain[0].layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """A tap on a segment; `port` names the tap. `index` is its number in the machine, from which its slot follows and
    the name that the guest gives it; -1: its place in `Machine.nics`, or the first number that is free."""

    port: str
    segment: str
    mac: str
    index: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectKernel:
    """The kernel and ramdisk that a guest starts on without a boot loader: those that came with `layer`."""

    layer: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A virtual machine to run. `uuid` starts with ec2, and so does the serial number made of it."""

    name: str
    uuid: str
    vcpus: int
    cores: int
    threads: int
    memory_mib: int
    cpu_share_percent: int = 100  # of its vcpus, under contention and above
    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]
    kernel: DirectKernel | None = None
    product_name: str = ""  # SMBIOS product: the instance type
    asset_tag: str = ""  # SMBIOS chassis asset tag: the instance id, as on Nitro


class Power(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"  # defined, not running


class OffReason(StrEnum):
    """Why a machine is off."""

    GUEST = "guest"  # the guest powered itself off, by itself or because it was asked to
    DESTROYED = "destroyed"  # somebody pulled the plug
    CRASHED = "crashed"
    FAILED = "failed"  # it could not be started
    UNKNOWN = "unknown"  # nobody was there to see it: the host has started anew


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskStatus:
    serial: str
    chain: tuple[str, ...]  # the layers that QEMU reads, top first
    size_bytes: int
    flattening: float | None = None  # how much of it is done, 0 to 1; None: it is not under way


@dataclass(frozen=True, slots=True)
class MachineStatus:
    name: str
    power: Power
    off_reason: OffReason | None = None
    resets: int = 0  # how often the guest was reset since this process began to watch it
    ports: tuple[str, ...] = ()  # the taps of the NICs that it has now, by port name
    disks: tuple[DiskStatus, ...] = ()  # that it has now; of one that is off, none
    disk_error: str = ""  # why it is paused, if a disk could not be written: "no space", or what went wrong
    panicked: bool = False  # its guest's kernel has said that it panics, and nobody has called `resume` since
    reset_since: bool = False  # and the guest was reset after that, as far as this process has seen


class Compute(Protocol):
    def start(self, machine: Machine) -> None:
        """Define and start it; one that runs already is left alone. Raises CapacityError when it cannot fit."""

    def ask_to_stop(self, name: str) -> None:
        """Press the power button. Returns at once; the guest may ignore it."""

    def ask_to_reboot(self, name: str) -> None:
        """Press the power button and start again once the guest is off. Returns at once."""

    def reset(self, name: str) -> None:
        """Press the reset button."""

    def plug_in(self, name: str, nic: Nic) -> None:
        """Give a machine that runs one more NIC; one that it has already is left alone. Raises HostError for a machine
        that does not run, CapacityError when it has no slot left."""

    def unplug(self, name: str, port: str) -> None:
        """Ask the guest to let go of a NIC. Returns at once: it has gone when `observe` no longer names its port."""

    def plug_in_disk(self, name: str, disk: Disk) -> None:
        """Give a machine that runs one more disk; one whose serial it has already is left alone. Raises HostError for a
        machine that does not run, CapacityError when it has no slot left."""

    def unplug_disk(self, name: str, serial: str) -> None:
        """Ask the guest to let go of a disk. Returns at once: it has gone when `observe` no longer names it."""

    def switch_disks(self, name: str, tops: Mapping[str, LayerFile], *, freeze: bool = False) -> bool:
        """From one instant on, the same for all, these disks (by serial) write to new tops: layers that are there, each
        on what is its disk's top now. A disk that has its new top already is left alone. With `freeze` the guest's
        agent, if it has one, flushes and freezes its file systems meanwhile: whether it did is answered; where all
        have their new tops, it thaws what an earlier call that was cut off has left. Gives up what `flatten_disk`
        began. Raises HostError, and then no disk has been switched."""

    def resize_disk(self, name: str, serial: str, size_bytes: int) -> None:
        """Grow a disk of a machine that runs; the guest is told. Gives up what `flatten_disk` began."""

    def limit_disk(self, name: str, serial: str, limits: Limits | None) -> None:
        """Give a disk of a machine that runs other limits, or none."""

    def flatten_disk(self, name: str, serial: str, onto: str) -> None:
        """Begin to copy into the top layer what lies between it and the layer `onto` (empty: all), while the machine
        runs. Returns at once: it is done when `observe` shows the shorter chain. One under way is left alone."""

    def flush_disks(self, name: str) -> None:
        """Have all that QEMU knows of a running machine's disks in their files. The machine stands still for it. After
        a flattening QEMU has told the file of its new parent before it has written where what it copied lies."""

    def stop_flattening(self, name: str, serial: str) -> None:
        """Give up what `flatten_disk` began: the chain stays as it was."""

    def resume(self, name: str) -> None:
        """Let a machine that is paused run on. `start` does so too, but not for one with a disk error. One that has
        panicked runs, for what its kernel does then (a dump, a reset after `panic=` seconds) is its own affair; from
        now on it is one like others, until the next panic."""

    def remove(self, name: str) -> None:
        """Pull the plug if it runs, and forget it. Its console's file stays until `forget`."""

    def forget(self, name: str) -> None:
        """Remove what is kept of a machine that is gone: its console's file."""

    def observe(self, name: str) -> MachineStatus | None:
        """What is so now; None when it is not defined."""

    def names(self) -> list[str]:
        """The machines of this deployment that are defined."""

    def console(self, name: str, limit_bytes: int = 65536) -> bytes:
        """The last bytes that the guest wrote to its serial port; empty when there are none."""

    def console_socket(self, name: str) -> socket.socket:
        """The live serial port, both ways: a connected stream socket."""

    def screenshot(self, name: str) -> bytes:
        """The screen as a JPEG."""

    def watch(self, wake: Callable[[str], None]) -> None:
        """From now on call `wake(name)`, from any thread, when a machine may have changed."""

    def capacity(self) -> tuple[int, int]:
        """Processors and MiB of memory of the host in all."""

    def accelerator(self) -> str:
        """kvm or tcg."""

    def close(self) -> None: ...


# --- storage -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LayerStatus:
    name: str
    size_bytes: int  # virtual
    own_bytes: int  # on the file system
    parent: str


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """What a recipe or an import left: a layer, and a kernel and ramdisk where it starts on those."""

    size_bytes: int
    sha512: str
    root_device: str
    login_user: str
    description: str
    kernel_arguments: str | None  # None: it boots from its disk


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFile:
    path: str
    size_bytes: int
    sha256: str


class Storage(Protocol):
    """`progress` gets how much is done, 0 to 1. A chain is the whole of a disk's layers, top first."""

    def create_layer(self, name: str, *, size_bytes: int, parent: str = "", secret: bytes = b"") -> None:
        """A new writable layer on `parent`, or an empty one; grown to `size_bytes`, never shrunk. With a secret it is
        encrypted. From then on nothing may write to `parent`."""

    def copy_layer(
        self,
        name: str,
        chain: Sequence[LayerFile],
        *,
        size_bytes: int,
        secret: bytes = b"",
        progress: Callable[[float], None] = lambda done: None,
    ) -> None:
        """A layer of its own, without a parent, with the content of `chain`; grown to `size_bytes`. One that is there
        is whole, and left alone. Raises CapacityError, and then nothing is left."""

    def merge_layer(self, chain: Sequence[LayerFile], onto: str) -> None:
        """Take into the top layer what lies between it and the layer `onto` (empty: all), on which it lies from then
        on. Its content is the same throughout, also when this is cut off. Nothing may have it open."""

    def reparent_layer(self, layer: LayerFile, parent: str) -> None:
        """Let its header name `parent`, and copy nothing. A machine that flattens a disk names the new parent while
        what it has copied may still be in memory; when it is cut off then, the parent of before has it all. Nothing may
        have it open."""

    def seal_layer(self, name: str) -> None:
        """From now on nothing may write to it."""

    def unseal_layer(self, name: str) -> None:
        """Let a machine write to it again, after a snapshot that was undone. Raises HostError where a layer lies on
        it."""

    def checksum_layer(self, name: str) -> str:
        """The SHA-512 of its file, which nothing writes to; empty when there is none. As slow as reading it."""

    def verify_layer(self, chain: Sequence[LayerFile], sha512: str = "") -> list[str]:
        """What is wrong with the top layer's file: a line for people each; with `sha512`, also when it has another."""

    def export_layer(
        self,
        chain: Sequence[LayerFile],
        file_format: str,
        name: str,
        progress: Callable[[float], None] = lambda done: None,
    ) -> ExportedFile:
        """Its content as one file of raw, vmdk, vhd, vhdx or qcow2, without encryption, in the place for such files:
        `name` is a path below it. `progress` may raise to give it up, and then nothing is left."""

    def remove_export(self, name: str) -> None:
        """Remove what `export_layer` made under `name`."""

    def remove_layer(self, name: str) -> None: ...

    def observe_layer(self, name: str) -> LayerStatus | None: ...

    def layers(self) -> list[str]: ...

    def catalogue(self) -> dict[str, BuiltImage]:
        """Images that are there without building (the in-memory host's); empty elsewhere."""

    def recipes(self) -> list[str]:
        """The names of the recipes that can be built here."""

    def build_image(self, recipe: str, layer: str, progress: Callable[[str], None]) -> BuiltImage:
        """Run a recipe; its disk becomes `layer`. Minutes. `progress` gets a line per phase."""

    def receive_upload(self, upload: str, chunks: Iterator[bytes], limit_bytes: int) -> str:
        """Keep an untrusted file until it is imported; its SHA-512. Raises HostError over the limit."""

    def import_image(
        self,
        upload: str,
        file_format: str,
        layer: str,
        progress: Callable[[str], None],
        done: Callable[[float], None] = lambda done: None,
    ) -> BuiltImage:
        """Read an uploaded file strictly as `file_format`, convert it in a sandbox, make it `layer`. `progress` gets a
        line per phase, `done` how much of the conversion is done, 0 to 1; both may raise to give it up."""

    def kernels(self) -> list[str]:
        """The layers that a kernel came with, which is still there."""

    def remove_kernel(self, layer: str) -> None:
        """Drop the kernel and ramdisk that came with `layer`."""

    def remove_upload(self, upload: str) -> None: ...

    def free_bytes(self) -> int: ...

    def total_bytes(self) -> int:
        """Of the file system that layers are on."""


# --- network -------------------------------------------------------------------------------------------------------
#
# Addresses and ranges are text, IPv4 or IPv6. A Router is the whole of one network; everything in it refers to the
# rest by name, and a name that is not there counts for nothing.


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A link that machines are plugged into. All traffic between its ports passes the router."""

    name: str
    cidr: str
    gateway: str  # the router's address on it
    ipv6_cidr: str = ""
    table: str = ""  # by which the router forwards what comes from it
    acl: str = ""  # what may pass between this segment and all else; empty: everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What a port may send, and as much again receive: at `baseline_bps` for ever, at `peak_bps` while `credit_bytes`
    last, which are earned at the baseline. Bits per second."""

    baseline_bps: int
    peak_bps: int
    credit_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """Where one NIC is plugged in, and what it may send and receive."""

    name: str
    segment: str
    mac: str
    address: str  # IPv4: what DHCP gives
    more_addresses: tuple[str, ...] = ()  # further IPv4 addresses, and ranges as 10.0.0.16/28
    ipv6_addresses: tuple[str, ...] = ()
    host_name: str  # what DHCP calls it, without the domain
    public: tuple[tuple[str, str], ...] = ()  # (private, public): translated one to one at the uplink
    check_addresses: bool = True  # only its own addresses may be its sources and destinations
    policies: tuple[str, ...] = ()
    rate: Rate | None = None
    log: bool = False  # count its flows, for `Network.flows`
    translator: bool = False  # no machine: the host itself sends on, under `address`, what is routed to it


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """Lets traffic in (or out) of the members of a policy. Ports are inclusive, -1 for all; for icmp, type and code."""

    protocol: str  # tcp | udp | icmp | icmpv6 | -1 | a number
    from_port: int = -1
    to_port: int = -1
    peer_cidr: str = ""  # exactly one of peer_cidr, peer_policy and peer_set
    peer_policy: str = ""
    peer_set: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A stateful allow list that ports are members of."""

    name: str
    inbound: tuple[Allow, ...]
    outbound: tuple[Allow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressSet:
    """Addresses and ranges under a name, that policies refer to."""

    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AclRule:
    """One line of an Acl. Ports are those of the destination, inclusive, -1 for all; for icmp, type and code."""

    number: int
    accept: bool
    protocol: str  # as in Allow
    cidr: str  # of the source inbound, of the destination outbound
    from_port: int = -1
    to_port: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Acl:
    """A stateless list, in order of number: the first rule that matches decides, and without any it is dropped."""

    name: str
    inbound: tuple[AclRule, ...]
    outbound: tuple[AclRule, ...]


class Way(StrEnum):
    """Where a route leads."""

    UPLINK = "uplink"  # outside, for ports that have a public address (IPv4) or any (IPv6)
    OUTWARD = "outward"  # outside, IPv6 alone, and only for what begins inside
    PORT = "port"  # to a port, whose machine sends it on
    PEER = "peer"  # to another router
    NOWHERE = "nowhere"  # dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    destination: str
    way: Way
    target: str = ""  # the port's or the peering's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The longest prefix decides. The router's own ranges lead to its segments, unless a route says more precisely."""

    name: str
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peering:
    """A cable to another router, the same for both under one name. Only what comes from `their_cidrs` and goes to
    the router's own ranges may come in by it."""

    name: str
    router: str
    their_cidrs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dhcp:
    """What guests are told besides their address. Empty: they are not told."""

    domain: str = ""
    servers: tuple[str, ...] = ()  # of DNS
    ntp_servers: tuple[str, ...] = ()
    netbios_servers: tuple[str, ...] = ()
    netbios_node_type: int = 0
    ipv6_lease_s: int = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A name that resolves to an address, and the first of an address also back."""

    name: str  # fully qualified
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """One isolated network as a whole. Applying it makes the host equal to it; what it does not name is removed."""

    name: str
    cidrs: tuple[str, ...]
    segments: tuple[Segment, ...]
    ports: tuple[Port, ...]
    policies: tuple[Policy, ...]
    address_sets: tuple[AddressSet, ...] = ()
    acls: tuple[Acl, ...] = ()
    tables: tuple[Table, ...] = ()
    peerings: tuple[Peering, ...] = ()
    domain: str  # of the resolver: names below it that are not in `records` do not exist
    resolver: str  # the address that answers DNS, besides 169.254.169.253; empty: no DNS
    records: tuple[Record, ...] = ()
    public_name: str = ""  # of a public address without a record, whose octets, with dashes, stand for {}; and back
    dhcp: Dhcp = Dhcp()
    uplink: bool = True  # there is an outside


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Packets of one flow that a port sent or received, and what became of them. Ports are 0 where there are none."""

    port: str
    outbound: bool  # the port sent them
    accepted: bool
    protocol: int
    source: str
    source_port: int
    destination: str
    destination_port: int
    packets: int
    octets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A packet to be followed through a router: a first one, as a guest behind `port` would send it."""

    port: str
    source: str
    destination: str
    protocol: str  # tcp | udp | icmp | icmpv6
    destination_port: int = 0


class Network(Protocol):
    def apply(self, router: Router, before: Router | None = None) -> None:
        """Make the host equal to this plan. `before` is the one that was applied last, if what the two have in common
        need not be looked at again."""

    def plan(self, router: Router) -> str:
        """What `apply` would load and run, for people to read. Changes nothing."""

    def flows(self, router: Router) -> list[Flow]:
        """What the ports with `log` have sent and received since this was last asked."""

    def trace(self, router: Router, probe: Probe) -> list[str]:
        """Send a packet in the place of a guest's, and tell what the host's rules did with it: a line for each step."""

    def remove(self, router: str) -> None: ...

    def routers(self) -> list[str]:
        """The routers of this deployment that are there."""

    def leaks(self, routers: set[str], ports: set[str]) -> list[str]:
        """Objects of this deployment that belong to none of these: a line for people each ("tap eni-0123")."""

    def remove_leaks(self, routers: set[str], ports: set[str]) -> None: ...

    def listen(self, router: str, address: str, port: int) -> socket.socket:
        """A listening TCP socket inside the router, on an IPv4 or IPv6 address."""

    def connect(self, router: str, address: str, port: int, timeout_s: float) -> socket.socket:
        """A TCP connection made from inside the router. Raises OSError as `socket.connect` does."""

    def close(self) -> None:
        """Let go of what this process holds. Networks and guests stay."""


@dataclass(frozen=True, slots=True)
class Host:
    """The three together."""

    compute: Compute
    storage: Storage
    network: Network
