"""The service of our own, through a whole controller on the in-memory host."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.api.gateway import _ask_whether_alive
from orchestrator.api.signature import UNSIGNED_PAYLOAD, sign
from tests.conftest import Serving

Start = Callable[..., Serving]


@pytest.fixture
def deployment(serving: Start) -> Serving:
    return serving()


def test_a_recipe_is_built_once_at_a_time(deployment: Serving) -> None:
    assert deployment.orc("ListRecipes")["Recipes"] == ["debian-12", "tiny"]
    build = deployment.orc("BuildImage", Name="tiny")["Build"]
    found = deployment.until_built(build["BuildId"])
    assert (found["State"], found["Name"], found["Source"]) == ("available", "tiny", "recipe")
    images = deployment.client("ec2").describe_images(ImageIds=[found["ImageId"]])["Images"]
    assert images[0]["Name"] == "tiny"


def test_an_unknown_recipe_is_refused_with_those_that_are_known(deployment: Serving) -> None:
    code, message = deployment.orc_refused("BuildImage", Name="../../etc")
    assert code == "InvalidParameterValue"
    assert "debian-12, tiny" in message
    code, message = deployment.orc_refused("BuildImage")
    assert "Name" in message


def test_an_upload_becomes_an_image(deployment: Serving) -> None:
    data = b"\0" * (1 << 20)
    status, answer = upload(deployment, data)
    assert status == 200
    assert answer["Sha512"] == hashlib.sha512(data).hexdigest()
    build = deployment.orc("ImportImage", Name="mine", UploadId=answer["UploadId"], Format="raw", LoginUser="me")[
        "Build"
    ]
    found = deployment.until_built(build["BuildId"])
    assert found["State"] == "available"
    build = deployment.orc("ImportImage", Name="mine", UploadId=answer["UploadId"], Format="raw")["Build"]
    found = deployment.until_built(build["BuildId"])
    assert found["State"] == "failed", "an upload is read once"
    assert answer["UploadId"] in found["Message"]


@pytest.mark.parametrize(
    ("member", "value"), [("Format", "iso"), ("Name", "../up"), ("UploadId", "upload-1"), ("Name", "")]
)
def test_an_import_says_what_is_wrong(deployment: Serving, member: str, value: str) -> None:
    given = {"Name": "mine", "UploadId": "upload-0123456789abcdef0", "Format": "raw", member: value}
    code, message = deployment.orc_refused("ImportImage", **given)
    assert code.startswith("Invalid")
    assert value in message


def test_an_upload_needs_a_signature(deployment: Serving) -> None:
    status, answer = upload(deployment, b"x", secret="wrong")
    assert (status, answer["__type"]) == (403, "SignatureDoesNotMatch")


def test_a_mapped_id_means_the_newest_image_of_a_name_in_every_region(deployment: Serving) -> None:
    theirs = "ami-0abcdef1234567890"
    assert deployment.orc_refused("MapImage", ImageId=theirs, Name="none")[0] == "InvalidAMIName.NotFound"
    deployment.orc("MapImage", ImageId=theirs, Name="tiny")
    deployment.orc("MapImage", ImageId=theirs, Name="debian-12")
    assert deployment.orc("DescribeImageMaps")["ImageMaps"] == [{"ImageId": theirs, "Name": "debian-12"}]
    for region in ("us-east-1", "us-west-2"):
        [image] = deployment.client("ec2", region_name=region).describe_images(ImageIds=[theirs])["Images"]
        assert (image["ImageId"], image["Name"]) == (theirs, "debian-12")
    deployment.orc("UnmapImage", ImageId=theirs)
    assert deployment.orc("DescribeImageMaps")["ImageMaps"] == []
    real = deployment.client("ec2").describe_images()["Images"][0]["ImageId"]
    assert deployment.orc_refused("MapImage", ImageId=real, Name="tiny")[0] == "InvalidParameterValue"


def test_the_timeline_of_a_launch(deployment: Serving) -> None:
    ec2 = deployment.client("ec2")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    launched = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, InstanceType="t3.micro")
    instance_id = launched["Instances"][0]["InstanceId"]
    ec2.get_waiter("instance_status_ok").wait(InstanceIds=[instance_id], WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    phases = deployment.orc("DescribeLaunch", InstanceId=instance_id)["Phases"]
    assert phases[0]["Name"] == "requested"
    assert {"volume", "network", "started", "ssh"} <= {phase["Name"] for phase in phases}
    assert sum(phase["TookMs"] for phase in phases) == pytest.approx(phases[-1]["SinceRequestMs"], abs=len(phases))
    assert deployment.orc_refused("DescribeLaunch", InstanceId="i-0123456789abcdef0")[0] == "InvalidInstanceID.NotFound"


@pytest.mark.parametrize(
    "line",
    [
        b"CONNECT xn--a- HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff\xfe?\xff=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PUT /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"GET /console/i-1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /tunnel/i-1/99999999999999999999 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: Orchestrator_20261101.X\r\nContent-Length: 4\r\n\r\n[[[[",
        b"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: AWS4-HMAC-SHA256 nonsense\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_nonsense_is_the_callers_fault(deployment: Serving, line: bytes) -> None:
    import socket

    host, port = deployment.endpoint.rpartition("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert not answer or b" 4" in answer.split(b"\r\n")[0], answer
    assert "Traceback" not in deployment.log_text
    assert deployment.client("ec2").describe_regions()["Regions"]


def upload(deployment: Serving, data: bytes, secret: str | None = None) -> tuple[int, dict[str, Any]]:
    keys = json.loads((deployment.state_dir / "credentials.json").read_text())
    host = deployment.endpoint.rpartition("/")[2]
    headers = {"Host": host, "X-Amz-Content-Sha256": UNSIGNED_PAYLOAD}
    headers |= sign(
        "PUT",
        deployment.endpoint + "/upload",
        headers,
        b"",
        access_key=keys["access_key_id"],
        secret_key=secret or keys["secret_access_key"],
        region=keys["region"],
        service="orc",
    )
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request("PUT", "/upload", data, headers)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def test_a_connection_to_a_guest_ends_when_the_guest_is_no_more() -> None:
    """Whose plug is pulled sends no farewell, and whoever sits at the other end of a tunnel may be silent as well."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as guest:
        _ask_whether_alive(guest)
        assert guest.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, each, times = (
            guest.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + each * times <= 60
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _ask_whether_alive(ours)  # has no such settings, and needs none
