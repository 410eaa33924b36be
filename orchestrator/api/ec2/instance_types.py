"""Instance types and where they are offered. All of the catalogue is offered in every zone: it is one host.

Whether the host can hold one is asked when it is launched, as on EC2, where an offering is no promise of capacity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from orchestrator.api.operation import Answer, Call, operation, show_page
from orchestrator.api.protocol import Fragment
from orchestrator.model import instance_type
from orchestrator.model.errors import invalid_parameter
from orchestrator.model.filters import FilterTable, Value, boolean, compile_filters
from orchestrator.model.instance_type import CATALOGUE, Accelerator, EbsBandwidth, InstanceType, NetworkCard
from orchestrator.model.zone import zone_id

T = TypeVar("T")

MOST_TYPES: Final = 100  # of one DescribeInstanceTypes call, asked for or not
MOST_OFFERINGS: Final = 1000
UDP_TIMEOUT_S: Final = 30
UDP_STREAM_TIMEOUT_S: Final = 180


@operation("DescribeInstanceTypes", listing=True)
def describe_instance_types(
    call: Call, *, instance_types: list[str] | None = None, include_unsupported_in_region: bool = False
) -> Answer:
    """Every type is supported in every region, so `include_unsupported_in_region` adds nothing."""
    if len(instance_types or ()) > MOST_TYPES:
        raise invalid_parameter("InstanceTypes", f"{len(instance_types or ())} types", f"at most {MOST_TYPES}")
    found = instance_type.get_all(instance_types) if instance_types else list(CATALOGUE.values())
    return _list(call, "InstanceTypes", found, TYPE_FILTERS, _show_type_once, MOST_TYPES, lambda kind: kind.name)


@dataclass(frozen=True, slots=True)
class Offering:
    instance_type: str
    location_type: str
    location: str


LOCATIONS: Final[dict[str, Callable[[Call], Sequence[str]]]] = {
    "region": lambda call: (call.region,),
    "availability-zone": lambda call: call.zones,
    "availability-zone-id": lambda call: tuple(map(zone_id, call.zones)),
    "outpost": lambda call: (),
}


@operation("DescribeInstanceTypeOfferings", listing=True)
def describe_instance_type_offerings(call: Call, *, location_type: str = "region") -> Answer:
    if location_type not in LOCATIONS:
        raise invalid_parameter("LocationType", location_type, f"one of {', '.join(LOCATIONS)}")
    offerings = [Offering(name, location_type, at) for at in LOCATIONS[location_type](call) for name in CATALOGUE]
    return _list(
        call,
        "InstanceTypeOfferings",
        offerings,
        OFFERING_FILTERS,
        show_offering,
        MOST_OFFERINGS,
        lambda offering: f"{offering.instance_type}/{offering.location}",
    )


def _list(
    call: Call,
    member: str,
    listed: Sequence[T],
    filters: FilterTable,
    show: Callable[[T], Answer | Fragment],
    largest: int,
    key: Callable[[T], str],
) -> Answer:
    """A page of what the filters let through. These lists come in pages even when no MaxResults asks for it."""
    if given := call.params.get("Filters"):
        test = compile_filters(given, filters, None)
        listed = [one for one in listed if test(one)]
    paged = replace(call, params={"MaxResults": largest, **call.params})
    return show_page(paged, member, listed, show, largest=largest, key=key)


# --- how they are shown -----------------------------------------------------------------------------------------------


def show_offering(offering: Offering) -> Answer:
    return {
        "InstanceType": offering.instance_type,
        "LocationType": offering.location_type,
        "Location": offering.location,
    }


def _show_type_once(kind: InstanceType) -> Fragment:
    return Fragment(("instance type", kind.name), lambda: show_type(kind))


def show_type(kind: InstanceType) -> Answer:
    """EC2's InstanceTypeInfo. A member is absent where EC2 leaves it out: Hypervisor of bare metal, for example."""
    shown: Answer = {
        "InstanceType": kind.name,
        "CurrentGeneration": kind.current_generation,
        "FreeTierEligible": kind.free_tier,
        "SupportedUsageClasses": list(kind.usage_classes),
        "SupportedRootDeviceTypes": list(kind.root_device_types),
        "SupportedVirtualizationTypes": list(kind.virtualization_types),
        "BareMetal": kind.bare_metal,
        "ProcessorInfo": _processor_info(kind),
        "VCpuInfo": _vcpu_info(kind),
        "MemoryInfo": {"SizeInMiB": kind.memory_mib},
        "InstanceStorageSupported": bool(kind.disks),
        "EbsInfo": _ebs_info(kind),
        "NetworkInfo": _network_info(kind),
        "PlacementGroupInfo": {"SupportedStrategies": list(kind.placement_strategies)},
        "HibernationSupported": kind.hibernation,
        "BurstablePerformanceSupported": kind.burstable,
        "DedicatedHostsSupported": kind.dedicated_hosts,
        "AutoRecoverySupported": kind.auto_recovery,
        "SupportedBootModes": list(kind.boot_modes),
        "NitroEnclavesSupport": _supported(kind.enclaves),
        "NitroTpmSupport": _supported(kind.tpm),
        "PhcSupport": _supported(kind.precise_clock),
        "RebootMigrationSupport": _supported(kind.reboot_migration),
        "SupportedInRegion": True,
    }
    if kind.hypervisor is not None:
        shown["Hypervisor"] = kind.hypervisor
    if kind.tpm:
        shown["NitroTpmInfo"] = {"SupportedVersions": ["2.0"]}
    if kind.disks:
        shown["InstanceStorageInfo"] = {
            "TotalSizeInGB": kind.instance_storage_gb,
            "Disks": [{"SizeInGB": d.size_gb, "Count": d.count, "Type": kind.disk_kind} for d in kind.disks],
            "NvmeSupport": kind.disk_nvme,
            "EncryptionSupport": kind.disk_encryption,
        }
    for device in kind.accelerators:
        member, devices, total = ACCELERATOR_MEMBERS[device.kind]
        shown[member] = {devices: [_device(device)], total: device.total_memory_mib}
    return shown


ACCELERATOR_MEMBERS: Final = {
    "gpu": ("GpuInfo", "Gpus", "TotalGpuMemoryInMiB"),
    "fpga": ("FpgaInfo", "Fpgas", "TotalFpgaMemoryInMiB"),
    "inference": ("InferenceAcceleratorInfo", "Accelerators", "TotalInferenceMemoryInMiB"),
    "media": ("MediaAcceleratorInfo", "Accelerators", "TotalMediaMemoryInMiB"),
    "neuron": ("NeuronInfo", "NeuronDevices", "TotalNeuronDeviceMemoryInMiB"),
}


def _supported(yes: bool) -> str:
    return "supported" if yes else "unsupported"


def _processor_info(kind: InstanceType) -> Answer:
    shown: Answer = {"SupportedArchitectures": list(kind.architectures), "Manufacturer": kind.manufacturer}
    if kind.clock_ghz is not None:
        shown["SustainedClockSpeedInGhz"] = kind.clock_ghz
    if kind.processor_features:
        shown["SupportedFeatures"] = list(kind.processor_features)
    return shown


def _vcpu_info(kind: InstanceType) -> Answer:
    shown: Answer = {
        "DefaultVCpus": kind.vcpus,
        "DefaultCores": kind.cores,
        "DefaultThreadsPerCore": kind.threads_per_core,
    }
    if kind.valid_cores:
        shown["ValidCores"] = list(kind.valid_cores)
        shown["ValidThreadsPerCore"] = list(kind.valid_threads_per_core)
    return shown


def _ebs_info(kind: InstanceType) -> Answer:
    shown: Answer = {
        "EbsOptimizedSupport": kind.ebs_optimized,
        "EncryptionSupport": "supported",
        "NvmeSupport": kind.ebs_nvme,
        "MaximumEbsAttachments": kind.max_ebs_volumes,
        "AttachmentLimitType": kind.ebs_attachment_limit,
    }
    if kind.ebs_bandwidth is not None:
        shown["EbsOptimizedInfo"] = _ebs_bandwidth(kind.ebs_bandwidth, 1)
        if kind.ebs_cards > 1:
            share = _ebs_bandwidth(kind.ebs_bandwidth, kind.ebs_cards)
            shown["MaximumEbsCards"] = kind.ebs_cards
            shown["EbsCards"] = [{"EbsCardIndex": index, **share} for index in range(kind.ebs_cards)]
    return shown


def _ebs_bandwidth(of: EbsBandwidth, cards: int) -> Answer:
    """One card's share of the type's bandwidth."""
    return {
        "BaselineBandwidthInMbps": int(of.baseline_mbps / cards),
        "BaselineThroughputInMBps": of.baseline_mbps / 8 / cards,
        "BaselineIops": of.baseline_iops // cards,
        "MaximumBandwidthInMbps": int(of.maximum_mbps / cards),
        "MaximumThroughputInMBps": of.maximum_mbps / 8 / cards,
        "MaximumIops": of.maximum_iops // cards,
    }


def _network_info(kind: InstanceType) -> Answer:
    shown: Answer = {
        "NetworkPerformance": kind.network_performance,
        "MaximumNetworkInterfaces": kind.max_interfaces,
        "MaximumNetworkCards": len(kind.network_cards),
        "DefaultNetworkCardIndex": 0,
        "NetworkCards": [_network_card(index, card) for index, card in enumerate(kind.network_cards)],
        "Ipv4AddressesPerInterface": kind.ipv4_addresses_per_interface,
        "Ipv6AddressesPerInterface": kind.ipv6_addresses_per_interface,
        "Ipv6Supported": kind.ipv6_addresses_per_interface > 0,
        "EnaSupport": kind.ena_support,
        "EfaSupported": kind.max_efa_interfaces > 0,
        "EncryptionInTransitSupported": kind.encryption_in_transit,
        "EnaSrdSupported": kind.ena_express,
        "FlexibleEnaQueuesSupport": _supported(kind.flexible_ena_queues),
        "ConnectionTrackingConfiguration": {
            "DefaultTcpEstablishedTimeout": kind.tcp_established_timeout_s,
            "DefaultUdpTimeout": UDP_TIMEOUT_S,
            "DefaultUdpStreamTimeout": UDP_STREAM_TIMEOUT_S,
        },
        "SecondaryNetworkSupported": False,
    }
    if kind.max_efa_interfaces:
        shown["EfaInfo"] = {"MaximumEfaInterfaces": kind.max_efa_interfaces}
    if kind.bandwidth_weightings:
        shown["BandwidthWeightings"] = list(kind.bandwidth_weightings)
    return shown


def _network_card(index: int, card: NetworkCard) -> Answer:
    shown: Answer = {
        "NetworkCardIndex": index,
        "NetworkPerformance": card.performance,
        "MaximumNetworkInterfaces": card.max_interfaces,
        "BaselineBandwidthInGbps": card.baseline_gbps,
        "PeakBandwidthInGbps": card.peak_gbps,
        "DefaultEnaQueueCountPerInterface": card.ena_queues,
        "InterfaceTypes": ["interface", "efa", "efa-only"] if card.efa else ["interface"],
    }
    for member, limit in (
        ("AdditionalFlexibleNetworkInterfaces", card.flexible_interfaces),
        ("MaximumEnaQueueCount", card.max_ena_queues),
        ("MaximumEnaQueueCountPerInterface", card.max_ena_queues_per_interface),
    ):
        if limit is not None:
            shown[member] = limit
    return shown


def _device(device: Accelerator) -> Answer:
    shown: Answer = {
        "Name": device.name,
        "Count": int(device.count),  # of whole ones: a share of a GPU counts as none
        "MemoryInfo": {"SizeInMiB": device.memory_mib},
    }
    if device.kind == "neuron":
        shown["CoreInfo"] = {"Count": device.cores, "Version": device.core_version}
    else:
        shown["Manufacturer"] = device.manufacturer
    if device.kind == "gpu":
        shown["Workloads"] = list(device.workloads)
        shown["LogicalGpuCount"] = max(1, int(device.count))
        shown["GpuPartitionSize"] = min(1.0, device.count)
    return shown


# --- filters ----------------------------------------------------------------------------------------------------------


def _number(value: float) -> Value:
    """As people write it and as EC2 shows it: 1250 and 1250.0."""
    return (f"{value:g}", str(float(value)))


def _listed(values: Sequence[int]) -> Value:
    """Each of them, and all with commas between, which the filter takes too ("1,2")."""
    return (*map(str, values), ",".join(map(str, values)))


def _ebs(read: Callable[[EbsBandwidth], Value]) -> Callable[[InstanceType], Value]:
    return lambda kind: read(kind.ebs_bandwidth) if kind.ebs_bandwidth else None


def _if_disks(read: Callable[[InstanceType], Value]) -> Callable[[InstanceType], Value]:
    return lambda kind: read(kind) if kind.disks else None


_EBS_OPTIMIZED: Final = "ebs-info.ebs-optimized-info"

TYPE_FILTERS: Final[dict[str, Callable[[InstanceType], Value]]] = {
    "auto-recovery-supported": lambda kind: boolean(kind.auto_recovery),
    "bare-metal": lambda kind: boolean(kind.bare_metal),
    "burstable-performance-supported": lambda kind: boolean(kind.burstable),
    "current-generation": lambda kind: boolean(kind.current_generation),
    "dedicated-hosts-supported": lambda kind: boolean(kind.dedicated_hosts),
    "ebs-info.attachment-limit-type": lambda kind: kind.ebs_attachment_limit,
    "ebs-info.maximum-ebs-attachments": lambda kind: str(kind.max_ebs_volumes),
    f"{_EBS_OPTIMIZED}.baseline-bandwidth-in-mbps": _ebs(lambda ebs: str(int(ebs.baseline_mbps))),
    f"{_EBS_OPTIMIZED}.baseline-iops": _ebs(lambda ebs: str(ebs.baseline_iops)),
    f"{_EBS_OPTIMIZED}.baseline-throughput-in-mbps": _ebs(lambda ebs: _number(ebs.baseline_mbps / 8)),
    f"{_EBS_OPTIMIZED}.maximum-bandwidth-in-mbps": _ebs(lambda ebs: str(int(ebs.maximum_mbps))),
    f"{_EBS_OPTIMIZED}.maximum-iops": _ebs(lambda ebs: str(ebs.maximum_iops)),
    f"{_EBS_OPTIMIZED}.maximum-throughput-in-mbps": _ebs(lambda ebs: _number(ebs.maximum_mbps / 8)),
    "ebs-info.ebs-optimized-support": lambda kind: kind.ebs_optimized,
    "ebs-info.encryption-support": lambda kind: "supported",
    "ebs-info.nvme-support": lambda kind: kind.ebs_nvme,
    "free-tier-eligible": lambda kind: boolean(kind.free_tier),
    "hibernation-supported": lambda kind: boolean(kind.hibernation),
    "hypervisor": lambda kind: kind.hypervisor,
    "instance-storage-info.disk.count": lambda kind: [str(disks.count) for disks in kind.disks],
    "instance-storage-info.disk.size-in-gb": lambda kind: [str(disks.size_gb) for disks in kind.disks],
    "instance-storage-info.disk.type": _if_disks(lambda kind: kind.disk_kind),
    "instance-storage-info.encryption-support": _if_disks(lambda kind: kind.disk_encryption),
    "instance-storage-info.nvme-support": _if_disks(lambda kind: kind.disk_nvme),
    "instance-storage-info.total-size-in-gb": _if_disks(lambda kind: str(kind.instance_storage_gb)),
    "instance-storage-supported": lambda kind: boolean(bool(kind.disks)),
    "instance-type": lambda kind: kind.name,
    "memory-info.size-in-mib": lambda kind: str(kind.memory_mib),
    "network-info.bandwidth-weightings": lambda kind: kind.bandwidth_weightings,
    "network-info.efa-info.maximum-efa-interfaces": lambda kind: str(kind.max_efa_interfaces or "") or None,
    "network-info.efa-supported": lambda kind: boolean(kind.max_efa_interfaces > 0),
    "network-info.ena-support": lambda kind: kind.ena_support,
    "network-info.encryption-in-transit-supported": lambda kind: boolean(kind.encryption_in_transit),
    "network-info.flexible-ena-queues-support": lambda kind: _supported(kind.flexible_ena_queues),
    "network-info.ipv4-addresses-per-interface": lambda kind: str(kind.ipv4_addresses_per_interface),
    "network-info.ipv6-addresses-per-interface": lambda kind: str(kind.ipv6_addresses_per_interface),
    "network-info.ipv6-supported": lambda kind: boolean(kind.ipv6_addresses_per_interface > 0),
    "network-info.maximum-network-cards": lambda kind: str(len(kind.network_cards)),
    "network-info.maximum-network-interfaces": lambda kind: str(kind.max_interfaces),
    "network-info.network-performance": lambda kind: kind.network_performance,
    "nitro-enclaves-support": lambda kind: _supported(kind.enclaves),
    "nitro-tpm-info.supported-versions": lambda kind: "2.0" if kind.tpm else None,
    "nitro-tpm-support": lambda kind: _supported(kind.tpm),
    "processor-info.supported-architecture": lambda kind: kind.architectures,
    "processor-info.supported-features": lambda kind: kind.processor_features,
    "processor-info.sustained-clock-speed-in-ghz": lambda kind: (
        None if kind.clock_ghz is None else _number(kind.clock_ghz)
    ),
    "reboot-migration-support": lambda kind: _supported(kind.reboot_migration),
    "supported-boot-mode": lambda kind: kind.boot_modes,
    "supported-root-device-type": lambda kind: kind.root_device_types,
    "supported-usage-class": lambda kind: kind.usage_classes,
    "supported-virtualization-type": lambda kind: kind.virtualization_types,
    "vcpu-info.default-cores": lambda kind: str(kind.cores),
    "vcpu-info.default-threads-per-core": lambda kind: str(kind.threads_per_core),
    "vcpu-info.default-vcpus": lambda kind: str(kind.vcpus),
    "vcpu-info.valid-cores": lambda kind: _listed(kind.valid_cores) if kind.valid_cores else None,
    "vcpu-info.valid-threads-per-core": lambda kind: _listed(kind.valid_threads_per_core) if kind.valid_cores else None,
}

OFFERING_FILTERS: Final[dict[str, Callable[[Offering], Value]]] = {
    "instance-type": lambda offering: offering.instance_type,
    "location": lambda offering: offering.location,
}
