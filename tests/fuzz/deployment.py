"""A whole controller on the in-memory host, in this process, and its gateway at hand."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

from botocore.model import OperationModel, ServiceModel
from botocore.parsers import create_parser

from orchestrator import controller
from orchestrator.api.gateway import Gateway, Request, Response
from orchestrator.api.signature import sign
from orchestrator.config import Config
from orchestrator.model.account import AccessKey, Account
from orchestrator.model.resource import Resource
from orchestrator.serve import is_our_fault
from orchestrator.store import Store
from tests.fuzz.generator import TRUST, Generator, Made
from tests.fuzz.strict_host import Faults, strict_host

HOST = "orchestrator.test"
# Nothing else may be a 5xx: these say what is so, and are none of our faults.
OWN_TO_SAY = {"Unavailable", "InsufficientInstanceCapacity", "ServiceUnavailable"}
MAX_CPU_S = 1.0
MAX_GROWTH_MIB = 100
MAX_ANSWER_BYTES = 8 << 20


@dataclass
class Credentials:
    access_key: str
    secret_key: str


@dataclass
class Figures:
    calls: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest: tuple[float, str] = (0.0, "")
    reached: set[str] = field(default_factory=set)
    succeeded: set[str] = field(default_factory=set)
    faults: dict[str, str] = field(default_factory=dict)

    def fault(self, what: str, about: str) -> None:
        self.faults.setdefault(what, about)


class _Errors(logging.Handler):
    """What was logged as an error, each place in the code once."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if not is_our_fault(record):
            return
        text = logging.Formatter().format(record)
        place = text.strip().splitlines()
        self.seen.setdefault("\n".join(place[-3:])[:600], text)


class Deployment:
    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.host_faults = Faults()
        self.figures = Figures()
        self._errors = _Errors()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="controller")
        self._failed: BaseException | None = None

    # --- life ---

    def start(self) -> None:
        (self.state_dir / "imports").mkdir(parents=True)
        (self.state_dir / "imports" / "disk.raw").write_bytes(bytes(4096))
        logging.getLogger().addHandler(self._errors)
        self.store = Store(self.state_dir / "orchestrator.db", durable=False)
        self._thread.start()
        assert self._ready.wait(60), "the controller does not start"
        if self._failed is not None:
            raise self._failed

    def enrol(self, account: str) -> None:
        """From now on the calls are those of the root of a new account. What comes with the deployment (the images
        that all may launch) belongs to its first one, whom nobody plays."""
        key = AccessKey(id=f"AKIA{account}FUZZ", account=account, created=datetime.now(UTC), secret=f"secret {account}")
        with self.store.write() as tx:
            tx.put(Account(id=account, account=account, created=key.created))
            tx.put(key)
        self.account, self.root = account, Credentials(key.id, key.secret)

    def _run(self) -> None:
        captured: list[Gateway] = []

        class Seen(Gateway):
            def __init__(self, *arguments: Any, **named: Any) -> None:
                super().__init__(*arguments, **named)
                captured.append(self)

        config = Config(
            state_dir=self.state_dir,
            host="memory",
            port=0,
            public_range="198.18.0.0/16",
            import_dir=str(self.state_dir / "imports"),
            workers=2,
            rate_read="off",
            rate_unproven="off",
            rate_write="off",
            rate_intensive="off",
        )
        made = controller.Controller(config, self.store, strict_host(self.host_faults))
        self.controller = made
        loop = asyncio.new_event_loop()
        loop.add_signal_handler = lambda *_: None  # type: ignore[method-assign]

        def ready(endpoint: str) -> None:
            self.gateway = captured[0]
            self.endpoint = endpoint
            self._ready.set()

        try:
            with mock.patch.object(controller, "Gateway", Seen):
                loop.run_until_complete(made.run(ready))
        except BaseException as error:
            self._failed = error
        finally:
            self._ready.set()
            left = asyncio.all_tasks(loop)  # ended as asyncio.run ends them
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left))
            executor = getattr(loop, "_default_executor", None)
            if executor is not None:
                loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    def stop(self) -> None:
        """End it; what it had in memory is what it will read again."""
        self.controller.stop()
        self._thread.join(60)
        logging.getLogger().removeHandler(self._errors)
        if self._failed is not None:
            raise self._failed

    def reopened(self) -> tuple[dict[tuple[str, str], Resource], dict[tuple[str, str], Resource]]:
        """All rows as they were in memory, and as the file says them. Closes the store."""
        before = _rows(self.store)
        self.store.close()
        again = Store(self.state_dir / "orchestrator.db", durable=False)
        try:
            return before, _rows(again)
        finally:
            again.close()

    def take_log(self) -> list[str]:
        """What was logged as an error since this was last asked."""
        seen, self._errors.seen = self._errors.seen, {}
        return list(seen.values())

    # --- calls ---

    def model(self, service: str) -> ServiceModel:
        return self.gateway._models[service]

    def operations(self) -> list[OperationModel]:
        return [self.model(service).operation_model(name) for service, name in sorted(self.gateway._operations)]

    def members(self, operation: OperationModel) -> set[str]:
        """What it takes of the model's."""
        bound = self.gateway._operations[operation.service_model.service_name, operation.name]
        listing = {"Filters", "MaxResults", "NextToken"} if bound.listing else set()
        return {*bound.names, "DryRun", "ClientToken", *listing}

    def send(
        self,
        service: str,
        body: bytes,
        *,
        target: str = "",
        as_: Credentials | None = None,
        region: str = "us-east-1",
        method: str = "POST",
        query: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Signed as a client does."""
        given = {"Host": HOST, "Content-Type": "application/x-www-form-urlencoded"}
        if target:
            given |= {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}
        given |= headers or {}
        url = f"http://{HOST}/" + (f"?{query}" if query else "")
        who = as_ or self.root
        signed = sign(
            method,
            url,
            given,
            body,
            access_key=who.access_key,
            secret_key=who.secret_key,
            region=region,
            service=service,
            now=datetime.now(UTC),
        )
        return self.gateway.answer(Request(method, "/", query, {**given, **signed}, body, "127.0.0.1"))

    def ask(self, service: str, action: str, **params: Any) -> dict[str, Any]:
        """What a test itself wants: it must succeed."""
        operation = self.model(service).operation_model(action)
        made = Generator(0)
        if operation.service_model.metadata["protocol"] == "json":
            target = f"{operation.service_model.metadata['targetPrefix']}.{action}"
            response = self.send(service, made._json(params, False), target=target)
        else:
            response = self.send(service, made._form(operation, params, False))
        assert response.status == 200, (action, params, response.body)
        return self.read(operation, response)

    @staticmethod
    def read(operation: OperationModel, response: Response) -> dict[str, Any]:
        """As botocore reads it."""
        protocol = operation.service_model.metadata["protocol"]
        shape: Any = operation.output_shape
        parsed: dict[str, Any] = create_parser(protocol).parse(
            {"status_code": response.status, "headers": response.headers, "body": response.body}, shape
        )
        return parsed

    def throw(self, made: Made, as_: Credentials | None = None, region: str = "us-east-1") -> Response:
        """Send what a generator made, and judge the answer."""
        figures, name = self.figures, f"{made.service}.{made.action}"
        resident = _resident_mib()
        began, used = time.perf_counter(), time.thread_time()
        response = self.send(made.service, made.body, target=made.target, as_=as_, region=region)
        used = time.thread_time() - used
        figures.seconds += time.perf_counter() - began
        figures.calls += 1
        figures.reached.add(name)
        figures.slowest = max(figures.slowest, (used, name))
        about = f"{name} {made.body[:1500]!r}{'...' if len(made.body) > 1500 else ''} -> {response.body[:600]!r}"
        if _resident_mib() - resident > MAX_GROWTH_MIB:
            figures.fault(f"{name} grew the process by {_resident_mib() - resident} MiB", about)
        if used > MAX_CPU_S:
            again = time.thread_time()  # what is compiled at an operation's first call is not
            self.send(made.service, made.body, target=made.target, as_=as_, region=region)
            again = time.thread_time() - again
            if again > MAX_CPU_S:
                figures.fault(f"{name} took {used:.2f} s, and {again:.2f} s", about)
        if len(response.body) > MAX_ANSWER_BYTES:
            figures.fault(f"{name} answered {len(response.body)} bytes", about[:1000])
        if b"Traceback (most" in response.body or b"/orchestrator/" in response.body:
            figures.fault(f"{name} showed its code", about)
        try:
            parsed = self.read(self.model(made.service).operation_model(made.action), response)
        except Exception as error:
            figures.fault(f"{name} cannot be parsed: {error!r}"[:200], about)
            return response
        if response.status == 200:
            figures.accepted += 1
            figures.succeeded.add(name)
        else:
            code = parsed.get("Error", {}).get("Code")
            if not code or not parsed["Error"].get("Message"):
                figures.fault(f"{name} says nothing of its error", about)
            if response.status >= 500 and code not in OWN_TO_SAY:
                figures.fault(f"{name} is {response.status} {code}", about)
        return response

    def until(self, done: Callable[[], bool], deadline_s: float = 30.0) -> None:
        deadline = time.monotonic() + deadline_s
        pause = threading.Event()
        while not done():
            assert time.monotonic() < deadline, "what was furnished is not done"
            pause.wait(0.02)


def _resident_mib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 >> 20


def _rows(store: Store) -> dict[tuple[str, str], Resource]:
    return {(kind, row.id): row for kind, table in store._tables.items() for row in table.rows.values()}


def furnish(deployment: Deployment, generator: Generator, account: str = "111122223333") -> None:
    """A new account with one of everything."""
    deployment.enrol(account)
    generator.forget()
    ask = deployment.ask

    def ec2(action: str, **params: Any) -> dict[str, Any]:
        answer = ask("ec2", action, **params)
        generator.learn(json.dumps(answer, default=str))
        return answer

    images = ec2("DescribeImages")["Images"]
    image = next(each["ImageId"] for each in images if each["Name"] == "tiny")
    vpc = ec2("CreateVpc", CidrBlock="10.0.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]["VpcId"]
    ec2("ModifyVpcAttribute", VpcId=vpc, EnableDnsHostnames={"Value": True})
    subnet = ec2("CreateSubnet", VpcId=vpc, CidrBlock="10.0.1.0/24", AvailabilityZone="us-east-1a")
    subnet_id = subnet["Subnet"]["SubnetId"]
    gateway = ec2("CreateInternetGateway")["InternetGateway"]["InternetGatewayId"]
    ec2("AttachInternetGateway", InternetGatewayId=gateway, VpcId=vpc)
    table = ec2("CreateRouteTable", VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2("CreateRoute", RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    ec2("AssociateRouteTable", RouteTableId=table, SubnetId=subnet_id)
    ec2("CreateEgressOnlyInternetGateway", VpcId=vpc)
    ec2("CreateNetworkAcl", VpcId=vpc)
    dhcp = ec2("CreateDhcpOptions", DhcpConfigurations=[{"Key": "domain-name", "Values": ["example.com"]}])
    ec2("AssociateDhcpOptions", VpcId=vpc, DhcpOptionsId=dhcp["DhcpOptions"]["DhcpOptionsId"])
    group = ec2("CreateSecurityGroup", GroupName="web", Description="web", VpcId=vpc)["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2("AuthorizeSecurityGroupIngress", GroupId=group, IpPermissions=[rule])
    ec2("CreateManagedPrefixList", PrefixListName="web", MaxEntries=5, AddressFamily="IPv4")
    interface = ec2("CreateNetworkInterface", SubnetId=subnet_id, Groups=[group])
    allocation = ec2("AllocateAddress", Domain="vpc")["AllocationId"]
    eni = interface["NetworkInterface"]["NetworkInterfaceId"]
    ec2("AssociateAddress", AllocationId=allocation, NetworkInterfaceId=eni)
    second = ec2("AllocateAddress", Domain="vpc")["AllocationId"]
    ec2("CreateNatGateway", SubnetId=subnet_id, AllocationId=second)
    other = ec2("CreateVpc", CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    ec2("CreateVpcPeeringConnection", VpcId=vpc, PeerVpcId=other)
    ec2("CreateVpcEndpoint", VpcId=vpc, ServiceName="com.amazonaws.us-east-1.s3", RouteTableIds=[table])
    ec2(
        "CreateFlowLogs",
        ResourceIds=[vpc],
        ResourceType="VPC",
        TrafficType="ALL",
        LogGroupName="flows",
        DeliverLogsPermissionArn="arn:aws:iam::111122223333:role/web",
    )
    inside = {"ImageId": image, "MinCount": 1, "MaxCount": 2, "InstanceType": "t3.micro", "SubnetId": subnet_id}
    ec2("RunInstances", **inside, SecurityGroupIds=[group])
    made = ec2("RunInstances", ImageId=image, MinCount=1, MaxCount=1, InstanceType="t3.micro")["Instances"][0]
    zone = made["Placement"]["AvailabilityZone"]
    volume = ec2("CreateVolume", AvailabilityZone=zone, Size=1)["VolumeId"]
    ec2("CreateVolume", AvailabilityZone=zone, Size=1, Encrypted=True)

    def is_there() -> bool:
        volumes = ask("ec2", "DescribeVolumes")["Volumes"]
        running = ask("ec2", "DescribeInstances", Filters=[{"Name": "instance-state-name", "Values": ["running"]}])
        return len(running["Reservations"]) == 2 and all(each["State"] != "creating" for each in volumes)

    deployment.until(is_there)
    ec2("CreateSnapshot", VolumeId=volume)
    ec2("AttachVolume", VolumeId=volume, InstanceId=made["InstanceId"], Device="/dev/sdf")
    ec2("CreateImage", InstanceId=made["InstanceId"], Name=f"mine-{generator.chance.random()}", NoReboot=True)
    ec2("CreateKeyPair", KeyName="MyKeyPair")
    key = ask("kms", "CreateKey")["KeyMetadata"]
    generator.named["keyid"] = (key["KeyId"], key["Arn"], key["KeyId"], "alias/fuzz", "alias/aws/ebs")
    generator.named["targetkeyid"] = (key["KeyId"],)
    ask("kms", "CreateAlias", AliasName="alias/fuzz", TargetKeyId=key["KeyId"])
    sealed = ask("kms", "Encrypt", KeyId=key["KeyId"], Plaintext="eHl6")
    generator.named["ciphertextblob"] = (base64.b64encode(sealed["CiphertextBlob"]).decode(),)
    _furnish_people(deployment, generator)


def _furnish_people(deployment: Deployment, generator: Generator) -> None:
    ask = deployment.ask
    for action, params in (
        ("CreateUser", {"UserName": "web"}),
        ("CreateGroup", {"GroupName": "web"}),
        ("AddUserToGroup", {"GroupName": "web", "UserName": "web"}),
        ("CreateRole", {"RoleName": "web", "AssumeRolePolicyDocument": TRUST}),
        ("CreatePolicy", {"PolicyName": "web", "PolicyDocument": POLICY_OF_ALL}),
        ("CreateInstanceProfile", {"InstanceProfileName": "web"}),
        ("AddRoleToInstanceProfile", {"InstanceProfileName": "web", "RoleName": "web"}),
        ("PutUserPolicy", {"UserName": "web", "PolicyName": "web", "PolicyDocument": POLICY_OF_ALL}),
    ):
        ask("iam", action, **params)
    arn = f"arn:aws:iam::{deployment.account}"
    generator.named["policyarn"] = (f"{arn}:policy/web", "arn:aws:iam::aws:policy/AdministratorAccess")
    generator.named["permissionsboundary"] = generator.named["policyarn"]
    generator.named["rolearn"] = (f"{arn}:role/web",)


# What a user may: all, by a policy whose every condition has to be looked at.
POLICY_OF_ALL = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "*", "Resource": "*"},
            {
                "Effect": "Deny",
                "NotAction": ["ec2:*", "iam:*", "kms:*", "orc:*", "sts:*"],
                "Resource": ["arn:aws:ec2:*:*:instance/*", "arn:*:*:*:*:*?*?*"],
                "Condition": {
                    "StringNotLike": {"aws:RequestTag/Name": "*?*${aws:username}*"},
                    "IpAddress": {"aws:SourceIp": ["127.0.0.0/8", "::1/128"]},
                    "DateLessThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"},
                    "ForAllValues:StringEquals": {"aws:TagKeys": ["Name", "x"]},
                },
            },
            {
                "Effect": "Deny",
                "Action": "ec2:Delete*",
                "Resource": "*",
                "Condition": {"StringLike": {"ec2:ResourceTag/Name": "*a*b*c*d*e*f*"}},
            },
        ],
    }
)
