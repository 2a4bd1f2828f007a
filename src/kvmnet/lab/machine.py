"""What differs between processor architectures: one row each."""

from __future__ import annotations

import platform

from msgspec import Struct

from kvmnet.errors import Unavailable


class Machine(Struct, frozen=True, kw_only=True):
    """How a guest of this architecture is made."""

    arch: str
    """In the words of the kernel and of libvirt."""
    qemu: str
    machine: str
    """QEMU's machine type."""
    console: str
    kernels: tuple[str, ...]
    """Packages of Debian and Ubuntu that depend on their newest kernel for virtual machines."""


MACHINES = (
    Machine(
        arch="x86_64",
        qemu="qemu-system-x86_64",
        machine="pc",
        console="ttyS0",
        kernels=("linux-image-cloud-amd64", "linux-image-virtual", "linux-image-amd64"),
    ),
    Machine(
        arch="aarch64",
        qemu="qemu-system-aarch64",
        machine="virt",
        console="ttyAMA0",
        kernels=("linux-image-cloud-arm64", "linux-image-virtual", "linux-image-arm64"),
    ),
)


def machine() -> Machine:
    """The row of this machine. Raises `Unavailable` for other architectures."""
    arch = platform.machine()
    for row in MACHINES:
        if row.arch == arch:
            return row
    raise Unavailable(
        "guests can not be started in the lab",
        why=f"this machine is a {arch}, and only x86_64 and aarch64 are known",
    )
