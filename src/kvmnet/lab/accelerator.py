"""Whether KVM really works here: a kernel that really boots, not a file that exists.

Nested or restricted KVM may offer /dev/kvm, run a boot sector, and hang as soon as a kernel starts.
So the guests' own kernel is started without a root file system: it comes up far enough to look for
one, panics and resets, and that ends QEMU. The verdict holds until the next boot.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from kvmnet.adapters.files import read_optional, write_atomic
from kvmnet.adapters.run import run
from kvmnet.errors import Failed, TimedOut, Unavailable
from kvmnet.lab.cache import cache_dir
from kvmnet.lab.machine import machine

LIMIT_S = 6.0
"""Under KVM it takes one to two seconds."""

_LAST_WORDS = "Unable to mount root fs"
"""The kernel's (init/do_mounts.c)."""


class Verdict(Struct, frozen=True, kw_only=True):
    """What was found out, and during which boot."""

    boot_id: str
    kvm: bool


def kvm_works(kernel: Path) -> bool:
    """Whether that kernel boots under KVM; takes up to six seconds once a boot."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    boot_id = read_optional(Path("/proc/sys/kernel/random/boot_id")) or ""
    path = cache_dir() / "kvm-boots.json"
    known = _read(path)
    if known is not None and known.boot_id == boot_id:
        return known.kvm
    verdict = Verdict(boot_id=boot_id, kvm=boots(kernel, ("-accel", "kvm", "-cpu", "host")))
    write_atomic(path, msgspec.json.encode(verdict).decode() + "\n")
    return verdict.kvm


def _read(path: Path) -> Verdict | None:
    text = read_optional(path)
    try:
        return None if text is None else msgspec.json.decode(text, type=Verdict)
    except msgspec.DecodeError:
        return None


def boots(kernel: Path, accelerator: tuple[str, ...], limit_s: float = LIMIT_S) -> bool:
    """Whether the kernel gets as far as its root file system with these options of QEMU."""
    argv = [
        machine().qemu, "-nodefaults", "-no-user-config", "-display", "none", "-m", "128",
        "-machine", machine().machine, *accelerator, "-kernel", str(kernel),
        "-append", f"console={machine().console} panic=-1", "-serial", "stdio", "-no-reboot",
    ]  # fmt: skip
    try:
        return _LAST_WORDS in run(argv, timeout=limit_s, accept=range(-64, 256)).stdout
    except (TimedOut, Unavailable, Failed):
        return False
