"""Instances: the list of them, and all about one."""

from __future__ import annotations

from typing import Any

import click

from orchestrator.cli.arguments import filter_option, instance_argument, read_filter, with_client
from orchestrator.cli.client import ALIVE, Client
from orchestrator.cli.output import (
    Column,
    Document,
    age,
    all_tags,
    name_of,
    output_option,
    print_document,
    print_facts,
    print_listing,
    print_table,
    tags,
)


def _groups(instance: Document) -> list[str]:
    return [group.get("GroupName") or group["GroupId"] for group in instance.get("SecurityGroups", [])]


def _reason(instance: Document) -> str:
    return str(instance.get("StateReason", {}).get("Message", ""))


COLUMNS = (
    Column("NAME", name_of),
    Column("ID", lambda one: one["InstanceId"]),
    Column("STATE", lambda one: one["State"]["Name"], coloured=True),
    Column("TYPE", lambda one: one.get("InstanceType")),
    Column("PUBLIC IP", lambda one: one.get("PublicIpAddress")),
    Column("PRIVATE IP", lambda one: one.get("PrivateIpAddress")),
    Column("AGE", lambda one: age(one.get("LaunchTime"))),
    Column("IMAGE", lambda one: one.get("ImageId"), wide=True),
    Column("KEY", lambda one: one.get("KeyName"), wide=True),
    Column("ZONE", lambda one: one.get("Placement", {}).get("AvailabilityZone"), wide=True),
    Column("SUBNET", lambda one: one.get("SubnetId"), wide=True),
    Column("GROUPS", _groups, wide=True),
    Column("REASON", _reason, wide=True),
)


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="terminated ones too")
@filter_option
@click.option("-q", "--quiet", is_flag=True, help="ids only")
@output_option
@with_client
def ls(client: Client, everything: bool, filter_words: tuple[str, ...], quiet: bool, output: str) -> None:
    """List instances: those that have not ended, unless --all is given."""
    filters: list[tuple[str, list[str]]] = [read_filter(word) for word in filter_words]
    if not everything and all(name != "instance-state-name" for name, _ in filters):
        filters.append(("instance-state-name", list(ALIVE)))
    found = client.instances(filters=filters)
    if quiet:
        for instance in found:
            click.echo(instance["InstanceId"])
        return
    nothing = "no instances; `orc run IMAGE` launches one" if not filter_words else "no instance matches"
    print_listing(found, COLUMNS, output, nothing=nothing)


@click.command()
@instance_argument
@output_option
@with_client
def show(client: Client, instance: str, output: str) -> None:
    """Show all about one instance, and the timeline of its last launch."""
    document = client.describe(instance, terminated=True)
    launch = client.orc("DescribeLaunch", InstanceId=document["InstanceId"])
    if output in ("json", "yaml"):
        print_document({"Instance": document, "Launch": launch}, output)
        return
    _print_facts(document, launch, status_of(client, document))
    phases = launch.get("Phases") or []
    if phases:
        click.echo("\nLaunch")
        print_table(["  PHASE", "AFTER", "TOOK"], [_phase(phase) for phase in phases])


def _phase(phase: Document) -> list[str]:
    return [f"  {phase['Name']}", seconds(phase["SinceRequestMs"]), seconds(phase["TookMs"])]


def seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:8.3f} s"


def status_of(client: Client, instance: Document) -> str:
    """Both status checks in a word or two; empty for an instance that does not run."""
    if instance["State"]["Name"] != "running":
        return ""
    statuses = client.ec2("DescribeInstanceStatus", InstanceIds=[instance["InstanceId"]])["InstanceStatuses"]
    if not statuses:
        return ""
    system, guest = (statuses[0].get(side, {}).get("Status", "") for side in ("SystemStatus", "InstanceStatus"))
    return str(system) if system == guest else f"system {system}, instance {guest}"


def _print_facts(document: Document, launch: Document, status: str) -> None:
    placement = document.get("Placement", {})
    options = document.get("CpuOptions", {})
    print_facts(
        [
            ("id", document["InstanceId"]),
            ("name", name_of(document)),
            ("state", document["State"]["Name"]),
            ("reason", _reason(document)),
            ("status checks", status),
            ("type", document.get("InstanceType")),
            ("vCPUs", options.get("CoreCount", 0) * options.get("ThreadsPerCore", 1) or None),
            ("architecture", document.get("Architecture")),
            ("image", document.get("ImageId")),
            ("launched", _when(document.get("LaunchTime"))),
            ("zone", placement.get("AvailabilityZone")),
            ("login user", launch.get("LoginUser")),
            ("key pair", document.get("KeyName")),
            ("public address", _both(document.get("PublicIpAddress"), document.get("PublicDnsName"))),
            ("private address", _both(document.get("PrivateIpAddress"), document.get("PrivateDnsName"))),
            ("VPC", document.get("VpcId")),
            ("subnet", document.get("SubnetId")),
            ("security groups", [f"{g['GroupId']} ({g.get('GroupName')})" for g in document.get("SecurityGroups", [])]),
            ("interfaces", [_interface(one) for one in document.get("NetworkInterfaces", [])]),
            ("volumes", [_volume(one) for one in document.get("BlockDeviceMappings", [])]),
            ("metadata", _metadata(document.get("MetadataOptions", {}))),
            ("tags", all_tags({"Tags": [t for t in document.get("Tags", []) if t["Key"] != "Name"]})),
        ]
    )


def _both(address: str | None, name: str | None) -> str:
    return " ".join(word for word in (address, f"({name})" if address and name else "") if word)


def _when(stamp: str | None) -> str:
    return f"{stamp} ({age(stamp)} ago)" if stamp else ""


def _interface(interface: Document) -> str:
    return f"{interface['NetworkInterfaceId']} {interface.get('MacAddress', '')}"


def _volume(mapping: Document) -> str:
    return f"{mapping['DeviceName']} {mapping.get('Ebs', {}).get('VolumeId', '')}"


def _metadata(options: Document) -> str:
    if options.get("HttpEndpoint") == "disabled":
        return "disabled"
    tokens = options.get("HttpTokens")
    return f"tokens {tokens}, hop limit {options.get('HttpPutResponseHopLimit')}" if tokens else ""


def label(instance: dict[str, Any]) -> str:
    """An instance in a sentence: its id, and its name if it has one."""
    name = tags(instance).get("Name")
    return f"{instance['InstanceId']} ({name})" if name else str(instance["InstanceId"])
