"""Domain XML files as users name them: read with care, replaced in one step, never lost."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path
from typing import Literal

from msgspec import Struct

from kvmnet.adapters.files import write_atomic
from kvmnet.errors import Failed, InvalidInput, NotFound, PermissionDenied, Refused, Unavailable
from kvmnet.formats.domain_edit_scan import MAX_BYTES

MAX_BACKUPS = 1000


class DomainFile(Struct, frozen=True, kw_only=True):
    """A file as it was read."""

    path: Path
    """The file itself: symbolic links are followed."""
    data: bytes
    mode: int
    stamp: tuple[int, int, int, int]
    """Device, inode, size, time of change (ns): whether it is still the one that was read."""


def read_stdin() -> bytes:
    """What comes in on standard input, one byte more than allowed at most."""
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def read_file(path: Path) -> DomainFile:
    """Read a file. Raises `NotFound`, `InvalidInput` for a device or a folder, `Unavailable`."""
    try:
        real = path.resolve(strict=True)
        # A FIFO would keep us waiting, and opening some devices does something.
        if not stat.S_ISREG(real.stat().st_mode):
            raise InvalidInput(f"{path} is not a file", hint="-: standard input")
        with real.open("rb") as stream:
            found = os.fstat(stream.fileno())
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist") from None
    except PermissionError:
        raise PermissionDenied(
            f"{path} can not be read", why="permission denied", hint="run it again as root"
        ) from None
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a circle of links
        raise Unavailable(f"{path} can not be read", why=_reason(error)) from None
    return DomainFile(path=real, data=data, mode=found.st_mode & 0o777, stamp=_stamp(found))


def replace(file: DomainFile, data: bytes) -> Path:
    """Put other content in the file's place; owner and mode stay. Returns where the old one is.

    The old file becomes the backup, so it is there before anything is replaced. Raises `Refused`
    if the file is not what was read any longer, `Failed` (disk full, …) with all as it was.
    """
    try:
        if _stamp(file.path.stat()) != file.stamp:
            raise Refused(
                f"{file.path} was changed by somebody else meanwhile", hint="run it again"
            )
    except OSError as error:
        raise Failed(f"{file.path} could not be replaced", why=_reason(error)) from None
    backup = _back_up(file.path)
    try:
        _write(file.path, data, mode=file.mode)
    except BaseException:
        with contextlib.suppress(OSError):
            backup.unlink()
        raise
    return backup


def write_out(path: Path, data: bytes, *, mode: int) -> Path | None:
    """Write a file that was named for it; one that is there already is kept as a backup.

    Returns the backup, or None where there was none to make. Raises `InvalidInput` for anything
    but an ordinary file: a link may lead elsewhere, writing to a device does something.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        _write(path, data, mode=mode)
        return None
    except (OSError, ValueError) as error:
        raise Failed(f"{path} could not be written", why=_reason(error)) from None
    if stat.S_ISLNK(found.st_mode):
        raise InvalidInput(
            f"{path} is a symbolic link", why="what it leads to would not be clear afterwards",
            hint=f"-o {path.resolve()}",
        )  # fmt: skip
    if not stat.S_ISREG(found.st_mode):
        raise InvalidInput(f"{path} is not an ordinary file", hint="-o -: standard output")
    file = read_file(path)
    return None if file.data == data else replace(file, data)


def same_file(one: Path, other: Path) -> bool:
    """Whether two names are of one file; False where one of them is none."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def owner(path: Path) -> Literal["definition", "running"] | None:
    """Whether a file of that (resolved) name is libvirtd's: a definition, or of what runs."""
    config = Path(
        os.environ.get("XDG_CONFIG_HOME") or Path(os.environ.get("HOME") or "/", ".config")
    )
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    running = [Path("/run/libvirt"), Path("/var/run/libvirt"), Path("/var/lib/libvirt/qemu")]
    running += [Path(runtime, "libvirt")] if runtime else []
    if any(path.is_relative_to(x) for x in running):
        return "running"
    known = (Path("/etc/libvirt"), config / "libvirt")
    return "definition" if any(path.is_relative_to(x) for x in known) else None


def _back_up(path: Path) -> Path:
    """Give the file a second name that nobody has; it is the old content once `path` is replaced.

    No `.xml` at its end: libvirtd would take it for another guest at its next start.
    """
    for number in range(MAX_BACKUPS):
        backup = path.with_name(path.name + (f".bak.{number}" if number else ".bak"))
        try:
            os.link(path, backup)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}:
                raise Failed(f"{backup} could not be made", why=_reason(error)) from None
            return _copied(path, backup)  # a file system without links
        return backup
    raise Refused(
        f"{path} has {MAX_BACKUPS} backups already", hint=f"look through them: ls {path}.bak*"
    )


def _copied(path: Path, backup: Path) -> Path:
    try:
        found = path.stat()
        handle = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as stream:
            with contextlib.suppress(PermissionError):  # a file system without owners
                os.fchown(handle, found.st_uid, found.st_gid)
            os.fchmod(handle, found.st_mode & 0o7777)
            stream.write(path.read_bytes())
            stream.flush()
            os.fsync(handle)
    except OSError as error:
        raise Failed(f"{backup} could not be made", why=_reason(error)) from None
    return backup


def _write(path: Path, data: bytes, *, mode: int) -> None:
    # The door for files takes text; this way back and forth every byte stays what it is.
    write_atomic(path, data.decode("utf-8", "surrogateescape"), mode=mode)


def _stamp(found: os.stat_result) -> tuple[int, int, int, int]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
