"""Instance types."""

from __future__ import annotations

import click

from orchestrator.cli.arguments import filter_option, filters_of, with_client
from orchestrator.cli.client import Client
from orchestrator.cli.output import Column, Document, output_option, print_document, print_facts, print_listing


@click.group("type")
def type_() -> None:
    """Instance types."""


def _vcpus(one: Document) -> int:
    return int(one.get("VCpuInfo", {}).get("DefaultVCpus", 0))


def _memory_mib(one: Document) -> int:
    return int(one.get("MemoryInfo", {}).get("SizeInMiB", 0))


def memory(mib: int) -> str:
    return f"{mib / 1024:g} GiB" if mib >= 1024 else f"{mib} MiB"


def _storage(one: Document) -> str:
    info = one.get("InstanceStorageInfo", {})
    disks = [f"{disk.get('Count', 1)}x{disk['SizeInGB']} GB" for disk in info.get("Disks", [])]
    return "+".join(disks) or "EBS only"


COLUMNS = (
    Column("TYPE", lambda one: one["InstanceType"]),
    Column("VCPUS", _vcpus),
    Column("MEMORY", lambda one: memory(_memory_mib(one))),
    Column("ARCHITECTURE", lambda one: one.get("ProcessorInfo", {}).get("SupportedArchitectures")),
    Column("NETWORK", lambda one: one.get("NetworkInfo", {}).get("NetworkPerformance")),
    Column("STORAGE", _storage, wide=True),
    Column("INTERFACES", lambda one: one.get("NetworkInfo", {}).get("MaximumNetworkInterfaces"), wide=True),
    Column("BURSTABLE", lambda one: one.get("BurstablePerformanceSupported"), wide=True),
)


@type_.command()
@click.argument("pattern", default="*")
@filter_option
@output_option
@with_client
def ls(client: Client, pattern: str, filter_words: tuple[str, ...], output: str) -> None:
    """List instance types, smallest first. PATTERN narrows them: 't3.*', '*.large', or a family such as m5."""
    pattern = pattern if any(sign in pattern for sign in ".*?") else f"{pattern}.*"
    filters = [*filters_of(filter_words), {"Name": "instance-type", "Values": [pattern]}]
    found = client.pages("DescribeInstanceTypes", "InstanceTypes", Filters=filters)
    found.sort(key=lambda one: (_vcpus(one), _memory_mib(one), one["InstanceType"]))
    print_listing(found, COLUMNS, output, nothing=f"no instance type is called {pattern}; `orc type ls` shows all")


@type_.command()
@click.argument("name")
@output_option
@with_client
def show(client: Client, name: str, output: str) -> None:
    """Show one instance type."""
    one = client.ec2("DescribeInstanceTypes", InstanceTypes=[name])["InstanceTypes"][0]
    if output in ("json", "yaml"):
        print_document(one, output)
        return
    cpu, network, ebs = one.get("VCpuInfo", {}), one.get("NetworkInfo", {}), one.get("EbsInfo", {})
    limits = ebs.get("EbsOptimizedInfo", {})
    print_facts(
        [
            ("type", one["InstanceType"]),
            ("generation", "current" if one.get("CurrentGeneration") else "previous"),
            ("vCPUs", _vcpus(one)),
            ("threads per core", cpu.get("DefaultThreadsPerCore")),
            ("architecture", one.get("ProcessorInfo", {}).get("SupportedArchitectures")),
            ("memory", memory(_memory_mib(one))),
            ("network", network.get("NetworkPerformance")),
            ("interfaces", network.get("MaximumNetworkInterfaces")),
            ("addresses per interface", network.get("Ipv4AddressesPerInterface")),
            ("instance storage", _storage(one)),
            ("volume bandwidth", _bandwidth(limits)),
            ("burstable", one.get("BurstablePerformanceSupported")),
            ("accelerators", [gpu.get("Name") for gpu in one.get("GpuInfo", {}).get("Gpus", [])]),
        ]
    )


def _bandwidth(limits: Document) -> str:
    if not limits:
        return ""
    return f"{limits.get('BaselineBandwidthInMbps')} to {limits.get('MaximumBandwidthInMbps')} Mbit/s"
