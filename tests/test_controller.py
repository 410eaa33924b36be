"""A whole controller on the in-memory host, through unmodified clients."""

from __future__ import annotations

import http.client
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orchestrator.api.signature import presign
from orchestrator.config import Config
from orchestrator.controller import RealHostView
from orchestrator.host import Router
from orchestrator.host.memory import memory_host
from orchestrator.serve import serve
from orchestrator.store import Store, StoreUnavailable
from tests.conftest import Serving

Start = Callable[..., Serving]


def run(ec2: Any, count: int = 1, **more: Any) -> list[str]:
    image = next(i["ImageId"] for i in ec2.describe_images()["Images"] if i["Name"] == "tiny")
    answer = ec2.run_instances(ImageId=image, MinCount=count, MaxCount=count, InstanceType="t3.micro", **more)
    return [instance["InstanceId"] for instance in answer["Instances"]]


def refused(call: Callable[[], Any]) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call()
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def test_a_life_with_boto3_and_its_waiters(serving: Start) -> None:
    ec2 = serving().client("ec2")
    ids = run(ec2)
    pace = {"WaiterConfig": {"Delay": 1, "MaxAttempts": 20}}
    ec2.get_waiter("instance_running").wait(InstanceIds=ids, **pace)
    ec2.get_waiter("instance_status_ok").wait(InstanceIds=ids, **pace)
    first = ec2.describe_instances(InstanceIds=ids)["Reservations"][0]["Instances"][0]
    ec2.stop_instances(InstanceIds=ids)
    ec2.get_waiter("instance_stopped").wait(InstanceIds=ids, **pace)
    ec2.start_instances(InstanceIds=ids)
    ec2.get_waiter("instance_running").wait(InstanceIds=ids, **pace)
    second = ec2.describe_instances(InstanceIds=ids)["Reservations"][0]["Instances"][0]
    assert second["PrivateIpAddress"] == first["PrivateIpAddress"]
    assert second["PublicIpAddress"]
    ec2.terminate_instances(InstanceIds=ids)
    ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, **pace)
    assert ec2.describe_volumes()["Volumes"] == []
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []


def test_fifty_in_one_call(serving: Start) -> None:
    deployment = serving()
    ec2 = deployment.client("ec2")
    ids = run(ec2, 50)
    assert len(set(ids)) == 50
    pace = {"WaiterConfig": {"Delay": 1, "MaxAttempts": 30}}
    ec2.get_waiter("instance_running").wait(InstanceIds=ids, **pace)
    addresses = {
        instance["PrivateIpAddress"]
        for reservation in ec2.describe_instances(InstanceIds=ids)["Reservations"]
        for instance in reservation["Instances"]
    }
    assert len(addresses) == 50
    ec2.terminate_instances(InstanceIds=ids)
    ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, **pace)
    owned = deployment.orc("DescribeOwned")["Owned"]
    assert (owned["Machines"], owned["Routers"], owned["Ports"]) == ([], [], [])


def test_killed_and_started_again_it_goes_on(serving: Start) -> None:
    deployment = serving()
    ec2 = deployment.client("ec2")
    ids = run(ec2, 20)
    deployment.end(signal.SIGKILL)
    deployment.start()
    ec2 = deployment.client("ec2")
    ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    ec2.terminate_instances(InstanceIds=ids)
    deployment.end(signal.SIGKILL)
    deployment.start()
    ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 30})


def test_sigterm_ends_it_cleanly(serving: Start) -> None:
    deployment = serving()
    run(deployment.client("ec2"), 3)
    assert deployment.end() == 0
    assert "Traceback" not in deployment.log_text


def test_signatures_are_checked(serving: Start) -> None:
    deployment = serving()
    assert refused(deployment.client("ec2", aws_secret_access_key="wrong").describe_regions) == (
        "SignatureDoesNotMatch",
        403,
    )
    code, _ = refused(deployment.client("ec2", aws_access_key_id="AKIAUNKNOWN").describe_regions)
    assert code == "AuthFailure"
    code, status = refused(deployment.client("ec2", region_name="mars-north-1").describe_regions)
    assert (code, status) == ("AuthFailure", 403)
    url = deployment.endpoint + "/?Action=DescribeRegions&Version=2016-11-15"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url, timeout=10)


def test_after_the_roots_key_was_changed_the_file_has_the_one_that_works(serving: Start) -> None:
    deployment = serving()
    iam = deployment.client("iam")
    before = first_key(deployment)
    after = iam.create_access_key()["AccessKey"]["AccessKeyId"]
    iam.update_access_key(AccessKeyId=before, Status="Inactive")
    deployment.end()
    deployment.start()
    assert first_key(deployment) == after
    assert deployment.client("sts").get_caller_identity()["Arn"].endswith(":root")


def test_threads_have_no_heaps_of_their_own(serving: Start) -> None:
    """glibc's are at multiples of 64 MiB, and as long, though only their beginning is open."""
    deployment = serving()
    run(deployment.client("ec2"), 5)
    assert deployment.process is not None
    maps = Path(f"/proc/{deployment.process.pid}/maps").read_text().splitlines()
    spans = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps if len(line.split()) == 5]
    ends, size = dict(spans), 64 << 20
    assert len(os.listdir(f"/proc/{deployment.process.pid}/task")) > 4
    assert [begin for begin, end in spans if begin % size == 0 and ends.get(end, end) == begin + size] == []


def first_key(deployment: Serving) -> str:
    found: str = json.loads((deployment.state_dir / "credentials.json").read_text())["access_key_id"]
    return found


def test_any_credentials_and_any_region_where_that_is_configured(serving: Start) -> None:
    deployment = serving("--host", "memory", "--auth", "any")
    made_up = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "ap-south-9"}
    ec2 = deployment.client("ec2", **made_up)
    ids = run(ec2)
    assert ec2.describe_instances()["Reservations"][0]["Instances"][0]["InstanceId"] == ids[0]
    assert deployment.client("sts", **made_up).get_caller_identity()["Account"] == "000000000000"
    other = deployment.client("ec2", **{**made_up, "aws_access_key_id": "123456789012"})
    assert other.describe_instances()["Reservations"] == []


def test_what_is_not_built_says_so_and_what_does_not_exist_too(serving: Start) -> None:
    deployment = serving()
    ec2 = deployment.client("ec2")
    assert refused(lambda: ec2.create_vpn_gateway(Type="ipsec.1")) == ("UnsupportedOperation", 400)
    assert refused(lambda: ec2.describe_instances(InstanceIds=["i-0123456789abcdef0"])) == (
        "InvalidInstanceID.NotFound",
        400,
    )
    assert refused(lambda: ec2.describe_instances(InstanceIds=["x"])) == ("InvalidInstanceID.Malformed", 400)
    assert refused(lambda: ec2.describe_instances(DryRun=True)) == ("DryRunOperation", 412)


def test_dry_run_changes_nothing(serving: Start) -> None:
    ec2 = serving().client("ec2")
    assert refused(lambda: run(ec2, DryRun=True)) == ("DryRunOperation", 412)
    assert ec2.describe_instances()["Reservations"] == []
    image = ec2.describe_images()["Images"][0]["ImageId"]
    bad = {"ImageId": image, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.micro", "KeyName": "none"}
    assert refused(lambda: ec2.run_instances(DryRun=True, **bad)) == ("InvalidKeyPair.NotFound", 400)


def test_racing_calls_with_one_token_make_one_instance(serving: Start) -> None:
    deployment = serving()
    deployment.client("ec2").describe_regions()
    made: list[str] = []

    def race() -> None:
        made.extend(run(deployment.client("ec2"), ClientToken="once"))

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    assert len(set(made)) == 1
    ec2 = deployment.client("ec2")
    assert refused(lambda: run(ec2, 2, ClientToken="once")) == ("IdempotentParameterMismatch", 400)


def test_word_for_word_with_aws_cli_and_boto3(serving: Start) -> None:
    import boto3

    deployment = serving()
    deployment.orc("MapImage", ImageId="ami-0abcdef1234567890", Name="debian-12")
    ec2 = deployment.client("ec2")
    ec2.create_key_pair(KeyName="MyKeyPair")
    keys = json.loads((deployment.state_dir / "credentials.json").read_text())
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": keys["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": keys["secret_access_key"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": deployment.endpoint,
    }
    command = "ec2 run-instances --image-id ami-0abcdef1234567890 --count 1 --instance-type t2.micro"
    done = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "aws"), *command.split(), "--key-name", "MyKeyPair"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    by_cli = json.loads(done.stdout)["Instances"][0]
    assert (by_cli["ImageId"], by_cli["KeyName"]) == ("ami-0abcdef1234567890", "MyKeyPair")
    resource: Any = boto3.resource(
        "ec2",
        endpoint_url=deployment.endpoint,
        region_name="us-west-2",
        aws_access_key_id=keys["access_key_id"],
        aws_secret_access_key=keys["secret_access_key"],
    )
    resource.create_key_pair(KeyName="MyKeyPair")
    [instance] = resource.create_instances(
        ImageId="ami-0abcdef1234567890", MinCount=1, MaxCount=1, InstanceType="t2.micro", KeyName="MyKeyPair"
    )
    instance.wait_until_running()
    instance.reload()
    assert instance.placement["AvailabilityZone"] == "us-west-2a"


def test_health_metrics_and_request_ids(serving: Start) -> None:
    deployment = serving("--host", "memory", "--log-format", "json")
    ec2 = deployment.client("ec2")
    request_id = ec2.describe_regions()["ResponseMetadata"]["RequestId"]
    with urllib.request.urlopen(deployment.endpoint + "/healthz", timeout=10) as answer:
        assert json.loads(answer.read()) == {"status": "ok"}
    with urllib.request.urlopen(deployment.endpoint + "/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'orc_api_calls_total{action="DescribeRegions",code="OK",service="ec2"} 1.0' in text
    lines = [json.loads(line) for line in deployment.log_text.splitlines() if line.startswith("{")]
    assert any(line.get("request_id") == request_id and line["action"] == "DescribeRegions" for line in lines)


def test_secrets_are_for_their_owner_alone(serving: Start) -> None:
    deployment = serving()
    for name in ("credentials.json", "orchestrator.db"):
        assert stat.S_IMODE((deployment.state_dir / name).stat().st_mode) == 0o600


def test_two_deployments_side_by_side(serving: Start) -> None:
    one, other = serving(name="one"), serving(name="other")
    run(one.client("ec2"), 2)
    assert other.client("ec2").describe_instances()["Reservations"] == []
    second = Serving(one.state_dir, "--host", "memory")
    with pytest.raises(AssertionError, match="in use by another controller"):
        second.start()
    assert second.process is not None
    assert second.process.wait(10) == 1
    assert second.process.stdout is not None
    second.process.stdout.close()
    second.log.close()


def test_a_body_that_is_too_large_or_nonsense_is_refused(serving: Start) -> None:
    deployment = serving("--host", "memory", "--auth", "any")
    host = deployment.endpoint.rpartition("/")[2]
    for body, status in ((b"x" * (3 << 20), 413), (b"Action=%FF", 400), (b"Action=No", 400), (b"", 400)):
        connection = http.client.HTTPConnection(host, timeout=10)
        connection.request("POST", "/", body, {"Content-Type": "application/x-www-form-urlencoded"})
        answer = connection.getresponse()
        assert answer.status == status, body[:20]
        assert b"<Errors>" in answer.read()
        connection.close()


def test_idle_it_does_nothing(serving: Start) -> None:
    """No polling: an idle controller with running instances uses next to no processor time."""
    deployment = serving()
    ec2 = deployment.client("ec2")
    ids = run(ec2, 30)
    ec2.get_waiter("instance_status_ok").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    process = deployment.process
    assert process is not None

    def used_s() -> float:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    began, before = time.monotonic(), used_s()
    threading.Event().wait(5.0)  # the time over which it is measured
    assert (used_s() - before) / (time.monotonic() - began) < 0.05


def test_tls_where_a_certificate_is_configured(serving: Start, tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    make_certificate(certificate, key)
    deployment = serving("--host", "memory", "--tls-certificate", str(certificate), "--tls-key", str(key))
    assert deployment.endpoint.startswith("https://")
    ec2 = deployment.client("ec2", verify=str(certificate))
    assert ec2.describe_regions()["Regions"]
    with pytest.raises(urllib.error.URLError, match="certificate verify failed"):
        urllib.request.urlopen(deployment.endpoint + "/healthz", timeout=10)


def make_certificate(certificate: Path, key: Path) -> None:
    """A self-signed one for 127.0.0.1, good for a day."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "orchestrator")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def test_a_presigned_url_is_as_good_as_a_header_until_it_expires(serving: Start) -> None:
    deployment = serving()
    keys = json.loads((deployment.state_dir / "credentials.json").read_text())
    named = {
        "access_key": keys["access_key_id"],
        "secret_key": keys["secret_access_key"],
        "region": "us-east-1",
        "service": "ec2",
    }
    url = deployment.endpoint + "/?Action=DescribeRegions&Version=2016-11-15"
    with urllib.request.urlopen(presign("GET", url, **named), timeout=10) as answer:
        assert b"<regionName>us-west-2</regionName>" in answer.read()
    old = presign("GET", url, **named, expires_s=60, now=datetime.now(UTC) - timedelta(seconds=120))
    with pytest.raises(urllib.error.HTTPError, match="403") as caught:
        urllib.request.urlopen(old, timeout=10)
    with caught.value as refusal:
        assert b"<Code>RequestExpired</Code>" in refusal.read()


def test_beyond_loopback_only_when_told(tmp_path: Path) -> None:
    refused_ = Serving(tmp_path / "state", "--host", "memory", "--address", "0.0.0.0")
    with pytest.raises(AssertionError, match="beyond loopback"):
        refused_.start()
    assert refused_.process is not None
    assert refused_.process.wait(10) == 2
    assert refused_.process.stdout is not None
    refused_.process.stdout.close()
    refused_.log.close()


def test_the_host_shows_what_it_would_do_for_a_vpc_and_nothing_for_one_that_is_not_there() -> None:
    router = Router(name="vpc-1", cidrs=("10.0.0.0/16",), segments=(), ports=(), policies=(), domain="", resolver="")
    host = memory_host()
    host.network.apply(router)
    view = RealHostView(host, {"vpc-1": router}.get)
    assert "10.0.0.0/16" in view.network_plan("vpc-1")
    assert view.network_plan("vpc-2") == ""
    for vpc_id, message in (("vpc-1", "not plugged in"), ("vpc-2", "nothing of vpc-2 is on this host")):
        with pytest.raises(OSError, match=message):
            view.live_trace(vpc_id, "eni-1", "10.0.0.5", "10.0.0.6", "icmp")


def test_what_a_machine_cannot_give_is_no_fault_of_the_servers() -> None:
    view = RealHostView(memory_host())
    for look in (view.screenshot, view.console_socket):
        with pytest.raises(OSError, match="does not run"):
            look("i-0123456789abcdef0")


def test_a_state_that_cannot_be_written_at_the_start_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(store: Store, name: str, value: str) -> None:
        raise StoreUnavailable("the state cannot be written just now: disk full")

    monkeypatch.setattr(Store, "set_meta", refuse)
    of_this_process = ("keep_secrets_in_memory", "heap.keep_small", "set_up_logging", "sys.setswitchinterval")
    for settings in of_this_process:
        monkeypatch.setattr(f"orchestrator.serve.{settings}", lambda *_: None)
    assert serve(Config(state_dir=tmp_path / "state", host="memory")) == 1
    assert capsys.readouterr().err == "the state cannot be written just now: disk full\n"
