"""Networks between real guests: who reaches whom, what a change does while they run, and damage that mends itself.

    red    10.0.0.0/16  igw  front 10.0.1.0/24 -> igw, green          web (Elastic IP), shop (automatic address)
                             back  10.0.2.0/24 -> NAT gateway, green  db   (a narrow ACL)
    blue   10.0.0.0/16  igw  front 10.0.1.0/24 -> igw                 far  (at web's private address)
    green  10.1.0.0/16       yard  10.1.1.0/24 -> red                 peer

Every guest says on every port who it is and who it thinks is asking. What it should say is read from the controller's
rows by an evaluator that knows EC2's rules and nothing of the host. Guests are asked through the API, which needs
neither a public address nor a rule that lets it in.
"""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import paramiko
import pytest

from orchestrator.host.links import bridge_name
from orchestrator.model.elastic_ip import public_addresses
from orchestrator.model.vpc import NetworkInterface
from orchestrator.store import Store
from tests.live.conftest import Deployment, DualStack, Fleet, Guest, allow, eventually, log_in
from tests.matrix.naive import Arrived, Naive, Packet

pytestmark = pytest.mark.live

OPEN, INNER, SHUT = 8001, 8002, 8003  # to all, to a group, in the ACL only
PORTS = (OPEN, INNER, SHUT)
CHANGED = 8010
STREAM = 8020
ANYWHERE = "0.0.0.0/0"
SOON_S = 20.0
MEND_S = 60.0  # and a sender that was not heard for 25 s waits as long again

Question = tuple[str, str, int]  # who asks, which address, which port (0 for ping)

# Says who it is, and who it thinks is asking.
SERVE = """
mkdir -p /tmp/www/cgi-bin
cat >/tmp/www/cgi-bin/who <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
from=${REMOTE_ADDR#*ffff:}
echo NAME ${from%]}
END
chmod 755 /tmp/www/cgi-bin/who
for port in PORTS; do httpd -p $port -h /tmp/www; done
"""
# All at once; one line for each that is answered.
ASK = """
rm -rf /tmp/told; mkdir /tmp/told
for to in TARGETS; do
    (sudo ping -q -c 1 -W 3 $to >/dev/null 2>&1 && echo $to 0 - - >/tmp/told/$to-0) &
    for port in PORTS; do
        (
            said=$(timeout 6 wget -q -O - http://$to:$port/cgi-bin/who 2>/dev/null) &&
                echo $to $port $said >/tmp/told/$to-$port
        ) &
    done
done
wait
cat /tmp/told/* 2>/dev/null || true
"""


class Inner(Guest):
    """A guest that is reached through the API, whatever its addresses and rules."""

    _stack: ExitStack | None = None

    def _connection(self) -> paramiko.SSHClient:
        if self._client is None:
            with ExitStack() as stack:
                try:
                    tunnel = stack.enter_context(self.deployment.stream(f"/tunnel/{self.id}/22"))
                    self._client = log_in(self.private_ip, self.user, self.deployment.key, through=tunnel)
                except aiohttp.ClientError as error:  # the API says that nobody is there yet
                    raise ConnectionError(str(error)) from error
                self._stack = stack.pop_all()
        return self._client

    def logout(self) -> None:
        super().logout()
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    def reaches(self, address: str, port: int, patience_s: int = 2) -> bool:
        asked = f"timeout {patience_s} wget -q -O - http://{address}:{port}/cgi-bin/who 2>/dev/null || true"
        return bool(self.run(asked).strip())


@dataclass
class Country:
    """Names -> ids."""

    deployment: Deployment
    vpcs: dict[str, str] = field(default_factory=dict)
    subnets: dict[str, str] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)  # by their subnets' names
    groups: dict[str, str] = field(default_factory=dict)
    guests: dict[str, Inner] = field(default_factory=dict)
    interfaces: dict[str, str] = field(default_factory=dict)
    elastic: dict[str, str] = field(default_factory=dict)  # whose -> the public address
    remove: ExitStack = field(default_factory=ExitStack)

    @property
    def ec2(self) -> Any:
        return self.deployment.ec2

    def vpc(self, name: str, cidr: str, *, gateway: bool) -> str:
        """Its internet gateway, where it has one."""
        vpc_id = self.vpcs[name] = self.ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"]
        self.remove.callback(self.ec2.delete_vpc, VpcId=vpc_id)
        self.ec2.modify_vpc_attribute(VpcId=vpc_id, EnableDnsHostnames={"Value": True})
        if not gateway:
            return ""
        gateway_id = str(self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"])
        self.remove.callback(self.ec2.delete_internet_gateway, InternetGatewayId=gateway_id)
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway_id, VpcId=vpc_id)
        self.remove.callback(self.ec2.detach_internet_gateway, InternetGatewayId=gateway_id, VpcId=vpc_id)
        return gateway_id

    def subnet(self, name: str, cidr: str, **routes: dict[str, str]) -> None:
        """A subnet with a route table of its own."""
        vpc_id = self.vpcs[name.partition("-")[0]]
        zone = self.ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
        made = self.ec2.create_subnet(VpcId=vpc_id, CidrBlock=cidr, AvailabilityZone=zone)["Subnet"]["SubnetId"]
        self.subnets[name] = made
        table = self.ec2.create_route_table(VpcId=vpc_id)["RouteTable"]["RouteTableId"]
        self.remove.callback(self.ec2.delete_route_table, RouteTableId=table)
        self.remove.callback(self.ec2.delete_subnet, SubnetId=made)
        self.ec2.associate_route_table(RouteTableId=table, SubnetId=made)
        self.tables[name] = table

    def route(self, subnet: str, destination: str, **target: str) -> None:
        self.ec2.create_route(RouteTableId=self.tables[subnet], DestinationCidrBlock=destination, **target)

    def group(self, name: str, *permissions: dict[str, Any]) -> str:
        vpc_id = self.vpcs[name.partition("-")[0]]
        made = str(self.ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc_id)["GroupId"])
        self.remove.callback(self.ec2.delete_security_group, GroupId=made)
        self.groups[name] = made
        if permissions:
            self.ec2.authorize_security_group_ingress(GroupId=made, IpPermissions=list(permissions))
        return made

    def allocate(self, name: str) -> str:
        made = self.ec2.allocate_address(Domain="vpc")
        self.elastic[name] = made["PublicIp"]
        self.remove.callback(self.ec2.release_address, AllocationId=made["AllocationId"])
        return str(made["AllocationId"])

    def nat_gateway(self, name: str, subnet: str) -> str:
        address = self.allocate(name)
        made = self.ec2.create_nat_gateway(SubnetId=self.subnets[subnet], AllocationId=address)["NatGateway"]
        gateway_id = str(made["NatGatewayId"])
        self.remove.callback(self._delete_nat_gateway, gateway_id)
        waiter = self.ec2.get_waiter("nat_gateway_available")
        waiter.wait(NatGatewayIds=[gateway_id], WaiterConfig={"Delay": 1, "MaxAttempts": 20})
        return gateway_id

    def _delete_nat_gateway(self, gateway_id: str) -> None:
        self.ec2.delete_nat_gateway(NatGatewayId=gateway_id)
        waiter = self.ec2.get_waiter("nat_gateway_deleted")
        waiter.wait(NatGatewayIds=[gateway_id], WaiterConfig={"Delay": 1, "MaxAttempts": 20})

    def peer(self, near: str, far: str) -> str:
        made = self.ec2.create_vpc_peering_connection(VpcId=self.vpcs[near], PeerVpcId=self.vpcs[far])
        peering_id = str(made["VpcPeeringConnection"]["VpcPeeringConnectionId"])
        self.remove.callback(self.ec2.delete_vpc_peering_connection, VpcPeeringConnectionId=peering_id)
        self.ec2.get_waiter("vpc_peering_connection_exists").wait(VpcPeeringConnectionIds=[peering_id])
        self.ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=peering_id)
        return peering_id

    def narrow_acl(self, subnet: str) -> None:
        """In: all from the VPC's range, of TCP only OPEN and answers; from beyond only answers. Out: all."""
        vpc_id = self.vpcs[subnet.partition("-")[0]]
        acl = self.ec2.create_network_acl(VpcId=vpc_id)["NetworkAcl"]["NetworkAclId"]
        self.remove.callback(self.ec2.delete_network_acl, NetworkAclId=acl)

        def entry(number: int, protocol: str, action: str, cidr: str, *ports: int, egress: bool = False) -> None:
            more = {"PortRange": {"From": ports[0], "To": ports[1]}} if ports else {}
            self.ec2.create_network_acl_entry(
                NetworkAclId=acl,
                RuleNumber=number,
                Protocol=protocol,
                RuleAction=action,
                CidrBlock=cidr,
                Egress=egress,
                **more,
            )

        entry(90, "6", "deny", ANYWHERE, INNER, INNER)
        entry(100, "6", "allow", "10.0.0.0/16", OPEN, STREAM)
        entry(110, "6", "allow", ANYWHERE, 32768, 65535)
        entry(120, "17", "allow", ANYWHERE, 32768, 65535)
        entry(100, "-1", "allow", ANYWHERE, egress=True)
        [old] = self.ec2.describe_network_acls(
            Filters=[{"Name": "association.subnet-id", "Values": [self.subnets[subnet]]}]
        )["NetworkAcls"]
        [association] = [each for each in old["Associations"] if each["SubnetId"] == self.subnets[subnet]]
        made = self.ec2.replace_network_acl_association(
            AssociationId=association["NetworkAclAssociationId"], NetworkAclId=acl
        )
        self.remove.callback(
            self.ec2.replace_network_acl_association,
            AssociationId=made["NewAssociationId"],
            NetworkAclId=old["NetworkAclId"],
        )

    def guest(self, fleet: Fleet, name: str, subnet: str, *groups: str, public: bool = False, address: str) -> None:
        described = {
            "DeviceIndex": 0,
            "SubnetId": self.subnets[subnet],
            "Groups": [self.groups[group] for group in groups],
            "AssociatePublicIpAddress": public,
            "PrivateIpAddress": address,
        }
        asked = {"ImageId": self.deployment.image("tiny"), "InstanceType": "t3.nano", "KeyName": "live"}
        made = self.ec2.run_instances(MinCount=1, MaxCount=1, NetworkInterfaces=[described], **asked)
        guest = Inner(self.deployment, made["Instances"][0]["InstanceId"])
        fleet.adopt(guest.id)
        self.guests[name] = guest
        self.interfaces[name] = guest.interface

    def log_out(self) -> None:
        for guest in self.guests.values():
            guest.logout()

    def serve(self, name: str) -> None:
        ports = " ".join(str(port) for port in (*PORTS, CHANGED))
        self.guests[name].run(SERVE.replace("NAME", name).replace("PORTS", ports))

    def stop_and_start(self, name: str) -> None:
        guest = self.guests[name]
        guest.logout()
        self.ec2.stop_instances(InstanceIds=[guest.id])
        guest.wait("instance_stopped")
        self.ec2.start_instances(InstanceIds=[guest.id])
        guest.wait("instance_running")
        guest.login()
        self.serve(name)


def from_group(group: str, *ports: int) -> dict[str, Any]:
    return {
        "IpProtocol": "tcp",
        "FromPort": ports[0],
        "ToPort": ports[-1],
        "UserIdGroupPairs": [{"GroupId": group}],
    }


PING = {"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, "IpRanges": [{"CidrIp": ANYWHERE}]}


@pytest.fixture(scope="module")
def country(deployment: Deployment) -> Iterator[Country]:
    made = Country(deployment)
    fleet = Fleet(deployment)
    deployment.image("tiny")
    with made.remove:
        red = made.vpc("red", "10.0.0.0/16", gateway=True)
        blue = made.vpc("blue", "10.0.0.0/16", gateway=True)
        made.vpc("green", "10.1.0.0/16", gateway=False)
        made.subnet("red-front", "10.0.1.0/24")
        made.subnet("red-back", "10.0.2.0/24")
        made.subnet("blue-front", "10.0.1.0/24")
        made.subnet("green-yard", "10.1.1.0/24")
        made.narrow_acl("red-back")
        nat = made.nat_gateway("nat", "red-front")
        peering = made.peer("red", "green")
        made.route("red-front", ANYWHERE, GatewayId=red)
        made.route("red-back", ANYWHERE, NatGatewayId=nat)
        made.route("blue-front", ANYWHERE, GatewayId=blue)
        for subnet in ("red-front", "red-back"):
            made.route(subnet, "10.1.0.0/16", VpcPeeringConnectionId=peering)
        made.route("green-yard", "10.0.0.0/16", VpcPeeringConnectionId=peering)
        web = made.group("red-web", allow("tcp", OPEN), PING)
        made.group("red-inner", from_group(web, OPEN, SHUT))
        made.group("blue-all", allow("tcp", OPEN), allow("tcp", INNER, f"{made.elastic['nat']}/32"), PING)
        made.group("green-all", from_group(web, INNER), allow("tcp", OPEN, "10.0.2.0/24"))
        elastic = made.allocate("web")
        made.remove.callback(fleet.end)  # before what they are in
        made.remove.callback(made.log_out)
        made.guest(fleet, "web", "red-front", "red-web", address="10.0.1.10")
        made.guest(fleet, "shop", "red-front", "red-inner", public=True, address="10.0.1.11")
        made.guest(fleet, "db", "red-back", "red-inner", address="10.0.2.10")
        made.guest(fleet, "far", "blue-front", "blue-all", public=True, address="10.0.1.10")
        made.guest(fleet, "peer", "green-yard", "green-all", address="10.1.1.10")
        for name, guest in made.guests.items():
            guest.wait_state("running")
            guest.login()
            made.serve(name)
        made.ec2.associate_address(AllocationId=elastic, InstanceId=made.guests["web"].id)
        yield made


@pytest.fixture
def rows(country: Country, tmp_path: Path) -> Iterator[Store]:
    """A copy of what the controller knows, as it is now."""
    copy = tmp_path / "rows.db"
    with (
        closing(
            sqlite3.connect(f"file:{country.deployment.state_dir / 'orchestrator.db'}?mode=ro", uri=True)
        ) as theirs,
        closing(sqlite3.connect(copy)) as ours,
    ):
        theirs.backup(ours)
    store = Store(copy, durable=False)
    yield store
    store.close()


def questions(rows: Store, country: Country) -> list[Question]:
    """Everybody, every address that is not its own, every port."""
    found: list[NetworkInterface] = []
    for each in country.interfaces.values():
        interface = rows.get(NetworkInterface, each)
        assert interface is not None
        found.append(interface)
    addresses = {
        each.id: {*each.private_ips, *(held.public_ip for held in public_addresses(rows, each).values())}
        for each in found
    }
    return [
        (name, address, port)
        for name, interface_id in country.interfaces.items()
        for address in sorted(set().union(*addresses.values()) - addresses[interface_id])
        for port in (0, *PORTS)
    ]


def expected(rows: Store, country: Country, question: Question) -> str:
    """What is said: nothing when nobody answers."""
    name, address, port = question
    source = rows.get(NetworkInterface, country.interfaces[name])
    assert source is not None
    packet = Packet("tcp" if port else "icmp", source.private_ip, 40000, address, port or 8)
    there, back = Naive(rows).ask_and_answer(source.id, packet)
    if not isinstance(there, Arrived) or not isinstance(back, Arrived) or back.interface != source.id:
        return ""
    if not port:
        return "- -"
    [answering] = [name for name, interface in country.interfaces.items() if interface == there.interface]
    return f"{answering} {there.packet.source}"


def ask(guest: Inner, targets: list[str]) -> dict[tuple[str, int], str]:
    ports = " ".join(map(str, PORTS))
    told = guest.run(ASK.replace("TARGETS", " ".join(targets)).replace("PORTS", ports), 60.0)
    lines = (line.split() for line in told.splitlines())
    return {(address, int(port)): " ".join(said) for address, port, *said in lines}


def test_everybody_reaches_whom_ec2s_rules_let_it_reach(country: Country, rows: Store) -> None:
    asked = questions(rows, country)
    wanted = {question: expected(rows, country, question) for question in asked}
    assert sum(1 for said in wanted.values() if said) >= 20
    assert sum(1 for said in wanted.values() if not said) >= 60
    told: dict[Question, str] = {}

    def all_asked() -> bool:
        """Emulated guests are slow: who is to answer may take a second try. Who is not to must never."""
        missing = [question for question in asked if told.get(question, "") != wanted[question] or question not in told]
        by_name = {name: sorted({each[1] for each in missing if each[0] == name}) for name in country.guests}
        with ThreadPoolExecutor(len(by_name)) as pool:
            work = {name: pool.submit(ask, country.guests[name], to) for name, to in by_name.items() if to}
        for name, done in work.items():
            answers = done.result()
            for question in missing:
                if question[0] == name:
                    told[question] = answers.get(question[1:], "")
        assert not [f"{each}: {told[each]}" for each in asked if told[each] and not wanted[each]]
        return told == wanted

    try:
        eventually(all_asked, 45.0, "all answers are as EC2's rules say")
    except AssertionError as error:
        wrong = [f"{each}: {told[each]!r} and not {wanted[each]!r}" for each in asked if told[each] != wanted[each]]
        raise AssertionError(f"{error}\n" + "\n".join(wrong)) from None


def test_a_nat_gateway_shows_its_address(country: Country) -> None:
    far = country.guests["far"].public_ip
    said = country.guests["db"].run(f"timeout 5 wget -q -O - http://{far}:{OPEN}/cgi-bin/who").split()
    assert said == ["far", country.elastic["nat"]]


def test_names_from_inside(country: Country) -> None:
    web, shop, db, far = (country.guests[name] for name in ("web", "shop", "db", "far"))

    def look_up(name: str) -> list[str]:
        return web.run(f"nslookup {name} 2>&1 || true").split("\n\n", 1)[-1].split()

    assert db.private_ip in look_up(db.describe()["PrivateDnsName"])
    assert db.describe()["PrivateDnsName"] in look_up(db.private_ip)
    assert shop.private_ip in look_up(shop.describe()["PublicDnsName"])  # inside, the private address
    assert far.public_ip in look_up(far.describe()["PublicDnsName"])
    assert far.describe()["PublicDnsName"] in look_up(far.public_ip)


class Attempts:
    """A guest begins a new connection to a port several times a second; when each of them got through."""

    EVERY_S = 0.2

    def __init__(self, guest: Inner, address: str) -> None:
        self.passed: list[float] = []
        self._stop = threading.Event()
        knock = f"timeout 1 wget -q -O /dev/null http://{address}:{CHANGED}/cgi-bin/who 2>/dev/null && echo in"
        command = f"while echo tick; do ({knock}) & sleep {self.EVERY_S}; done"
        _, self._output, _ = guest._connection().exec_command(command, timeout=30.0)
        self._ticked = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        assert self._ticked.wait(10.0)

    def _read(self) -> None:
        for line in self._output:
            self._ticked.set()
            if line.strip() == "in":
                self.passed.append(time.monotonic())
            if self._stop.is_set():
                break

    def end(self) -> None:
        self._stop.set()
        self._thread.join(10.0)
        self._output.channel.close()


def test_a_change_of_rules_acts_within_one_second(country: Country) -> None:
    web, group = country.guests["web"], country.groups["red-web"]
    rule = {"GroupId": group, "IpPermissions": [allow("tcp", CHANGED)]}
    attempts = Attempts(country.guests["shop"], web.private_ip)
    try:
        assert not attempts.passed
        country.ec2.authorize_security_group_ingress(**rule)
        opened = time.monotonic()
        first = eventually(lambda: attempts.passed[0:1], 5.0, "it is let in", every_s=0.01)[0]
        eventually(lambda: len(attempts.passed) > 3, 5.0, "more are let in")
        country.ec2.revoke_security_group_ingress(**rule)
        closed = time.monotonic()
        eventually(lambda: time.monotonic() - max(*attempts.passed, closed) > 1.5, 10.0, "nobody is let in any more")
        last = max(attempts.passed)
    finally:
        attempts.end()
    print(f"let in after {first - opened:.3f} s, the last one {last - closed:.3f} s after the port was closed")
    assert first - opened < 1.0
    assert last - closed < 1.0


def test_an_elastic_ip_stays_through_a_stop_and_the_guest_never_sees_it(country: Country) -> None:
    elastic, far = country.elastic["web"], country.guests["far"]
    eventually(lambda: far.reaches(elastic, OPEN), SOON_S, "it answers")
    assert elastic not in country.guests["web"].run("ip address")
    country.stop_and_start("web")
    assert country.guests["web"].public_ip == elastic
    eventually(lambda: far.reaches(elastic, OPEN), SOON_S, "it answers again")
    assert elastic not in country.guests["web"].run("ip address")


@pytest.fixture
def stream(country: Country) -> Iterator[Callable[[], None]]:
    """One TCP connection from web to db that goes on; what is yielded waits until more has arrived by it."""
    web, db = country.guests["web"], country.guests["db"]
    # busybox's nc ends with its input: a FIFO that is open both ways does not end.
    quiet = "rm -f /tmp/quiet; mkfifo /tmp/quiet"
    db.run(f"{quiet}; (nc -l -p {STREAM} 0<>/tmp/quiet >/tmp/came 2>/dev/null) >/dev/null 2>&1 &")
    country.ec2.authorize_security_group_ingress(
        GroupId=country.groups["red-inner"], IpPermissions=[allow("tcp", STREAM)]
    )
    count = "while sleep 0.2; do n=$((n+1)); echo $n; done"
    web.run(f"((n=0; {count}) | nc {db.private_ip} {STREAM}) >/dev/null 2>&1 &")

    def came() -> int:
        return int(db.run("tail -n 1 /tmp/came || true").strip() or 0)

    eventually(came, SOON_S, "the connection is made")

    def goes_on() -> None:
        before = eventually(came, SOON_S, "what came is there")
        eventually(lambda: came() > before + 2, MEND_S, "the connection goes on")

    yield goes_on
    web.run("killall nc; rm -f /tmp/came")


def host(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def test_what_is_taken_away_by_hand_comes_back_and_connections_live(
    country: Country, stream: Callable[[], None]
) -> None:
    """While the controller is dead: a namespace, a bridge, the edge, the guard. While it lives: rules and a bridge."""
    deployment = country.deployment
    far, elastic = country.guests["far"], country.elastic["web"]
    deployment_name = deployment.name
    assert deployment.end(signal.SIGKILL) == -signal.SIGKILL
    country.log_out()
    host("ip", "netns", "delete", country.vpcs["red"])
    host("ip", "link", "delete", bridge_name(country.subnets["red-back"]))
    host("ip", "netns", "delete", f"orc-{deployment_name}")
    host("nft", "delete", "table", "bridge", f"orc_{deployment_name}")
    deployment.start()
    began = time.monotonic()
    eventually(lambda: far.reaches(elastic, OPEN), MEND_S, "the Elastic IP answers from another VPC")
    eventually(lambda: country.guests["db"].reaches("10.1.1.10", OPEN), MEND_S, "the peer answers")
    print(f"all is back {time.monotonic() - began:.1f} s after the start")
    stream()

    host("ip", "netns", "exec", country.vpcs["red"], "nft", "flush", "ruleset")
    host("ip", "link", "delete", bridge_name(country.subnets["red-front"]))
    # It would be seen within LOOK_EACH_S; whatever wakes the network has it looked at as well.
    rule = {"GroupId": country.groups["red-web"], "IpPermissions": [allow("tcp", SHUT, "10.0.2.0/24")]}
    country.ec2.authorize_security_group_ingress(**rule)
    began = time.monotonic()
    eventually(lambda: far.reaches(elastic, OPEN), MEND_S, "the Elastic IP answers from another VPC")
    eventually(lambda: country.guests["web"].reaches("10.0.1.11", OPEN), MEND_S, "guests reach each other")
    print(f"all is back {time.monotonic() - began:.1f} s after the next change")
    stream()
    assert not country.guests["shop"].reaches("10.0.1.10", SHUT)


def test_ipv6_between_guests_and_to_the_metadata(deployment: Deployment, dual_stack: DualStack, fleet: Fleet) -> None:
    launched = fleet.launch(
        2,
        SubnetId=dual_stack.subnet,
        SecurityGroupIds=[dual_stack.group],
        Ipv6AddressCount=1,
        MetadataOptions={"HttpProtocolIpv6": "enabled"},
    )
    asking, serving = (Inner(deployment, guest.id) for guest in launched)
    try:
        for guest in (asking, serving):
            guest.wait_state("running")
            guest.login()
        addresses = [
            str(guest.describe()["NetworkInterfaces"][0]["Ipv6Addresses"][0]["Ipv6Address"])
            for guest in (asking, serving)
        ]
        serving.run(SERVE.replace("NAME", "serving").replace("PORTS", str(OPEN)))

        def said(url: str) -> str:
            return asking.run(f"timeout 5 wget -q -O - {url} 2>/dev/null || true").strip()

        greeted = eventually(lambda: said(f"http://[{addresses[1]}]:{OPEN}/cgi-bin/who"), SOON_S, "it is answered")
        assert greeted == f"serving [{addresses[0]}"
        assert said("http://[fd00:ec2::254]/latest/meta-data/instance-id") == asking.id
        assert said("http://[fd00:ec2::254]/latest/meta-data/ipv6") == addresses[0]
    finally:
        asking.logout()
        serving.logout()
