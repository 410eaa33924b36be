"""`orc image export`: begun, watched to its end, and cancelled when nobody watches any more."""

from __future__ import annotations

import pytest

from tests.cli.conftest import FakeApi, Orc

TASK = "export-ami-0123456789abcdef0"
IMAGE = "<imagesSet><item><imageId>ami-1</imageId><name>web</name><imageState>available</imageState></item></imagesSet>"


def task(status: str, message: str, progress: str = "") -> str:
    shown = f"<progress>{progress}</progress>" if progress else ""
    return (
        f"<exportImageTaskSet><item><exportImageTaskId>{TASK}</exportImageTaskId><status>{status}</status>"
        f"<statusMessage>{message}</statusMessage>{shown}</item></exportImageTaskSet>"
    )


@pytest.fixture(autouse=True)
def begun(api: FakeApi) -> None:
    api.answer("DescribeImages", IMAGE)
    api.answer("ExportImage", f"<exportImageTaskId>{TASK}</exportImageTaskId><status>active</status>")


def test_an_export_is_watched_and_its_file_is_printed(orc: Orc, api: FakeApi) -> None:
    done = "/var/lib/orchestrator/exports/backups/weekly/x.vhd, 5 bytes, SHA-256 00"
    api.answer("DescribeExportImageTasks", task("active", "converting", "42"), task("completed", done))
    result = orc("image", "export", "web", "--format", "vhd", "--bucket", "backups", "--prefix", "weekly/")
    assert (result.exit_code, result.stdout) == (0, done + "\n")
    assert "export web: converting, 42 %" in result.stderr
    [form] = api.forms("ExportImage")
    assert (form["ImageId"], form["DiskImageFormat"]) == ("ami-1", "VHD")
    assert (form["S3ExportLocation.S3Bucket"], form["S3ExportLocation.S3Prefix"]) == ("backups", "weekly/")


def test_a_failed_export_says_why(orc: Orc, api: FakeApi) -> None:
    api.answer("DescribeExportImageTasks", task("deleted", "ClientError: there is no room"))
    result = orc("image", "export", "web")
    assert result.exit_code == 1
    assert "web was not exported: ClientError: there is no room" in result.stderr


def test_an_export_can_be_left_alone(orc: Orc, api: FakeApi) -> None:
    assert orc("image", "export", "web", "--no-wait").stdout == TASK + "\n"
    assert api.forms("DescribeExportImageTasks") == []
