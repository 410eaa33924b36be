"""Real guests: one deployment for the whole run, whose images are built through its API, each at most once.

deployment (session)  a controller on libvirt, its state under /var/tmp, since QEMU's user must get there
fleet (test)          launches guests; they are terminated when the test ends, and their host objects gone
Guest                 one instance, as its owner sees it: the API outside, a shell inside
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import paramiko
import pytest

from orchestrator.api.signature import sign
from tests.conftest import Serving

T = TypeVar("T")

PACE = {"Delay": 1, "MaxAttempts": 90}  # for boto3's waiters, which ask every 15 s by themselves
BUILD_DEADLINE_S = 600.0
BOOT_DEADLINE_S = 90.0
KEY = "live"
GROUP = "live"
UNREACHABLE = (OSError, EOFError, paramiko.SSHException)


def eventually(condition: Callable[[], T | None], deadline_s: float, what: str, *, every_s: float = 0.1) -> T:
    """The first value of `condition` that is true. What a guest cannot be asked yet counts as false."""
    ends = time.monotonic() + deadline_s
    pause = threading.Event()
    last: object = None
    while True:
        try:
            last = value = condition()
            if value:
                return value
        except UNREACHABLE as error:
            last = error
        assert time.monotonic() < ends, f"not in {deadline_s:g} s: {what} (last: {last!r})"
        pause.wait(every_s)


class Deployment(Serving):
    """A controller on libvirt, and what the tests ask of it."""

    def __init__(self, state_dir: Path, *flags: str) -> None:
        super().__init__(state_dir, "--host", "libvirt", *flags)
        self.key = ""
        self.group = ""
        self._builds: dict[str, str] = {}
        self._images: dict[str, str] = {}

    def prepare(self) -> None:
        """The key pair and the security group that guests are launched with unless told otherwise."""
        self.ec2 = self.client("ec2")
        self.key = self.ec2.create_key_pair(KeyName=KEY, KeyType="ed25519")["KeyMaterial"]
        self.group = self.ec2.create_security_group(GroupName=GROUP, Description="ssh from anywhere")["GroupId"]
        self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[allow("tcp", 22)])

    @property
    def name(self) -> str:
        """The eight digits by which it knows its own things on the host."""
        with closing(sqlite3.connect(f"file:{self.state_dir / 'orchestrator.db'}?mode=ro", uri=True)) as database:
            return str(database.execute("SELECT value FROM meta WHERE name = 'deployment'").fetchone()[0])

    def build(self, name: str) -> str:
        """Begin to build an image, once; the build's id."""
        if name not in self._builds:
            self._builds[name] = self.orc("BuildImage", Name=name)["Build"]["BuildId"]
        return self._builds[name]

    def image(self, name: str) -> str:
        """The id of an image, when it is built; an id itself is as good."""
        if name.startswith("ami-"):
            return name
        if name not in self._images:
            build_id = self.build(name)

            def done() -> dict[str, Any] | None:
                [build] = self.orc("DescribeBuilds", BuildIds=[build_id])["Builds"]
                return build if build["State"] in ("available", "failed") else None

            build = eventually(done, BUILD_DEADLINE_S, f"the image {name} is built")
            assert build and build["State"] == "available", build
            self._images[name] = build["ImageId"]
        return self._images[name]

    def launch(self, count: int = 1, image: str = "tiny", **more: Any) -> list[Guest]:
        asked = {"InstanceType": "t3.nano", "KeyName": KEY, "SecurityGroupIds": [self.group], **more}
        answer = self.ec2.run_instances(ImageId=self.image(image), MinCount=count, MaxCount=count, **asked)
        return [Guest(self, instance["InstanceId"]) for instance in answer["Instances"]]

    def instances(self, *states: str) -> list[str]:
        filters = [{"Name": "instance-state-name", "Values": list(states)}]
        found = self.ec2.describe_instances(Filters=filters)["Reservations"]
        return [instance["InstanceId"] for reservation in found for instance in reservation["Instances"]]

    def terminate(self, ids: list[str], deadline_s: float = 60.0) -> None:
        if ids:
            self.ec2.terminate_instances(InstanceIds=ids)
            self.ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig=PACE)
            gone = eventually(lambda: not set(self.owned("Machines")) & set(ids), deadline_s, f"{ids} are gone")
            assert gone

    def owned(self, kind: str) -> list[str]:
        found: list[str] = self.orc("DescribeOwned")["Owned"][kind]
        return found

    def environment_of_aws(self) -> dict[str, str]:
        keys = json.loads((self.state_dir / "credentials.json").read_text())
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "AWS_ACCESS_KEY_ID": keys["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": keys["secret_access_key"],
            "AWS_DEFAULT_REGION": keys["region"],
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    @contextmanager
    def stream(self, path: str) -> Iterator[socket.socket]:
        """A WebSocket of the API as a plain socket."""
        ours, theirs = socket.socketpair()
        ours.settimeout(30.0)
        opened = threading.Event()
        failures: list[BaseException] = []

        def carry() -> None:
            try:
                asyncio.run(self._carry(path, theirs, opened))
            except BaseException as error:
                failures.append(error)
            finally:
                theirs.close()
                opened.set()

        thread = threading.Thread(target=carry, name=f"stream {path}")
        thread.start()
        try:
            assert opened.wait(30.0), path
            if failures:
                raise failures[0]
            yield ours
        finally:
            with suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)
            ours.close()
            thread.join(30.0)
            assert not thread.is_alive(), f"{path} is not closed"

    async def _carry(self, path: str, near: socket.socket, opened: threading.Event) -> None:
        keys = json.loads((self.state_dir / "credentials.json").read_text())
        headers = {"Host": self.endpoint.rpartition("/")[2]}
        headers |= sign(
            "GET",
            self.endpoint + path,
            headers,
            b"",
            access_key=keys["access_key_id"],
            secret_key=keys["secret_access_key"],
            region=keys["region"],
            service="orc",
        )
        reader, writer = await asyncio.open_connection(sock=near)
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(self.endpoint + path, headers=headers) as far,
            ):
                opened.set()

                async def outward() -> None:
                    while data := await reader.read(65536):
                        await far.send_bytes(data)

                async def inward() -> None:
                    async for message in far:
                        writer.write(message.data)
                        await writer.drain()

                ways = [asyncio.create_task(outward()), asyncio.create_task(inward())]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            writer.close()
            await asyncio.sleep(0)  # the transport closes at the loop's next turn


class Guest:
    """One instance. Its commands go through one kept ssh connection to the public address, made anew when lost."""

    def __init__(self, deployment: Deployment, instance_id: str, user: str = "ec2-user") -> None:
        self.deployment = deployment
        self.id = instance_id
        self.user = user
        self._client: paramiko.SSHClient | None = None

    # --- outside ---

    def describe(self) -> dict[str, Any]:
        answer = self.deployment.ec2.describe_instances(InstanceIds=[self.id])
        found: dict[str, Any] = answer["Reservations"][0]["Instances"][0]
        return found

    @property
    def state(self) -> str:
        return str(self.describe()["State"]["Name"])

    @property
    def public_ip(self) -> str:
        return str(self.describe()["PublicIpAddress"])

    @property
    def private_ip(self) -> str:
        return str(self.describe()["PrivateIpAddress"])

    @property
    def interface(self) -> str:
        return str(self.describe()["NetworkInterfaces"][0]["NetworkInterfaceId"])

    def wait(self, waiter: str) -> None:
        """One of boto3's waiters: instance_running, instance_status_ok, ..."""
        self.deployment.ec2.get_waiter(waiter).wait(InstanceIds=[self.id], WaiterConfig=PACE)

    def wait_state(self, state: str, deadline_s: float = 60.0) -> dict[str, Any]:
        eventually(lambda: self.state == state, deadline_s, f"{self.id} is {state}")
        return self.describe()

    def console(self) -> str:
        return str(self.deployment.ec2.get_console_output(InstanceId=self.id, Latest=True).get("Output", ""))

    # --- inside ---

    def login(self, deadline_s: float = BOOT_DEADLINE_S) -> None:
        """Wait until ssh lets us in at the public address."""
        self.logout()
        try:
            eventually(lambda: self._connection() is not None, deadline_s, f"ssh to {self.id}")
        except AssertionError as error:
            error.add_note(f"its console:\n{self.console()[-4000:]}")
            error.add_note(f"the controller's log:\n{self.deployment.log_tail()}")
            raise

    def logout(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def run(self, command: str, timeout_s: float = 30.0) -> str:
        """Standard output of a command that must end with 0. Raises one of UNREACHABLE when nobody is there."""
        try:
            return run_over(self._connection(), command, timeout_s)
        except UNREACHABLE:
            self.logout()
            raise

    def boot_id(self) -> str:
        return self.run("cat /proc/sys/kernel/random/boot_id").strip()

    def links(self) -> list[str]:
        """The hardware addresses of its network interfaces."""
        return sorted(set(self.run("cat /sys/class/net/*/address 2>/dev/null || true").split()) - {"00:00:00:00:00:00"})

    def http(self, method: str, path: str, **headers: str) -> tuple[int, str]:
        """Ask the metadata server from inside, by a shell alone: status and body. OSError when it is silent."""
        lines = [f"{method} {path} HTTP/1.1", "Host: 169.254.169.254", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        request = "\\r\\n".join([*lines, "", ""])
        # busybox's nc ends with its input: a FIFO that is open both ways does not end.
        answer = self.run(
            f"rm -f /tmp/ask; mkfifo /tmp/ask; exec 3<>/tmp/ask; printf '{request}' >&3; "
            "timeout 10 nc 169.254.169.254 80 <&3; exec 3>&-; rm /tmp/ask"
        )
        if not answer:
            raise ConnectionRefusedError("the metadata server does not answer")
        head, _, body = answer.replace("\r\n", "\n").partition("\n\n")
        return int(head.split()[1]), body

    def token(self) -> str:
        status, token = self.http("PUT", "/latest/api/token", X_aws_ec2_metadata_token_ttl_seconds="600")
        assert status == 200, token
        return token.strip()

    def _connection(self) -> paramiko.SSHClient:
        if self._client is None:
            self._client = log_in(self.public_ip, self.user, self.deployment.key)
        return self._client


def log_in(address: str, user: str, key: str, through: socket.socket | None = None) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    try:
        client.connect(
            address,
            username=user,
            pkey=paramiko.Ed25519Key.from_private_key(io.StringIO(key)),
            sock=through,
            timeout=5.0,
            banner_timeout=20.0,
            auth_timeout=20.0,
            allow_agent=False,
            look_for_keys=False,
        )
    except BaseException:
        client.close()
        raise
    return client


def run_over(client: paramiko.SSHClient, command: str, timeout_s: float = 30.0) -> str:
    _, output, errors = client.exec_command(command, timeout=timeout_s)
    text = output.read().decode(errors="replace")
    complaint = errors.read().decode(errors="replace")
    status = output.channel.recv_exit_status()
    if status == -1:
        raise EOFError(f"the connection was lost during: {command}")
    assert status == 0, f"{command}: {status}\n{text}\n{complaint}"
    return text


def allow(protocol: str, port: int, cidr: str = "0.0.0.0/0") -> dict[str, Any]:
    return {"IpProtocol": protocol, "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": cidr}]}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Debian last: its image is built beside the other tests."""
    items.sort(key=wants_debian)


def wants_debian(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and "debian" in item.fixturenames


@pytest.fixture(scope="session")
def deployment(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    place = Path(tempfile.mkdtemp(prefix="orc-test-", dir="/var/tmp"))
    place.chmod(0o711)
    made = Deployment(place / "state")
    try:
        made.start()
        try:
            made.prepare()
            if any(wants_debian(item) for item in request.session.items):
                made.build("debian-12")
            yield made
        finally:
            end(made)
    finally:
        shutil.rmtree(place)


def end(deployment: Deployment) -> None:
    """Terminate what is there, end the controller, and take away what is left on the host."""
    if deployment.process is None or deployment.process.poll() is not None:
        deployment.start()
    deployment.terminate(deployment.instances("pending", "running", "stopping", "stopped", "shutting-down"))
    name = deployment.name
    assert deployment.end(signal.SIGTERM) == 0
    shutil.rmtree(f"/run/orc-{name}")
    assert name not in subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout


class Fleet:
    """Launches guests, and ends them."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self._launched: list[Guest] = []

    def launch(self, count: int = 1, **more: Any) -> list[Guest]:
        guests = self.deployment.launch(count, **more)
        self._launched += guests
        return guests

    def one(self, **more: Any) -> Guest:
        """A guest that runs, and lets us in."""
        [guest] = self.launch(**more)
        guest.wait_state("running")
        guest.login()
        return guest

    def adopt(self, instance_id: str) -> Guest:
        guest = Guest(self.deployment, instance_id)
        self._launched.append(guest)
        return guest

    def end(self) -> None:
        for guest in self._launched:
            guest.logout()
        alive = set(self.deployment.instances("pending", "running", "stopping", "stopped", "shutting-down"))
        self.deployment.terminate([guest.id for guest in self._launched if guest.id in alive])
        self._launched.clear()


@pytest.fixture
def fleet(deployment: Deployment) -> Iterator[Fleet]:
    made = Fleet(deployment)
    yield made
    made.end()


@pytest.fixture(scope="module")
def shared(deployment: Deployment) -> Iterator[Guest]:
    """One tiny guest for the tests of a module that do not change it for good."""
    made = Fleet(deployment)
    yield made.one(UserData=COUNT_RUNS)
    made.end()


@dataclass(frozen=True)
class DualStack:
    """A VPC with IPv4 and IPv6, one subnet, a way out, and a group that lets everything in."""

    vpc: str
    subnet: str
    gateway: str  # the router's address
    group: str


@pytest.fixture(scope="session")
def dual_stack(deployment: Deployment) -> Iterator[DualStack]:
    ec2 = deployment.ec2
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]["VpcId"]

    def range6() -> str | None:
        [described] = ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"]
        [block] = described["Ipv6CidrBlockAssociationSet"]
        done = block["Ipv6CidrBlockState"]["State"] == "associated"
        return str(block["Ipv6CidrBlock"]) if done else None

    first64 = f"{str(eventually(range6, 10, 'the VPC has an IPv6 range')).partition('/')[0]}/64"
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.20.1.0/24", Ipv6CidrBlock=first64, AvailabilityZone=zone)
    subnet_id = subnet["Subnet"]["SubnetId"]
    ec2.modify_subnet_attribute(SubnetId=subnet_id, MapPublicIpOnLaunch={"Value": True})
    way_out = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=way_out, VpcId=vpc)
    [table] = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    ec2.create_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=way_out)
    group = ec2.create_security_group(GroupName="open", Description="everything", VpcId=vpc)["GroupId"]
    everything = {
        "IpProtocol": "-1",
        "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
        "Ipv6Ranges": [{"CidrIpv6": "::/0"}],
    }
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[everything])
    yield DualStack(vpc, subnet_id, "10.20.1.1", group)
    ec2.detach_internet_gateway(InternetGatewayId=way_out, VpcId=vpc)
    ec2.delete_internet_gateway(InternetGatewayId=way_out)
    ec2.delete_security_group(GroupId=group)
    ec2.delete_subnet(SubnetId=subnet_id)
    ec2.delete_vpc(VpcId=vpc)


class Elastic:
    """An interface of the dual-stack subnet with one of each kind of address, that no instance has yet."""

    def __init__(self, deployment: Deployment, network: DualStack) -> None:
        self._ec2 = deployment.ec2
        made = self._ec2.create_network_interface(
            SubnetId=network.subnet, Groups=[network.group], SecondaryPrivateIpAddressCount=1, Ipv6AddressCount=1
        )
        self.id = str(made["NetworkInterface"]["NetworkInterfaceId"])
        self._ec2.assign_private_ip_addresses(NetworkInterfaceId=self.id, Ipv4PrefixCount=1)

    def describe(self) -> dict[str, Any]:
        found: dict[str, Any] = self._ec2.describe_network_interfaces(NetworkInterfaceIds=[self.id])[
            "NetworkInterfaces"
        ][0]
        return found

    @property
    def mac(self) -> str:
        return str(self.describe()["MacAddress"])

    @property
    def addresses(self) -> list[str]:
        """Each of its addresses, IPv4 first; of a prefix the third."""
        described = self.describe()
        own = [str(entry["PrivateIpAddress"]) for entry in described["PrivateIpAddresses"]]
        prefixes = [ip_network(entry["Ipv4Prefix"]) for entry in described["Ipv4Prefixes"]]
        return [
            *own,
            *(str(prefix[3]) for prefix in prefixes),
            *(str(entry["Ipv6Address"]) for entry in described["Ipv6Addresses"]),
        ]

    def state(self) -> str:
        return str(self.describe()["Status"])

    def attachment_state(self) -> str:
        return str(self.describe().get("Attachment", {}).get("Status", "none"))

    def attach(self, guest: Guest, index: int) -> None:
        self._ec2.attach_network_interface(NetworkInterfaceId=self.id, InstanceId=guest.id, DeviceIndex=index)

    def detach(self) -> None:
        self._ec2.detach_network_interface(AttachmentId=self.describe()["Attachment"]["AttachmentId"])

    def delete(self) -> None:
        if self.attachment_state() in ("attaching", "attached"):
            eventually(lambda: self.attachment_state() == "attached", 20, f"{self.id} is attached")
            self.detach()
        eventually(lambda: self.state() == "available", 20, f"{self.id} is available")
        self._ec2.delete_network_interface(NetworkInterfaceId=self.id)


COUNT_RUNS = "#!/bin/sh\necho ran >>/root/runs\necho user-data ran as $(id -un)\n"
