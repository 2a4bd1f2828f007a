"""The guests' kernel: Debian's or Ubuntu's for virtual machines, downloaded but not installed.

Where none can be downloaded, one that is installed in /boot serves.
"""

from __future__ import annotations

import lzma
import platform
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from kvmnet.adapters.files import read_optional, write_atomic
from kvmnet.adapters.run import run
from kvmnet.errors import Unavailable
from kvmnet.lab import packages
from kvmnet.lab.machine import machine


class Kernel(Struct, frozen=True, kw_only=True):
    """A kernel and its modules."""

    version: str
    """As in `uname -r`."""
    image: str
    modules: str
    """The folder `lib/modules/VERSION`."""


def ensure(cache: Path, say: Callable[[str], None]) -> Kernel:
    """A kernel for guests: the one used before, else downloaded, else an installed one.

    Call it under the cache's lock. Raises `Unavailable`.
    """
    note = cache / "kernel.json"
    text = read_optional(note)
    if text is not None:
        known = msgspec.json.decode(text, type=Kernel)
        if Path(known.image).is_file() and Path(known.modules).is_dir():
            return known
    try:
        found = _download(cache, say)
    except Unavailable:
        installed = _installed()
        if installed is None:
            raise
        found = installed
    write_atomic(note, msgspec.json.encode(found).decode() + "\n")
    return found


def _download(cache: Path, say: Callable[[str], None]) -> Kernel:
    for meta in machine().kernels:
        for name in packages.dependencies(meta):
            if not re.fullmatch(r"linux-image-(unsigned-)?[0-9].*", name):
                continue
            roots = [packages.ensure(cache, name, say)]
            modules = re.sub(r"^linux-image-(unsigned-)?", "linux-modules-", name)
            if modules in packages.dependencies(name):  # Ubuntu keeps them apart
                roots.append(packages.ensure(cache, modules, say))
            found = _in_roots(roots)
            if found is not None:
                return found
    raise Unavailable(
        "no kernel for guests can be had",
        why=f"apt knows none of: {', '.join(machine().kernels)}",
        hint="bring apt's lists up to date: apt-get update",
    )


def _in_roots(roots: Sequence[Path]) -> Kernel | None:
    for root in roots:
        for image in sorted(root.glob("boot/vmlinu?-*")):
            version = image.name.split("-", 1)[1]
            for other in roots:
                for below in ("lib/modules", "usr/lib/modules"):
                    if (other / below / version / "kernel").is_dir():
                        modules = other / below / version
                        return Kernel(version=version, image=str(image), modules=str(modules))
    return None


def _installed() -> Kernel | None:
    found = _in_roots([Path("/")])
    if found is None or machine().arch != platform.machine():
        return None
    return found


def load_order(kernel: Kernel, wanted: Sequence[str]) -> list[tuple[str, bytes]]:
    """The wanted modules and what they depend on, as (name, content), ready for insmod one by one.

    Modules that are built into the kernel are left out. Raises `Unavailable`.
    """
    root = Path(kernel.modules)
    files = {_module_name(path): path for path in sorted(root.rglob("*.ko*"))}
    builtin = read_optional(root / "modules.builtin") or ""
    built_in = {_module_name(Path(line)) for line in builtin.splitlines()}
    order: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in order or name in built_in:
            return
        if name not in files:
            raise Unavailable(f"the kernel {kernel.version} has no module {name}")
        data = _unpacked(files[name])
        for dependency in _dependencies(data):
            add(dependency)
        order[name] = data

    for name in wanted:
        add(name)
    return list(order.items())


def _module_name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def _unpacked(path: Path) -> bytes:
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        with tempfile.TemporaryDirectory(prefix="kvmnet-module-") as folder:
            plain = Path(folder) / "module.ko"
            run(["zstd", "-q", "-d", "-o", str(plain), str(path)])
            return plain.read_bytes()
    return path.read_bytes()


def _dependencies(module: bytes) -> list[str]:
    """The modules it needs first, from its `.modinfo` section: `depends=a,b`."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    names = found.group(1).decode() if found else ""
    return [name.replace("-", "_") for name in names.split(",") if name]
