"""Files of Debian packages that are not installed: downloaded and unpacked, never set up."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from kvmnet.adapters.run import run
from kvmnet.errors import CommandFailed, Unavailable

DOWNLOAD_TIMEOUT_S = 600.0
APT_S = 60.0
"""Without a cache of its own, apt reads all of its lists each time."""


def dependencies(package: str) -> tuple[str, ...]:
    """The packages that `package` depends on, by apt's lists; empty if it does not exist."""
    try:
        text = run(["apt-cache", "depends", package], timeout=APT_S).stdout
    except CommandFailed:
        return ()
    lines = (line.strip() for line in text.splitlines())
    return tuple(x.removeprefix("Depends: ") for x in lines if x.startswith("Depends: "))


def ensure(cache: Path, package: str, say: Callable[[str], None]) -> Path:
    """The folder with the package's files, downloaded and unpacked if it is not there yet.

    Call it under the cache's lock. Raises `Unavailable`.
    """
    folder = cache / "packages" / package
    if folder.is_dir():
        return folder
    folder.parent.mkdir(exist_ok=True)
    say(f"downloading the package {package} (once)")
    temporary = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=cache))
    try:
        # apt writes into the working directory; as root it drops to its own user where it can.
        run(["env", "-C", str(temporary), "apt-get", "download", "-q", package],
            timeout=DOWNLOAD_TIMEOUT_S)  # fmt: skip
        archive = next(temporary.glob("*.deb"))
        root = temporary / "root"
        run(["dpkg-deb", "-x", str(archive), str(root)], timeout=120)
        os.rename(root, folder)
    except (CommandFailed, StopIteration) as error:
        raise Unavailable(
            f"the package {package} could not be downloaded",
            why=getattr(error, "why", "") or "apt-get left no file",
            hint="bring apt's lists up to date and look at what it says: apt-get update",
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
