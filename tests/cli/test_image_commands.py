"""Commands for images, against a controller that says what a test tells it to."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import INSTANCE, FakeApi, Orc, instance


def test_a_build_is_watched_to_its_end(orc: Orc, api: FakeApi) -> None:
    begun = {"BuildId": "build-1", "Name": "tiny", "State": "pending"}
    api.answer("BuildImage", {"Build": begun})
    api.answer(
        "DescribeBuilds",
        {"Builds": [{**begun, "State": "running", "Phase": "unpacking"}]},
        {"Builds": [{**begun, "State": "available", "Phase": "done", "ImageId": "ami-1"}]},
    )
    result = orc("image", "build", "tiny")
    assert (result.exit_code, result.stdout) == (0, "ami-1\n")
    assert "image tiny: unpacking" in result.stderr
    api.answer("DescribeBuilds", {"Builds": [{**begun, "State": "failed", "Message": "no space"}]})
    result = orc("image", "build", "tiny")
    assert (result.exit_code, "no space" in result.stderr) == (1, True)
    assert orc("image", "build", "tiny", "--no-wait").stdout == "build-1\n"


def described(state: str, more: str = "") -> str:
    """DescribeImages' answer: one image."""
    return (
        f"<imagesSet><item><imageId>ami-1</imageId><name>baked</name><imageState>{state}</imageState>"
        "<blockDeviceMapping><item><deviceName>/dev/xvda</deviceName><ebs><snapshotId>snap-1</snapshotId></ebs></item>"
        f"<item><deviceName>/dev/sdb</deviceName><virtualName>ephemeral0</virtualName></item></blockDeviceMapping>{more}"
        "</item></imagesSet>"
    )


def test_an_image_of_an_instance_is_waited_for(orc: Orc, api: FakeApi) -> None:
    api.instances(instance(name="web"))
    api.answer("CreateImage", "<imageId>ami-1</imageId>")
    api.answer("DescribeImages", described("pending"), described("available"))
    result = orc("image", "create", "web", "baked", "--description", "mine", "--tag", "stage=test")
    assert (result.exit_code, result.stdout) == (0, "ami-1\n"), result.stderr
    assert "image baked: pending" in result.stderr
    [form] = api.forms("CreateImage")
    assert (form["InstanceId"], form["Name"], form["NoReboot"]) == (INSTANCE, "baked", "false")
    assert form["TagSpecification.2.ResourceType"] == "snapshot"
    reason = "<stateReason><code>Client.InternalError</code><message>the disk is full</message></stateReason>"
    api.answer("DescribeImages", described("failed", reason))
    result = orc("image", "create", "web", "baked")
    assert (result.exit_code, "the disk is full" in result.stderr) == (1, True)
    assert orc("image", "create", "web", "baked", "--no-wait").stdout == "ami-1\n"


@pytest.mark.parametrize(("consistency", "told"), [("crash", True), ("frozen", False)])
def test_an_image_without_a_reboot_says_what_it_is_worth(orc: Orc, api: FakeApi, consistency: str, told: bool) -> None:
    api.instances(instance(name="web"))
    api.answer("CreateImage", "<imageId>ami-1</imageId>")
    api.answer("DescribeImages", described("available"))
    api.answer("DescribeSnapshotDetails", {"Snapshots": [{"SnapshotId": "snap-1", "Consistency": consistency}]})
    result = orc("image", "create", "web", "baked", "--no-reboot")
    assert (result.exit_code, "as after a power cut" in result.stderr) == (0, told)
    assert api.documents("DescribeSnapshotDetails")[0]["SnapshotIds"] == ["snap-1"]


def test_a_copy_comes_from_the_region_that_is_named(orc: Orc, api: FakeApi) -> None:
    api.answer("DescribeImages", described("available"))
    api.answer("CopyImage", "<imageId>ami-1</imageId>")
    result = orc("image", "copy", "debian-12", "mine", "--from", "eu-west-1", "--key", "alias/mine")
    assert (result.exit_code, result.stdout) == (0, "ami-1\n"), result.stderr
    [form] = api.forms("CopyImage")
    sent = {name: form[name] for name in ("SourceImageId", "SourceRegion", "Name", "Encrypted", "KmsKeyId")}
    assert sent == {
        "SourceImageId": "ami-1",
        "SourceRegion": "eu-west-1",
        "Name": "mine",
        "Encrypted": "true",
        "KmsKeyId": "alias/mine",
    }
    asked = [seen.region for seen in api.seen if seen.action == "DescribeImages"]
    [copied] = [seen.region for seen in api.seen if seen.action == "CopyImage"]
    assert asked[0] == "eu-west-1" and asked[-1] == copied != "eu-west-1"


def test_images_are_shared_with_accounts_and_all(orc: Orc, api: FakeApi) -> None:
    api.answer("DescribeImages", described("available"))
    api.answer("ModifyImageAttribute", "<return>true</return>")
    api.answer(
        "DescribeImageAttribute",
        "<imageId>ami-1</imageId><launchPermission><item><userId>444455556666</userId></item>"
        "<item><group>all</group></item></launchPermission>",
    )
    result = orc("image", "share", "baked", "444455556666", "all")
    assert result.stdout == "ami-1  shared with 444455556666, all\n", result.stderr
    orc("image", "share", "baked", "all", "--remove")
    added, removed = api.forms("ModifyImageAttribute")
    assert added["LaunchPermission.Add.1.UserId"] == "444455556666"
    assert added["LaunchPermission.Add.2.Group"] == removed["LaunchPermission.Remove.1.Group"] == "all"
    orc("image", "share", "baked")
    assert len(api.forms("ModifyImageAttribute")) == 2


def test_what_else_is_done_with_images(orc: Orc, api: FakeApi) -> None:
    api.answer("DescribeImages", described("available"))
    for action in ("EnableImage", "DisableImage", "EnableImageDeprecation", "DisableImageDeprecation"):
        api.answer(action, "<return>true</return>")
    for action in ("EnableImageDeregistrationProtection", "DisableImageDeregistrationProtection", "DeregisterImage"):
        api.answer(action, "<return>disabled</return>")
    for words in (
        ("disable", "baked"),
        ("enable", "baked"),
        ("deprecate", "baked", "2027-01-31T12:00"),
        ("deprecate", "baked", "--never"),
        ("protect", "baked", "--cooldown"),
        ("protect", "baked", "--off"),
        ("rm", "baked", "--keep-snapshots"),
    ):
        result = orc("image", *words)
        assert result.exit_code == 0, (words, result.stderr)
    assert api.forms("EnableImageDeprecation")[0]["DeprecateAt"].startswith("2027-01-31T12:00:00")
    assert api.forms("EnableImageDeregistrationProtection")[0]["WithCooldown"] == "true"
    assert api.forms("DeregisterImage")[0]["DeleteAssociatedSnapshots"] == "false"
    assert orc("image", "deprecate", "baked").exit_code == 2
    assert orc("image", "deprecate", "baked", "soon").exit_code == 2


CONTENT = b"QFI\xfb" + bytes(range(256)) * 5000
DIGEST = hashlib.sha512(CONTENT).hexdigest()


@pytest.fixture
def publisher() -> Iterator[str]:
    """A web site that has one image file."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.startswith("/cloud") else 404)
            self.end_headers()
            if self.path.startswith("/cloud"):
                self.wfile.write(CONTENT)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def importing(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A controller that takes uploads; the folder where downloads lie meanwhile."""
    api.answer("upload", {"UploadId": "upload-1", "Sha512": DIGEST})
    done = {"BuildId": "build-1", "Name": "x", "State": "available", "ImageId": "ami-1"}
    api.answer("ImportImage", {"Build": done})
    api.answer("DescribeBuilds", {"Builds": [done]})
    folder = tmp_path / "downloads"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_import_of_a_url(orc: Orc, api: FakeApi, publisher: str, importing: Path) -> None:
    url = f"{publisher}/cloud/Debian_12%20AMD64.qcow2?x=y"
    result = orc("image", "import", url, "--sha512", DIGEST.upper(), "--user", "debian")
    assert (result.exit_code, result.stdout) == (0, "ami-1\n"), result.output
    assert api.seen[0].body == CONTENT
    assert api.documents("ImportImage") == [
        {"Name": "debian-12-amd64", "UploadId": "upload-1", "Format": "qcow2", "LoginUser": "debian"}
    ]
    assert list(importing.iterdir()) == []


def test_a_download_with_another_checksum_is_removed(orc: Orc, api: FakeApi, publisher: str, importing: Path) -> None:
    result = orc("image", "import", f"{publisher}/cloud.qcow2", "--sha512", "0" * 128)
    assert (result.exit_code, f"has the SHA-512 {DIGEST}" in result.stderr) == (1, True)
    assert list(importing.iterdir()) == []
    assert api.seen == []


def test_a_download_that_is_too_large_is_ended(
    orc: Orc, api: FakeApi, publisher: str, importing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.cli import images

    fetched = images._fetched
    monkeypatch.setattr(images, "_fetched", lambda url, limit_bytes: fetched(url, 1000))
    result = orc("image", "import", f"{publisher}/cloud.qcow2", "--sha512", DIGEST)
    assert (result.exit_code, "is larger than" in result.stderr) == (1, True)
    assert (list(importing.iterdir()), api.seen) == ([], [])


def test_a_url_that_is_not_there(orc: Orc, publisher: str, importing: Path) -> None:
    result = orc("image", "import", f"{publisher}/nothing.qcow2", "--sha512", DIGEST)
    assert (result.exit_code, "404" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "5 bytes read"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "ended after 5 of 9 bytes"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0"),
    ],
    ids=["chunked", "of a length", "no HTTP"],
)
def test_a_download_that_is_cut_off(orc: Orc, api: FakeApi, importing: Path, answer: bytes, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as publisher:

        def publish() -> None:
            reader, _ = publisher.accept()
            with reader:
                reader.recv(65536)
                reader.sendall(answer)

        thread = threading.Thread(target=publish)
        thread.start()
        url = f"http://127.0.0.1:{publisher.getsockname()[1]}/cloud.qcow2"
        result = orc("image", "import", url, "--sha512", DIGEST)
        thread.join()
    assert (result.exit_code, words in result.stderr) == (1, True), result.output
    assert (list(importing.iterdir()), api.seen) == ([], [])


def test_import_of_a_file(orc: Orc, api: FakeApi, importing: Path, tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(CONTENT)
    assert "cannot be told by its ending" in orc("image", "import", str(tmp_path / "disk.img")).stderr
    result = orc("image", "import", str(tmp_path / "disk.img"), "--format", "raw", "--name", "mine")
    assert result.exit_code == 0
    assert api.documents("ImportImage")[0]["Format"] == "raw"
    api.answer("upload", {"UploadId": "upload-1", "Sha512": "00"})
    result = orc("image", "import", str(tmp_path / "disk.img"), "--format", "raw")
    assert (result.exit_code, "arrived damaged" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    "arguments", [("http://127.0.0.1/x.qcow2",), ("http://127.0.0.1/x.qcow2", "--sha512", "12"), ("none.qcow2",)]
)
def test_import_asked_for_wrongly(orc: Orc, api: FakeApi, arguments: tuple[str, ...]) -> None:
    assert orc("image", "import", *arguments).exit_code == 2
    assert api.seen == []
