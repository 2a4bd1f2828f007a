"""Programs of Debian packages that are run in a lab without being installed on the machine."""

from __future__ import annotations

import platform
from pathlib import Path

from kvmnet.adapters.run import run
from kvmnet.lab import cache, packages
from kvmnet.lab.faults.fault import Unpacked
from kvmnet.lab.lab import Lab
from kvmnet.lab.start import Say

_ROOT = "/run/kvmnet-packages"
COPY_S = 60.0


def folder(unpacked: Unpacked) -> str:
    """Where its files are, in the lab's host."""
    return f"{_ROOT}/{unpacked.name}"


def environment(unpacked: Unpacked) -> tuple[str, ...]:
    """The words before a command line with which its programs find their own files."""
    root = folder(unpacked)
    libraries = f"{root}/usr/lib/{platform.machine()}-linux-gnu"
    return (
        "env",
        f"PYTHONPATH={root}/usr/lib/python3/dist-packages",
        f"LD_LIBRARY_PATH={libraries}",
        f"GI_TYPELIB_PATH={libraries}/girepository-1.0",
    )


def lay_out(lab: Lab, unpacked: Unpacked, say: Say) -> None:
    """Put the files into the lab, once. Raises `Unavailable` (they can not be downloaded)."""
    target = Path(lab.path(folder(unpacked)))
    if target.is_dir():
        return
    target.mkdir(parents=True)
    with cache.locked() as kept:
        for name in unpacked.packages:
            run(["cp", "-a", f"{packages.ensure(kept, name, say)}/.", str(target)], timeout=COPY_S)
