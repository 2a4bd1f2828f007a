"""Where things are kept that are built or downloaded once: $KVMNET_CACHE or /var/cache/kvmnet."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from kvmnet.errors import Failed


def cache_dir() -> Path:
    """The folder, which exists afterwards. Raises `Failed`."""
    path = Path(os.environ.get("KVMNET_CACHE") or "/var/cache/kvmnet")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(
            f"{path} could not be made", why=error.strerror or "",
            hint="choose another folder: KVMNET_CACHE=FOLDER",
        ) from None  # fmt: skip
    return path


@contextlib.contextmanager
def locked() -> Iterator[Path]:
    """The folder, with nobody else building in it; others are waited for."""
    path = cache_dir()
    handle = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield path
    finally:
        os.close(handle)
