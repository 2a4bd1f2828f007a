"""The guests' kernel and initramfs: built once of this machine's programs, then kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from kvmnet.adapters.run import run
from kvmnet.errors import Failed
from kvmnet.lab import cpio, kernel, programs
from kvmnet.lab.cache import locked
from kvmnet.lab.cpio import Entry

KERNEL_OPTIONS = (
    "quiet loglevel=3 mitigations=off nokaslr random.trust_cpu=on no_timer_check tsc=reliable "
    "cryptomgr.notests rdinit=/init panic=1"
)
"""Fast rather than hardened: these guests live for minutes, inside a lab."""

FILES = Path(__file__).parent / "files"
MODULES = ("virtio_pci", "virtio_net", "virtio_console")
_SCRIPTS = (
    ("guest-init.sh", "init"),
    ("nic-watch.sh", "etc/nic-watch.sh"),
    ("guest-udhcpc.sh", "etc/udhcpc.sh"),
    ("guest-shutdown.sh", "sbin/shutdown"),
)


class Image(Struct, frozen=True, kw_only=True):
    """A guest's files in the cache."""

    key: str
    kernel: Path
    initrd: Path
    public_key: Path
    """The SSH key that guests have, as a line for `authorized_keys`."""


def ensure(say: Callable[[str], None]) -> Image:
    """The image for this machine's programs; built if there is none yet (seconds; the kernel
    is downloaded the first time). Raises `Unavailable`, `Failed`."""
    with locked() as cache:
        found = kernel.ensure(cache, say)
        parts = programs.collect(cache, say)
        key = _key(found, parts)
        folder = cache / f"image-{key}"
        if not folder.is_dir():
            say("building the guests' image (once)")
            _build(cache, folder, found, parts)
        return Image(
            key=key,
            kernel=Path(found.image),
            initrd=folder / "initrd",
            public_key=folder / "guest_key.pub",
        )


def _key(found: kernel.Kernel, parts: tuple[programs.Part, ...]) -> str:
    """A digest of everything that goes in."""
    digest = hashlib.sha256(found.version.encode())
    for source in (*(FILES / name for name, _ in _SCRIPTS), *(part.source for part in parts)):
        digest.update(f"\0{source}\0".encode())
        with source.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    for module in (__file__, kernel.__file__, programs.__file__):
        digest.update(Path(module).read_bytes())
    return digest.hexdigest()[:16]


def _build(
    cache: Path, folder: Path, found: kernel.Kernel, parts: tuple[programs.Part, ...]
) -> None:
    """Everything in a temporary folder, then renamed: a half-built image is never seen."""
    temporary = Path(tempfile.mkdtemp(prefix=".building-", dir=cache))
    try:
        key = temporary / "guest_key"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab guest", "-f", str(key)])
        entries = [*_skeleton(key), *_modules(found), *_programs(parts)]
        (temporary / "initrd").write_bytes(cpio.archive(entries))
        temporary.chmod(0o755)
        os.rename(temporary, folder)
    except OSError as error:
        raise Failed(
            "the guests' image could not be built", why=error.strerror or str(error),
            hint="choose another folder for it: KVMNET_CACHE=FOLDER",
        ) from None  # fmt: skip
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _skeleton(key: Path) -> list[Entry]:
    private, public = key.read_bytes(), key.with_suffix(".pub").read_bytes()
    config = b"Host *\n  StrictHostKeyChecking accept-new\n  ConnectTimeout 10\n  LogLevel ERROR\n"
    entries = [
        cpio.folder("root", 0o700),
        cpio.folder("root/.ssh", 0o700),
        cpio.folder("etc/dropbear", 0o700),
        cpio.device("dev/console", 5, 1),
        cpio.device("dev/null", 1, 3),
        cpio.file("root/.ssh/id_ed25519", private, 0o600),
        cpio.file("root/.ssh/authorized_keys", public, 0o600),
        cpio.file("root/.ssh/config", config, 0o600),
        cpio.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        cpio.file("etc/group", b"root:x:0:\n"),
        cpio.file("etc/shells", b"/bin/sh\n"),
        cpio.file("etc/nsswitch.conf", b"passwd: files\nhosts: files dns\n"),
        cpio.file("etc/resolv.conf", b""),
    ]
    scripts = [cpio.file(path, (FILES / name).read_bytes(), 0o755) for name, path in _SCRIPTS]
    return entries + scripts


def _modules(found: kernel.Kernel) -> list[Entry]:
    modules = kernel.load_order(found, MODULES)
    files = [cpio.file(f"modules/{name}.ko", data) for name, data in modules]
    order = "".join(f"{name}.ko\n" for name, _ in modules)
    return [*files, cpio.file("modules/order", order.encode())]


def _programs(parts: tuple[programs.Part, ...]) -> list[Entry]:
    return [cpio.file(part.target, part.source.read_bytes(), 0o755) for part in parts]
