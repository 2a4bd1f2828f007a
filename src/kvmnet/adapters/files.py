"""The one door to files that kvmnet writes, and to small text files that it reads."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from kvmnet.errors import Failed, NotFound, PermissionDenied, Unavailable

_UNFINISHED = ".kvmnet~"
"""How the name of a file ends that is not whole yet; no network manager reads such a one."""


def read_text(path: Path) -> str:
    """The file's text, with its ends of line as they are.

    Raises `NotFound`, `PermissionDenied` or `Unavailable`.
    """
    return read_bytes(path).decode("utf-8", "surrogateescape")


def read_bytes(path: Path) -> bytes:
    """What is in the file. Raises `NotFound`, `PermissionDenied` or `Unavailable`."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist") from None
    except PermissionError:
        raise PermissionDenied(
            f"{path} can not be read", why="permission denied", hint="run it again as root"
        ) from None
    except OSError as error:
        raise Unavailable(f"{path} can not be read", why=error.strerror or "") from None


def read_optional(path: Path) -> str | None:
    """The file's text without the last newline, or None where it can't be read."""
    try:
        return read_text(path).rstrip("\n")
    except (NotFound, Unavailable):
        return None


def write_atomic(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace the file in one step that survives a power cut: temporary, fsync, rename, fsync.

    An existing file keeps its owner and mode; a new one gets `mode`.
    Raises `Failed` (disk full, read-only, …) and leaves the old file as it was.
    """
    try:
        old = path.stat() if path.exists() else None
    except OSError as error:
        raise Failed(f"{path} could not be written", why=error.strerror or str(error)) from None
    if old is None:
        _replace(path, text, mode, None)
    else:
        _replace(path, text, old.st_mode & 0o7777, (old.st_uid, old.st_gid))


def put(path: Path, text: str, *, mode: int, owner: tuple[int, int]) -> None:
    """`write_atomic` with exactly this mode and owner (uid, gid); its folder is made if need be.

    A file that is so already is left alone: that needs no room on the disk. Where the path is a
    symbolic link, the file that it names is meant, and the link stays. What a killed kvmnet left
    of writing it goes.
    """
    try:
        path = path.resolve() if path.is_symlink() else path
        _forget_unfinished(path)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        old = path.stat() if path.exists() else None
    except OSError as error:
        raise Failed(f"{path} could not be written", why=error.strerror or str(error)) from None
    if old is not None and (old.st_mode & 0o7777, (old.st_uid, old.st_gid)) == (mode, owner):
        ensure(path, text)
    else:
        _replace(path, text, mode, owner)


def _replace(path: Path, text: str, mode: int, owner: tuple[int, int] | None) -> None:
    try:
        temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}{_UNFINISHED}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as stream:
                if owner is not None:
                    os.fchown(stream.fileno(), *owner)
                os.fchmod(stream.fileno(), mode)
                stream.write(text.encode("utf-8", "surrogateescape"))
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:  # also Ctrl-C: no temporary may stay behind
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        _sync_directory(path.parent)
    except OSError as error:
        raise Failed(f"{path} could not be written", why=error.strerror or str(error)) from None


def ensure(path: Path, text: str, *, mode: int = 0o644) -> None:
    """`write_atomic` unless the file says so already: that needs no rights and no room."""
    try:
        if read_text(path) == text:
            return
    except (NotFound, Unavailable):
        pass  # not there, or not to be read: writing it says why
    write_atomic(path, text, mode=mode)


def ensure_folder(path: Path) -> None:
    """Make the folder, and those above it, where there is none. Raises `Failed`."""
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"{path} could not be made", why=error.strerror or "") from None


def symlink(path: Path, target: str) -> None:
    """Make a symbolic link, for good; it is no error if it is there. Raises `Failed`."""
    try:
        path.parent.mkdir(mode=0o755, exist_ok=True)
        _sync_directory(path.parent.parent)
        if not path.is_symlink():
            path.symlink_to(target)
        _sync_directory(path.parent)
    except OSError as error:
        raise Failed(f"{path} could not be made", why=error.strerror or "") from None


def remove(path: Path) -> None:
    """Remove a file for good; it is no error if it is gone already.

    What a killed kvmnet left of writing it goes too.
    """
    _forget_unfinished(path)
    if not os.path.lexists(path):  # asked first: a read-only file system refuses even that
        return
    try:
        path.unlink(missing_ok=True)
        _sync_directory(path.parent)
    except OSError as error:
        raise Failed(f"{path} could not be removed", why=error.strerror or "") from None


def _forget_unfinished(path: Path) -> None:
    with contextlib.suppress(OSError):
        for name in os.listdir(path.parent):
            if name.startswith(f".{path.name}.") and name.endswith(_UNFINISHED):
                os.unlink(path.parent / name)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
