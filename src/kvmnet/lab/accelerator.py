"""Whether KVM really works here: a tiny guest that really starts, not a file that exists.

The guest is one boot sector that tells QEMU to exit. Nested or restricted KVM may offer /dev/kvm
and hang in the firmware, so it is given three seconds. The verdict holds until the next boot.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec
from msgspec import Struct

from kvmnet.adapters.files import read_optional, write_atomic
from kvmnet.adapters.run import run
from kvmnet.errors import Failed, TimedOut, Unavailable
from kvmnet.lab.cache import cache_dir
from kvmnet.lab.machine import machine

LIMIT_S = 3.0

_EXIT_PORT = 0xF4
_EXIT_VALUE = 0x2A
_EXIT_STATUS = (_EXIT_VALUE << 1) | 1
"""What QEMU's isa-debug-exit device makes of the value."""

_CODE = bytes((0xB0, _EXIT_VALUE, 0xE6, _EXIT_PORT, 0xF4))
"""mov al, value; out port, al; hlt"""

BOOT_SECTOR = _CODE.ljust(510, b"\0") + b"\x55\xaa"


class Verdict(Struct, frozen=True, kw_only=True):
    """What was found out, and during which boot."""

    boot_id: str
    kvm: bool


def kvm_works() -> bool:
    """Whether a guest starts under KVM; takes up to three seconds once a boot."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK) or not machine().boots_sectors:
        return False
    boot_id = read_optional(Path("/proc/sys/kernel/random/boot_id")) or ""
    path = cache_dir() / "kvm.json"
    known = _read(path)
    if known is not None and known.boot_id == boot_id:
        return known.kvm
    verdict = Verdict(boot_id=boot_id, kvm=boots(("-accel", "kvm", "-cpu", "host")))
    write_atomic(path, msgspec.json.encode(verdict).decode() + "\n")
    return verdict.kvm


def _read(path: Path) -> Verdict | None:
    text = read_optional(path)
    try:
        return None if text is None else msgspec.json.decode(text, type=Verdict)
    except msgspec.DecodeError:
        return None


def boots(accelerator: tuple[str, ...], limit_s: float = LIMIT_S) -> bool:
    """Whether the boot sector runs to its end with these options of QEMU within the limit."""
    with tempfile.NamedTemporaryFile(prefix="kvmnet-boot-") as disk:
        disk.write(BOOT_SECTOR)
        disk.flush()
        argv = [
            machine().qemu, "-nodefaults", "-no-user-config", "-display", "none", "-m", "16",
            "-machine", machine().machine, *accelerator,
            "-drive", f"file={disk.name},format=raw,if=ide,snapshot=on",
            "-device", f"isa-debug-exit,iobase=0x{_EXIT_PORT:x},iosize=1", "-no-reboot",
        ]  # fmt: skip
        try:
            return run(argv, timeout=limit_s, accept=range(-64, 256)).status == _EXIT_STATUS
        except (TimedOut, Unavailable, Failed):
            return False
