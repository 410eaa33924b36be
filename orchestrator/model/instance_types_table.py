"""The figures of every published instance type, as text. `instance_type` reads it; this is the key.

Figures are those that Amazon publishes through DescribeInstanceTypes. Types that it has withdrawn since, such as p3 and
i3.metal, are as last published; what was not published then (how many EBS volumes, ENA queues, workloads of GPUs) is as
for like types. CPU credits are from "CPU credits and baseline utilization" in the EC2 user guide.

A line that starts in the first column is a family: its name, and settings that hold for its types. An indented line is
a type of that family:

     8xlarge 16x2  256 2-16/2 8x30 2.1-25 8/16/64 650-4750:3600-18750 25      2x600 efa=1 -enclaves
     |       |     |   |      |    |      |       |                   |       |     |
     |       |     |   |      |    |      |       |                   |       |     settings of this type only
     |       |     |   |      |    |      |       |                   |       instance store: volumes x GB
     |       |     |   |      |    |      |       |                   EBS volumes that can be attached
     |       |     |   |      |    |      |       EBS bandwidth, Mbps : IOPS
     |       |     |   |      |    |      ENA queues: of an interface / most per interface / most per card
     |       |     |   |      |    network bandwidth, Gbps
     |       |     |   |      interfaces x IPv4 addresses of each
     |       |     |   numbers of cores that can be chosen
     |       |     memory, GiB (or MiB with M)
     |       cores x threads per core
     size

A line that is indented further continues the one before. `-` alone is nothing. `650-4750` is from a baseline to a
maximum, one number is both. `2-16/2` is 2, 4, ... 16. `2*8` is 8 for each of two network cards, `350+16*400` one card
and sixteen others.

A setting is `key=value` (in names and sentences `_` is a space), `word` or `-word` (not so). Settings apply in this
order: what holds for most types, the family's, what no bare metal type has, the type's. What holds for most is in
`instance_type`.

    cpu clock arch features      manufacturer, GHz, architectures, processor features
    credits                      CPU credits an hour
    hypervisor virt root boot    platform; boot loses uefi on bare metal that has both
    usage placement              usage classes, placement strategies
    ebs nvme ena                 EBS optimisation, NVMe for EBS, ENA: unsupported, supported, required or default
    ebs-cards efa                EBS cards; EFA interfaces, or interfaces/cards that could have one
    perf card-perf               network performance in words where it does not follow from the bandwidth
    ipv6 flexible weighting tcp  IPv6 addresses of an interface, extra interfaces with few queues,
                                 bandwidth weightings, seconds that an idle TCP connection is tracked
    disk disk-nvme disk-encryption   instance store
    gpu fpga inference media     manufacturer/name/MiB of a device
    neuron                       name/coresvVERSION/MiB of a device
    devices workloads            how many of them, what the GPUs are for
    current free-tier recovery migration dedicated hibernation enclaves tpm transit
    phc (precise clock) ena-express flexible-queues own-ebs-slots (EBS volumes take no interfaces' slots)
"""

from __future__ import annotations

from typing import Final

TABLE: Final = """\
a1 cpu=AWS clock=2.3 arch=arm64 boot=uefi -current -tpm -transit
 medium 1x1 2 - 2x4 0.5-10 8 300-3500:2500-20000 27 -
 large 2x1 4 - 3x10 0.75-10 8 525-3500:4000-20000 27 -
 xlarge 4x1 8 - 4x15 1.25-10 8 800-3500:6000-20000 27 -
 2xlarge 8x1 16 - 4x15 2.5-10 8 1750-3500:10000-20000 27 -
 4xlarge 16x1 32 - 8x30 5-10 8 3500:20000 27 -
 metal 16x1 32 - 8x30 5-10 8 3500:20000 31 -
c1 cpu=Intel arch=i386,x86_64 boot=legacy-bios disk=hdd disk-encryption=unsupported disk-nvme=unsupported
    ebs=unsupported ena=unsupported hypervisor=xen ipv6=0 nvme=unsupported placement=partition,spread
    root=ebs,instance-store virt=hvm,paravirtual -current -dedicated -recovery -migration -tpm -transit
 medium 2x1 1740M - 2x6 0.3-1.2 1 - 39 1x350 perf=Moderate
 xlarge 8x1 7 - 4x15 1-10 4 1000:8000 39 4x420 arch=x86_64 ebs=supported perf=High
c3 cpu=Intel clock=2.8 boot=legacy-bios disk-encryption=unsupported disk-nvme=unsupported ebs=supported ena=unsupported
    hypervisor=xen nvme=unsupported root=ebs,instance-store virt=hvm,paravirtual hibernation -current -migration -tpm
    -transit
 large 1x2 3.75 1 3x10 0.5-1.2 8 - 39 2x16 arch=i386,x86_64 ebs=unsupported perf=Moderate
 xlarge 2x2 7.5 1-2 4x15 0.7-10 8 500:4000 39 2x40 perf=Moderate
 2xlarge 4x2 15 1-4 4x15 1-10 8 1000:8000 39 2x80 perf=High
 4xlarge 8x2 30 1-8 8x30 2-10 8 2000:16000 39 2x160 perf=High
 8xlarge 16x2 60 2-16/2 8x30 5-10 8 - 39 2x320 ebs=unsupported perf=10_Gigabit
c4 cpu=Intel clock=2.9 boot=legacy-bios ena=unsupported hypervisor=xen nvme=unsupported hibernation -current -tpm
    -transit
 large 1x2 3.75 1 3x10 0.625-1.2 8 500:4000 40 - perf=Moderate
 xlarge 2x2 7.5 1-2 4x15 1.25-2.8 8 750:6000 40 - perf=High
 2xlarge 4x2 15 1-4 4x15 2.5-10 8 1000:8000 40 - perf=High
 4xlarge 8x2 30 1-8 8x30 5-10 8 2000:16000 40 - perf=High
 8xlarge 18x2 60 2-18/2 8x30 10 8 4000:32000 40 -
c5 cpu=Intel clock=3.4 hibernation enclaves -current -transit
 large 1x2 4 1 3x10 0.75-10 8 650-4750:4000-20000 27 - -enclaves
 xlarge 2x2 8 2 4x15 1.25-10 8 1150-4750:6000-20000 27 -
 2xlarge 4x2 16 2,4 4x15 2.5-10 8 2300-4750:10000-20000 27 -
 4xlarge 8x2 32 2-8/2 8x30 5-10 8 4750:20000 27 -
 9xlarge 18x2 72 2-18/2 8x30 12 8 9500:40000 27 -
 12xlarge 24x2 96 2-24/2 8x30 12 8 9500:40000 27 - clock=3.6
 18xlarge 36x2 144 4-36/2 15x50 25 8 19000:80000 27 -
 24xlarge 48x2 192 2-48/2 15x50 25 8 19000:80000 27 - clock=3.6 -dedicated -hibernation
 metal 48x2 192 - 15x50 25 8 19000:80000 31 - clock=3.6 -dedicated
c5a cpu=AMD clock=3.3 enclaves -dedicated
 large 1x2 4 1 3x10 0.75-10 8 200-3170:800-13300 27 - -enclaves
 xlarge 2x2 8 1-2 4x15 1.25-10 8 400-3170:1600-13300 27 -
 2xlarge 4x2 16 1-4 4x15 2.5-10 8 800-3170:3200-13300 27 -
 4xlarge 8x2 32 1-4,8 8x30 5-10 8 1580-3170:6600-13300 27 -
 8xlarge 16x2 64 1-4,8-16/4 8x30 10 8 3170:13300 27 -
 12xlarge 24x2 96 1-4,8-24/4 8x30 12 8 4750:20000 27 -
 16xlarge 32x2 128 1-4,8-32/4 15x50 20 8 6300:26700 27 -
 24xlarge 48x2 192 1-4,8-48/4 15x50 20 8 9500:40000 27 -
c5ad cpu=AMD clock=3.3 enclaves -dedicated -recovery -migration
 large 1x2 4 1 3x10 0.75-10 8 200-3170:800-13300 26 1x75 -enclaves
 xlarge 2x2 8 1-2 4x15 1.25-10 8 400-3170:1600-13300 26 1x150
 2xlarge 4x2 16 1-4 4x15 2.5-10 8 800-3170:3200-13300 26 1x300
 4xlarge 8x2 32 1-4,8 8x30 5-10 8 1580-3170:6600-13300 25 2x300
 8xlarge 16x2 64 1-4,8-16/4 8x30 10 8 3170:13300 25 2x600
 12xlarge 24x2 96 1-4,8-24/4 8x30 12 8 4750:20000 25 2x900
 16xlarge 32x2 128 1-4,8-32/4 15x50 20 8 6300:26700 25 2x1200
 24xlarge 48x2 192 1-4,8-48/4 15x50 20 8 9500:40000 25 2x1900
c5d cpu=Intel clock=3.4 hibernation enclaves -recovery -migration -transit
 large 1x2 4 1 3x10 0.75-10 8 650-4750:4000-20000 26 1x50 -enclaves
 xlarge 2x2 8 2 4x15 1.25-10 8 1150-4750:6000-20000 26 1x100
 2xlarge 4x2 16 2,4 4x15 2.5-10 8 2300-4750:10000-20000 26 1x200
 4xlarge 8x2 32 2-8/2 8x30 5-10 8 4750:20000 26 1x400
 9xlarge 18x2 72 2-18/2 8x30 12 8 9500:40000 26 1x900
 12xlarge 24x2 96 2-24/2 8x30 12 8 9500:40000 25 2x900 clock=3.6
 18xlarge 36x2 144 4-36/2 15x50 25 8 19000:80000 25 2x900
 24xlarge 48x2 192 2-48/2 15x50 25 8 19000:80000 23 4x900 clock=3.6 -hibernation
 metal 48x2 192 - 15x50 25 8 19000:80000 31 4x900 clock=3.6 -dedicated
c5n cpu=Intel clock=3.4 enclaves
 large 1x2 5.25 1 3x10 3-25 8 650-4750:4000-20000 27 - -enclaves
 xlarge 2x2 10.5 2 4x15 5-25 8 1150-4750:6000-20000 27 -
 2xlarge 4x2 21 2,4 4x15 10-25 8 2300-4750:10000-20000 27 -
 4xlarge 8x2 42 2-8/2 8x30 15-25 32 4750:20000 27 -
 9xlarge 18x2 96 2-18/2 8x30 50 32 9500:40000 27 - efa=1
 18xlarge 36x2 192 4-36/2 15x50 100 32 19000:80000 27 - efa=1
 metal 36x2 192 - 15x50 100 32 19000:80000 31 - efa=1
c6a cpu=AMD clock=3.6 features=amd-sev-snp hibernation enclaves
 large 1x2 4 1 3x10 0.781-12.5 2 650-10000:3600-40000 27 - -enclaves
 xlarge 2x2 8 1-2 4x15 1.562-12.5 4 1250-10000:6000-40000 27 -
 2xlarge 4x2 16 1-4 4x15 3.125-12.5 8 2500-10000:12000-40000 27 -
 4xlarge 8x2 32 1-8 8x30 6.25-12.5 8 5000-10000:20000-40000 27 -
 8xlarge 16x2 64 4-16/2 8x30 12.5 8 10000:40000 27 -
 12xlarge 24x2 96 1-8,16,24 8x30 18.75 8 15000:60000 27 - -hibernation ena-express
 16xlarge 32x2 128 4-16/2,32 15x50 25 8 20000:80000 27 - ena-express
 24xlarge 48x2 192 4-16/2,32,48 15x50 37.5 8 30000:120000 27 - features=none -hibernation ena-express
 32xlarge 64x2 256 8-32/4,64 15x50 50 8 40000:160000 27 - features=none -hibernation ena-express
 48xlarge 96x2 384 8-32/4,64,96 15x50 50 8 40000:240000 27 - efa=1 features=none -hibernation ena-express
 metal 96x2 384 - 15x50 50 8 40000:240000 31 - efa=1 ena-express
c6g cpu=AWS clock=2.5 arch=arm64 boot=uefi hibernation enclaves -transit
 medium 1x1 2 - 2x4 0.5-10 8 315-4750:2500-20000 27 - -enclaves
 large 2x1 4 1-2 3x10 0.75-10 8 630-4750:3600-20000 27 -
 xlarge 4x1 8 1-4 4x15 1.25-10 8 1188-4750:6000-20000 27 -
 2xlarge 8x1 16 1-8 4x15 2.5-10 8 2375-4750:12000-20000 27 -
 4xlarge 16x1 32 1-16 8x30 5-10 8 4750:20000 27 -
 8xlarge 32x1 64 1-32 8x30 12 8 9500:40000 27 -
 12xlarge 48x1 96 1-48 8x30 20 8 14250:50000 27 -
 16xlarge 64x1 128 1-64 15x50 25 8 19000:80000 27 -
 metal 64x1 128 - 15x50 25 8 19000:80000 31 -
c6gd cpu=AWS clock=2.5 arch=arm64 boot=uefi hibernation enclaves -recovery -migration -transit
 medium 1x1 2 - 2x4 0.5-10 8 315-4750:2500-20000 26 1x59 -enclaves
 large 2x1 4 1-2 3x10 0.75-10 8 630-4750:3600-20000 26 1x118
 xlarge 4x1 8 1-4 4x15 1.25-10 8 1188-4750:6000-20000 26 1x237
 2xlarge 8x1 16 1-8 4x15 2.5-10 8 2375-4750:12000-20000 26 1x474
 4xlarge 16x1 32 1-16 8x30 5-10 8 4750:20000 26 1x950
 8xlarge 32x1 64 1-32 8x30 12 8 9500:40000 26 1x1900
 12xlarge 48x1 96 1-48 8x30 20 8 14250:50000 25 2x1425
 16xlarge 64x1 128 1-64 15x50 25 8 19000:80000 25 2x1900
 metal 64x1 128 - 15x50 25 8 19000:80000 31 2x1900
c6gn cpu=AWS clock=2.5 arch=arm64 boot=uefi hibernation enclaves -current
 medium 1x1 2 1 2x4 1.6-16 1 760-9500:2500-40000 27 - -enclaves
 large 2x1 4 1-2 3x10 3-25 2 1235-9500:5000-40000 27 -
 xlarge 4x1 8 1-4 4x15 6.3-25 4 2375-9500:10000-40000 27 -
 2xlarge 8x1 16 1-8 4x15 12.5-25 8 4750-9500:20000-40000 27 -
 4xlarge 16x1 32 1-16 8x30 25 16 9500:40000 27 - ena-express
 8xlarge 32x1 64 1-32 8x30 50 32 19000:80000 27 - ena-express
 12xlarge 48x1 96 1-48 8x30 75 32 28500:120000 27 - ena-express
 16xlarge 64x1 128 1-64 15x50 100 32 38000:160000 27 - efa=1 ena-express
c6i cpu=Intel clock=3.5 hibernation enclaves ena-express flexible-queues
 large 1x2 4 1 3x10 0.781-12.5 2/2/6 650-10000:3600-40000 27 - -enclaves -ena-express
 xlarge 2x2 8 1-2 4x15 1.562-12.5 4/4/16 1250-10000:6000-40000 27 - -ena-express
 2xlarge 4x2 16 2,4 4x15 3.125-12.5 8/8/32 2500-10000:12000-40000 27 - -ena-express
 4xlarge 8x2 32 2-8/2 8x30 6.25-12.5 8/16/64 5000-10000:20000-40000 27 - -ena-express
 8xlarge 16x2 64 2-16/2 8x30 12.5 8/32/64 10000:40000 27 -
 12xlarge 24x2 96 2-24/2 8x30 18.75 8/32/64 15000:60000 27 -
 16xlarge 32x2 128 2-32/2 15x50 25 8/32/120 20000:80000 27 -
 24xlarge 48x2 192 2-48/2 15x50 37.5 8/32/120 30000:120000 27 - -hibernation
 32xlarge 64x2 256 2-64/2 15x50 50 8/32/120 40000:160000 27 - efa=1 -hibernation
 metal 64x2 256 - 15x50 50 8/32 40000:160000 31 - efa=1 -flexible-queues
c6id cpu=Intel clock=3.5 hibernation enclaves ena-express flexible-queues -recovery -migration
 large 1x2 4 1 3x10 0.781-12.5 2/2/6 650-10000:3600-40000 26 1x118 -enclaves -ena-express
 xlarge 2x2 8 1-2 4x15 1.562-12.5 4/4/16 1250-10000:6000-40000 26 1x237 -ena-express
 2xlarge 4x2 16 2,4 4x15 3.125-12.5 8/8/32 2500-10000:12000-40000 26 1x474 -ena-express
 4xlarge 8x2 32 2-8/2 8x30 6.25-12.5 8/16/64 5000-10000:20000-40000 26 1x950 -ena-express
 8xlarge 16x2 64 2-16/2 8x30 12.5 8/32/64 10000:40000 26 1x1900
 12xlarge 24x2 96 2-24/2 8x30 18.75 8/32/64 15000:60000 25 2x1425
 16xlarge 32x2 128 2-32/2 15x50 25 8/32/120 20000:80000 25 2x1900
 24xlarge 48x2 192 2-48/2 15x50 37.5 8/32/120 30000:120000 23 4x1425 -hibernation
 32xlarge 64x2 256 2-64/2 15x50 50 8/32/120 40000:160000 23 4x1900 efa=1 -hibernation
 metal 64x2 256 - 15x50 50 8/32 40000:160000 31 4x1900 efa=1 -flexible-queues
c6in cpu=Intel clock=3.5 hibernation enclaves ena-express flexible-queues
 large 1x2 4 1 3x10 3.125-25 2/2/6 1562.5-25000:6250-100000 27 - -enclaves -ena-express
 xlarge 2x2 8 1-2 4x15 6.25-30 4/4/16 3125-25000:12500-100000 27 - -ena-express
 2xlarge 4x2 16 1-4 4x15 12.5-40 8/8/32 6250-25000:25000-100000 27 - -ena-express
 4xlarge 8x2 32 1-8 8x30 25-50 8/16/64 12500-25000:50000-100000 27 - -ena-express
 8xlarge 16x2 64 1-16 8x30 50 16/32/128 25000:100000 27 - flexible=2
 12xlarge 24x2 96 1-24 8x30 75 16/32/128 37500:150000 27 - flexible=4
 16xlarge 32x2 128 1-32 15x50 100 16/32/240 50000:200000 27 - flexible=1
 24xlarge 48x2 192 4-48/2 15x50 150 32/32/480 75000:300000 27 - flexible=9 -hibernation
 32xlarge 64x2 256 4-64/2 2*8x50 2*200 32/32/256 100000:400000 27 - card-perf=Up_to_170_Gigabit efa=2 flexible=4
    perf=200_Gigabit -hibernation
 metal 64x2 256 - 2*8x50 2*200 32 100000:400000 31 - card-perf=Up_to_170_Gigabit efa=2 perf=200_Gigabit -flexible-queues
c7a cpu=AMD clock=3.7 hibernation enclaves phc own-ebs-slots
 medium 1x1 2 - 2x4 0.39-12.5 1 325-10000:2500-40000 32 - -enclaves
 large 2x1 4 1-2 3x10 0.781-12.5 2 650-10000:3600-40000 32 - -enclaves
 xlarge 4x1 8 1-4 4x15 1.562-12.5 4 1250-10000:6000-40000 32 -
 2xlarge 8x1 16 1-8 4x15 3.125-12.5 8 2500-10000:12000-40000 32 -
 4xlarge 16x1 32 1-2,4-16/2 8x30 6.25-12.5 8 5000-10000:20000-40000 32 -
 8xlarge 32x1 64 1-4,8-32/4 8x30 12.5 8 10000:40000 32 -
 12xlarge 48x1 96 1-6,12-48/6 8x30 18.75 8 15000:60000 32 - ena-express
 16xlarge 64x1 128 1-8,16-64/8 15x50 25 8 20000:80000 48 - ena-express
 24xlarge 96x1 192 1-12,24-96/12 15x50 37.5 8 30000:120000 64 - -hibernation ena-express
 32xlarge 128x1 256 4-16/2,32-128/16 15x50 50 16 40000:160000 88 - -hibernation ena-express
 48xlarge 192x1 384 4-24/2,48-192/24 15x50 50 16 40000:240000 128 - efa=1 -hibernation ena-express
 metal-48xl 192x1 384 - 15x50 50 16 40000:240000 79 - efa=1 ena-express own-ebs-slots
c7g cpu=AWS clock=2.6 arch=arm64 boot=uefi hibernation enclaves
 medium 1x1 2 - 2x4 0.52-12.5 1 315-10000:2500-40000 27 - -enclaves
 large 2x1 4 1-2 3x10 0.937-12.5 2 630-10000:3600-40000 27 -
 xlarge 4x1 8 1-4 4x15 1.876-12.5 4 1250-10000:6000-40000 27 -
 2xlarge 8x1 16 1-8 4x15 3.75-15 8 2500-10000:12000-40000 27 -
 4xlarge 16x1 32 1-16 8x30 7.5-15 8 5000-10000:20000-40000 27 -
 8xlarge 32x1 64 1-32 8x30 15 8 10000:40000 27 -
 12xlarge 48x1 96 1-48 8x30 22.5 8 15000:60000 27 - ena-express
 16xlarge 64x1 128 1-64 15x50 30 8 20000:80000 27 - efa=1 ena-express
 metal 64x1 128 - 15x50 30 8 20000:80000 31 - efa=1 ena-express
c7gd cpu=AWS clock=2.6 arch=arm64 boot=uefi hibernation enclaves phc -recovery -migration
 medium 1x1 2 - 2x4 0.52-12.5 1 315-10000:2500-40000 26 1x59 -enclaves
 large 2x1 4 1-2 3x10 0.937-12.5 2 630-10000:3600-40000 26 1x118
 xlarge 4x1 8 1-4 4x15 1.876-12.5 4 1250-10000:6000-40000 26 1x237
 2xlarge 8x1 16 1-8 4x15 3.75-15 8 2500-10000:12000-40000 26 1x474
 4xlarge 16x1 32 1-16 8x30 7.5-15 8 5000-10000:20000-40000 26 1x950
 8xlarge 32x1 64 1-32 8x30 15 8 10000:40000 26 1x1900
 12xlarge 48x1 96 1-48 8x30 22.5 8 15000:60000 25 2x1425 ena-express
 16xlarge 64x1 128 1-64 15x50 30 8 20000:80000 25 2x1900 efa=1 ena-express
 metal 64x1 128 - 15x50 30 8 20000:80000 31 2x1900 efa=1 ena-express
c7gn cpu=AWS clock=2.6 arch=arm64 boot=uefi hibernation
 medium 1x1 2 - 2x4 3.125-25 1 521-10000:2083-40000 27 -
 large 2x1 4 1-2 3x10 6.25-30 2 1042-10000:4167-40000 27 -
 xlarge 4x1 8 1-4 4x15 12.5-40 4 2083-10000:8333-40000 27 -
 2xlarge 8x1 16 1-8 4x15 25-50 8 4167-10000:16667-40000 27 -
 4xlarge 16x1 32 1-16 8x30 50 16 8333-10000:33333-40000 27 - ena-express
 8xlarge 32x1 64 1-32 8x30 100 32 16667-20000:66667-80000 27 - ena-express
 12xlarge 48x1 96 1-48 8x30 150 32 25000-30000:100000-120000 27 - ena-express
 16xlarge 64x1 128 1-64 15x50 200 32 33333-40000:133333-160000 27 - efa=1 ena-express
 metal 64x1 128 - 15x50 200 32 33333-40000:133333-160000 31 - efa=1 ena-express
c7i cpu=Intel clock=3.2 features=nested-virtualization hibernation enclaves phc own-ebs-slots
 large 1x2 4 1 3x10 0.781-12.5 2 650-10000:3600-40000 32 - -enclaves
 xlarge 2x2 8 1-2 4x15 1.562-12.5 4 1250-10000:6000-40000 32 -
 2xlarge 4x2 16 1-4 4x15 3.125-12.5 8 2500-10000:12000-40000 32 -
 4xlarge 8x2 32 1-8 8x30 6.25-12.5 8 5000-10000:20000-40000 32 -
 8xlarge 16x2 64 1-16 8x30 12.5 8 10000:40000 32 -
 12xlarge 24x2 96 1-24 8x30 18.75 8 15000:60000 32 - ena-express
 16xlarge 32x2 128 1-32 15x50 25 8 20000:80000 48 - ena-express
 24xlarge 48x2 192 1-48 15x50 37.5 8 30000:120000 64 - -dedicated -hibernation ena-express
 48xlarge 96x2 384 4-96/2 15x50 50 16 40000:240000 128 - efa=1 -dedicated -hibernation ena-express
 metal-24xl 48x2 192 - 15x50 37.5 8 30000:120000 39 - -dedicated ena-express own-ebs-slots
 metal-48xl 96x2 384 - 15x50 50 16 40000:240000 79 - efa=1 ena-express own-ebs-slots
c7i-flex cpu=Intel clock=3.2 features=nested-virtualization placement=partition,spread hibernation phc own-ebs-slots
    -dedicated
 large 1x2 4 1 3x10 0.39-12.5 1 312.5-10000:2500-40000 32 - free-tier
 xlarge 2x2 8 1-2 4x15 0.781-12.5 2 625-10000:3600-40000 32 -
 2xlarge 4x2 16 1-4 4x15 1.562-12.5 4 1250-10000:6000-40000 32 -
 4xlarge 8x2 32 1-8 8x30 3.125-12.5 4 2500-10000:12000-40000 32 -
 8xlarge 16x2 64 1-16 8x30 6.25-12.5 4 5000-10000:20000-40000 32 -
 12xlarge 24x2 96 1-24 8x30 9.375-18.75 4 7500-15000:30000-60000 32 -
 16xlarge 32x2 128 1-32 15x50 12.5-25 4 10000-20000:40000-80000 48 -
c8a cpu=AMD clock=4.5 tcp=350 weighting=default,ebs-1,vpc-1 hibernation enclaves phc flexible-queues own-ebs-slots
 medium 1x1 2 1 2x4 0.52-12.5 1/1/3 325-10000:2500-40000 32 - -enclaves
 large 2x1 4 1-2 3x20 0.937-12.5 2/2/6 650-10000:3600-40000 32 -
 xlarge 4x1 8 1-4 4x20 1.875-12.5 4/4/16 1250-10000:6000-40000 32 -
 2xlarge 8x1 16 1-8 4x40 3.75-15 8/8/32 2500-10000:12000-40000 32 -
 4xlarge 16x1 32 1-2,4-16/2 8x40 7.5-15 8/16/64 5000-10000:20000-40000 32 -
 8xlarge 32x1 64 1-4,8-32/4 10x40 15 8/32/128 10000:40000 32 -
 12xlarge 48x1 96 1-6,12-48/6 12x64 22.5 16/64/192 15000:60000 32 -
 16xlarge 64x1 128 1-8,16-64/8 16x64 30 16/64/256 20000:80000 48 - ena-express
 24xlarge 96x1 192 1-12,24-96/12 16x64 40 16/128/384 30000:120000 64 - -hibernation ena-express
 48xlarge 192x1 384 4-24/2,48-192/24 24x64 75 32/128/768 60000:240000 128 - efa=1 -hibernation ena-express
 metal-24xl 96x1 192 - 16x64 40 16/128/384 30000:120000 64 - -migration ena-express own-ebs-slots
 metal-48xl 192x1 384 - 24x64 75 32/128/768 60000:240000 79 - efa=1 -migration ena-express
c8g cpu=AWS clock=2.8 arch=arm64 boot=uefi weighting=default,ebs-1,vpc-1 hibernation enclaves phc own-ebs-slots
 medium 1x1 2 - 2x4 0.52-12.5 1 315-10000:2500-40000 32 - -enclaves
 large 2x1 4 1-2 3x10 0.937-12.5 2 630-10000:3600-40000 32 -
 xlarge 4x1 8 1-4 4x15 1.875-12.5 4 1250-10000:6000-40000 32 -
 2xlarge 8x1 16 1-8 4x15 3.75-15 8 2500-10000:12000-40000 32 -
 4xlarge 16x1 32 1-16 8x30 7.5-15 8 5000-10000:20000-40000 32 -
 8xlarge 32x1 64 1-32 8x30 15 8 10000:40000 32 - ena-express
 12xlarge 48x1 96 1-48 8x30 22.5 8 15000:60000 32 - ena-express
 16xlarge 64x1 128 1-64 15x50 30 8 20000:80000 48 - ena-express
 24xlarge 96x1 192 1-96 15x50 40 8 30000:120000 64 - efa=1 -hibernation ena-express
 48xlarge 192x1 384 4-192/2 15x50 50 16 40000:240000 128 - clock=2.7 efa=1 -hibernation ena-express
 metal-24xl 96x1 192 - 15x50 40 32 30000:120000 39 - efa=1 ena-express own-ebs-slots
 metal-48xl 192x1 384 - 15x50 50 32 40000:240000 79 - clock=2.7 efa=1 ena-express own-ebs-slots
c8gb cpu=AWS clock=2.8 arch=arm64 boot=uefi tcp=350 hibernation enclaves ena-express flexible-queues own-ebs-slots
 medium 1x1 2 - 2x4 2.083-16.666 1/1/2 1562.5-25000:7500-120000 32 - -enclaves -ena-express
 large 2x1 4 1-2 3x10 4.166-20 2/2/6 3125-25000:15000-120000 32 - -ena-express
 xlarge 4x1 8 1-4 4x15 8.333-26.666 4/4/16 6250-25000:30000-120000 32 - -ena-express
 2xlarge 8x1 16 1-8 4x15 16.666-33.333 8/8/32 12500-25000:60000-120000 32 - -ena-express
 4xlarge 16x1 32 1-16 8x30 33.333 8/16/64 25000:120000 32 -
 8xlarge 32x1 64 1-32 10x30 66.666 8/32/128 50000:240000 32 -
 12xlarge 48x1 96 1-48 12x30 100 16/64/192 75000:360000 32 -
 16xlarge 64x1 128 1-64 16x50 133.333 16/64/256 100000:480000 48 - efa=1
 24xlarge 96x1 192 1-96 24x50 200 16/128/384 150000:720000 64 - efa=1 -hibernation
 48xlarge 192x1 384 4-192/2 2*12x50 2*200 32/128/384 300000:1440000 128 - clock=2.7 ebs-cards=2 efa=2 -hibernation
 metal-24xl 96x1 192 - 24x50 200 32/128/768 150000:720000 39 - efa=1 -migration
 metal-48xl 192x1 384 - 2*12x50 2*200 32/128/384 300000:1440000 78 - clock=2.7 ebs-cards=2 efa=2 -migration
    own-ebs-slots
c8gd cpu=AWS clock=2.8 arch=arm64 boot=uefi weighting=default,ebs-1,vpc-1 hibernation enclaves phc own-ebs-slots
    -recovery -migration
 medium 1x1 2 - 2x4 0.52-12.5 1 315-10000:2500-40000 32 1x59 -enclaves
 large 2x1 4 1-2 3x10 0.937-12.5 2 630-10000:3600-40000 32 1x118
 xlarge 4x1 8 1-4 4x15 1.875-12.5 4 1250-10000:6000-40000 32 1x237
 2xlarge 8x1 16 1-8 4x15 3.75-15 8 2500-10000:12000-40000 32 1x474
 4xlarge 16x1 32 1-16 8x30 7.5-15 8 5000-10000:20000-40000 32 1x950
 8xlarge 32x1 64 1-32 8x30 15 8 10000:40000 32 1x1900 ena-express
 12xlarge 48x1 96 1-48 8x30 22.5 8 15000:60000 32 3x950 ena-express
 16xlarge 64x1 128 1-64 15x50 30 8 20000:80000 48 2x1900 ena-express
 24xlarge 96x1 192 1-96 15x50 40 8 30000:120000 64 3x1900 efa=1 -hibernation ena-express
 48xlarge 192x1 384 4-192/2 15x50 50 16 40000:240000 128 6x1900 clock=2.7 efa=1 -hibernation ena-express
 metal-24xl 96x1 192 - 15x50 40 32 30000:120000 39 3x1900 efa=1 ena-express own-ebs-slots
 metal-48xl 192x1 384 - 15x50 50 32 40000:240000 79 6x1900 clock=2.7 efa=1 ena-express own-ebs-slots
c8gn cpu=AWS clock=2.8 arch=arm64 boot=uefi tcp=350 hibernation enclaves ena-express flexible-queues own-ebs-slots
 medium 1x1 2 - 2x4 3.125-25 1/1/2 760-10000:2500-40000 32 - -enclaves -ena-express
 large 2x1 4 1-2 3x10 6.25-30 2/2/6 1250-10000:5000-40000 32 - -ena-express
 xlarge 4x1 8 1-4 4x15 12.5-40 4/4/16 2500-10000:10000-40000 32 - -ena-express
 2xlarge 8x1 16 1-8 4x15 25-50 8/8/32 5000-10000:20000-40000 32 - -ena-express
 4xlarge 16x1 32 1-16 8x30 50 8/16/64 10000:40000 32 -
 8xlarge 32x1 64 1-32 10x30 100 8/32/128 20000:80000 32 -
 12xlarge 48x1 96 1-48 12x30 150 16/64/192 30000:120000 32 -
 16xlarge 64x1 128 1-64 16x50 200 16/64/256 40000:160000 48 - efa=1
 24xlarge 96x1 192 1-96 24x50 300 16/128/384 60000:240000 64 - efa=1 -hibernation
 48xlarge 192x1 384 4-192/2 2*12x50 2*300 32/128/384 120000:480000 128 - clock=2.7 ebs-cards=2 efa=2 -hibernation
 metal-24xl 96x1 192 - 24x50 300 32/128/768 60000:240000 39 - efa=1 -migration
 metal-48xl 192x1 384 - 2*12x50 2*300 32/128/384 120000:480000 78 - clock=2.7 ebs-cards=2 efa=2 -migration own-ebs-slots
c8i cpu=Intel clock=3.9 features=nested-virtualization tcp=350 weighting=default,ebs-1,vpc-1 hibernation enclaves phc
    ena-express flexible-queues own-ebs-slots
 large 1x2 4 1 3x20 0.937-12.5 2/2/6 650-10000:3600-40000 32 - -enclaves -ena-express
 xlarge 2x2 8 1-2 4x30 1.875-12.5 4/4/16 1250-10000:6000-40000 32 - -ena-express
 2xlarge 4x2 16 1-4 4x30 3.75-15 8/8/32 2500-10000:12000-40000 32 - -ena-express
 4xlarge 8x2 32 1-8 8x50 7.5-15 8/16/64 5000-10000:20000-40000 32 - -ena-express
 8xlarge 16x2 64 1-16 10x50 15 8/32/128 10000:40000 32 -
 12xlarge 24x2 96 1-24 12x50 22.5 16/64/192 15000:60000 32 -
 16xlarge 32x2 128 1-32 16x64 30 16/64/256 20000:80000 48 -
 24xlarge 48x2 192 4-48/2 16x64 40 16/128/384 30000:120000 64 - -hibernation
 32xlarge 64x2 256 4-64/2 24x64 50 16/128/512 40000:160000 88 - -hibernation
 48xlarge 96x2 384 6-96/3 24x64 75 32/128/768 60000:240000 128 - efa=1 -hibernation
 96xlarge 192x2 768 12-192/6 24x64 100 32/128/1536 80000:480000 128 - efa=1 -hibernation
 metal-48xl 96x2 384 - 24x64 75 32/128/768 60000:240000 64 - efa=1 -migration own-ebs-slots
 metal-96xl 192x2 768 - 24x64 100 32/128/1536 80000:480000 79 - efa=1 -migration own-ebs-slots
c8i-flex cpu=Intel clock=3.9 features=nested-virtualization placement=partition,spread tcp=350
    weighting=default,ebs-1,vpc-1 hibernation phc flexible-queues own-ebs-slots -dedicated
 large 1x2 4 1 3x20 0.468-12.5 1/1/3 315-10000:2500-40000 32 -
 xlarge 2x2 8 1-2 4x30 0.937-12.5 2/2/8 630-10000:3600-40000 32 -
 2xlarge 4x2 16 1-4 4x30 1.875-15 4/4/16 1250-10000:6000-40000 32 -
 4xlarge 8x2 32 1-8 8x50 3.75-15 4/8/32 2500-10000:12000-40000 32 -
 8xlarge 16x2 64 1-16 10x50 7.5-15 4/16/64 5000-10000:20000-40000 32 -
 12xlarge 24x2 96 1-24 12x50 11.25-22.5 8/32/96 7500-15000:30000-60000 32 -
 16xlarge 32x2 128 1-32 16x64 15-30 8/32/128 10000-20000:40000-80000 48 -
c8ib cpu=Intel clock=3.9 tcp=350 hibernation enclaves ena-express flexible-queues own-ebs-slots
 large 1x2 4 1 4x20 2.083-16.667 2/2/8 1563-25000:7500-120000 32 - -enclaves -ena-express
 xlarge 2x2 8 1-2 4x30 4.166-20 4/4/16 3125-25000:15000-120000 32 - -ena-express
 2xlarge 4x2 16 1-4 4x30 8.333-26.667 8/8/32 6250-25000:30000-120000 32 - -ena-express
 4xlarge 8x2 32 1-8 8x50 16.666-33.333 8/16/64 12500-25000:60000-120000 32 - -ena-express
 8xlarge 16x2 64 1-16 8x50 33.333 16/32/128 25000:120000 32 -
 12xlarge 24x2 96 1-24 12x50 50 16/64/192 37500:180000 32 -
 16xlarge 32x2 128 1-32 16x64 66.666 16/64/256 50000:240000 48 -
 24xlarge 48x2 192 4-48/2 16x64 100 16/128/256 75000:360000 64 - -hibernation
 32xlarge 64x2 256 4-64/2 16x64 133.333 32/128/512 100000:480000 88 - -hibernation
 48xlarge 96x2 384 6-96/3 24x64 200 32/128/768 150000:720000 128 - efa=1 -hibernation
 96xlarge 192x2 768 12-192/6 2*12x64 2*200 32/128/768 300000:1440000 128 - ebs-cards=2 efa=2 -hibernation
 metal-48xl 96x2 384 - 24x64 200 32/128/768 150000:720000 64 - efa=1 -migration
 metal-96xl 192x2 768 - 2*12x64 2*200 32/128/768 300000:1440000 78 - ebs-cards=2 efa=2 -migration
c8id cpu=Intel clock=3.9 features=nested-virtualization tcp=350 weighting=default,ebs-1,vpc-1 enclaves phc ena-express
    flexible-queues own-ebs-slots -recovery -migration
 large 1x2 4 1 3x20 0.937-12.5 2/2/6 650-10000:3600-40000 32 1x118 -enclaves -ena-express
 xlarge 2x2 8 1-2 4x30 1.875-12.5 4/4/16 1250-10000:6000-40000 32 1x237 -ena-express
 2xlarge 4x2 16 1-4 4x30 3.75-15 8/8/32 2500-10000:12000-40000 32 1x474 -ena-express
 4xlarge 8x2 32 1-8 8x50 7.5-15 8/16/64 5000-10000:20000-40000 32 1x950 -ena-express
 8xlarge 16x2 64 1-16 10x50 15 8/32/128 10000:40000 32 1x1900
 12xlarge 24x2 96 1-24 12x50 22.5 16/64/192 15000:60000 32 1x2850
 16xlarge 32x2 128 1-32 16x64 30 16/64/256 20000:80000 48 1x3800
 24xlarge 48x2 192 4-48/2 16x64 40 16/128/384 30000:120000 64 2x2850
 32xlarge 64x2 256 4-64/2 24x64 50 16/128/512 40000:160000 88 2x3800
 48xlarge 96x2 384 6-96/3 24x64 75 32/128/768 60000:240000 128 3x3800 efa=1
 96xlarge 192x2 768 12-192/6 24x64 100 32/128/1536 80000:480000 128 6x3800 efa=1
 metal-48xl 96x2 384 - 24x64 75 32/128/768 60000:240000 64 3x3800 efa=1
 metal-96xl 192x2 768 - 24x64 100 32/128/1536 80000:480000 79 6x3800 efa=1
c8in cpu=Intel clock=3.9 tcp=350 hibernation enclaves ena-express flexible-queues own-ebs-slots
 large 1x2 4 1 4x20 3.125-25 2/2/8 650-10000:3600-40000 32 - -enclaves -ena-express
 xlarge 2x2 8 1-2 4x30 6.25-30 4/4/16 1250-10000:6000-40000 32 - -ena-express
 2xlarge 4x2 16 1-4 4x30 12.5-40 8/8/32 2500-10000:12000-40000 32 - -ena-express
 4xlarge 8x2 32 1-8 8x50 25-50 8/16/64 5000-10000:20000-40000 32 - -ena-express
 8xlarge 16x2 64 1-16 8x50 50 16/32/128 10000:40000 32 -
 12xlarge 24x2 96 1-24 12x50 75 16/64/192 15000:60000 32 -
 16xlarge 32x2 128 1-32 16x64 100 16/64/256 20000:80000 48 -
 24xlarge 48x2 192 4-48/2 16x64 150 16/128/256 30000:120000 64 - -hibernation
 32xlarge 64x2 256 4-64/2 16x64 200 32/128/512 40000:160000 88 - -hibernation
 48xlarge 96x2 384 6-96/3 24x64 300 32/128/768 60000:240000 128 - efa=1 -hibernation
 96xlarge 192x2 768 12-192/6 2*12x64 2*300 32/128/768 120000:480000 128 - ebs-cards=2 efa=2 -hibernation
 metal-48xl 96x2 384 - 24x64 300 32/128/768 60000:240000 64 - efa=1 -migration
 metal-96xl 192x2 768 - 2*12x64 2*300 32/128/768 120000:480000 78 - ebs-cards=2 efa=2 -migration
c8ine cpu=Intel clock=3.9 tcp=350 enclaves flexible-queues own-ebs-slots -dedicated
 large 1x2 4 1 4x20 3.125 2/2/8 650-10000:3600-40000 32 - card-perf=3.12_Gigabit perf=3.125_Gigabit -enclaves
 xlarge 2x2 8 1-2 4x30 6.25 4/4/16 1250-10000:6000-40000 32 -
 2xlarge 4x2 16 1-4 4x30 12.5 8/8/32 2500-10000:12000-40000 32 -
 4xlarge 8x2 32 1-8 8x50 25 16/16/128 5000-10000:20000-40000 32 -
 8xlarge 16x2 64 1-16 8x50 50 32/32/256 10000:40000 32 -
 12xlarge 24x2 96 1-24 12x50 75 32/64/384 15000:60000 32 -
c9g cpu=AWS clock=3.3 arch=arm64 boot=uefi tcp=350 weighting=default,ebs-1,vpc-1 hibernation enclaves phc
    flexible-queues own-ebs-slots
 medium 1x1 2 - 2x20 0.55-15 1/1/2 380-12000:2500-48000 32 - -enclaves
 large 2x1 4 1-2 3x20 1-15 2/2/6 760-12000:3600-48000 32 -
 xlarge 4x1 8 1-4 4x30 2.1-15 4/4/16 1500-12000:6000-48000 32 -
 2xlarge 8x1 16 1-8 4x30 4.25-17 8/8/32 3000-12000:12000-48000 32 -
 4xlarge 16x1 32 1-16 8x50 8.5-17 8/16/64 6000-12000:24000-48000 32 -
 8xlarge 32x1 64 1-32 10x50 17 8/32/128 12000:48000 32 - ena-express
 12xlarge 48x1 96 1-48 12x50 25 16/64/192 18000:72000 32 - ena-express
 16xlarge 64x1 128 4-64/2 16x64 34 16/64/256 24000:96000 48 - ena-express
 24xlarge 96x1 192 1-96 24x64 50 16/128/384 36000:144000 64 - -hibernation ena-express
 48xlarge 192x1 384 4-192/2 24x64 100 32/128/768 72000:288000 128 - efa=1 -hibernation ena-express
 metal-48xl 192x1 384 - 24x64 100 32/128/768 72000:288000 79 - efa=1 -migration ena-express
c9gd cpu=AWS clock=3.3 arch=arm64 boot=uefi tcp=350 weighting=default,ebs-1,vpc-1 hibernation enclaves phc
    flexible-queues own-ebs-slots -recovery -migration
 medium 1x1 2 - 2x20 0.55-15 1/1/2 380-12000:2500-48000 32 1x59 -enclaves
 large 2x1 4 1-2 3x20 1-15 2/2/6 760-12000:3600-48000 32 1x118
 xlarge 4x1 8 1-4 4x30 2.1-15 4/4/16 1500-12000:6000-48000 32 1x237
 2xlarge 8x1 16 1-8 4x30 4.25-17 8/8/32 3000-12000:12000-48000 32 1x474
 4xlarge 16x1 32 1-16 8x50 8.5-17 8/16/64 6000-12000:24000-48000 32 1x950
 8xlarge 32x1 64 1-32 10x50 17 8/32/128 12000:48000 32 1x1900 ena-express
 12xlarge 48x1 96 1-48 12x50 25 16/64/192 18000:72000 32 3x950 ena-express
 16xlarge 64x1 128 4-64/2 16x64 34 16/64/256 24000:96000 48 1x3800 ena-express
 24xlarge 96x1 192 1-96 24x64 50 16/128/384 36000:144000 64 3x1900 -hibernation ena-express
 48xlarge 192x1 384 4-192/2 24x64 100 32/128/768 72000:288000 128 3x3800 efa=1 -hibernation ena-express
 metal-48xl 192x1 384 - 24x64 100 32/128/768 72000:288000 79 3x3800 efa=1 ena-express
d2 cpu=Intel clock=2.4 boot=legacy-bios disk=hdd disk-encryption=unsupported disk-nvme=unsupported ena=unsupported
    hypervisor=xen nvme=unsupported root=ebs,instance-store -current -recovery -migration -tpm -transit
 xlarge 2x2 30.5 1-2 4x15 1.25-2.8 8 750:6000 40 3x2048 perf=Moderate
 2xlarge 4x2 61 1-4 4x15 2.5-10 8 1000:8000 40 6x2048 perf=High
 4xlarge 8x2 122 1-8 8x30 5-10 8 2000:16000 40 12x2048 perf=High
 8xlarge 18x2 244 2-18/2 8x30 10 8 4000:32000 40 24x2048
d3 cpu=Intel clock=3.1 disk=hdd enclaves -dedicated -recovery -migration
 xlarge 2x2 32 1-2 4x3 3-15 8 850-2800:5000-15000 24 3x1980
 2xlarge 4x2 64 2,4 4x5 6-15 8 1700-2800:10000-15000 21 6x1980
 4xlarge 8x2 128 2-8/2 4x10 12.5-15 8 2800:15000 15 12x1980
 8xlarge 16x2 256 2-16/2 3x20 25 32 5000:30000 3 24x1980
d3en cpu=Intel clock=3.1 disk=hdd enclaves -dedicated -recovery -migration
 xlarge 2x2 16 1-2 4x3 6-25 8 850-2800:5000-15000 25 2x13980
 2xlarge 4x2 32 2,4 4x5 12.5-25 8 1700-2800:10000-15000 23 4x13980
 4xlarge 8x2 64 2-8/2 4x10 25 32 2800:15000 19 8x13980
 6xlarge 12x2 96 2-12/2 4x15 40 32 4000:25000 15 12x13980
 8xlarge 16x2 128 2-16/2 4x20 50 32 5000:30000 11 16x13980
 12xlarge 24x2 192 2-24/2 3x30 75 32 7000:40000 3 24x13980
dl1 cpu=Intel clock=3 boot=legacy-bios devices=8 efa=4 gpu=Habana/Gaudi_HL-205/32768 workloads=graphics,ml-ai enclaves
    -recovery -migration -tpm
 24xlarge 48x2 768 2-48/2 4*15x50 4*100 8 19000:80000 27 4x1000 perf=4x_100_Gigabit
dl2q cpu=Intel clock=2.5 devices=8 efa=1 inference=Qualcomm/Qualcomm_AI100/16000 enclaves -recovery -tpm
 24xlarge 48x2 768 2-48/2 15x50 100 32 19000:80000 19 -
f1 cpu=Intel clock=2.3 boot=legacy-bios ena=unsupported fpga=Xilinx/Virtex_UltraScale_(VU9P)/65536 hypervisor=xen
    nvme=supported -recovery -migration -tpm -transit
 2xlarge 4x2 122 1-4 4x15 2.5-10 8 1700:12000 40 1x470
 4xlarge 8x2 244 1-8 8x30 5-10 8 3500:44000 40 1x940 devices=2
 16xlarge 32x2 976 2-32/2 8x50 5-20 8 14000:75000 40 4x940 devices=8 nvme=unsupported perf=25_Gigabit
f2 cpu=AMD clock=3.4 fpga=Xilinx/Virtex_UltraScale+_(VU47P)/81920 enclaves own-ebs-slots -recovery -migration
 6xlarge 12x2 256 1-3,6-12/3 8x30 12.5 8 7500:30000 32 1x940
 12xlarge 24x2 512 1-3,6-24/3 8x30 25 8 15000:60000 32 2x940 devices=2
 48xlarge 96x2 2048 4-12/2,24-96/12 15x50 100 16 60000:240000 128 8x940 devices=8 efa=1
g3 cpu=Intel clock=2.7 boot=legacy-bios ena=supported gpu=NVIDIA/M60/8192 hypervisor=xen nvme=unsupported
    workloads=graphics,ml-ai -migration -tpm -transit
 4xlarge 8x2 122 1-8 8x30 5-10 8 3500:20000 40 -
 8xlarge 16x2 244 1-16 8x30 5-10 8 7000:40000 40 - devices=2 perf=10_Gigabit
 16xlarge 32x2 488 2-32/2 15x50 5-10 8 14000:80000 40 - clock=2.3 devices=4 perf=25_Gigabit
g3s cpu=Intel clock=2.7 boot=legacy-bios gpu=NVIDIA/M60/8192 hypervisor=xen nvme=unsupported workloads=graphics,ml-ai
    -dedicated -migration -tpm -transit
 xlarge 2x2 30.5 1-2 4x15 1.25-10 4 850:5000 40 -
g4ad cpu=AMD clock=3 boot=legacy-bios gpu=AMD/Radeon_Pro_V520/8192 workloads=graphics,ml-ai -dedicated -recovery
    -migration -tpm
 xlarge 2x2 16 2 2x4 2-10 4 400-3170:1700-13333 27 1x150
 2xlarge 4x2 32 2,4 2x4 4.167-10 8 800-3170:3400-13333 27 1x300
 4xlarge 8x2 64 2,4,8 3x10 8.333-10 8 1580-3170:6700-13333 27 1x600 dedicated
 8xlarge 16x2 128 2,4,8,16 4x15 15 8 3170:13333 27 1x1200 devices=2 dedicated
 16xlarge 32x2 256 2,4,8,16,32 8x30 25 8 6300:26667 27 2x1200 devices=4
g4dn cpu=Intel clock=2.5 gpu=NVIDIA/T4/16384 workloads=graphics,ml-ai enclaves -dedicated -recovery -migration
 xlarge 2x2 16 2 3x10 5-25 8 950-3500:3000-20000 25 1x125
 2xlarge 4x2 32 2,4 3x10 10-25 8 1150-3500:6000-20000 25 1x225
 4xlarge 8x2 64 2-8/2 3x10 20-25 32 4750:20000 25 1x225
 8xlarge 16x2 128 2-16/2 4x15 50 32 9500:40000 25 1x900 efa=1
 12xlarge 24x2 192 2-24/2 8x30 50 32 9500:40000 22 1x900 devices=4 efa=1 dedicated
 16xlarge 32x2 256 2-32/2 4x15 50 32 9500:40000 25 1x900 efa=1
 metal 48x2 384 - 15x50 100 32 19000:80000 31 2x900 devices=8 efa=1 dedicated
g5 cpu=AMD clock=3.3 efa=1 gpu=NVIDIA/A10G/22888 workloads=graphics,ml-ai enclaves -current -dedicated -recovery
    -migration
 xlarge 2x2 16 - 4x15 2.5-10 8 700-3500:3000-15000 25 1x250 efa=none
 2xlarge 4x2 32 - 4x15 5-10 8 850-3500:3500-15000 25 1x450 efa=none
 4xlarge 8x2 64 - 8x30 10-25 32 4750:20000 25 1x600 efa=none
 8xlarge 16x2 128 - 8x30 25 32 16000:65000 25 1x900
 12xlarge 24x2 192 - 15x50 40 32 16000:65000 22 1x3800 devices=4
 16xlarge 32x2 256 - 8x30 25 32 16000:65000 25 1x1900
 24xlarge 48x2 384 - 15x50 50 32 19000:80000 22 1x3800 devices=4 dedicated
 48xlarge 96x2 768 - 7x50 100 32 19000:80000 9 2x3800 devices=8 dedicated
g5g cpu=AWS clock=2.5 arch=arm64 boot=uefi gpu=NVIDIA/T4g/16384 workloads=graphics,ml-ai -dedicated -tpm -transit
 xlarge 4x1 8 1-4 4x15 1.25-10 8 1188-4750:6000-20000 26 -
 2xlarge 8x1 16 1-8 4x15 2.5-10 8 2375-4750:12000-20000 26 -
 4xlarge 16x1 32 1-16 8x30 5-10 8 4750:20000 26 -
 8xlarge 32x1 64 1-32 8x30 12 8 9500:40000 26 -
 16xlarge 64x1 128 1-64 15x50 25 8 19000:80000 25 - devices=2 dedicated
 metal 64x1 128 - 15x50 25 8 19000:80000 31 - devices=2 dedicated -recovery
g6 cpu=AMD clock=3.4 efa=1 gpu=NVIDIA/L4/22888 workloads=graphics,ml-ai enclaves own-ebs-slots -dedicated -recovery
    -migration
 xlarge 2x2 16 1-2 4x15 2.5-10 4 1000-5000:4000-20000 32 1x250 efa=none
 2xlarge 4x2 32 1-4 4x15 5-10 8 2000-5000:8000-20000 32 1x450 efa=none
 4xlarge 8x2 64 1-8 8x30 10-25 8 8000:32000 32 1x600 efa=none
 8xlarge 16x2 128 1-2,4-16/2 8x30 25 8 16000:64000 32 2x450
 12xlarge 24x2 192 1-3,6-24/3 8x30 40 8 20000:80000 32 4x940 devices=4
 16xlarge 32x2 256 1-4,8-32/4 15x50 25 8 20000:80000 48 2x940
 24xlarge 48x2 384 1-6,12-48/6 15x50 50 16 30000:120000 64 4x940 devices=4 dedicated
 48xlarge 96x2 768 4-12/2,24-96/12 15x50 100 16 60000:240000 128 8x940 devices=8 dedicated ena-express
g6e cpu=AMD clock=3.4 gpu=NVIDIA/L40S/45776 workloads=graphics,ml-ai enclaves own-ebs-slots -dedicated -recovery
    -migration
 xlarge 2x2 32 1-2 4x15 2.5-20 4 1000-5000:4000-20000 32 1x250
 2xlarge 4x2 64 1-4 4x15 5-20 8 2000-5000:8000-20000 32 1x450
 4xlarge 8x2 128 1-8 8x30 20 8 8000:32000 32 1x600
 8xlarge 16x2 256 2-16/2 8x30 25 8 16000:64000 32 2x450 efa=1
 12xlarge 24x2 384 3-24/3 10x30 100 32 20000:80000 32 2x1900 devices=4 efa=1 ena-express
 16xlarge 32x2 512 4-32/4 15x50 35 8 20000:80000 48 2x950 efa=1
 24xlarge 48x2 768 6-48/6 2*10x50 2*200 32 30000:120000 64 2x1900 devices=4 efa=2 perf=200_Gigabit dedicated ena-express
 48xlarge 96x2 1536 12-96/12 4*10x50 4*400 32 60000:240000 128 4x1900 devices=8 efa=4 perf=400_Gigabit dedicated
    ena-express
g6f cpu=AMD clock=3.4 devices=0.125 gpu=NVIDIA/L4/2861 workloads=graphics,ml-ai enclaves own-ebs-slots -dedicated
    -recovery -migration
 large 1x2 8 1 2x10 1.5-10 2 936-5000:3750-20000 32 1x100 -enclaves
 xlarge 2x2 16 1-2 4x15 2.5-10 4 1000-5000:4000-20000 32 1x100
 2xlarge 4x2 32 1-4 4x15 5-10 8 2000-5000:8000-20000 32 1x200 devices=0.25 gpu=NVIDIA/L4/5722
 4xlarge 8x2 64 1-8 8x30 10-25 8 6000:24000 32 1x450 devices=0.5 gpu=NVIDIA/L4/11444
g7 cpu=Intel clock=3.9 efa=1 gpu=NVIDIA/RTX_PRO_4500/32768 tcp=350 workloads=graphics,ml-ai enclaves flexible-queues
    own-ebs-slots -dedicated -recovery -migration
 2xlarge 8x1 32 1-8 4x64 40-60 8/8/32 4000-8000:16000-32000 32 1x440 efa=none
 4xlarge 16x1 64 1-16 8x64 80-100 8/16/64 8000:32000 32 1x875 efa=none
 8xlarge 32x1 128 1-32 10x64 100 8/32/80 16000:64000 32 1x930
 12xlarge 48x1 192 1-48 12x64 175 16/64/192 20000:80000 32 1x1900 devices=2 dedicated
 24xlarge 96x1 384 1-96 24x64 350 16/128/384 40000:160000 64 1x3800 devices=4 dedicated ena-express
 48xlarge 192x1 768 4-192/2 2*12x64 2*350 32/128/384 80000:320000 128 2x3800 devices=8 ebs-cards=2 efa=2 dedicated
    ena-express
g7e cpu=Intel clock=2.4 gpu=NVIDIA/RTX_PRO_Server_6000/98304 tcp=350 workloads=graphics,ml-ai enclaves own-ebs-slots
    -dedicated -recovery -migration
 2xlarge 4x2 64 1-4 4x64 50 8 2000-5000:8000-20000 32 1x1900
 4xlarge 8x2 128 1-8 8x64 50 16 8000:32000 32 1x1900
 8xlarge 16x2 256 1-16 8x64 100 32 16000:64000 32 1x1900 efa=1
 12xlarge 24x2 512 1-24 10x64 400 32 25000:100000 32 1x3800 devices=2 efa=1 dedicated ena-express
 24xlarge 48x2 1024 1-48 2*10x64 2*400 32 50000:200000 64 2x3800 devices=4 efa=2 dedicated ena-express
 48xlarge 96x2 2048 4-96/2 4*10x64 4*400 32 100000:400000 128 4x3800 devices=8 efa=4 dedicated ena-express
gr6 cpu=AMD clock=3.4 gpu=NVIDIA/L4/22888 workloads=graphics,ml-ai enclaves own-ebs-slots -dedicated -recovery
    -migration
 4xlarge 8x2 128 1-8 8x30 10-25 8 8000:32000 32 1x600
 8xlarge 16x2 256 1-2,4-16/2 8x30 25 8 16000:64000 32 2x450 efa=1
gr6f cpu=AMD clock=3.4 devices=0.5 gpu=NVIDIA/L4/11444 workloads=graphics,ml-ai enclaves own-ebs-slots -dedicated
    -recovery -migration
 4xlarge 8x2 128 1-8 8x30 10-25 8 8000:32000 32 1x450
h1 cpu=Intel clock=2.3 boot=legacy-bios disk=hdd disk-nvme=unsupported ena=supported hypervisor=xen nvme=unsupported
    -recovery -migration -tpm -transit
 2xlarge 4x2 32 1-4 4x15 2.5-10 8 1750:12000 40 1x2000
 4xlarge 8x2 64 1-8 8x30 5-10 8 3500:20000 40 2x2000
 8xlarge 16x2 128 1-16 8x30 12 8 7000:40000 40 4x2000 perf=10_Gigabit
 16xlarge 32x2 256 2-32/2 8x50 25 8 14000:80000 40 8x2000
hpc6a cpu=AMD clock=3.6 efa=1 usage=on-demand -dedicated
 48xlarge 96x1 384 - 2x50 100 8 87-2085:500-11000 27 -
hpc6id cpu=Intel clock=3.5 efa=2 usage=on-demand -dedicated -recovery -migration
 32xlarge 64x1 1024 4-64/2 2*1x50 2*200 8 87-2085:500-11000 23 4x3800 card-perf=Up_to_170_Gigabit perf=200_Gigabit
hpc7a cpu=AMD clock=3.7 efa=2 usage=on-demand phc own-ebs-slots -dedicated -tpm
 12xlarge 24x1 768 - 2*2x50 2*150 16 87-2085:500-11000 27 -
 24xlarge 48x1 768 - 2*2x50 2*150 16 87-2085:500-11000 27 -
 48xlarge 96x1 768 - 2*2x50 2*150 16 87-2085:500-11000 27 -
 96xlarge 192x1 768 - 2*2x50 2*150 16 87-2085:500-11000 27 -
hpc7g cpu=AWS clock=2.6 arch=arm64 boot=uefi efa=1 usage=on-demand -dedicated -tpm
 4xlarge 16x1 128 - 4x50 200 16 87-2085:500-11000 27 -
 8xlarge 32x1 128 - 4x50 200 32 87-2085:500-11000 27 -
 16xlarge 64x1 128 - 4x50 200 32 87-2085:500-11000 27 -
hpc8a cpu=AMD clock=4.5 efa=2 tcp=350 usage=on-demand flexible-queues own-ebs-slots -dedicated -migration
 96xlarge 192x1 768 24-192/24 2*2x50 2*300 32/128/256 87-2085:500-11000 27 - perf=300_Gigabit
i2 cpu=Intel clock=2.5 boot=legacy-bios disk-encryption=unsupported disk-nvme=unsupported ebs=supported ena=unsupported
    hypervisor=xen nvme=unsupported root=ebs,instance-store -current -recovery -migration -tpm -transit
 xlarge 2x2 30.5 1-2 4x15 0.7-2.8 8 500:4000 40 1x800 perf=Moderate
 2xlarge 4x2 61 1-4 4x15 1-10 8 1000:8000 40 2x800 perf=High
 4xlarge 8x2 122 1-8 8x30 2-10 8 2000:16000 40 4x800 perf=High
 8xlarge 16x2 244 2-16/2 8x30 10 8 - 40 8x800 ebs=unsupported
i3 cpu=Intel clock=2.3 boot=legacy-bios ena=supported hypervisor=xen nvme=supported hibernation -recovery -migration
    -tpm -transit
 large 1x2 15.25 1 3x10 0.75-10 8 425:3000 40 1x475
 xlarge 2x2 30.5 1-2 4x15 1.25-10 8 850:6000 40 1x950
 2xlarge 4x2 61 1-4 4x15 2.5-10 8 1700:12000 40 1x1900
 4xlarge 8x2 122 1-8 8x30 5-10 8 3500:16000 40 2x1900
 8xlarge 16x2 244 1-16 8x30 12 8 7000:32500 40 4x1900 perf=10_Gigabit -hibernation
 16xlarge 32x2 488 2-32/2 15x50 25 8 14000:65000 40 8x1900 -hibernation
 metal 36x2 512 - 15x50 25 8 19000:80000 27 8x1900 ena=required nvme=required
i3en cpu=Intel clock=3.1 hibernation enclaves -recovery -migration
 large 1x2 16 1 3x10 2.1-25 8 576.8-4750:3000-20000 26 1x1250 -enclaves
 xlarge 2x2 32 1-2 4x15 4.2-25 8 1153.6-4750:6000-20000 26 1x2500
 2xlarge 4x2 64 2,4 4x15 8.4-25 8 2307-4750:12000-20000 25 2x2500
 3xlarge 6x2 96 2-6/2 4x15 12.5-25 32 3800-4750:15000-20000 26 1x7500
 6xlarge 12x2 192 2-12/2 8x30 25 32 4750:20000 25 2x7500 -hibernation
 12xlarge 24x2 384 2-24/2 8x30 50 32 9500:40000 23 4x7500 efa=1 -hibernation
 24xlarge 48x2 768 2-48/2 15x50 100 32 19000:80000 19 8x7500 efa=1 -hibernation
 metal 48x2 768 - 15x50 100 32 19000:80000 31 8x7500 efa=1
i4g cpu=AWS clock=2.5 arch=arm64 boot=uefi hibernation enclaves -recovery -migration -tpm
 large 2x1 16 1-2 3x10 0.781-10 2 625-10000:2500-40000 26 1x468
 xlarge 4x1 32 1-4 4x15 1.875-10 4 1250-10000:5000-40000 26 1x937
 2xlarge 8x1 64 1-8 4x15 4.687-12 8 2500-10000:10000-40000 26 1x1875
 4xlarge 16x1 128 1-16 8x30 9.375-25 8 5000-10000:20000-40000 26 1x3750 ena-express
 8xlarge 32x1 256 1-32 8x30 18.75 8 10000:40000 25 2x3750 -hibernation ena-express
 16xlarge 64x1 512 1-64 15x50 37.5 8 20000:80000 23 4x3750 efa=1 -hibernation ena-express
i4i cpu=Intel clock=3.5 enclaves ena-express -recovery -migration
 large 1x2 16 1 3x10 0.781-10 2 625-10000:2500-40000 26 1x468 -enclaves -ena-express
 xlarge 2x2 32 1-2 4x15 1.875-10 4 1250-10000:5000-40000 26 1x937 -ena-express
 2xlarge 4x2 64 1-4 4x15 4.687-12 8 2500-10000:10000-40000 26 1x1875 -ena-express
 4xlarge 8x2 128 1-8 8x30 9.375-25 8 5000-10000:20000-40000 26 1x3750 -ena-express
 8xlarge 16x2 256 1-16 8x30 18.75 8 10000:40000 25 2x3750
 12xlarge 24x2 384 1-24 8x30 28.125 8 15000:60000 24 3x3750 -dedicated
 16xlarge 32x2 512 2-32/2 15x50 37.5 8 20000:80000 23 4x3750
 24xlarge 48x2 768 2-48/2 15x30 56.25 8 30000:120000 21 6x3750 -dedicated
 32xlarge 64x2 1024 2-64/2 15x50 75 8 40000:160000 19 8x3750 efa=1
 metal 64x2 1024 - 15x50 75 8 40000:160000 31 8x3750 efa=1
i7i cpu=Intel clock=3.2 features=nested-virtualization enclaves phc own-ebs-slots -recovery -migration
 large 1x2 16 1 3x10 1.171-10 2 625-10000:2500-40000 32 1x468 hibernation -enclaves
 xlarge 2x2 32 1-2 4x15 2.343-10 4 1250-10000:5000-40000 32 1x937 hibernation
 2xlarge 4x2 64 1-4 4x15 4.687-12 8 2500-10000:10000-40000 32 1x1875 hibernation
 4xlarge 8x2 128 1-8 8x30 9.375-25 8 5000-10000:20000-40000 32 1x3750 hibernation
 8xlarge 16x2 256 1-16 8x30 25 8 10000:40000 32 2x3750 perf=Up_to_25_Gigabit
 12xlarge 24x2 384 1-24 8x30 28.125 8 15000:60000 32 3x3750 card-perf=Up_to_28.12_Gigabit perf=Up_to_28_Gigabit
    ena-express
 16xlarge 32x2 512 1-32 15x50 37.5 8 20000:80000 48 4x3750 perf=Up_to_37.5_Gigabit ena-express
 24xlarge 48x2 768 1-48 15x50 56.25 8 30000:120000 64 6x3750 efa=1 perf=Up_to_56.25_Gigabit ena-express
 48xlarge 96x2 1536 4-96/2 15x50 100 16 60000:240000 128 12x3750 efa=1 perf=Up_to_100_Gigabit ena-express
 metal-24xl 48x2 768 - 15x50 56.25 8 30000:120000 39 6x3750 perf=Up_to_56.25_Gigabit ena-express
 metal-48xl 96x2 1536 - 15x50 100 16 60000:240000 79 12x3750 efa=1 perf=Up_to_100_Gigabit ena-express
i7ie cpu=Intel clock=3.2 features=nested-virtualization enclaves phc ena-express own-ebs-slots -recovery -migration
 large 1x2 16 1 3x10 2.083-25 2 625-10000:2500-40000 32 1x1250 hibernation -enclaves -ena-express
 xlarge 2x2 32 1-2 4x15 4.166-25 4 1250-10000:5000-40000 32 1x2500 hibernation -ena-express
 2xlarge 4x2 64 1-4 4x15 8.333-25 8 2500-10000:10000-40000 32 2x2500 hibernation -ena-express
 3xlarge 6x2 96 1-6 4x15 12.5-25 8 3750-10000:15000-40000 32 1x7500 hibernation
 6xlarge 12x2 192 1-12 8x30 12.5-25 8 7500-10000:30000-40000 32 2x7500 card-perf=25_Gigabit
 12xlarge 24x2 384 1-24 8x50 25-50 16 15000:60000 32 4x7500
 18xlarge 36x2 576 1-36 15x50 37.5-75 16 22500:90000 48 6x7500
 24xlarge 48x2 768 1-48 15x50 50-100 16 30000:120000 64 8x7500
 48xlarge 96x2 1536 4-96/2 8+7x50 2*100 32 60000:240000 128 16x7500 efa=1/2
 metal-24xl 48x2 768 - 15x50 50-100 16 30000:120000 39 8x7500
 metal-48xl 96x2 1536 - 8+7x50 2*100 32 60000:240000 79 16x7500 efa=1/2
i8g cpu=AWS clock=2.8 arch=arm64 boot=uefi enclaves phc ena-express own-ebs-slots -recovery -migration
 large 2x1 16 1-2 3x10 1.172-10 2 625-10000:2500-40000 32 1x468 hibernation -ena-express
 xlarge 4x1 32 1-4 4x15 2.344-10 4 1250-10000:5000-40000 32 1x937 hibernation -ena-express
 2xlarge 8x1 64 1-8 4x15 4.688-12 8 2500-10000:10000-40000 32 1x1875 hibernation -ena-express
 4xlarge 16x1 128 1-16 8x30 9.375-25 8 5000-10000:20000-40000 32 1x3750 hibernation -ena-express
 8xlarge 32x1 256 1-32 8x30 25 8 10000:40000 32 2x3750 perf=Up_to_25_Gigabit
 12xlarge 48x1 384 1-48 8x30 28.125 8 15000:60000 32 3x3750 perf=Up_to_28.12_Gigabit
 16xlarge 64x1 512 1-64 15x50 37.5 8 20000:80000 48 4x3750 perf=Up_to_37.5_Gigabit
 24xlarge 96x1 768 1-96 15x50 56.25 16 30000:120000 64 6x3750 perf=Up_to_56.25_Gigabit
 48xlarge 192x1 1536 4-192/2 15x50 100 16 60000:240000 128 12x3750 efa=1 perf=Up_to_100_Gigabit
 metal-24xl 96x1 768 - 15x50 56.25 32 30000:120000 39 6x3750 perf=Up_to_56.25_Gigabit own-ebs-slots
 metal-48xl 192x1 1536 - 15x50 100 32 60000:240000 79 12x3750 efa=1 perf=Up_to_100_Gigabit
i8ge cpu=AWS clock=2.8 arch=arm64 boot=uefi tcp=350 enclaves phc ena-express flexible-queues own-ebs-slots -recovery
    -migration
 large 2x1 16 1-2 3x10 2.1-25 2/2/6 625-10000:2500-40000 32 1x1250 hibernation -ena-express
 xlarge 4x1 32 1-4 4x15 4.2-25 4/4/16 1250-10000:5000-40000 32 1x2500 hibernation -ena-express
 2xlarge 8x1 64 1-8 4x15 8.4-25 8/8/32 2500-10000:10000-40000 32 2x2500 hibernation -ena-express
 3xlarge 12x1 96 1-12 6x30 12.5-25 8/16/48 3750-10000:15000-40000 32 1x7500 hibernation -ena-express
 6xlarge 24x1 192 1-24 10x30 37.5 8/32/96 7500-10000:30000-40000 32 2x7500 card-perf=Up_to_37.5_Gigabit
 12xlarge 48x1 384 1-48 12x30 75 16/64/192 15000:60000 32 4x7500 card-perf=Up_to_75_Gigabit
 18xlarge 72x1 576 1-72 16x50 112.5 16/128/288 22500:90000 48 6x7500 card-perf=Up_to_112.5_Gigabit
 24xlarge 96x1 768 1-96 16x50 150 16/128/384 30000:120000 64 8x7500 card-perf=Up_to_150_Gigabit
 48xlarge 192x1 1536 4-192/2 2*12x50 2*300 32/128/768 60000:240000 128 16x7500 card-perf=Up_to_300_Gigabit clock=2.7
    efa=1/2 perf=300_Gigabit
 metal-24xl 96x1 768 - 16x50 150 16/128/384 30000:120000 39 8x7500 card-perf=Up_to_150_Gigabit -flexible-queues
 metal-48xl 192x1 1536 - 2*12x50 2*300 32/128/768 60000:240000 79 16x7500 card-perf=Up_to_300_Gigabit clock=2.7 efa=1/2
    perf=300_Gigabit -flexible-queues
im4gn cpu=AWS clock=2.5 arch=arm64 boot=uefi hibernation -recovery -migration
 large 2x1 8 1-2 3x10 3.125-25 2 1250-10000:5000-40000 26 1x937
 xlarge 4x1 16 1-4 4x15 6.25-25 4 2500-10000:10000-40000 26 1x1875
 2xlarge 8x1 32 1-8 4x15 12.5-25 8 5000-10000:20000-40000 26 1x3750
 4xlarge 16x1 64 1-16 8x30 25 16 10000:40000 26 1x7500 ena-express
 8xlarge 32x1 128 1-32 8x30 50 32 20000:80000 25 2x7500 ena-express
 16xlarge 64x1 256 1-64 15x50 100 32 40000:160000 23 4x7500 efa=1 -hibernation ena-express
inf1 cpu=Intel clock=2.5 inference=AWS/Inferentia/8192 neuron=Inferentia/4v1/8192 enclaves -dedicated
 xlarge 2x2 8 2 4x10 5-25 32 1190-4750:4000-20000 26 -
 2xlarge 4x2 16 2,4 4x10 5-25 32 1190-4750:6000-20000 26 -
 6xlarge 12x2 48 2-12/2 8x30 25 32 4750:20000 23 - devices=4 dedicated
 24xlarge 48x2 192 2-48/2 11x30 100 32 19000:80000 11 - devices=16 efa=1 dedicated
inf2 cpu=AMD clock=3.6 inference=AWS/Inferentia2/32768 neuron=Inferentia2/2v2/32768 enclaves -dedicated -recovery
 xlarge 2x2 16 1-2 4x15 2.083-15 4 1250-10000:6000-40000 26 -
 8xlarge 16x2 128 4-16/2 8x30 16.667-25 8 10000:40000 26 -
 24xlarge 48x2 384 4-16/2,32,48 15x50 50 16 30000:120000 28 - devices=6 dedicated
 48xlarge 96x2 768 4-32/4,64,96 15x50 100 16 60000:240000 28 - devices=12 dedicated
is4gen cpu=AWS clock=2.5 arch=arm64 boot=uefi hibernation -dedicated -recovery -migration -tpm
 medium 1x1 6 1 2x4 1.562-25 1 625-10000:2500-40000 26 1x937
 large 2x1 12 1-2 3x10 3.125-25 2 1250-10000:5000-40000 26 1x1875
 xlarge 4x1 24 1-4 4x15 6.25-25 4 2500-10000:10000-40000 26 1x3750
 2xlarge 8x1 48 1-8 4x15 12.5-25 8 5000-10000:20000-40000 26 1x7500
 4xlarge 16x1 96 1-16 8x30 25 16 10000:40000 25 2x7500
 8xlarge 32x1 192 1-32 8x30 50 32 20000:80000 23 4x7500 -hibernation
m1 cpu=Intel arch=i386,x86_64 boot=legacy-bios disk=hdd disk-encryption=unsupported disk-nvme=unsupported
    ebs=unsupported ena=unsupported hypervisor=xen ipv6=0 nvme=unsupported placement=partition,spread
    root=ebs,instance-store virt=hvm,paravirtual -current -dedicated -recovery -migration -tpm -transit
 small 1x1 1740M - 2x4 0.3-1.2 1 - 39 1x160 perf=Low
 medium 1x1 3788M - 2x6 0.3-1.2 1 - 39 1x410 perf=Moderate
 large 2x1 7.5 - 3x10 0.7-2.8 2 500:4000 39 2x420 arch=x86_64 ebs=supported perf=Moderate
 xlarge 4x1 15 - 4x15 1-10 4 1000:8000 39 4x420 arch=x86_64 ebs=supported perf=High
m2 cpu=Intel boot=legacy-bios disk=hdd disk-encryption=unsupported disk-nvme=unsupported ebs=supported ena=unsupported
    hypervisor=xen ipv6=0 nvme=unsupported placement=partition,spread root=ebs,instance-store virt=hvm,paravirtual
    -current -dedicated -recovery -migration -tpm -transit
 xlarge 2x1 17510M 1-2 4x15 0.3-1.2 1 - 39 1x420 ebs=unsupported perf=Moderate
 2xlarge 4x1 35020M 1-4 4x30 0.7-2.8 1 500:4000 39 1x850 perf=Moderate
 4xlarge 8x1 70041M 1-8 8x30 1-10 1 1000:8000 39 2x840 perf=High
m3 cpu=Intel clock=2.5 boot=legacy-bios disk-encryption=unsupported disk-nvme=unsupported ebs=unsupported
    ena=unsupported hypervisor=xen ipv6=0 nvme=unsupported placement=partition,spread root=ebs,instance-store
    virt=hvm,paravirtual hibernation -current -migration -tpm -transit
 medium 1x1 3.75 - 2x6 0.3-1.2 1 - 39 1x4 perf=Moderate
 large 1x2 7.5 1 3x10 0.7-2.8 2 - 39 1x32 perf=Moderate
 xlarge 2x2 15 1-2 4x15 1-10 4 500:4000 39 2x40 ebs=supported perf=High
 2xlarge 4x2 30 1-4 4x30 1-10 8 1000:8000 39 2x80 ebs=supported perf=High
m4 cpu=Intel clock=2.4 boot=legacy-bios ena=unsupported hypervisor=xen nvme=unsupported hibernation -current -tpm
    -transit
 large 1x2 8 1 2x10 0.45-1.2 8 450:3600 40 - perf=Moderate
 xlarge 2x2 16 1-2 4x15 0.75-2.8 8 750:6000 40 - perf=High
 2xlarge 4x2 32 1-4 4x15 1-10 8 1000:8000 40 - perf=High
 4xlarge 8x2 64 1-8 8x30 2-10 8 2000:16000 40 - perf=High
 10xlarge 20x2 160 2-20/2 8x30 10 8 4000:32000 40 - -hibernation
 16xlarge 32x2 256 2-32/2 8x30 25 8 10000:65000 40 - clock=2.3 ena=supported -dedicated -hibernation
m5 cpu=Intel clock=3.1 hibernation enclaves -current -transit
 large 1x2 8 1 3x10 0.75-10 8 650-4750:3600-18750 27 - -enclaves
 xlarge 2x2 16 2 4x15 1.25-10 8 1150-4750:6000-18750 27 -
 2xlarge 4x2 32 2,4 4x15 2.5-10 8 2300-4750:12000-18750 27 -
 4xlarge 8x2 64 2-8/2 8x30 5-10 8 4750:18750 27 -
 8xlarge 16x2 128 2-16/2 8x30 10 8 6800:30000 27 -
 12xlarge 24x2 192 2-24/2 8x30 12 8 9500:40000 27 - -hibernation
 16xlarge 32x2 256 2-32/2 15x50 20 8 13600:60000 27 - -hibernation
 24xlarge 48x2 384 4-48/2 15x50 25 8 19000:80000 27 - -hibernation
 metal 48x2 384 - 15x50 25 8 19000:80000 31 -
m5a cpu=AMD clock=2.5 hibernation enclaves -dedicated -transit
 large 1x2 8 1 3x10 0.75-10 8 650-2880:3600-16000 27 - -enclaves
 xlarge 2x2 16 2 4x15 1.25-10 8 1085-2880:6000-16000 27 -
 2xlarge 4x2 32 2,4 4x15 2.5-10 8 1580-2880:8333-16000 27 -
 4xlarge 8x2 64 2-8/2 8x30 5-10 8 2880:16000 27 -
 8xlarge 16x2 128 4-16/2 8x30 7.5-10 8 4750:20000 27 -
 12xlarge 24x2 192 6-24/6 8x30 10 8 6780:30000 27 - -hibernation
 16xlarge 32x2 256 8-32/2 15x50 12 8 9500:40000 27 - -hibernation
 24xlarge 48x2 384 12-24/6,36,48 15x50 20 8 13750:60000 27 - -hibernation
m5ad cpu=AMD clock=2.2 hibernation enclaves -dedicated -recovery -migration -transit
 large 1x2 8 1 3x10 0.75-10 8 650-2880:3600-16000 26 1x75 -enclaves
 xlarge 2x2 16 2 4x15 1.25-10 8 1085-2880:6000-16000 26 1x150
 2xlarge 4x2 32 2,4 4x15 2.5-10 8 1580-2880:8333-16000 26 1x300
 4xlarge 8x2 64 2-8/2 8x30 5-10 8 2880:16000 25 2x300
 8xlarge 16x2 128 4-16/2 8x30 7.5-10 8 4750:20000 25 2x600 clock=2.5
 12xlarge 24x2 192 6-24/6 8x30 10 8 6780:30000 25 2x900 -hibernation
 16xlarge 32x2 256 8-32/2 15x50 12 8 9500:40000 23 4x600 clock=2.5 -hibernation
 24xlarge 48x2 384 12-24/6,36,48 15x50 20 8 13750:60000 23 4x900 -hibernation
m5d cpu=Intel clock=3.1 hibernation enclaves -recovery -migration -transit
 large 1x2 8 1 3x10 0.75-10 8 650-4750:3600-18750 26 1x75 -enclaves
 xlarge 2x2 16 2 4x15 1.25-10 8 1150-4750:6000-18750 26 1x150
 2xlarge 4x2 32 2,4 4x15 2.5-10 8 2300-4750:12000-18750 26 1x300
 4xlarge 8x2 64 2-8/2 8x30 5-10 8 4750:18750 25 2x300
 8xlarge 16x2 128 2-16/2 8x30 10 8 6800:30000 25 2x600
 12xlarge 24x2 192 2-24/2 8x30 12 8 9500:40000 25 2x900 -hibernation
 16xlarge 32x2 256 2-32/2 15x50 20 8 13600:60000 23 4x600 -hibernation
 24xlarge 48x2 384 4-48/2 15x50 25 8 19000:80000 23 4x900 -hibernation
 metal 48x2 384 - 15x50 25 8 19000:80000 31 4x900
m5dn cpu=Intel clock=3.1 enclaves -recovery -migration
 large 1x2 8 1 3x10 2.1-25 8 650-4750:3600-18750 26 1x75 -enclaves
 xlarge 2x2 16 1-2 4x15 4.1-25 8 1150-4750:6000-18750 26 1x150
 2xlarge 4x2 32 2,4 4x15 8.125-25 8 2300-4750:12000-18750 26 1x300
 4xlarge 8x2 64 2-8/2 8x30 16.25-25 32 4750:18750 25 2x300
 8xlarge 16x2 128 2-16/2 8x30 25 32 6800:30000 25 2x600
 12xlarge 24x2 192 2-24/2 8x30 50 32 9500:40000 25 2x900
 16xlarge 32x2 256 2-32/2 15x50 75 32 13600:60000 23 4x600
 24xlarge 48x2 384 2-48/2 15x50 100 32 19000:80000 23 4x900 efa=1
 metal 48x2 384 - 15x50 100 32 19000:80000 31 4x900 efa=1
m5n cpu=Intel clock=3.1 enclaves
 large 1x2 8 1 3x10 2.1-25 8 650-4750:3600-18750 27 - -enclaves
 xlarge 2x2 16 1-2 4x15 4.1-25 8 1150-4750:6000-18750 27 -
 2xlarge 4x2 32 2,4 4x15 8.125-25 8 2300-4750:12000-18750 27 -
 4xlarge 8x2 64 2-8/2 8x30 16.25-25 32 4750:18750 27 -
 8xlarge 16x2 128 2-16/2 8x30 25 32 6800:30000 27 -
 12xlarge 24x2 192 2-24/2 8x30 50 32 9500:40000 27 -
 16xlarge 32x2 256 2-32/2 15x50 75 32 13600:60000 27 -
 24xlarge 48x2 384 2-48/2 15x50 100 32 19000:80000 27 - efa=1
 metal 48x2 384 - 15x50 100 32 19000:80000 31 - efa=1
m5zn cpu=Intel clock=4.5 enclaves
 large 1x2 8 1 3x10 3-25 8 800-3170:3333-13333 27 - -enclaves
 xlarge 2x2 16 1-2 4x15 5-25 8 1564-3170:6667-13333 27 -
 2xlarge 4x2 32 2,4 4x15 10-25 8 3170:13333 27 -
 3xlarge 6x2 48 2-6/2 8x30 15-25 32 4750:20000 27 -
 6xlarge 12x2 96 2-12/2 8x30 50 32 9500:40000 27 -
 12xlarge 24x2 192 2-24/2 15x50 100 32 19000:80000 27 - efa=1
 metal 24x2 192 - 15x50 100 32 19000:80000 31 - efa=1
m6a cpu=AMD clock=3.6 features=amd-sev-snp hibernation enclaves
 large 1x2 8 1 3x10 0.781-12.5 2 650-10000:3600-40000 27 - -enclaves
 xlarge 2x2 16 1-2 4x15 1.562-12.5 4 1250-10000:6000-40000 27 -
 2xlarge 4x2 32 1-4 4x15 3.125-12.5 8 2500-10000:12000-40000 27 -
 4xlarge 8x2 64 1-8 8x30 6.25-12.5 8 5000-10000:20000-40000 27 -
 8xlarge 16x2 128 4-16/2 8x30 12.5 8 10000:40000 27 -
 12xlarge 24x2 192 1-8,16,24 8x30 18.75 8 15000:60000 27 - features=none -hibernation ena-express
 16xlarge 32x2 256 4-16/2,32 15x50 25 8 20000:80000 27 - features=none -hibernation ena-express
 24xlarge 48x2 384 4-16/2,32,48 15x50 37.5 8 30000:120000 27 - features=none -hibernation ena-express
 32xlarge 64x2 512 8-32/4,64 15x50 50 8 40000:160000 27 - features=none -hibernation ena-express
 48xlarge 96x2 768 8-32/4,64,96 15x50 50 8 40000:240000 27 - efa=1 features=none -hibernation ena-express
 metal 96x2 768 - 15x50 50 8 40000:240000 31 - efa=1 ena-express
m6g cpu=AWS clock=2.5 arch=arm64 boot=uefi hibernation enclaves -transit
 medium 1x1 4 - 2x4 0.5-10 8 315-4750:2500-20000 27 - -enclaves
 large 2x1 8 1-2 3x10 0.75-10 8 630-4750:3600-20000 27 -
 xlarge 4x1 16 1-4 4x15 1.25-10 8 1188-4750:6000-20000 27 -
 2xlarge 8x1 32 1-8 4x15 2.5-10 8 2375-4750:12000-20000 27 -
 4xlarge 16x1 64 1-16 8x30 5-10 8 4750:20000 27 -
 8xlarge 32x1 128 1-32 8x30 12 8 9500:40000 27 -
 12xlarge 48x1 192 1-48 8x30 20 8 14250:50000 27 - -hibernation
 16xlarge 64x1 256 1-64 15x50 25 8 19000:80000 27 - -hibernation
 metal 64x1 256 - 15x50 25 8 19000:80000 31 -
m6gd cpu=AWS clock=2.5 arch=arm64 boot=uefi hibernation enclaves -recovery -migration -transit
 medium 1x1 4 - 2x4 0.5-10 8 315-4750:2500-20000 26 1x59 -enclaves
 large 2x1 8 1-2 3x10 0.75-10 8 630-4750:3600-20000 26 1x118
 xlarge 4x1 16 1-4 4x15 1.25-10 8 1188-4750:6000-20000 26 1x237
 2xlarge 8x1 32 1-8 4x15 2.5-10 8 2375-4750:12000-20000 26 1x474
 4xlarge 16x1 64 1-16 8x30 5-10 8 4750:20000 26 1x950
 8xlarge 32x1 128 1-32 8x30 12 8 9500:40000 26 1x1900
 12xlarge 48x1 192 1-48 8x30 20 8 14250:50000 25 2x1425 -hibernation
 16xlarge 64x1 256 1-64 15x50 25 8 19000:80000 25 2x1900 -hibernation
 metal 64x1 256 - 15x50 25 8 19000:80000 31 2x1900
m6i cpu=Intel clock=3.5 hibernation enclaves ena-express flexible-queues -current
 large 1x2 8 1 3x10 0.781-12.5 2/2/6 650-10000:3600-40000 27 - -enclaves -ena-express
 xlarge 2x2 16 1-2 4x15 1.562-12.5 4/4/16 1250-10000:6000-40000 27 - -ena-express
 2xlarge 4x2 32 2,4 4x15 3.125-12.5 8/8/32 2500-10000:12000-40000 27 - -ena-express
 4xlarge 8x2 64 2-8/2 8x30 6.25-12.5 8/16/64 5000-10000:20000-40000 27 - -ena-express
 8xlarge 16x2 128 2-16/2 8x30 12.5 8/32/64 10000:40000 27 -
 12xlarge 24x2 192 2-24/2 8x30 18.75 8/32/64 15000:60000 27 - -hibernation
 16xlarge 32x2 256 2-32/2 15x50 25 8/32/120 20000:80000 27 - -hibernation
 24xlarge 48x2 384 2-48/2 15x50 37.5 8/32/120 30000:120000 27 - -hibernation
 32xlarge 64x2 512 2-64/2 15x50 50 8/32/120 40000:160000 27 - efa=1 -hibernation
 metal 64x2 512 - 15x50 50 8/32 40000:160000 31 - efa=1 -flexible-queues
m6id cpu=Intel clock=3.5 hibernation enclaves ena-express flexible-queues -recovery -migration
 large 1x2 8 1 3x10 0.781-12.5 2/2/6 650-10000:3600-40000 26 1x118 -enclaves -ena-express
 xlarge 2x2 16 1-2 4x15 1.562-12.5 4/4/16 1250-10000:6000-40000 26 1x237 -ena-express
 2xlarge 4x2 32 2,4 4x15 3.125-12.5 8/8/32 2500-10000:12000-40000 26 1x474 -ena-express
 4xlarge 8x2 64 2-8/2 8x30 6.25-12.5 8/16/64 5000-10000:20000-40000 26 1x950 -ena-express
 8xlarge 16x2 128 2-16/2 8x30 12.5 8/32/64 10000:40000 26 1x1900
 12xlarge 24x2 192 2-24/2 8x30 18.75 8/32/64 15000:60000 25 2x1425 -hibernation
 16xlarge 32x2 256 2-32/2 15x50 25 8/32/120 20000:80000 25 2x1900 -hibernation
 24xlarge 48x2 384 2-48/2 15x50 37.5 8/32/120 30000:120000 23 4x1425 -hibernation
 32xlarge 64x2 512 2-64/2 15x50 50 8/32/120 40000:160000 23 4x1900 efa=1 -hibernation
 metal 64x2 512 - 15x50 50 8/32 40000:160000 31 4x1900 efa=1 -flexible-queues
m6idn cpu=Intel clock=3.5 hibernation enclaves ena-express flexible-queues -recovery -migration
 large 1x2 8 1 3x10 3.125-25 2/2/6 1562.5-25000:6250-100000 26 1x118 -enclaves -ena-express
 xlarge 2x2 16 1-2 4x15 6.25-30 4/4/16 3125-25000:12500-100000 26 1x237 -ena-express
 2xlarge 4x2 32 1-4 4x15 12.5-40 8/8/32 6250-25000:25000-100000 26 1x474 -ena-express
 4xlarge 8x2 64 1-8 8x30 25-50 8/16/64 12500-25000:50000-100000 26 1x950 -ena-express
 8xlarge 16x2 128 1-16 8x30 50 16/32/128 25000:100000 26 1x1900
 12xlarge 24x2 192 1-24 8x30 75 16/32/128 37500:150000 25 2x1425 -hibernation
 16xlarge 32x2 256 1-32 15x50 100 16/32/240 50000:200000 25 2x1900 -hibernation
 24xlarge 48x2 384 4-48/2 15x50 150 32/32/480 75000:300000 23 4x1425 -hibernation
 32xlarge 64x2 512 4-64/2 2*8x50 2*200 32/32/256 100000:400000 23 4x1900 card-perf=Up_to_170_Gigabit efa=2
    perf=200_Gigabit -hibernation
 metal 64x2 512 - 2*8x50 2*200 32 100000:400000 31 4x1900 card-perf=Up_to_170_Gigabit efa=2 perf=200_Gigabit
    -flexible-queues
m6in cpu=Intel clock=3.5 hibernation enclaves ena-express flexible-queues
 large 1x2 8 1 3x10 3.125-25 2/2/6 1562.5-25000:6250-100000 27 - -enclaves -ena-express
 xlarge 2x2 16 1-2 4x15 6.25-30 4/4/16 3125-25000:12500-100000 27 - -ena-express
 2xlarge 4x2 32 1-4 4x15 12.5-40 8/8/32 6250-25000:25000-100000 27 - -ena-express
 4xlarge 8x2 64 1-8 8x30 25-50 8/16/64 12500-25000:50000-100000 27 - -ena-express
 8xlarge 16x2 128 1-16 8x30 50 16/32/128 25000:100000 27 - flexible=2
 12xlarge 24x2 192 1-24 8x30 75 16/32/128 37500:150000 27 - flexible=4 -hibernation
 16xlarge 32x2 256 1-32 15x50 100 16/32/240 50000:200000 27 - flexible=1 -hibernation
 24xlarge 48x2 384 4-48/2 15x50 150 32/32/480 75000:300000 27 - flexible=9 -hibernation
 32xlarge 64x2 512 4-64/2 2*8x50 2*200 32/32/256 100000:400000 27 - card-perf=Up_to_170_Gigabit efa=2 flexible=4
    perf=200_Gigabit -hibernation
 metal 64x2 512 - 2*8x50 2*200 32 100000:400000 31 - card-perf=Up_to_170_Gigabit efa=2 perf=200_Gigabit -flexible-queues
m7a cpu=AMD clock=3.7 hibernation enclaves phc own-ebs-slots
 medium 1x1 4 - 2x4 0.39-12.5 1 325-10000:2500-40000 32 - -enclaves
 large 2x1 8 1-2 3x10 0.781-12.5 2 650-10000:3600-40000 32 - -enclaves
 xlarge 4x1 16 1-4 4x15 1.562-12.5 4 1250-10000:6000-40000 32 -
 2xlarge 8x1 32 1-8 4x15 3.125-12.5 8 2500-10000:12000-40000 32 -
 4xlarge 16x1 64 1-2,4-16/2 8x30 6.25-12.5 8 5000-10000:20000-40000 32 -
 8xlarge 32x1 128 1-4,8-32/4 8x30 12.5 8 10000:40000 32 -
 12xlarge 48x1 192 1-6,12-48/6 8x30 18.75 8 15000:60000 32 - -hibernation ena-express
 16xlarge 64x1 256 1-8,16-64/8 15x50 25 8 20000:80000 48 - -hibernation ena-express
 24xlarge 96x1 384 1-12,24-96/12 15x50 37.5 8 30000:120000 64 - -hibernation ena-express
 32xlarge 128x1 512 4-16/2,32-128/16 15x50 50 16 40000:160000 88 - -hibernation ena-express
 48xlarge 192x1 768 4-24/2,48-192/24 15x50 50 16 40000:240000 128 - efa=1 -hibernation ena-express
 metal-48xl 192x1 768 - 15x50 50 16 40000:240000 79 - efa=1 ena-express own-ebs-slots
m7g cpu=AWS clock=2.6 arch=arm64 boot=uefi hibernation enclaves phc
 medium 1x1 4 - 2x4 0.52-12.5 1 315-10000:2500-40000 27 - -enclaves
 large 2x1 8 1-2 3x10 0.937-12.5 2 630-10000:3600-40000 27 -
 xlarge 4x1 16 1-4 4x15 1.876-12.5 4 1250-10000:6000-40000 27 -
 2xlarge 8x1 32 1-8 4x15 3.75-15 8 2500-10000:12000-40000 27 -
 4xlarge 16x1 64 1-16 8x30 7.5-15 8 5000-10000:20000-40000 27 -
 8xlarge 32x1 128 1-32 8x30 15 8 10000:40000 27 -
 12xlarge 48x1 192 1-48 8x30 22.5 8 15000:60000 27 - -hibernation ena-express
 16xlarge 64x1 256 1-64 15x50 30 8 20000:80000 27 - efa=1 -hibernation ena-express
 metal 64x1 256 - 15x50 30 8 20000:80000 31 - efa=1 ena-express
m7gd cpu=AWS clock=2.6 arch=arm64 boot=uefi hibernation enclaves phc -recovery -migration
 medium 1x1 4 - 2x4 0.52-12.5 1 315-10000:2500-40000 26 1x59 -enclaves
 large 2x1 8 1-2 3x10 0.937-12.5 2 630-10000:3600-40000 26 1x118
 xlarge 4x1 16 1-4 4x15 1.876-12.5 4 1250-10000:6000-40000 26 1x237
 2xlarge 8x1 32 1-8 4x15 3.75-15 8 2500-10000:12000-40000 26 1x474
 4xlarge 16x1 64 1-16 8x30 7.5-15 8 5000-10000:20000-40000 26 1x950
 8xlarge 32x1 128 1-32 8x30 15 8 10000:40000 26 1x1900
 12xlarge 48x1 192 1-48 8x30 22.5 8 15000:60000 25 2x1425 -hibernation ena-express
 16xlarge 64x1 256 1-64 15x50 30 8 20000:80000 25 2x1900 efa=1 -hibernation ena-express
 metal 64x1 256 - 15x50 30 8 20000:80000 31 2x1900 efa=1 ena-express
m7i cpu=Intel clock=3.2 features=nested-virtualization hibernation enclaves phc own-ebs-slots
 large 1x2 8 1 3x10 0.781-12.5 2 650-10000:3600-40000 32 - -enclaves
 xlarge 2x2 16 1-2 4x15 1.562-12.5 4 1250-10000:6000-40000 32 -
 2xlarge 4x2 32 1-4 4x15 3.125-12.5 8 2500-10000:12000-40000 32 -
 4xlarge 8x2 64 1-8 8x30 6.25-12.5 8 5000-10000:20000-40000 32 -
 8xlarge 16x2 128 1-16 8x30 12.5 8 10000:40000 32 -
 12xlarge 24x2 192 1-24 8x30 18.75 8 15000:60000 32 - -hibernation ena-express
 16xlarge 32x2 256 1-32 15x50 25 8 20000:80000 48 - -hibernation ena-express
 24xlarge 48x2 384 1-48 15x50 37.5 8 30000:120000 64 - -dedicated -hibernation ena-express
 48xlarge 96x2 768 4-96/2 15x50 50 16 40000:240000 128 - efa=1 -dedicated -hibernation ena-express
 metal-24xl 48x2 384 - 15x50 37.5 8 30000:120000 39 - -dedicated ena-express own-ebs-slots
 metal-48xl 96x2 768 - 15x50 50 16 40000:240000 79 - efa=1 ena-express own-ebs-slots
m7i-flex cpu=Intel clock=3.2 features=nested-virtualization placement=partition,spread hibernation phc own-ebs-slots
    -dedicated
 large 1x2 8 1 3x10 0.39-12.5 1 312.5-10000:2500-40000 32 - free-tier
 xlarge 2x2 16 1-2 4x15 0.781-12.5 2 625-10000:3600-40000 32 -
 2xlarge 4x2 32 1-4 4x15 1.562-12.5 4 1250-10000:6000-40000 32 -
 4xlarge 8x2 64 1-8 8x30 3.125-12.5 4 2500-10000:12000-40000 32 -
 8xlarge 16x2 128 1-16 8x30 6.25-12.5 4 5000-10000:20000-40000 32 -
 12xlarge 24x2 192 1-24 8x30 9.375-18.75 4 7500-15000:30000-60000 32 -
 16xlarge 32x2 256 1-32 15x50 12.5-25 4 10000-20000:40000-80000 48 -
m8a cpu=AMD clock=4.5 tcp=350 weighting=default,ebs-1,vpc-1 hibernation enclaves phc flexible-queues own-ebs-slots
 medium 1x1 4 1 2x4 0.52-12.5 1/1/3 325-10000:2500-40000 32 - -enclaves
 large 2x1 8 1-2 3x20 0.937-12.5 2/2/6 650-10000:3600-40000 32 -
 xlarge 4x1 16 1-4 4x20 1.875-12.5 4/4/16 1250-10000:6000-40000 32 -
 2xlarge 8x1 32 1-8 4x40 3.75-15 8/8/32 2500-10000:12000-40000 32 -
 4xlarge 16x1 64 1-2,4-16/2 8x40 7.5-15 8/16/64 5000-10000:20000-40000 32 -
 8xlarge 32x1 128 1-4,8-32/4 10x40 15 8/32/128 10000:40000 32 -
 12xlarge 48x1 192 1-6,12-48/6 12x64 22.5 16/64/192 15000:60000 32 - -hibernation
 16xlarge 64x1 256 1-8,16-64/8 16x64 30 16/64/256 20000:80000 48 - -hibernation ena-express
 24xlarge 96x1 384 1-12,24-96/12 16x64 40 16/128/384 30000:120000 64 - -hibernation ena-express
 48xlarge 192x1 768 4-24/2,48-192/24 24x64 75 32/128/768 60000:240000 128 - efa=1 -hibernation ena-express
 metal-24xl 96x1 384 - 16x64 40 16/128/384 30000:120000 64 - -migration ena-express own-ebs-slots
 metal-48xl 192x1 768 - 24x64 75 32/128/768 60000:240000 79 - efa=1 -migration ena-express
m8azn cpu=AMD clock=5 tcp=350 hibernation enclaves flexible-queues own-ebs-slots
 medium 1x1 4 1 3x4 2.08-25 1/1/3 625-15000:2500-60000 32 - -enclaves
 large 2x1 8 1-2 4x20 4.17-30 2/2/8 1250-15000:5000-60000 32 -
 xlarge 4x1 16 1-4 4x20 8.33-40 4/4/16 2500-15000:10000-60000 32 -
 3xlarge 12x1 48 1-2,4-12/2 8x40 25-50 4/16/48 7500-15000:30000-60000 32 -
 6xlarge 24x1 96 1-4,8-24/4 8x40 50 8/32/96 15000:60000 32 -
 12xlarge 48x1 192 1-8,16-48/8 16x64 100 8/64/192 30000:120000 64 - -hibernation ena-express
 24xlarge 96x1 384 4-16/2,32-96/16 16x64 200 16/128/384 60000:240000 128 - efa=1 -hibernation ena-express
 metal-12xl 48x1 192 - 16x64 100 8/64/192 30000:120000 64 - -migration ena-express own-ebs-slots
 metal-24xl 96x1 384 - 16x64 200 16/128/384 60000:240000 79 - efa=1 -migration ena-express own-ebs-slots
m8g cpu=AWS clock=2.8 arch=arm64 boot=uefi weighting=default,ebs-1,vpc-1 hibernation enclaves phc own-ebs-slots
 medium 1x1 4 - 2x4 0.52-12.5 1 315-10000:2500-40000 32 - -enclaves
 large 2x1 8 1-2 3x10 0.937-12.5 2 630-10000:3600-40000 32 -
 xlarge 4x1 16 1-4 4x15 1.875-12.5 4 1250-10000:6000-40000 32 -
 2xlarge 8x1 32 1-8 4x15 3.75-15 8 2500-10000:12000-40000 32 -
 4xlarge 16x1 64 1-16 8x30 7.5-15 8 5000-10000:20000-40000 32 -
 8xlarge 32x1 128 1-32 8x30 15 8 10000:40000 32 - ena-express
 12xlarge 48x1 192 1-48 8x30 22.5 8 15000:60000 32 - -hibernation ena-express
 16xlarge 64x1 256 1-64 15x50 30 8 20000:80000 48 - -hibernation ena-express
 24xlarge 96x1 384 1-96 15x50 40 8 30000:120000 64 - efa=1 -hibernation ena-express
 48xlarge 192x1 768 4-192/2 15x50 50 16 40000:240000 128 - clock=2.7 efa=1 -hibernation ena-express
 metal-24xl 96x1 384 - 15x50 40 32 30000:120000 39 - efa=1 ena-express own-ebs-slots
 metal-48xl 192x1 768 - 15x50 50 32 40000:240000 79 - clock=2.7 efa=1 ena-express own-ebs-slots
m8gb cpu=AWS clock=2.8 arch=arm64 boot=uefi tcp=350 hibernation enclaves ena-express flexible-queues own-ebs-slots
 medium 1x1 4 - 2x4 2.083-16.666 1/1/2 1562.5-25000:7500-120000 32 - -enclaves -ena-express
 large 2x1 8 1-2 3x10 4.166-20 2/2/6 3125-25000:15000-120000 32 - -ena-express
 xlarge 4x1 16 1-4 4x15 8.333-26.666 4/4/16 6250-25000:30000-120000 32 - -ena-express
 2xlarge 8x1 32 1-8 4x15 16.666-33.333 8/8/32 12500-25000:60000-120000 32 - -ena-express
 4xlarge 16x1 64 1-16 8x30 33.333 8/16/64 25000:120000 32 -
 8xlarge 32x1 128 1-32 10x30 66.666 8/32/128 50000:240000 32 -
 12xlarge 48x1 192 1-48 12x30 100 16/64/192 75000:360000 32 - -hibernation
 16xlarge 64x1 256 1-64 16x50 133.333 16/64/256 100000:480000 48 - efa=1 -hibernation
 24xlarge 96x1 384 1-96 24x50 200 16/128/384 150000:720000 64 - efa=1 -hibernation
 48xlarge 192x1 768 4-192/2 2*12x50 2*200 32/128/384 300000:1440000 128 - clock=2.7 ebs-cards=2 efa=2 -hibernation
 metal-24xl 96x1 384 - 24x50 200 32/128/768 150000:720000 39 - efa=1 -migration
 metal-48xl 192x1 768 - 2*12x50 2*200 32/128/384 300000:1440000 78 - clock=2.7 ebs-cards=2 efa=2 -migration
    own-ebs-slots
m8gd cpu=AWS clock=2.8 arch=arm64 boot=uefi weighting=default,ebs-1,vpc-1 hibernation enclaves phc own-ebs-slots
    -recovery -migration
 medium 1x1 4 - 2x4 0.52-12.5 1 315-10000:2500-40000 32 1x59 -enclaves
 large 2x1 8 1-2 3x10 0.937-12.5 2 630-10000:3600-40000 32 1x118
 xlarge 4x1 16 1-4 4x15 1.875-12.5 4 1250-10000:6000-40000 32 1x237
 2xlarge 8x1 32 1-8 4x15 3.75-15 8 2500-10000:12000-40000 32 1x474
 4xlarge 16x1 64 1-16 8x30 7.5-15 8 5000-10000:20000-40000 32 1x950
 8xlarge 32x1 128 1-32 8x30 15 8 10000:40000 32 1x1900 ena-express
 12xlarge 48x1 192 1-48 8x30 22.5 8 15000:60000 32 3x950 -hibernation ena-express
 16xlarge 64x1 256 1-64 15x50 30 8 20000:80000 48 2x1900 -hibernation ena-express
 24xlarge 96x1 384 1-96 15x50 40 8 30000:120000 64 3x1900 efa=1 -hibernation ena-express
 48xlarge 192x1 768 4-192/2 15x50 50 16 40000:240000 128 6x1900 clock=2.7 efa=1 -hibernation ena-express
 metal-24xl 96x1 384 - 15x50 40 32 30000:120000 39 3x1900 efa=1 ena-express own-ebs-slots
 metal-48xl 192x1 768 - 15x50 50 32 40000:240000 79 6x1900 clock=2.7 efa=1 ena-express own-ebs-slots
m8gn cpu=AWS clock=2.8 arch=arm64 boot=uefi tcp=350 hibernation enclaves ena-express flexible-queues own-ebs-slots
 medium 1x1 4 - 2x4 3.125-25 1/1/2 760-10000:2500-40000 32 - -enclaves -ena-express
 large 2x1 8 1-2 3x10 6.25-30 2/2/6 1250-10000:5000-40000 32 - -ena-express
 xlarge 4x1 16 1-4 4x15 12.5-40 4/4/16 2500-10000:10000-40000 32 - -ena-express
 2xlarge 8x1 32 1-8 4x15 25-50 8/8/32 5000-10000:20000-40000 32 - -ena-express
 4xlarge 16x1 64 1-16 8x30 50 8/16/64 10000:40000 32 -
 8xlarge 32x1 128 1-32 10x30 100 8/32/128 20000:80000 32 -
 12xlarge 48x1 192 1-48 12x30 150 16/64/192 30000:120000 32 - -hibernation
 16xlarge 64x1 256 1-64 16x50 200 16/64/256 40000:160000 48 - efa=1 -hibernation
 24xlarge 96x1 384 1-96 24x50 300 16/128/384 60000:240000 64 - efa=1 -hibernation
 48xlarge 192x1 768 4-192/2 2*12x50 2*300 32/128/384 120000:480000 128 - clock=2.7 ebs-cards=2 efa=2 -hibernation
 metal-24xl 96x1 384 - 24x50 300 32/128/768 60000:240000 39 - efa=1 -migration
 metal-48xl 192x1 768 - 2*12x50 2*300 32/128/384 120000:480000 78 - clock=2.7 ebs-cards=2 efa=2 -migration own-ebs-slots
m8i cpu=Intel clock=3.9 features=nested-virtualization tcp=350 weighting=default,ebs-1,vpc-1 enclaves phc ena-express
    flexible-queues own-ebs-slots
 large 1x2 8 1 3x20 0.937-12.5 2/2/6 650-10000:3600-40000 32 - hibernation -enclaves -ena-express
 xlarge 2x2 16 1-2 4x30 1.875-12.5 4/4/16 1250-10000:6000-40000 32 - hibernation -ena-express
 2xlarge 4x2 32 1-4 4x30 3.75-15 8/8/32 2500-10000:12000-40000 32 - hibernation -ena-express
 4xlarge 8x2 64 1-8 8x50 7.5-15 8/16/64 5000-10000:20000-40000 32 - hibernation -ena-express
 8xlarge 16x2 128 1-16 10x50 15 8/32/128 10000:40000 32 - hibernation
 12xlarge 24x2 192 1-24 12x50 22.5 16/64/192 15000:60000 32 -
 16xlarge 32x2 256 1-32 16x64 30 16/64/256 20000:80000 48 -
 24xlarge 48x2 384 4-48/2 16x64 40 16/128/384 30000:120000 64 -
 32xlarge 64x2 512 4-64/2 24x64 50 16/128/512 40000:160000 88 -
 48xlarge 96x2 768 6-96/3 24x64 75 32/128/768 60000:240000 128 - efa=1
 96xlarge 192x2 1536 12-192/6 24x64 100 32/128/1536 80000:480000 128 - efa=1
 metal-48xl 96x2 768 - 24x64 75 32/128/768 60000:240000 64 - efa=1 -migration own-ebs-slots
 metal-96xl 192x2 1536 - 24x64 100 32/128/1536 80000:480000 79 - efa=1 -migration own-ebs-slots
m8i-flex cpu=Intel clock=3.9 features=nested-virtualization placement=partition,spread tcp=350
    weighting=default,ebs-1,vpc-1 hibernation phc flexible-queues own-ebs-slots -dedicated
 large 1x2 8 1 3x20 0.468-12.5 1/1/3 315-10000:2500-40000 32 -
 xlarge 2x2 16 1-2 4x30 0.937-12.5 2/2/8 630-10000:3600-40000 32 -
 2xlarge 4x2 32 1-4 4x30 1.875-15 4/4/16 1250-10000:6000-40000 32 -
 4xlarge 8x2 64 1-8 8x50 3.75-15 4/8/32 2500-10000:12000-40000 32 -
 8xlarge 16x2 128 1-16 10x50 7.5-15 4/16/64 5000-10000:20000-40000 32 -
 12xlarge 24x2 192 1-24 12x50 11.25-22.5 8/32/96 7500-15000:30000-60000 32 - -hibernation
 16xlarge 32x2 256 1-32 16x64 15-30 8/32/128 10000-20000:40000-80000 48 - -hibernation
m8ib cpu=Intel clock=3.9 tcp=350 enclaves ena-express flexible-queues own-ebs-slots
 large 1x2 8 1 4x20 2.083-16.667 2/2/8 1563-25000:7500-120000 32 - hibernation -enclaves -ena-express
 xlarge 2x2 16 1-2 4x30 4.166-20 4/4/16 3125-25000:15000-120000 32 - hibernation -ena-express
 2xlarge 4x2 32 1-4 4x30 8.333-26.667 8/8/32 6250-25000:30000-120000 32 - hibernation -ena-express
 4xlarge 8x2 64 1-8 8x50 16.666-33.333 8/16/64 12500-25000:60000-120000 32 - hibernation -ena-express
 8xlarge 16x2 128 1-16 8x50 33.333 16/32/128 25000:120000 32 - hibernation
 12xlarge 24x2 192 1-24 12x50 50 16/64/192 37500:180000 32 -
 16xlarge 32x2 256 1-32 16x64 66.666 16/64/256 50000:240000 48 -
 24xlarge 48x2 384 4-48/2 16x64 100 16/128/256 75000:360000 64 -
 32xlarge 64x2 512 4-64/2 16x64 133.333 32/128/512 100000:480000 88 -
 48xlarge 96x2 768 6-96/3 24x64 200 32/128/768 150000:720000 128 - efa=1
 96xlarge 192x2 1536 12-192/6 2*12x64 2*200 32/128/768 300000:1440000 128 - ebs-cards=2 efa=2
 metal-48xl 96x2 768 - 24x64 200 32/128/768 150000:720000 64 - efa=1 -migration
 metal-96xl 192x2 1536 - 2*12x64 2*200 32/128/768 300000:1440000 78 - ebs-cards=2 efa=2 -migration
m8id cpu=Intel clock=3.9 features=nested-virtualization tcp=350 weighting=default,ebs-1,vpc-1 enclaves phc ena-express
    flexible-queues own-ebs-slots -recovery -migration
 large 1x2 8 1 3x20 0.937-12.5 2/2/6 650-10000:3600-40000 32 1x118 -enclaves -ena-express
 xlarge 2x2 16 1-2 4x30 1.875-12.5 4/4/16 1250-10000:6000-40000 32 1x237 -ena-express
 2xlarge 4x2 32 1-4 4x30 3.75-15 8/8/32 2500-10000:12000-40000 32 1x474 -ena-express
 4xlarge 8x2 64 1-8 8x50 7.5-15 8/16/64 5000-10000:20000-40000 32 1x950 -ena-express
 8xlarge 16x2 128 1-16 10x50 15 8/32/128 10000:40000 32 1x1900
 12xlarge 24x2 192 1-24 12x50 22.5 16/64/192 15000:60000 32 1x2850
 16xlarge 32x2 256 1-32 16x64 30 16/64/256 20000:80000 48 1x3800
 24xlarge 48x2 384 4-48/2 16x64 40 16/128/384 30000:120000 64 2x2850
 32xlarge 64x2 512 4-64/2 24x64 50 16/128/512 40000:160000 88 2x3800
 48xlarge 96x2 768 6-96/3 24x64 75 32/128/768 60000:240000 128 3x3800 efa=1
 96xlarge 192x2 1536 12-192/6 24x64 100 32/128/1536 80000:480000 128 6x3800 efa=1
 metal-48xl 96x2 768 - 24x64 75 32/128/768 60000:240000 64 3x3800 efa=1
 metal-96xl 192x2 1536 - 24x64 100 32/128/1536 80000:480000 79 6x3800 efa=1
m8idb cpu=Intel clock=3.9 tcp=350 enclaves ena-express flexible-queues own-ebs-slots -recovery -migration
 large 1x2 8 1 4x20 2.083-16.667 2/2/8 1563-25000:7500-120000 32 1x118 hibernation -enclaves -ena-express
 xlarge 2x2 16 1-2 4x30 4.166-20 4/4/16 3125-25000:15000-120000 32 1x237 hibernation -ena-express
 2xlarge 4x2 32 1-4 4x30 8.333-26.667 8/8/32 6250-25000:30000-120000 32 1x474 hibernation -ena-express
 4xlarge 8x2 64 1-8 8x50 16.666-33.333 8/16/64 12500-25000:60000-120000 32 1x950 hibernation -ena-express
 8xlarge 16x2 128 1-16 8x50 33.333 16/32/128 25000:120000 32 1x1900 hibernation
 12xlarge 24x2 192 1-24 12x50 50 16/64/192 37500:180000 32 1x2850
 16xlarge 32x2 256 1-32 16x64 66.666 16/64/256 50000:240000 48 1x3800
 24xlarge 48x2 384 4-48/2 16x64 100 16/128/256 75000:360000 64 2x2850
 32xlarge 64x2 512 4-64/2 16x64 133.333 32/128/512 100000:480000 88 2x3800
 48xlarge 96x2 768 6-96/3 24x64 200 32/128/768 150000:720000 128 3x3800 efa=1
 96xlarge 192x2 1536 12-192/6 2*12x64 2*200 32/128/768 300000:1440000 128 6x3800 ebs-cards=2 efa=2
 metal-48xl 96x2 768 - 24x64 200 32/128/768 150000:720000 64 3x3800 efa=1
 metal-96xl 192x2 1536 - 2*12x64 2*200 32/128/768 300000:1440000 78 6x3800 ebs-cards=2 efa=2
m8idn cpu=Intel clock=3.9 tcp=350 enclaves ena-express flexible-queues own-ebs-slots -recovery -migration
 large 1x2 8 1 4x20 3.125-25 2/2/8 650-10000:3600-40000 32 1x118 hibernation -enclaves -ena-express
 xlarge 2x2 16 1-2 4x30 6.25-30 4/4/16 1250-10000:6000-40000 32 1x237 hibernation -ena-express
 2xlarge 4x2 32 1-4 4x30 12.5-40 8/8/32 2500-10000:12000-40000 32 1x474 hibernation -ena-express
 4xlarge 8x2 64 1-8 8x50 25-50 8/16/64 5000-10000:20000-40000 32 1x950 hibernation -ena-express
 8xlarge 16x2 128 1-16 8x50 50 16/32/128 10000:40000 32 1x1900 hibernation
 12xlarge 24x2 192 1-24 12x50 75 16/64/192 15000:60000 32 1x2850
 16xlarge 32x2 256 1-32 16x64 100 16/64/256 20000:80000 48 1x3800
 24xlarge 48x2 384 4-48/2 16x64 150 16/128/256 30000:120000 64 2x2850
 32xlarge 64x2 512 4-64/2 16x64 200 32/128/512 40000:160000 88 2x3800
 48xlarge 96x2 768 6-96/3 24x64 300 32/128/768 60000:240000 128 3x3800 efa=1
 96xlarge 192x2 1536 12-192/6 2*12x64 2*300 32/128/768 120000:480000 128 6x3800 ebs-cards=2 efa=2
 metal-48xl 96x2 768 - 24x64 300 32/128/768 60000:240000 64 3x3800 efa=1
 metal-96xl 192x2 1536 - 2*12x64 2*300 32/128/768 120000:480000 78 6x3800 ebs-cards=2 efa=2
m8in cpu=Intel clock=3.9 tcp=350 enclaves ena-express flexible-queues own-ebs-slots
 large 1x2 8 1 4x20 3.125-25 2/2/8 650-10000:3600-40000 32 - hibernation -enclaves -ena-express
 xlarge 2x2 16 1-2 4x30 6.25-30 4/4/16 1250-10000:6000-40000 32 - hibernation -ena-express
 2xlarge 4x2 32 1-4 4x30 12.5-40 8/8/32 2500-10000:12000-40000 32 - hibernation -ena-express
 4xlarge 8x2 64 1-8 8x50 25-50 8/16/64 5000-10000:20000-40000 32 - hibernation -ena-express
 8xlarge 16x2 128 1-16 8x50 50 16/32/128 10000:40000 32 - hibernation
 12xlarge 24x2 192 1-24 12x50 75 16/64/192 15000:60000 32 -
 16xlarge 32x2 256 1-32 16x64 100 16/64/256 20000:80000 48 -
 24xlarge 48x2 384 4-48/2 16x64 150 16/128/256 30000:120000 64 -
 32xlarge 64x2 512 4-64/2 16x64 200 32/128/512 40000:160000 88 -
 48xlarge 96x2 768 6-96/3 24x64 300 32/128/768 60000:240000 128 - efa=1
 96xlarge 192x2 1536 12-192/6 2*12x64 2*300 32/128/768 120000:480000 128 - ebs-cards=2 efa=2
 metal-48xl 96x2 768 - 24x64 300 32/128/768 60000:240000 64 - efa=1 -migration
 metal-96xl 192x2 1536 - 2*12x64 2*300 32/128/768 120000:480000 78 - ebs-cards=2 efa=2 -migration
m8ine cpu=Intel clock=3.9 tcp=350 enclaves flexible-queues own-ebs-slots -dedicated
 large 1x2 8 1 4x20 3.125 2/2/8 650-10000:3600-40000 32 - card-perf=3.12_Gigabit perf=3.125_Gigabit -enclaves
 xlarge 2x2 16 1-2 4x30 6.25 4/4/16 1250-10000:6000-40000 32 -
 2xlarge 4x2 32 1-4 4x30 12.5 8/8/32 2500-10000:12000-40000 32 -
 4xlarge 8x2 64 1-8 8x50 25 16/16/128 5000-10000:20000-40000 32 -
 8xlarge 16x2 128 1-16 8x50 50 32/32/256 10000:40000 32 -
 12xlarge 24x2 192 1-24 12x50 75 32/64/384 15000:60000 32 -
m9g cpu=AWS clock=3.3 arch=arm64 boot=uefi tcp=350 weighting=default,ebs-1,vpc-1 hibernation enclaves phc
    flexible-queues own-ebs-slots
 medium 1x1 4 - 2x20 0.55-15 1/1/2 380-12000:2500-48000 32 - -enclaves
 large 2x1 8 1-2 3x20 1-15 2/2/6 760-12000:3600-48000 32 -
 xlarge 4x1 16 1-4 4x30 2.1-15 4/4/16 1500-12000:6000-48000 32 -
 2xlarge 8x1 32 1-8 4x30 4.25-17 8/8/32 3000-12000:12000-48000 32 -
 4xlarge 16x1 64 1-16 8x50 8.5-17 8/16/64 6000-12000:24000-48000 32 -
 8xlarge 32x1 128 1-32 10x50 17 8/32/128 12000:48000 32 - ena-express
 12xlarge 48x1 192 1-48 12x50 25 16/64/192 18000:72000 32 - -hibernation ena-express
 16xlarge 64x1 256 4-64/2 16x64 34 16/64/256 24000:96000 48 - -hibernation ena-express
 24xlarge 96x1 384 1-96 24x64 50 16/128/384 36000:144000 64 - -hibernation ena-express
 48xlarge 192x1 768 4-192/2 24x64 100 32/128/768 72000:288000 128 - efa=1 -hibernation ena-express
 metal-48xl 192x1 768 - 24x64 100 32/128/768 72000:288000 79 - efa=1 -migration ena-express
m9gd cpu=AWS clock=3.3 arch=arm64 boot=uefi tcp=350 weighting=default,ebs-1,vpc-1 hibernation enclaves phc
    flexible-queues own-ebs-slots -recovery -migration
 medium 1x1 4 - 2x20 0.55-15 1/1/2 380-12000:2500-48000 32 1x59 -enclaves
 large 2x1 8 1-2 3x20 1-15 2/2/6 760-12000:3600-48000 32 1x118
 xlarge 4x1 16 1-4 4x30 2.1-15 4/4/16 1500-12000:6000-48000 32 1x237
 2xlarge 8x1 32 1-8 4x30 4.25-17 8/8/32 3000-12000:12000-48000 32 1x474
 4xlarge 16x1 64 1-16 8x50 8.5-17 8/16/64 6000-12000:24000-48000 32 1x950
 8xlarge 32x1 128 1-32 10x50 17 8/32/128 12000:48000 32 1x1900 ena-express
 12xlarge 48x1 192 1-48 12x50 25 16/64/192 18000:72000 32 3x950 -hibernation ena-express
 16xlarge 64x1 256 4-64/2 16x64 34 16/64/256 24000:96000 48 1x3800 -hibernation ena-express
 24xlarge 96x1 384 1-96 24x64 50 16/128/384 36000:144000 64 3x1900 -hibernation ena-express
 48xlarge 192x1 768 4-192/2 24x64 100 32/128/768 72000:288000 128 3x3800 efa=1 -hibernation ena-express
 metal-48xl 192x1 768 - 24x64 100 32/128/768 72000:288000 79 3x3800 efa=1 ena-express
mac-m3ultra cpu=Apple clock=4 arch=arm64_mac placement=partition,spread usage=on-demand phc -recovery -migration
    -transit
 metal 28x1 256 - 8x30 10 8 10000:55000 10 -
mac-m4 cpu=Apple clock=3.5 arch=arm64_mac placement=partition,spread usage=on-demand phc -recovery -migration
 metal 10x1 24 - 8x30 10 8 8000:55000 31 1x1900
mac-m4max cpu=Apple clock=4 arch=arm64_mac placement=partition,spread usage=on-demand phc -recovery -migration -transit
 metal 16x1 128 - 8x30 10 8 10000:55000 10 -
mac-m4pro cpu=Apple clock=3.5 arch=arm64_mac placement=partition,spread usage=on-demand phc -recovery -migration
 metal 14x1 48 - 8x30 10 8 8000:55000 31 1x1900
mac1 cpu=Intel clock=3.2 arch=x86_64_mac placement=partition,spread usage=on-demand -recovery -migration -transit
 metal 6x2 32 - 8x30 25 8 14000:80000 16 -
mac2 cpu=Apple clock=3.2 arch=arm64_mac placement=partition,spread usage=on-demand -recovery -migration -transit
 metal 4x2 16 - 8x30 10 32 10000:55000 10 -
mac2-m1ultra cpu=Apple clock=3.2 arch=arm64_mac placement=partition,spread usage=on-demand -recovery -migration -transit
 metal 20x1 128 - 8x30 10 8 10000:55000 10 -
mac2-m2 cpu=Apple clock=3.5 arch=arm64_mac placement=partition,spread usage=on-demand -recovery -migration -transit
 metal 8x1 24 - 8x30 10 8 8000:55000 10 -
mac2-m2pro cpu=Apple clock=3.5 arch=arm64_mac placement=partition,spread usage=on-demand -recovery -migration -transit
 metal 12x1 32 - 8x30 10 8 8000:55000 10 -
p2 cpu=Intel clock=2.7 boot=legacy-bios ena=supported gpu=NVIDIA/K80/12288 hypervisor=xen nvme=unsupported
    workloads=ml-ai -migration -tpm -transit
 xlarge 2x2 61 1-2 4x15 1.25-10 4 750:6000 40 - perf=High
 8xlarge 16x2 488 1-16 8x30 5-20 8 5000:32500 40 - devices=8 perf=10_Gigabit
 16xlarge 32x2 732 2-32/2 8x30 5-20 8 10000:65000 40 - clock=2.3 devices=16 perf=25_Gigabit
p3 cpu=Intel clock=2.7 boot=legacy-bios ena=supported gpu=NVIDIA/V100/16384 hypervisor=xen nvme=unsupported
    workloads=ml-ai -migration -tpm -transit
 2xlarge 4x2 61 1-4 4x15 2.5-10 8 1750:10000 40 -
 8xlarge 16x2 244 1-16 8x30 5-10 8 7000:40000 40 - devices=4 perf=10_Gigabit
 16xlarge 32x2 488 2-32/2 8x30 5-10 8 14000:80000 40 - devices=8 perf=25_Gigabit
p3dn cpu=Intel clock=2.5 devices=8 efa=1 gpu=NVIDIA/V100/32768 workloads=ml-ai enclaves -recovery -migration -tpm
 24xlarge 48x2 768 4-48/2 15x50 100 32 19000:80000 17 2x900
p4d cpu=Intel clock=3 boot=legacy-bios devices=8 efa=4 gpu=NVIDIA/A100/40960 usage=on-demand,spot,capacity-block
    workloads=ml-ai enclaves own-ebs-slots -recovery -migration -tpm
 24xlarge 48x2 1152 2-48/2 4*15x50 4*100 32 19000:80000 28 8x1000 perf=4x_100_Gigabit
p4de cpu=Intel clock=3 boot=legacy-bios devices=8 efa=4 gpu=NVIDIA/A100/81920 usage=on-demand,spot,capacity-block
    workloads=ml-ai enclaves own-ebs-slots -dedicated -recovery -migration -tpm
 24xlarge 48x2 1152 2-48/2 4*15x50 4*100 32 19000:80000 28 8x1000 perf=4x_100_Gigabit
p5 cpu=AMD clock=3.6 efa=1 gpu=NVIDIA/H100/81920 usage=on-demand,spot,capacity-block workloads=ml-ai enclaves
    ena-express own-ebs-slots -dedicated -recovery -migration
 4xlarge 8x2 256 1-8 4x30 100 16 10000:32500 32 1x3800
 48xlarge 96x2 2048 12-96/12 32*2x50 32*100 32 80000:260000 64 8x3800 devices=8 efa=32
p5e cpu=AMD clock=3.6 devices=8 efa=32 gpu=NVIDIA/H200/144384 usage=on-demand,spot,capacity-block workloads=ml-ai
    enclaves ena-express own-ebs-slots -dedicated -recovery -migration
 48xlarge 96x2 2048 12-96/12 32*2x50 32*100 32 80000:260000 64 8x3800
p5en cpu=Intel clock=2.4 devices=8 efa=16 gpu=NVIDIA/H200/144384 usage=on-demand,spot,capacity-block workloads=ml-ai
    enclaves ena-express own-ebs-slots -dedicated -recovery -migration
 48xlarge 96x2 2048 4-96/2 16*4x50 16*200 32 100000:400000 64 8x3800
p6-b200 cpu=Intel clock=2.4 devices=8 efa=8 gpu=NVIDIA/B200/183359 tcp=350 usage=on-demand,spot,capacity-block
    workloads=ml-ai ena-express own-ebs-slots -dedicated -recovery -migration
 48xlarge 96x2 2048 4-96/2 8*4x50 8*200 32 100000:400000 64 8x3800 perf=3200_Gigabit
p6-b300 cpu=Intel clock=2.4 devices=8 efa=16 gpu=NVIDIA/B300/275040 tcp=350 usage=on-demand,spot,capacity-block
    workloads=ml-ai enclaves ena-express own-ebs-slots -dedicated -recovery -migration
 48xlarge 96x2 4096 4-96/2 17*4x50 350+16*400 32 100000:400000 64 8x3800 card-perf=400_Gigabit perf=6400_Gigabit
r3 cpu=Intel clock=2.5 boot=legacy-bios disk-encryption=unsupported disk-nvme=unsupported ebs=supported ena=unsupported
    hypervisor=xen nvme=unsupported root=ebs,instance-store hibernation -current -migration -tpm -transit
 large 1x2 15 1 3x10 0.5-1.2 8 - 39 1x32 ebs=unsupported perf=Moderate
 xlarge 2x2 30.5 1-2 4x15 0.7-2.8 8 500:4000 39 1x80 perf=Moderate
 2xlarge 4x2 61 1-4 4x15 1-10 8 1000:8000 39 1x160 perf=High
 4xlarge 8x2 122 1-8 8x30 2-10 8 2000:16000 39 1x320 perf=High
 8xlarge 16x2 244 2-16/2 8x30 5-10 8 - 39 2x320 ebs=unsupported perf=10_Gigabit -hibernation
r4 cpu=Intel clock=2.3 boot=legacy-bios ena=supported hypervisor=xen nvme=unsupported hibernation -current -tpm -transit
 large 1x2 15.25 1 3x10 0.75-10 8 425:3000 40 -
 xlarge 2x2 30.5 1-2 4x15 1.25-10 8 850:6000 40 -
 2xlarge 4x2 61 1-4 4x15 2.5-10 8 1700:12000 40 -
 4xlarge 8x2 122 1-8 8x30 5-10 8 3500:18750 40 -
 8xlarge 16x2 244 1-16 8x30 12 8 7000:37500 40 - perf=10_Gigabit -hibernation
 16xlarge 32x2 488 2-32/2 15x50 25 8 14000:75000 40 - -hibernation
r5 cpu=Intel clock=3.1 hibernation enclaves -current -transit
 large 1x2 16 1 3x10 0.75-10 8 650-4750:3600-18750 27 - -enclaves
 xlarge 2x2 32 2 4x15 1.25-10 8 1150-4750:6000-18750 27 -
 2xlarge 4x2 64 2,4 4x15 2.5-10 8 2300-4750:12000-18750 27 -
 4xlarge 8x2 128 2-8/2 8x30 5-10 8 4750:18750 27 -
 8xlarge 16x2 256 2-16/2 8x30 10 8 6800:30000 27 - -hibernation
 12xlarge 24x2 384 2-24/2 8x30 12 8 9500:40000 27 - -hibernation
 16xlarge 32x2 512 2-32/2 15x50 20 8 13600:60000 27 - -hibernation
 24xlarge 48x2 768 4-48/2 15x50 25 8 19000:80000 27 - -hibernation
 metal 48x2 768 - 15x50 25 8 19000:80000 31 -
r5a cpu=AMD clock=2.5 hibernation enclaves -dedicated -transit
 large 1x2 16 1 3x10 0.75-10 8 650-2880:3600-16000 27 - -enclaves
 xlarge 2x2 32 2 4x15 1.25-10 8 1085-2880:6000-16000 27 -
 2xlarge 4x2 64 2,4 4x15 2.5-10 8 1580-2880:8333-16000 27 -
 4xlarge 8x2 128 2-8/2 8x30 5-10 8 2880:16000 27 -
 8xlarge 16x2 256 4-16/2 8x30 7.5-10 8 4750:20000 27 - -hibernation
 12xlarge 24x2 384 6-24/6 8x30 10 8 6780:30000 27 - -hibernation
 16xlarge 32x2 512 8-32/2 15x50 12 8 9500:40000 27 - -hibernation
 24xlarge 48x2 768 12-24/6,36,48 15x50 20 8 13570:60000 27 - -hibernation
r5ad cpu=AMD clock=2.2 hibernation enclaves -dedicated -recovery -migration -transit
 large 1x2 16 1 3x10 0.75-10 8 650-2880:3600-16000 26 1x75 -enclaves
 xlarge 2x2 32 2 4x15 1.25-10 8 1085-2880:6000-16000 26 1x150
 2xlarge 4x2 64 2,4 4x15 2.5-10 8 1580-2880:8333-16000 26 1x300
 4xlarge 8x2 128 2-8/2 8x30 5-10 8 2880:16000 25 2x300
 8xlarge 16x2 256 4-16/2 8x30 7.5-10 8 4750:20000 25 2x600 clock=2.5 -hibernation
 12xlarge 24x2 384 6-24/6 8x30 10 8 6780:30000 25 2x900 -hibernation
 16xlarge 32x2 512 8-32/2 15x50 12 8 9500:40000 23 4x600 clock=2.5 -hibernation
 24xlarge 48x2 768 12-24/6,36,48 15x50 20 8 13570:60000 23 4x900 -hibernation
r5b cpu=Intel clock=3.1 enclaves -transit
 large 1x2 16 1 3x10 0.75-10 8 1250-10000:5417-43333 27 - -enclaves
 xlarge 2x2 32 1-2 4x15 1.25-10 8 2500-10000:10833-43333 27 -
 2xlarge 4x2 64 2,4 4x15 2.5-10 8 5000-10000:21667-43333 27 -
 4xlarge 8x2 128 2-8/2 8x30 5-10 8 10000:43333 27 -
 8xlarge 16x2 256 2-16/2 8x30 10 8 20000:86667 27 -
 12xlarge 24x2 384 2-24/2 8x30 12 8 30000:130000 27 -
 16xlarge 32x2 512 2-32/2 15x50 20 8 40000:173333 27 -
 24xlarge 48x2 768 2-48/2 15x50 25 8 60000:260000 27 -
 metal 48x2 768 - 15x50 25 8 60000:260000 31 -
r5d cpu=Intel clock=3.1 hibernation enclaves -recovery -migration -transit
 large 1x2 16 1 3x10 0.75-10 8 650-4750:3600-18750 26 1x75 -enclaves
 xlarge 2x2 32 2 4x15 1.25-10 8 1150-4750:6000-18750 26 1x150
 2xlarge 4x2 64 2,4 4x15 2.5-10 8 2300-4750:12000-18750 26 1x300
 4xlarge 8x2 128 2-8/2 8x30 5-10 8 4750:18750 25 2x300
 8xlarge 16x2 256 2-16/2 8x30 10 8 6800:30000 25 2x600 -hibernation
 12xlarge 24x2 384 2-24/2 8x30 12 8 9500:40000 25 2x900 -hibernation
 16xlarge 32x2 512 2-32/2 15x50 20 8 13600:60000 23 4x600 -hibernation
 24xlarge 48x2 768 4-48/2 15x50 25 8 19000:80000 23 4x900 -hibernation
 metal 48x2 768 - 15x50 25 8 19000:80000 31 4x900
r5dn cpu=Intel clock=3.1 enclaves -recovery -migration
 large 1x2 16 1 3x10 2.1-25 8 650-4750:3600-18750 26 1x75 -enclaves
 xlarge 2x2 32 1-2 4x15 4.1-25 8 1150-4750:6000-18750 26 1x150
 2xlarge 4x2 64 2,4 4x15 8.125-25 8 2300-4750:12000-18750 26 1x300
 4xlarge 8x2 128 2-8/2 8x30 16.25-25 32 4750:18750 25 2x300
 8xlarge 16x2 256 2-16/2 8x30 25 32 6800:30000 25 2x600
 12xlarge 24x2 384 2-24/2 8x30 50 32 9500:40000 25 2x900
 16xlarge 32x2 512 2-32/2 15x50 75 32 13600:60000 23 4x600
 24xlarge 48x2 768 2-48/2 15x50 100 32 19000:80000 23 4x900 efa=1
 metal 48x2 768 - 15x50 100 32 19000:80000 31 4x900 efa=1
r5n cpu=Intel clock=3.1 enclaves
 large 1x2 16 1 3x10 2.1-25 8 650-4750:3600-18750 27 - -enclaves
 xlarge 2x2 32 1-2 4x15 4.1-25 8 1150-4750:6000-18750 27 -
 2xlarge 4x2 64 2,4 4x15 8.125-25 8 2300-4750:12000-18750 27 -
 4xlarge 8x2 128 2-8/2 8x30 16.25-25 32 4750:18750 27 -
 8xlarge 16x2 256 2-16/2 8x30 25 32 6800:30000 27 -
 12xlarge 24x2 384 2-24/2 8x30 50 32 9500:40000 27 -
 16xlarge 32x2 512 2-32/2 15x50 75 32 13600:60000 27 -
 24xlarge 48x2 768 2-48/2 15x50 100 32 19000:80000 27 - efa=1
 metal 48x2 768 - 15x50 100 32 19000:80000 31 - efa=1
r6a cpu=AMD clock=3.6 enclaves
 large 1x2 16 1 3x10 0.781-12.5 2 650-10000:3600-40000 27 - features=amd-sev-snp hibernation -enclaves
 xlarge 2x2 32 1-2 4x15 1.562-12.5 4 1250-10000:6000-40000 27 - features=amd-sev-snp hibernation
 2xlarge 4x2 64 1-4 4x15 3.125-12.5 8 2500-10000:12000-40000 27 - features=amd-sev-snp hibernation
 4xlarge 8x2 128 1-8 8x30 6.25-12.5 8 5000-10000:20000-40000 27 - features=amd-sev-snp hibernation
 8xlarge 16x2 256 4-16/2 8x30 12.5 8 10000:40000 27 -
 12xlarge 24x2 384 1-8,16,24 8x30 18.75 8 15000:60000 27 - ena-express
 16xlarge 32x2 512 4-16/2,32 15x50 25 8 20000:80000 27 - ena-express
 24xlarge 48x2 768 4-16/2,32,48 15x50 37.5 8 30000:120000 27 - ena-express
 32xlarge 64x2 1024 8-32/4,64 15x50 50 8 40000:160000 27 - ena-express
 48xlarge 96x2 1536 8-32/4,64,96 15x50 50 8 40000:240000 27 - efa=1 ena-express
 metal 96x2 1536 - 15x50 50 8 40000:240000 31 - efa=1 ena-express
r6g cpu=AWS clock=2.5 arch=arm64 boot=uefi hibernation enclaves -transit
 medium 1x1 8 - 2x4 0.5-10 8 315-4750:2500-20000 27 - -enclaves
 large 2x1 16 1-2 3x10 0.75-10 8 630-4750:3600-20000 27 -
 xlarge 4x1 32 1-4 4x15 1.25-10 8 1188-4750:6000-20000 27 -
 2xlarge 8x1 64 1-8 4x15 2.5-10 8 2375-4750:12000-20000 27 -
 4xlarge 16x1 128 1-16 8x30 5-10 8 4750:20000 27 -
 8xlarge 32x1 256 1-32 8x30 12 8 9500:40000 27 - -hibernation
 12xlarge 48x1 384 1-48 8x30 20 8 14250:50000 27 - -hibernation
 16xlarge 64x1 512 1-64 15x50 25 8 19000:80000 27 - -hibernation
 metal 64x1 512 - 15x50 25 8 19000:80000 31 -
r6gd cpu=AWS clock=2.5 arch=arm64 boot=uefi hibernation enclaves -recovery -migration -transit
 medium 1x1 8 - 2x4 0.5-10 8 315-4750:2500-20000 26 1x59 -enclaves
 large 2x1 16 1-2 3x10 0.75-10 8 630-4750:3600-20000 26 1x118
 xlarge 4x1 32 1-4 4x15 1.25-10 8 1188-4750:6000-20000 26 1x237
 2xlarge 8x1 64 1-8 4x15 2.5-10 8 2375-4750:12000-20000 26 1x474
 4xlarge 16x1 128 1-16 8x30 5-10 8 4750:20000 26 1x950
 8xlarge 32x1 256 1-32 8x30 12 8 9500:40000 26 1x1900 -hibernation
 12xlarge 48x1 384 1-48 8x30 20 8 14250:50000 25 2x1425 -hibernation
 16xlarge 64x1 512 1-64 15x50 25 8 19000:80000 25 2x1900 -hibernation
 metal 64x1 512 - 15x50 25 8 19000:80000 31 2x1900
r6i cpu=Intel clock=3.5 enclaves ena-express flexible-queues -current
 large 1x2 16 1 3x10 0.781-12.5 2/2/6 650-10000:3600-40000 27 - -enclaves -ena-express
 xlarge 2x2 32 1-2 4x15 1.562-12.5 4/4/16 1250-10000:6000-40000 27 - -ena-express
 2xlarge 4x2 64 2,4 4x15 3.125-12.5 8/8/32 2500-10000:12000-40000 27 - -ena-express
 4xlarge 8x2 128 2-8/2 8x30 6.25-12.5 8/16/64 5000-10000:20000-40000 27 - -ena-express
 8xlarge 16x2 256 2-16/2 8x30 12.5 8/32/64 10000:40000 27 -
 12xlarge 24x2 384 2-24/2 8x30 18.75 8/32/64 15000:60000 27 -
 16xlarge 32x2 512 2-32/2 15x50 25 8/32/120 20000:80000 27 -
 24xlarge 48x2 768 2-48/2 15x50 37.5 8/32/120 30000:120000 27 -
 32xlarge 64x2 1024 2-64/2 15x50 50 8/32/120 40000:160000 27 - efa=1
 metal 64x2 1024 - 15x50 50 8/32 40000:160000 31 - efa=1 -flexible-queues
r6id cpu=Intel clock=3.5 enclaves ena-express flexible-queues -recovery -migration
 large 1x2 16 1 3x10 0.781-12.5 2/2/6 650-10000:3600-40000 26 1x118 -enclaves -ena-express
 xlarge 2x2 32 1-2 4x15 1.562-12.5 4/4/16 1250-10000:6000-40000 26 1x237 -ena-express
 2xlarge 4x2 64 2,4 4x15 3.125-12.5 8/8/32 2500-10000:12000-40000 26 1x474 -ena-express
 4xlarge 8x2 128 2-8/2 8x30 6.25-12.5 8/16/64 5000-10000:20000-40000 26 1x950 -ena-express
 8xlarge 16x2 256 2-16/2 8x30 12.5 8/32/64 10000:40000 26 1x1900
 12xlarge 24x2 384 2-24/2 8x30 18.75 8/32/64 15000:60000 25 2x1425
 16xlarge 32x2 512 2-32/2 15x50 25 8/32/120 20000:80000 25 2x1900
 24xlarge 48x2 768 2-48/2 15x50 37.5 8/32/120 30000:120000 23 4x1425
 32xlarge 64x2 1024 2-64/2 15x50 50 8/32/120 40000:160000 23 4x1900 efa=1
 metal 64x2 1024 - 15x50 50 8/32 40000:160000 31 4x1900 efa=1 -flexible-queues
r6idn cpu=Intel clock=3.5 enclaves ena-express flexible-queues -recovery -migration
 large 1x2 16 1 3x10 3.125-25 2/2/6 1562.5-25000:6250-100000 26 1x118 hibernation -enclaves -ena-express
 xlarge 2x2 32 1-2 4x15 6.25-30 4/4/16 3125-25000:12500-100000 26 1x237 hibernation -ena-express
 2xlarge 4x2 64 1-4 4x15 12.5-40 8/8/32 6250-25000:25000-100000 26 1x474 hibernation -ena-express
 4xlarge 8x2 128 1-8 8x30 25-50 8/16/64 12500-25000:50000-100000 26 1x950 hibernation -ena-express
 8xlarge 16x2 256 1-16 8x30 50 16/32/128 25000:100000 26 1x1900
 12xlarge 24x2 384 1-24 8x30 75 16/32/128 37500:150000 25 2x1425
 16xlarge 32x2 512 1-32 15x50 100 16/32/240 50000:200000 25 2x1900
 24xlarge 48x2 768 4-48/2 15x50 150 32/32/480 75000:300000 23 4x1425
 32xlarge 64x2 1024 4-64/2 2*8x50 2*200 32/32/256 100000:400000 23 4x1900 card-perf=Up_to_170_Gigabit efa=2
    perf=200_Gigabit
 metal 64x2 1024 - 2*8x50 2*200 32 100000:400000 31 4x1900 card-perf=Up_to_170_Gigabit efa=2 perf=200_Gigabit
    -flexible-queues
r6in cpu=Intel clock=3.5 enclaves ena-express flexible-queues
 large 1x2 16 1 3x10 3.125-25 2/2/6 1562.5-25000:6250-100000 27 - hibernation -enclaves -ena-express
 xlarge 2x2 32 1-2 4x15 6.25-30 4/4/16 3125-25000:12500-100000 27 - hibernation -ena-express
 2xlarge 4x2 64 1-4 4x15 12.5-40 8/8/32 6250-25000:25000-100000 27 - hibernation -ena-express
 4xlarge 8x2 128 1-8 8x30 25-50 8/16/64 12500-25000:50000-100000 27 - hibernation -ena-express
 8xlarge 16x2 256 1-16 8x30 50 16/32/128 25000:100000 27 - flexible=2
 12xlarge 24x2 384 1-24 8x30 75 16/32/128 37500:150000 27 - flexible=4
 16xlarge 32x2 512 1-32 15x50 100 16/32/240 50000:200000 27 - flexible=1
 24xlarge 48x2 768 4-48/2 15x50 150 32/32/480 75000:300000 27 - flexible=9
 32xlarge 64x2 1024 4-64/2 2*8x50 2*200 32/32/256 100000:400000 27 - card-perf=Up_to_170_Gigabit efa=2 flexible=4
    perf=200_Gigabit
 metal 64x2 1024 - 2*8x50 2*200 32 100000:400000 31 - card-perf=Up_to_170_Gigabit efa=2 perf=200_Gigabit
    -flexible-queues
r7a cpu=AMD clock=3.7 enclaves phc own-ebs-slots
 medium 1x1 8 - 2x4 0.39-12.5 1 325-10000:2500-40000 32 - hibernation -enclaves
 large 2x1 16 1-2 3x10 0.781-12.5 2 650-10000:3600-40000 32 - hibernation -enclaves
 xlarge 4x1 32 1-4 4x15 1.562-12.5 4 1250-10000:6000-40000 32 - hibernation
 2xlarge 8x1 64 1-8 4x15 3.125-12.5 8 2500-10000:12000-40000 32 - hibernation
 4xlarge 16x1 128 1-2,4-16/2 8x30 6.25-12.5 8 5000-10000:20000-40000 32 - hibernation
 8xlarge 32x1 256 1-4,8-32/4 8x30 12.5 8 10000:40000 32 -
 12xlarge 48x1 384 1-6,12-48/6 8x30 18.75 8 15000:60000 32 - ena-express
 16xlarge 64x1 512 1-8,16-64/8 15x50 25 8 20000:80000 48 - ena-express
 24xlarge 96x1 768 1-12,24-96/12 15x50 37.5 8 30000:120000 64 - ena-express
 32xlarge 128x1 1024 4-16/2,32-128/16 15x50 50 16 40000:160000 88 - ena-express
 48xlarge 192x1 1536 4-24/2,48-192/24 15x50 50 16 40000:240000 128 - efa=1 ena-express
 metal-48xl 192x1 1536 - 15x50 50 16 40000:240000 79 - efa=1 ena-express own-ebs-slots
r7g cpu=AWS clock=2.6 arch=arm64 boot=uefi hibernation enclaves phc -current
 medium 1x1 8 - 2x4 0.52-12.5 1 315-10000:2500-40000 27 - -enclaves
 large 2x1 16 1-2 3x10 0.937-12.5 2 630-10000:3600-40000 27 -
 xlarge 4x1 32 1-4 4x15 1.876-12.5 4 1250-10000:6000-40000 27 -
 2xlarge 8x1 64 1-8 4x15 3.75-15 8 2500-10000:12000-40000 27 -
 4xlarge 16x1 128 1-16 8x30 7.5-15 8 5000-10000:20000-40000 27 -
 8xlarge 32x1 256 1-32 8x30 15 8 10000:40000 27 - -hibernation
 12xlarge 48x1 384 1-48 8x30 22.5 8 15000:60000 27 - -hibernation ena-express
 16xlarge 64x1 512 1-64 15x50 30 8 20000:80000 27 - efa=1 -hibernation ena-express
 metal 64x1 512 - 15x50 30 8 20000:80000 31 - efa=1 ena-express
r7gd cpu=AWS clock=2.6 arch=arm64 boot=uefi hibernation enclaves phc -current -recovery -migration
 medium 1x1 8 - 2x4 0.52-12.5 1 315-10000:2500-40000 26 1x59 -enclaves
 large 2x1 16 1-2 3x10 0.937-12.5 2 630-10000:3600-40000 26 1x118
 xlarge 4x1 32 1-4 4x15 1.876-12.5 4 1250-10000:6000-40000 26 1x237
 2xlarge 8x1 64 1-8 4x15 3.75-15 8 2500-10000:12000-40000 26 1x474
 4xlarge 16x1 128 1-16 8x30 7.5-15 8 5000-10000:20000-40000 26 1x950
 8xlarge 32x1 256 1-32 8x30 15 8 10000:40000 26 1x1900 -hibernation
 12xlarge 48x1 384 1-48 8x30 22.5 8 15000:60000 25 2x1425 -hibernation ena-express
 16xlarge 64x1 512 1-64 15x50 30 8 20000:80000 25 2x1900 efa=1 -hibernation ena-express
 metal 64x1 512 - 15x50 30 8 20000:80000 31 2x1900 efa=1 ena-express
r7i cpu=Intel clock=3.2 features=nested-virtualization enclaves phc own-ebs-slots
 large 1x2 16 1 3x10 0.781-12.5 2 650-10000:3600-40000 32 - hibernation -enclaves
 xlarge 2x2 32 1-2 4x15 1.562-12.5 4 1250-10000:6000-40000 32 - hibernation
 2xlarge 4x2 64 1-4 4x15 3.125-12.5 8 2500-10000:12000-40000 32 - hibernation
 4xlarge 8x2 128 1-8 8x30 6.25-12.5 8 5000-10000:20000-40000 32 - hibernation
 8xlarge 16x2 256 1-16 8x30 12.5 8 10000:40000 32 -
 12xlarge 24x2 384 1-24 8x30 18.75 8 15000:60000 32 - ena-express
 16xlarge 32x2 512 1-32 15x50 25 8 20000:80000 48 - ena-express
 24xlarge 48x2 768 1-48 15x50 37.5 8 30000:120000 64 - ena-express
 48xlarge 96x2 1536 4-96/2 15x50 50 16 40000:240000 128 - efa=1 -dedicated ena-express
 metal-24xl 48x2 768 - 15x50 37.5 8 30000:120000 39 - -dedicated ena-express own-ebs-slots
 metal-48xl 96x2 1536 - 15x50 50 16 40000:240000 79 - efa=1 ena-express own-ebs-slots
r7iz cpu=Intel clock=3.9 features=nested-virtualization hibernation enclaves own-ebs-slots
 large 1x2 16 1 3x10 0.781-12.5 2 792-10000:3600-40000 32 - -enclaves
 xlarge 2x2 32 1-2 4x15 1.562-12.5 4 1584-10000:6667-40000 32 -
 2xlarge 4x2 64 1-4 4x15 3.125-12.5 8 3168-10000:13333-40000 32 -
 4xlarge 8x2 128 1-8 8x30 6.25-12.5 8 5000-10000:20000-40000 32 -
 8xlarge 16x2 256 1-16 8x30 12.5 8 10000:40000 32 - -hibernation ena-express
 12xlarge 24x2 384 1-24 8x30 25 8 19000:76000 32 - -hibernation ena-express
 16xlarge 32x2 512 1-32 15x50 25 8 20000:80000 48 - -dedicated -hibernation ena-express
 32xlarge 64x2 1024 4-64/2 15x50 50 8 40000:160000 88 - efa=1 -dedicated -hibernation ena-express
 metal-16xl 32x2 512 - 15x50 25 8 20000:80000 39 - ena-express own-ebs-slots
 metal-32xl 64x2 1024 - 15x50 50 8 40000:160000 79 - efa=1 ena-express own-ebs-slots
r8a cpu=AMD clock=4.5 tcp=350 weighting=default,ebs-1,vpc-1 hibernation enclaves phc flexible-queues own-ebs-slots
 medium 1x1 8 1 2x4 0.52-12.5 1/1/3 325-10000:2500-40000 32 - -enclaves
 large 2x1 16 1-2 3x20 0.937-12.5 2/2/6 650-10000:3600-40000 32 -
 xlarge 4x1 32 1-4 4x20 1.875-12.5 4/4/16 1250-10000:6000-40000 32 -
 2xlarge 8x1 64 1-8 4x40 3.75-15 8/8/32 2500-10000:12000-40000 32 -
 4xlarge 16x1 128 1-2,4-16/2 8x40 7.5-15 8/16/64 5000-10000:20000-40000 32 -
 8xlarge 32x1 256 1-4,8-32/4 10x40 15 8/32/128 10000:40000 32 - -hibernation
 12xlarge 48x1 384 1-6,12-48/6 12x64 22.5 16/64/192 15000:60000 32 - -hibernation
 16xlarge 64x1 512 1-8,16-64/8 16x64 30 16/64/256 20000:80000 48 - -hibernation ena-express
 24xlarge 96x1 768 1-12,24-96/12 16x64 40 16/128/384 30000:120000 64 - -hibernation ena-express
 48xlarge 192x1 1536 4-24/2,48-192/24 24x64 75 32/128/768 60000:240000 128 - efa=1 -hibernation ena-express
 metal-24xl 96x1 768 - 16x64 40 16/128/384 30000:120000 64 - -migration ena-express own-ebs-slots
 metal-48xl 192x1 1536 - 24x64 75 32/128/768 60000:240000 79 - efa=1 -migration ena-express
r8g cpu=AWS clock=2.8 arch=arm64 boot=uefi weighting=default,ebs-1,vpc-1 hibernation enclaves phc own-ebs-slots
 medium 1x1 8 - 2x4 0.52-12.5 1 315-10000:2500-40000 32 - -enclaves
 large 2x1 16 1-2 3x10 0.937-12.5 2 630-10000:3600-40000 32 -
 xlarge 4x1 32 1-4 4x15 1.875-12.5 4 1250-10000:6000-40000 32 -
 2xlarge 8x1 64 1-8 4x15 3.75-15 8 2500-10000:12000-40000 32 -
 4xlarge 16x1 128 1-16 8x30 7.5-15 8 5000-10000:20000-40000 32 -
 8xlarge 32x1 256 1-32 8x30 15 8 10000:40000 32 - -hibernation ena-express
 12xlarge 48x1 384 1-48 8x30 22.5 8 15000:60000 32 - -hibernation ena-express
 16xlarge 64x1 512 1-64 15x50 30 8 20000:80000 48 - -hibernation ena-express
 24xlarge 96x1 768 1-96 15x50 40 8 30000:120000 64 - efa=1 -hibernation ena-express
 48xlarge 192x1 1536 4-192/2 15x50 50 16 40000:240000 128 - clock=2.7 efa=1 -hibernation ena-express
 metal-24xl 96x1 768 - 15x50 40 32 30000:120000 39 - efa=1 ena-express own-ebs-slots
 metal-48xl 192x1 1536 - 15x50 50 32 40000:240000 79 - clock=2.7 efa=1 ena-express own-ebs-slots
r8gb cpu=AWS clock=2.8 arch=arm64 boot=uefi tcp=350 hibernation enclaves ena-express flexible-queues own-ebs-slots
 medium 1x1 8 - 2x4 2.083-16.667 1/1/2 1562.5-25000:7500-120000 32 - -enclaves -ena-express
 large 2x1 16 1-2 3x10 4.166-20 2/2/6 3125-25000:15000-120000 32 - -ena-express
 xlarge 4x1 32 1-4 4x15 8.333-26.667 4/4/16 6250-25000:30000-120000 32 - -ena-express
 2xlarge 8x1 64 1-8 4x15 16.666-33.333 8/8/32 12500-25000:60000-120000 32 - -ena-express
 4xlarge 16x1 128 1-16 8x30 33.333 8/16/64 25000:120000 32 -
 8xlarge 32x1 256 1-32 10x30 66.666 8/32/128 50000:240000 32 - -hibernation
 12xlarge 48x1 384 1-48 12x30 100 16/64/192 75000:360000 32 - -hibernation
 16xlarge 64x1 512 1-64 16x50 133.333 16/64/256 100000:480000 48 - efa=1 -hibernation
 24xlarge 96x1 768 1-96 24x50 200 16/128/384 150000:720000 64 - efa=1 -hibernation
 48xlarge 192x1 1536 4-192/2 2*12x50 2*200 32/128/384 300000:1440000 128 - clock=2.7 ebs-cards=2 efa=2 -hibernation
 metal-24xl 96x1 768 - 24x50 200 32/128/768 150000:720000 39 - efa=1 -migration
 metal-48xl 192x1 1536 - 2*12x50 2*200 32/128/384 300000:1440000 78 - clock=2.7 ebs-cards=2 efa=2 -migration
    own-ebs-slots
r8gd cpu=AWS clock=2.8 arch=arm64 boot=uefi weighting=default,ebs-1,vpc-1 hibernation enclaves phc own-ebs-slots
    -recovery -migration
 medium 1x1 8 - 2x4 0.52-12.5 1 315-10000:2500-40000 32 1x59 -enclaves
 large 2x1 16 1-2 3x10 0.937-12.5 2 630-10000:3600-40000 32 1x118
 xlarge 4x1 32 1-4 4x15 1.875-12.5 4 1250-10000:6000-40000 32 1x237
 2xlarge 8x1 64 1-8 4x15 3.75-15 8 2500-10000:12000-40000 32 1x474
 4xlarge 16x1 128 1-16 8x30 7.5-15 8 5000-10000:20000-40000 32 1x950
 8xlarge 32x1 256 1-32 8x30 15 8 10000:40000 32 1x1900 -hibernation ena-express
 12xlarge 48x1 384 1-48 8x30 22.5 8 15000:60000 32 3x950 -hibernation ena-express
 16xlarge 64x1 512 1-64 15x50 30 8 20000:80000 48 2x1900 -hibernation ena-express
 24xlarge 96x1 768 1-96 15x50 40 8 30000:120000 64 3x1900 efa=1 -hibernation ena-express
 48xlarge 192x1 1536 4-192/2 15x50 50 16 40000:240000 128 6x1900 clock=2.7 efa=1 -hibernation ena-express
 metal-24xl 96x1 768 - 15x50 40 32 30000:120000 39 3x1900 efa=1 ena-express own-ebs-slots
 metal-48xl 192x1 1536 - 15x50 50 32 40000:240000 79 6x1900 clock=2.7 efa=1 ena-express own-ebs-slots
r8gn cpu=AWS clock=2.8 arch=arm64 boot=uefi tcp=350 hibernation enclaves ena-express flexible-queues own-ebs-slots
 medium 1x1 8 - 2x4 3.125-25 1/1/2 760-10000:2500-40000 32 - -enclaves -ena-express
 large 2x1 16 1-2 3x10 6.25-30 2/2/6 1250-10000:5000-40000 32 - -ena-express
 xlarge 4x1 32 1-4 4x15 12.5-40 4/4/16 2500-10000:10000-40000 32 - -ena-express
 2xlarge 8x1 64 1-8 4x15 25-50 8/8/32 5000-10000:20000-40000 32 - -ena-express
 4xlarge 16x1 128 1-16 8x30 50 8/16/64 10000:40000 32 -
 8xlarge 32x1 256 1-32 10x30 100 8/32/128 20000:80000 32 - -hibernation
 12xlarge 48x1 384 1-48 12x30 150 16/64/192 30000:120000 32 - -hibernation
 16xlarge 64x1 512 1-64 16x50 200 16/64/256 40000:160000 48 - efa=1 -hibernation
 24xlarge 96x1 768 1-96 24x50 300 16/128/384 60000:240000 64 - efa=1 -hibernation
 48xlarge 192x1 1536 4-192/2 2*12x50 2*300 32/128/384 120000:480000 128 - clock=2.7 ebs-cards=2 efa=2 -hibernation
 metal-24xl 96x1 768 - 24x50 300 32/128/768 60000:240000 39 - efa=1 -migration
 metal-48xl 192x1 1536 - 2*12x50 2*300 32/128/384 120000:480000 78 - clock=2.7 ebs-cards=2 efa=2 -migration
    own-ebs-slots
r8i cpu=Intel clock=3.9 features=nested-virtualization tcp=350 weighting=default,ebs-1,vpc-1 enclaves phc ena-express
    flexible-queues own-ebs-slots
 large 1x2 16 1 3x20 0.937-12.5 2/2/6 650-10000:3600-40000 32 - hibernation -enclaves -ena-express
 xlarge 2x2 32 1-2 4x30 1.875-12.5 4/4/16 1250-10000:6000-40000 32 - hibernation -ena-express
 2xlarge 4x2 64 1-4 4x30 3.75-15 8/8/32 2500-10000:12000-40000 32 - hibernation -ena-express
 4xlarge 8x2 128 1-8 8x50 7.5-15 8/16/64 5000-10000:20000-40000 32 - hibernation -ena-express
 8xlarge 16x2 256 1-16 10x50 15 8/32/128 10000:40000 32 -
 12xlarge 24x2 384 1-24 12x50 22.5 16/64/192 15000:60000 32 -
 16xlarge 32x2 512 1-32 16x64 30 16/64/256 20000:80000 48 -
 24xlarge 48x2 768 4-48/2 16x64 40 16/128/384 30000:120000 64 -
 32xlarge 64x2 1024 4-64/2 24x64 50 16/128/512 40000:160000 88 -
 48xlarge 96x2 1536 6-96/3 24x64 75 32/128/768 60000:240000 128 - efa=1
 96xlarge 192x2 3072 12-192/6 24x64 100 32/128/1536 80000:480000 128 - efa=1
 metal-48xl 96x2 1536 - 24x64 75 32/128/768 60000:240000 64 - efa=1 -migration own-ebs-slots
 metal-96xl 192x2 3072 - 24x64 100 32/128/1536 80000:480000 79 - efa=1 -migration own-ebs-slots
r8i-flex cpu=Intel clock=3.9 features=nested-virtualization placement=partition,spread tcp=350
    weighting=default,ebs-1,vpc-1 hibernation phc flexible-queues own-ebs-slots -dedicated
 large 1x2 16 1 3x20 0.468-12.5 1/1/3 315-10000:2500-40000 32 -
 xlarge 2x2 32 1-2 4x30 0.937-12.5 2/2/8 630-10000:3600-40000 32 -
 2xlarge 4x2 64 1-4 4x30 1.875-15 4/4/16 1250-10000:6000-40000 32 -
 4xlarge 8x2 128 1-8 8x50 3.75-15 4/8/32 2500-10000:12000-40000 32 -
 8xlarge 16x2 256 1-16 10x50 7.5-15 4/16/64 5000-10000:20000-40000 32 - -hibernation
 12xlarge 24x2 384 1-24 12x50 11.25-22.5 8/32/96 7500-15000:30000-60000 32 - -hibernation
 16xlarge 32x2 512 1-32 16x64 15-30 8/32/128 10000-20000:40000-80000 48 - -hibernation
r8ib cpu=Intel clock=3.9 tcp=350 enclaves ena-express flexible-queues own-ebs-slots
 large 1x2 16 1 4x20 2.083-16.667 2/2/8 1563-25000:7500-120000 32 - hibernation -enclaves -ena-express
 xlarge 2x2 32 1-2 4x30 4.166-20 4/4/16 3125-25000:15000-120000 32 - hibernation -ena-express
 2xlarge 4x2 64 1-4 4x30 8.333-26.667 8/8/32 6250-25000:30000-120000 32 - hibernation -ena-express
 4xlarge 8x2 128 1-8 8x50 16.666-33.333 8/16/64 12500-25000:60000-120000 32 - hibernation -ena-express
 8xlarge 16x2 256 1-16 8x50 33.333 16/32/128 25000:120000 32 -
 12xlarge 24x2 384 1-24 12x50 50 16/64/192 37500:180000 32 -
 16xlarge 32x2 512 1-32 16x64 66.666 16/64/256 50000:240000 48 -
 24xlarge 48x2 768 4-48/2 16x64 100 16/128/256 75000:360000 64 -
 32xlarge 64x2 1024 4-64/2 16x64 133.333 32/128/512 100000:480000 88 -
 48xlarge 96x2 1536 6-96/3 24x64 200 32/128/768 150000:720000 128 - efa=1
 96xlarge 192x2 3072 12-192/6 2*12x64 2*200 32/128/768 300000:1440000 128 - ebs-cards=2 efa=2
 metal-48xl 96x2 1536 - 24x64 200 32/128/768 150000:720000 64 - efa=1 -migration
 metal-96xl 192x2 3072 - 2*12x64 2*200 32/128/768 300000:1440000 78 - ebs-cards=2 efa=2 -migration
r8id cpu=Intel clock=3.9 features=nested-virtualization tcp=350 weighting=default,ebs-1,vpc-1 enclaves phc ena-express
    flexible-queues own-ebs-slots -recovery -migration
 large 1x2 16 1 3x20 0.937-12.5 2/2/6 650-10000:3600-40000 32 1x118 -enclaves -ena-express
 xlarge 2x2 32 1-2 4x30 1.875-12.5 4/4/16 1250-10000:6000-40000 32 1x237 -ena-express
 2xlarge 4x2 64 1-4 4x30 3.75-15 8/8/32 2500-10000:12000-40000 32 1x474 -ena-express
 4xlarge 8x2 128 1-8 8x50 7.5-15 8/16/64 5000-10000:20000-40000 32 1x950 -ena-express
 8xlarge 16x2 256 1-16 10x50 15 8/32/128 10000:40000 32 1x1900
 12xlarge 24x2 384 1-24 12x50 22.5 16/64/192 15000:60000 32 1x2850
 16xlarge 32x2 512 1-32 16x64 30 16/64/256 20000:80000 48 1x3800
 24xlarge 48x2 768 4-48/2 16x64 40 16/128/384 30000:120000 64 2x2850
 32xlarge 64x2 1024 4-64/2 24x64 50 16/128/512 40000:160000 88 2x3800
 48xlarge 96x2 1536 6-96/3 24x64 75 32/128/768 60000:240000 128 3x3800 efa=1
 96xlarge 192x2 3072 12-192/6 24x64 100 32/128/1536 80000:480000 128 6x3800 efa=1
 metal-48xl 96x2 1536 - 24x64 75 32/128/768 60000:240000 64 3x3800 efa=1
 metal-96xl 192x2 3072 - 24x64 100 32/128/1536 80000:480000 79 6x3800 efa=1
r8idb cpu=Intel clock=3.9 tcp=350 enclaves ena-express flexible-queues own-ebs-slots -recovery -migration
 large 1x2 16 1 4x20 2.083-16.667 2/2/8 1563-25000:7500-120000 32 1x118 hibernation -enclaves -ena-express
 xlarge 2x2 32 1-2 4x30 4.166-20 4/4/16 3125-25000:15000-120000 32 1x237 hibernation -ena-express
 2xlarge 4x2 64 1-4 4x30 8.333-26.667 8/8/32 6250-25000:30000-120000 32 1x474 hibernation -ena-express
 4xlarge 8x2 128 1-8 8x50 16.666-33.333 8/16/64 12500-25000:60000-120000 32 1x950 hibernation -ena-express
 8xlarge 16x2 256 1-16 8x50 33.333 16/32/128 25000:120000 32 1x1900
 12xlarge 24x2 384 1-24 12x50 50 16/64/192 37500:180000 32 1x2850
 16xlarge 32x2 512 1-32 16x64 66.666 16/64/256 50000:240000 48 1x3800
 24xlarge 48x2 768 4-48/2 16x64 100 16/128/256 75000:360000 64 2x2850
 32xlarge 64x2 1024 4-64/2 16x64 133.333 32/128/512 100000:480000 88 2x3800
 48xlarge 96x2 1536 6-96/3 24x64 200 32/128/768 150000:720000 128 3x3800 efa=1
 96xlarge 192x2 3072 12-192/6 2*12x64 2*200 32/128/768 300000:1440000 128 6x3800 ebs-cards=2 efa=2
 metal-48xl 96x2 1536 - 24x64 200 32/128/768 150000:720000 64 3x3800 efa=1
 metal-96xl 192x2 3072 - 2*12x64 2*200 32/128/768 300000:1440000 78 6x3800 ebs-cards=2 efa=2
r8idn cpu=Intel clock=3.9 tcp=350 enclaves ena-express flexible-queues own-ebs-slots -recovery -migration
 large 1x2 16 1 4x20 3.125-25 2/2/8 650-10000:3600-40000 32 1x118 hibernation -enclaves -ena-express
 xlarge 2x2 32 1-2 4x30 6.25-30 4/4/16 1250-10000:6000-40000 32 1x237 hibernation -ena-express
 2xlarge 4x2 64 1-4 4x30 12.5-40 8/8/32 2500-10000:12000-40000 32 1x474 hibernation -ena-express
 4xlarge 8x2 128 1-8 8x50 25-50 8/16/64 5000-10000:20000-40000 32 1x950 hibernation -ena-express
 8xlarge 16x2 256 1-16 8x50 50 16/32/128 10000:40000 32 1x1900
 12xlarge 24x2 384 1-24 12x50 75 16/64/192 15000:60000 32 1x2850
 16xlarge 32x2 512 1-32 16x64 100 16/64/256 20000:80000 48 1x3800
 24xlarge 48x2 768 4-48/2 16x64 150 16/128/256 30000:120000 64 2x2850
 32xlarge 64x2 1024 4-64/2 16x64 200 32/128/512 40000:160000 88 2x3800
 48xlarge 96x2 1536 6-96/3 24x64 300 32/128/768 60000:240000 128 3x3800 efa=1
 96xlarge 192x2 3072 12-192/6 2*12x64 2*300 32/128/768 120000:480000 128 6x3800 ebs-cards=2 efa=2
 metal-48xl 96x2 1536 - 24x64 300 32/128/768 60000:240000 64 3x3800 efa=1
 metal-96xl 192x2 3072 - 2*12x64 2*300 32/128/768 120000:480000 78 6x3800 ebs-cards=2 efa=2
r8in cpu=Intel clock=3.9 tcp=350 enclaves ena-express flexible-queues own-ebs-slots
 large 1x2 16 1 4x20 3.125-25 2/2/8 650-10000:3600-40000 32 - hibernation -enclaves -ena-express
 xlarge 2x2 32 1-2 4x30 6.25-30 4/4/16 1250-10000:6000-40000 32 - hibernation -ena-express
 2xlarge 4x2 64 1-4 4x30 12.5-40 8/8/32 2500-10000:12000-40000 32 - hibernation -ena-express
 4xlarge 8x2 128 1-8 8x50 25-50 8/16/64 5000-10000:20000-40000 32 - hibernation -ena-express
 8xlarge 16x2 256 1-16 8x50 50 16/32/128 10000:40000 32 -
 12xlarge 24x2 384 1-24 12x50 75 16/64/192 15000:60000 32 -
 16xlarge 32x2 512 1-32 16x64 100 16/64/256 20000:80000 48 -
 24xlarge 48x2 768 4-48/2 16x64 150 16/128/256 30000:120000 64 -
 32xlarge 64x2 1024 4-64/2 16x64 200 32/128/512 40000:160000 88 -
 48xlarge 96x2 1536 6-96/3 24x64 300 32/128/768 60000:240000 128 - efa=1
 96xlarge 192x2 3072 12-192/6 2*12x64 2*300 32/128/768 120000:480000 128 - ebs-cards=2 efa=2
 metal-48xl 96x2 1536 - 24x64 300 32/128/768 60000:240000 64 - efa=1 -migration
 metal-96xl 192x2 3072 - 2*12x64 2*300 32/128/768 120000:480000 78 - ebs-cards=2 efa=2 -migration
r9g cpu=AWS clock=3.3 arch=arm64 boot=uefi tcp=350 weighting=default,ebs-1,vpc-1 hibernation enclaves phc
    flexible-queues own-ebs-slots
 medium 1x1 8 - 2x20 0.55-15 1/1/2 380-12000:2500-48000 32 - -enclaves
 large 2x1 16 1-2 3x20 1-15 2/2/6 760-12000:3600-48000 32 -
 xlarge 4x1 32 1-4 4x30 2.1-15 4/4/16 1500-12000:6000-48000 32 -
 2xlarge 8x1 64 1-8 4x30 4.25-17 8/8/32 3000-12000:12000-48000 32 -
 4xlarge 16x1 128 1-16 8x50 8.5-17 8/16/64 6000-12000:24000-48000 32 -
 8xlarge 32x1 256 1-32 10x50 17 8/32/128 12000:48000 32 - -hibernation ena-express
 12xlarge 48x1 384 1-48 12x50 25 16/64/192 18000:72000 32 - -hibernation ena-express
 16xlarge 64x1 512 4-64/2 16x64 34 16/64/256 24000:96000 48 - -hibernation ena-express
 24xlarge 96x1 768 1-96 24x64 50 16/128/384 36000:144000 64 - -hibernation ena-express
 48xlarge 192x1 1536 4-192/2 24x64 100 32/128/768 72000:288000 128 - efa=1 -hibernation ena-express
 metal-48xl 192x1 1536 - 24x64 100 32/128/768 72000:288000 79 - efa=1 -migration ena-express
r9gd cpu=AWS clock=3.3 arch=arm64 boot=uefi tcp=350 weighting=default,ebs-1,vpc-1 hibernation enclaves phc
    flexible-queues own-ebs-slots -recovery -migration
 medium 1x1 8 - 2x20 0.55-15 1/1/2 380-12000:2500-48000 32 1x59 -enclaves
 large 2x1 16 1-2 3x20 1-15 2/2/6 760-12000:3600-48000 32 1x118
 xlarge 4x1 32 1-4 4x30 2.1-15 4/4/16 1500-12000:6000-48000 32 1x237
 2xlarge 8x1 64 1-8 4x30 4.25-17 8/8/32 3000-12000:12000-48000 32 1x474
 4xlarge 16x1 128 1-16 8x50 8.5-17 8/16/64 6000-12000:24000-48000 32 1x950
 8xlarge 32x1 256 1-32 10x50 17 8/32/128 12000:48000 32 1x1900 -hibernation ena-express
 12xlarge 48x1 384 1-48 12x50 25 16/64/192 18000:72000 32 3x950 -hibernation ena-express
 16xlarge 64x1 512 4-64/2 16x64 34 16/64/256 24000:96000 48 1x3800 -hibernation ena-express
 24xlarge 96x1 768 1-96 24x64 50 16/128/384 36000:144000 64 3x1900 -hibernation ena-express
 48xlarge 192x1 1536 4-192/2 24x64 100 32/128/768 72000:288000 128 3x3800 efa=1 -hibernation ena-express
 metal-48xl 192x1 1536 - 24x64 100 32/128/768 72000:288000 79 3x3800 efa=1 ena-express
t1 cpu=Intel arch=i386,x86_64 boot=legacy-bios ebs=unsupported ena=unsupported hypervisor=xen ipv6=0 nvme=unsupported
    placement=partition,spread virt=hvm,paravirtual -current -dedicated -tpm -transit
 micro 1x1 627M - 2x2 0.07-0.28 1 - 39 - perf=Very_Low
t2 cpu=Intel clock=2.3 arch=i386,x86_64 boot=legacy-bios ebs=unsupported ena=unsupported hypervisor=xen nvme=unsupported
    placement=partition,spread hibernation -dedicated -tpm -transit
 nano 1x1 0.5 - 2x2 0.032-0.512 1 - 40 - clock=2.4 credits=3 perf=Low_to_Moderate usage=on-demand
 micro 1x1 1 - 2x2 0.064-1.024 1 - 40 - clock=2.5 credits=6 perf=Low_to_Moderate
 small 1x1 2 - 3x4 0.128-1.024 1 - 40 - clock=2.5 credits=12 perf=Low_to_Moderate
 medium 2x1 4 - 3x6 0.256-1.024 1 - 40 - credits=24 perf=Low_to_Moderate
 large 2x1 8 - 3x12 0.512-1.024 1 - 40 - arch=x86_64 credits=36 perf=Low_to_Moderate
 xlarge 4x1 16 - 3x15 0.75-1.024 1 - 40 - arch=x86_64 credits=54 perf=Moderate
 2xlarge 8x1 32 - 3x15 1-1.024 1 - 40 - arch=x86_64 credits=81.6 perf=Moderate
t3 cpu=Intel clock=2.5 placement=partition,spread hibernation -transit
 nano 1x2 0.5 1 2x2 0.032-5 2 43-2085:250-11800 27 - credits=6
 micro 1x2 1 1 2x2 0.064-5 2 87-2085:500-11800 27 - credits=12 free-tier
 small 1x2 2 1 3x4 0.128-5 2 174-2085:1000-11800 27 - credits=24 free-tier
 medium 1x2 4 1 3x6 0.256-5 2 347-2085:2000-11800 27 - credits=24
 large 1x2 8 1 3x12 0.512-5 2 695-2780:4000-15700 27 - credits=36
 xlarge 2x2 16 2 4x15 1.024-5 4 695-2780:4000-15700 27 - credits=96
 2xlarge 4x2 32 2,4 4x15 2.048-5 8 695-2780:4000-15700 27 - credits=192
t3a cpu=AMD clock=2.2 placement=partition,spread hibernation -dedicated -transit
 nano 1x2 0.5 1 2x2 0.032-5 8 45-2085:250-11800 27 - credits=6
 micro 1x2 1 1 2x2 0.064-5 8 90-2085:500-11800 27 - credits=12
 small 1x2 2 1 2x4 0.128-5 8 175-2085:1000-11800 27 - credits=24
 medium 1x2 4 1 3x6 0.256-5 8 350-2085:2000-11800 27 - credits=24
 large 1x2 8 1 3x12 0.512-5 8 695-2780:4000-15700 27 - credits=36
 xlarge 2x2 16 2 4x15 1.024-5 8 695-2780:4000-15700 27 - credits=96
 2xlarge 4x2 32 2,4 4x15 2.048-5 8 695-2780:4000-15700 27 - credits=192
t4g cpu=AWS clock=2.5 arch=arm64 boot=uefi placement=partition,spread hibernation -dedicated -transit
 nano 2x1 0.5 1-2 2x2 0.032-5 2 43-2085:250-11800 27 - credits=6
 micro 2x1 1 1-2 2x2 0.064-5 2 87-2085:500-11800 27 - credits=12 free-tier
 small 2x1 2 1-2 3x4 0.128-5 2 174-2085:1000-11800 27 - credits=24 free-tier
 medium 2x1 4 1-2 3x6 0.256-5 2 347-2085:2000-11800 27 - credits=24
 large 2x1 8 1-2 3x12 0.512-5 2 695-2780:4000-15700 27 - credits=36
 xlarge 4x1 16 1-4 4x15 1.024-5 4 695-2780:4000-15700 27 - credits=96
 2xlarge 8x1 32 1-8 4x15 2.048-5 8 695-2780:4000-15700 27 - credits=192
t8i cpu=Intel clock=3.9 placement=partition,spread tcp=350 hibernation phc own-ebs-slots -dedicated
 nano 1x2 0.5 1 2x2 0.032-6.25 1/1/1 43-5000:250-20000 32 -
 micro 1x2 1 1 2x2 0.064-6.25 1/1/1 87-5000:500-20000 32 - free-tier
 small 1x2 2 1 3x4 0.128-6.25 1/1/2 174-5000:1500-20000 32 - free-tier
 medium 1x2 4 1 3x6 0.256-6.25 1/1/2 347-5000:2000-20000 32 -
trn1 cpu=Intel clock=3.5 boot=legacy-bios neuron=Trainium/2v2/32768 -recovery -migration -tpm
 2xlarge 4x2 32 2,4 4x15 3.125-12.5 8 5000-20000:16250-65000 25 1x474
 32xlarge 64x2 512 2-64/2 8*5x50 8*100 32 80000:260000 28 4x1900 devices=16 efa=8 perf=8x_100_Gigabit
    usage=on-demand,spot,capacity-block
trn1n cpu=Intel clock=3.5 boot=legacy-bios devices=16 efa=16 neuron=Trainium/2v2/32768 -dedicated -recovery -migration
    -tpm
 32xlarge 64x2 512 2-64/2 16*5x50 16*100 32 80000:260000 28 4x1900 perf=16x_100_Gigabit
trn2 cpu=Intel clock=3.5 efa=1 neuron=Trainium2/8v3/524288 usage=on-demand,spot,capacity-block enclaves own-ebs-slots
    -dedicated -recovery -migration -tpm
 3xlarge 6x2 128 1-6 2x15 50 16 5000:16250 32 1x470 card-perf=50_Gigabit perf=200_Gigabit
 48xlarge 96x2 2048 4-96/2 16*2x50 16*200 32 80000:260000 64 4x1900 devices=16 efa=16 perf=16x_200_Gigabit tpm
trn2u cpu=Intel clock=3.5 efa=16 usage=on-demand,capacity-block enclaves own-ebs-slots -dedicated -recovery -migration
 48xlarge 96x2 2048 4-96/2 16*2x50 16*200 32 80000:260000 64 4x1900 perf=16x_200_Gigabit
u-12tb1 cpu=Intel clock=2.1 boot=legacy-bios usage=on-demand -migration -tpm
 112xlarge 224x2 12288 8-224/8 15x50 100 8 38000:160000 27 -
u-18tb1 cpu=Intel clock=2.7 boot=legacy-bios usage=on-demand -migration -tpm
 112xlarge 224x2 18432 8-224/8 15x50 100 8 38000:160000 27 -
u-24tb1 cpu=Intel clock=2.7 boot=legacy-bios usage=on-demand -migration -tpm
 112xlarge 224x2 24576 8-224/8 15x50 100 8 38000:160000 27 -
u-3tb1 cpu=Intel clock=2.1 boot=legacy-bios usage=on-demand -dedicated -tpm
 56xlarge 112x2 3072 8-112/4 8x30 50 32 19000:80000 27 -
u-6tb1 cpu=Intel clock=2.1 boot=legacy-bios usage=on-demand -tpm
 56xlarge 224x1 6144 16-224/8 15x50 100 32 38000:160000 27 -
 112xlarge 224x2 6144 16-224/8 15x50 100 32 38000:160000 27 -
u-9tb1 cpu=Intel clock=2.1 boot=legacy-bios usage=on-demand -migration -tpm
 112xlarge 224x2 9216 8-224/8 15x50 100 8 38000:160000 27 -
u7i-12tb cpu=Intel clock=1.9 efa=1 usage=on-demand phc ena-express own-ebs-slots
 224xlarge 448x2 12288 16-448/8 15x50 100 16 100000:560000 128 -
u7i-6tb cpu=Intel clock=1.9 efa=1 usage=on-demand phc ena-express own-ebs-slots
 112xlarge 224x2 6144 8-224/4 15x50 100 16 100000:560000 128 -
u7i-8tb cpu=Intel clock=1.9 efa=1 usage=on-demand phc ena-express own-ebs-slots
 112xlarge 224x2 8192 8-224/4 15x50 100 16 100000:560000 128 -
u7in-16tb cpu=Intel clock=1.9 efa=2 usage=on-demand phc ena-express own-ebs-slots
 224xlarge 448x2 16384 16-448/8 2*8x50 2*100 16 100000:560000 128 -
u7in-24tb cpu=Intel clock=1.9 efa=2 usage=on-demand phc ena-express own-ebs-slots
 224xlarge 448x2 24576 16-448/8 2*8x50 2*100 16 100000:560000 128 -
u7in-32tb cpu=Intel clock=1.9 efa=2 usage=on-demand phc ena-express own-ebs-slots
 224xlarge 448x2 32768 16-448/8 2*8x50 2*100 16 100000:560000 128 -
vt1 cpu=Intel clock=2.5 boot=legacy-bios media=Xilinx/U30/24576 placement=partition,spread -tpm
 3xlarge 6x2 24 6 4x15 3.125 8 2375-4750:10000-20000 25 -
 6xlarge 12x2 48 6,12 8x30 6.25 8 4750:20000 23 - devices=2
 24xlarge 48x2 192 6,12,48 15x50 25 8 19000:80000 27 - devices=8 efa=1
x1 cpu=Intel clock=2.3 boot=legacy-bios disk-encryption=unsupported disk-nvme=unsupported ena=supported hypervisor=xen
    nvme=unsupported root=ebs,instance-store -migration -tpm -transit
 16xlarge 32x2 976 2-32/2 8x30 10 8 7000:40000 40 1x1920
 32xlarge 64x2 1952 4-64/4 8x30 25 8 14000:80000 40 2x1920
x1e cpu=Intel clock=2.3 boot=legacy-bios disk-encryption=unsupported disk-nvme=unsupported ena=supported hypervisor=xen
    nvme=unsupported -migration -tpm -transit
 xlarge 2x2 122 1-2 3x10 0.625-10 8 500:3700 40 1x120
 2xlarge 4x2 244 1-4 4x15 1.25-10 8 1000:7400 40 1x240
 4xlarge 8x2 488 1-8 4x15 2.5-10 8 1750:10000 40 1x480
 8xlarge 16x2 976 1-16 4x15 5-10 8 3500:20000 40 1x960
 16xlarge 32x2 1952 2-32/2 8x30 10 8 7000:40000 40 1x1920
 32xlarge 64x2 3904 4-64/4 8x30 25 8 14000:80000 40 2x1920
x2gd cpu=AWS clock=2.5 arch=arm64 boot=uefi hibernation enclaves -recovery -migration -tpm -transit
 medium 1x1 16 - 2x4 0.5-10 8 315-4750:2500-20000 26 1x59 -enclaves
 large 2x1 32 1-2 3x10 0.75-10 8 630-4750:3600-20000 26 1x118
 xlarge 4x1 64 1-4 4x15 1.25-10 8 1188-4750:6000-20000 26 1x237
 2xlarge 8x1 128 1-8 4x15 2.5-10 8 2375-4750:12000-20000 26 1x475
 4xlarge 16x1 256 1-16 8x30 5-10 8 4750:20000 26 1x950 -hibernation
 8xlarge 32x1 512 1-32 8x30 12 8 9500:40000 26 1x1900 -hibernation
 12xlarge 48x1 768 1-48 8x30 20 8 14250:60000 25 2x1425 -hibernation
 16xlarge 64x1 1024 1-64 15x50 25 8 19000:80000 25 2x1900 -hibernation
 metal 64x1 1024 - 15x50 25 32 19000:80000 31 2x1900
x2idn cpu=Intel clock=3.5 enclaves ena-express -migration
 16xlarge 32x2 1024 2-32/2 15x50 50 16 40000:173333 26 1x1900
 24xlarge 48x2 1536 2-48/2 15x50 75 16 60000:260000 25 2x1425
 32xlarge 64x2 2048 2-64/2 15x50 100 16 80000:260000 25 2x1900 efa=1
 metal 64x2 2048 - 15x50 100 32 80000:260000 31 2x1900 efa=1
x2iedn cpu=Intel clock=3.5 enclaves ena-express -migration
 xlarge 2x2 128 1-2 4x15 1.875-25 4 2500-20000:8125-65000 26 1x118 -ena-express
 2xlarge 4x2 256 2,4 4x15 5-25 8 5000-20000:16250-65000 26 1x237 -ena-express
 4xlarge 8x2 512 2-8/2 8x30 12.5-25 8 10000-20000:32500-65000 26 1x475 -ena-express
 8xlarge 16x2 1024 2-16/2 8x30 25 16 20000:65000 26 1x950
 16xlarge 32x2 2048 2-32/2 15x50 50 16 40000:130000 26 1x1900
 24xlarge 48x2 3072 2-48/2 15x50 75 16 60000:195000 25 2x1425
 32xlarge 64x2 4096 2-64/2 15x50 100 16 80000:260000 25 2x1900 efa=1
 metal 64x2 4096 - 15x50 100 32 80000:260000 31 2x1900 efa=1
x2iezn cpu=Intel clock=4.5 enclaves
 2xlarge 4x2 256 2,4 4x15 12.5-25 8 3170:13333 27 -
 4xlarge 8x2 512 2-8/2 8x30 15-25 32 4750:20000 27 -
 6xlarge 12x2 768 2-12/2 8x30 50 32 9500:40000 27 -
 8xlarge 16x2 1024 2-16/2 8x30 75 32 12000:55000 27 -
 12xlarge 24x2 1536 2-24/2 15x50 100 32 19000:80000 27 - efa=1
 metal 24x2 1536 - 15x50 100 32 19000:80000 31 - efa=1
x8aedz cpu=AMD clock=5 tcp=350 weighting=default,ebs-1,vpc-1 enclaves phc flexible-queues own-ebs-slots -recovery
    -migration
 large 2x1 64 1-2 4x20 1.562-18.75 2/2/8 1250-15000:5000-60000 32 1x158 hibernation
 xlarge 4x1 128 1-4 4x20 3.125-18.75 4/4/16 2500-15000:10000-60000 32 1x316 hibernation
 3xlarge 12x1 384 1-2,4-12/2 8x40 9.375-18.75 4/16/48 7500-15000:30000-60000 32 1x950
 6xlarge 24x1 768 1-4,8-24/4 8x40 18.75 8/32/96 15000:60000 32 1x1900
 12xlarge 48x1 1536 1-8,16-48/8 16x64 37.5 8/64/192 30000:120000 64 1x3800
 24xlarge 96x1 3072 4-16/2,32-96/16 16x64 75 16/128/384 60000:240000 128 2x3800 efa=1 ena-express
 metal-12xl 48x1 1536 - 16x64 37.5 8/64/192 30000:120000 64 1x3800 own-ebs-slots
 metal-24xl 96x1 3072 - 16x64 75 16/128/384 60000:240000 79 2x3800 efa=1 ena-express own-ebs-slots
x8g cpu=AWS clock=2.8 arch=arm64 boot=uefi weighting=default,ebs-1,vpc-1 enclaves phc own-ebs-slots
 medium 1x1 16 - 2x4 0.52-12.5 1 315-10000:2500-40000 32 - -enclaves
 large 2x1 32 1-2 3x10 0.937-12.5 2 630-10000:3600-40000 32 -
 xlarge 4x1 64 1-4 4x15 1.875-12.5 4 1250-10000:6000-40000 32 -
 2xlarge 8x1 128 1-8 4x15 3.75-15 8 2500-10000:12000-40000 32 -
 4xlarge 16x1 256 1-16 8x30 7.5-15 8 5000-10000:20000-40000 32 -
 8xlarge 32x1 512 1-32 8x30 15 8 10000:40000 32 - ena-express
 12xlarge 48x1 768 1-48 8x30 22.5 8 15000:60000 32 - ena-express
 16xlarge 64x1 1024 1-64 15x50 30 8 20000:80000 48 - ena-express
 24xlarge 96x1 1536 1-96 15x50 40 8 30000:120000 64 - efa=1 ena-express
 48xlarge 192x1 3072 4-192/2 15x50 50 16 40000:240000 128 - clock=2.7 efa=1 ena-express
 metal-24xl 96x1 1536 - 15x50 40 32 30000:120000 39 - efa=1 ena-express own-ebs-slots
 metal-48xl 192x1 3072 - 15x50 50 32 40000:240000 79 - clock=2.7 efa=1 ena-express own-ebs-slots
x8i cpu=Intel clock=3.9 features=nested-virtualization tcp=350 weighting=default,ebs-1,vpc-1 enclaves phc ena-express
    flexible-queues own-ebs-slots
 large 1x2 32 1 3x20 0.937-12.5 2/2/6 650-10000:3600-40000 32 - hibernation -enclaves -ena-express
 xlarge 2x2 64 1-2 4x30 1.875-12.5 4/4/16 1250-10000:6000-40000 32 - hibernation -ena-express
 2xlarge 4x2 128 1-4 4x30 3.75-15 8/8/32 2500-10000:12000-40000 32 - hibernation -ena-express
 4xlarge 8x2 256 1-8 8x50 7.5-15 8/16/64 5000-10000:20000-40000 32 - -ena-express
 8xlarge 16x2 512 1-16 10x50 15 8/32/128 10000:40000 32 -
 12xlarge 24x2 768 1-24 12x50 22.5 16/64/192 15000:60000 32 -
 16xlarge 32x2 1024 1-32 16x64 30 16/64/256 20000:80000 48 -
 24xlarge 48x2 1536 4-48/2 16x64 40 16/128/384 30000:120000 64 -
 32xlarge 64x2 2048 4-64/2 24x64 50 16/128/512 40000:160000 88 -
 48xlarge 96x2 3072 6-96/3 24x64 75 32/128/768 60000:240000 128 - efa=1
 64xlarge 128x2 4096 8-128/4 24x64 80 32/128/1024 70000:320000 128 - efa=1
 96xlarge 192x2 6144 12-192/6 24x64 100 32/128/1536 80000:480000 128 - efa=1
 metal-48xl 96x2 3072 - 24x64 75 32/128/768 60000:240000 64 - efa=1 -migration
 metal-96xl 192x2 6144 - 24x64 100 32/128/1536 80000:480000 79 - efa=1 -migration
z1d cpu=Intel clock=4 enclaves -recovery -migration -transit
 large 1x2 16 1 3x10 0.75-10 8 800-3170:3333-13333 26 1x75 -enclaves
 xlarge 2x2 32 1-2 4x15 1.25-10 8 1580-3170:6667-13333 26 1x150
 2xlarge 4x2 64 2,4 4x15 2.5-10 8 3170:13333 26 1x300
 3xlarge 6x2 96 2-6/2 8x30 5-10 8 4750:20000 26 1x450
 6xlarge 12x2 192 2-12/2 8x30 12 8 9500:40000 26 1x900
 12xlarge 24x2 384 4-24/2 15x50 25 8 19000:80000 25 2x900
 metal 24x2 384 - 15x50 25 8 19000:80000 31 2x900
"""
