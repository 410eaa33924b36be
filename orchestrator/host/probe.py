"""What this host can do, found out by trying.

KVM is proven by running something under it: a device node that opens is no proof. The something is a boot sector of
148 bytes that enters 64-bit mode, reloads its page tables 2,000 times and leaves by QEMU's debug-exit port. It is the
assembled form of:

    clear and fill three page tables; load a GDT; CR4.PAE, CR3, EFER.LME, CR0.PG and PE; far jump to 64-bit code
    2,000 times: mov cr3 to itself, add 1 to a word in memory
    out 0x10 to port 0xf4; then hlt for ever
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

KVM = Path("/dev/kvm")
KVM_DEADLINE_S = 5.0
KILL_DEADLINE_S = 2.0

_BOOT_CODE = bytes.fromhex(
    "fa31c08ed88ec08ed0bc0070bf0010b90018fcf3abc70600100320c70600200330c706003083000f0116907c0f20e06683c8200f22e066b8"
    "001000000f22d866b9800000c00f32660d000100000f300f20c0660d010000800f22c0ea607c0800b9d00700000f20d80f22d88304250060"
    "000001ffc975eeb010e6f4f4ebfd6690000000000000000000000000009a20000f00807c"
)
_BOOT_SECTOR = _BOOT_CODE.ljust(510, b"\0") + b"\x55\xaa"
_SUCCESS = 0x10 << 1 | 1  # what isa-debug-exit makes of the 0x10 that the code writes


@dataclass(frozen=True, slots=True)
class Trial:
    """Whether an accelerator runs guests here, and why not, in words for people."""

    works: bool
    reason: str = ""


def try_kvm(*, device: Path = KVM, deadline_s: float = KVM_DEADLINE_S) -> Trial:
    """Run a few instructions under KVM."""
    if not device.exists():
        return Trial(
            False, f"{device} is not there: the processor's virtualisation is off, or the kvm module is missing"
        )
    if not os.access(device, os.R_OK | os.W_OK):
        return Trial(False, f"{device} cannot be opened by this user")
    return try_accelerator("kvm", deadline_s=deadline_s)


def try_accelerator(accelerator: str, *, deadline_s: float = KVM_DEADLINE_S) -> Trial:
    """Run the boot sector under `kvm` or `tcg`."""
    processor = "host" if accelerator == "kvm" else "max"
    with tempfile.NamedTemporaryFile(prefix="orc-probe-") as disk:
        disk.write(_BOOT_SECTOR)
        disk.flush()
        command = ["qemu-system-x86_64", "-accel", accelerator, "-cpu", processor, "-machine", "pc", "-m", "16"]
        command += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        command += ["-drive", f"file={disk.name},format=raw,if=ide,readonly=off,snapshot=on"]
        command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        try:
            qemu = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except FileNotFoundError:
            return Trial(False, "qemu-system-x86_64 is not installed")
        try:
            _, said = qemu.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            qemu.kill()
            with suppress(subprocess.TimeoutExpired):  # one that hangs in the kernel cannot even be killed
                qemu.communicate(timeout=KILL_DEADLINE_S)
            return Trial(False, f"the device opens, but a guest under it hangs (no answer in {deadline_s:g} s)")
    if qemu.returncode == _SUCCESS:
        return Trial(True)
    complaint = next((line for line in said.splitlines() if "error" in line), said.strip()[:200])
    return Trial(False, f"the device opens, but QEMU ends with {complaint or f'exit code {qemu.returncode}'}")


def boot_id() -> str:
    """Changes with every boot of the host: what was tried before may no longer be so."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
