"""The programs inside a guest: taken from this machine, or from packages that are not installed.

A dynamically linked program brings the libraries that `ldd` names.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from kvmnet.adapters.run import environment, run
from kvmnet.errors import CommandFailed, Unavailable
from kvmnet.lab import packages


class Part(Struct, frozen=True, kw_only=True):
    """A file of this machine and its place in the guest."""

    source: Path
    target: str
    """Without a leading slash."""


_PROGRAMS = (
    ("qemu-ga", "qemu-guest-agent"),
    ("dropbear", "dropbear-bin"),
    ("ssh", "openssh-client"),
    ("scp", "openssh-client"),
)
_LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_NSS = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
"""glibc loads these by name when names are looked up; newer ones have the first two built in."""


def collect(cache: Path, say: Callable[[str], None]) -> tuple[Part, ...]:
    """All programs and libraries of a guest. Raises `Unavailable`."""
    parts = {"bin/busybox": _find("busybox", "busybox-static", cache, say)}
    for name, package in _PROGRAMS:
        source = _find(name, package, cache, say)
        parts[f"usr/bin/{name}"] = source
        for library in _libraries(source):
            parts[str(library).lstrip("/")] = library
    parts |= {f"{x.parent}/{x.name}".lstrip("/"): x for x in _name_services(parts)}
    return tuple(Part(source=source, target=target) for target, source in sorted(parts.items()))


def _find(name: str, package: str, cache: Path, say: Callable[[str], None]) -> Path:
    found = shutil.which(name, path=environment()["PATH"])
    if found is not None:
        return Path(found)
    root = packages.ensure(cache, package, say)
    for folder in ("usr/sbin", "usr/bin", "sbin", "bin"):
        if (root / folder / name).is_file():
            return root / folder / name
    raise Unavailable(f"the package {package} has no program {name}")


def _libraries(program: Path) -> list[Path]:
    try:
        listing = run(["ldd", str(program)]).stdout
    except CommandFailed:
        return []  # statically linked
    absent = re.findall(r"^\s*(\S+) => not found", listing, re.MULTILINE)
    if absent:
        raise Unavailable(
            f"{program.name} can not be put into the guests",
            why=f"its libraries are not installed: {', '.join(absent)}",
        )
    return [Path(path) for path in _LIBRARY.findall(listing)]


def _name_services(parts: dict[str, Path]) -> list[Path]:
    libc = next((x for x in parts.values() if x.name.startswith("libc.so")), None)
    if libc is None:
        return []
    return [libc.parent / name for name in _NSS if (libc.parent / name).exists()]
