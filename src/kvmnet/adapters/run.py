"""The one door to other programs. Arguments are lists; no shell is ever involved."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, NamedTuple

from kvmnet.errors import CommandFailed, TimedOut, Unavailable

DEFAULT_TIMEOUT_S = 10.0
PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL
TimeoutExpired = subprocess.TimeoutExpired

Running = subprocess.Popen[bytes]
"""A program that goes on beside this one."""

_PACKAGES = {
    "ip": "iproute2",
    "bridge": "iproute2",
    "nft": "nftables",
    "ipset": "ipset",
    "iptables-save": "iptables",
    "iptables": "iptables",
    "qemu-system-x86_64": "qemu-system-x86",
    "libvirtd": "libvirt-daemon",
    "virtlogd": "libvirt-daemon",
    "dnsmasq": "dnsmasq-base",
    "busybox": "busybox-static",
    "zstd": "zstd",
}


class Completed(NamedTuple):
    """What a program left behind."""

    status: int
    stdout: str
    stderr: str


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with English messages and the administrator's programs."""
    path = os.environ.get("PATH", "/usr/bin:/bin")
    return {**os.environ, "LC_ALL": "C.UTF-8", "PATH": f"{path}:/usr/sbin:/sbin", **(extra or {})}


def find_program(name: str) -> str | None:
    """Where the program is that `run` would run; None: it is not installed."""
    # `shutil` would do, and loads three libraries of compression for it.
    paths = (os.path.join(folder, name) for folder in environment()["PATH"].split(os.pathsep))
    return next((x for x in paths if os.path.isfile(x) and os.access(x, os.X_OK)), None)


def run(
    argv: Sequence[str],
    *,
    stdin: str = "",
    timeout: float = DEFAULT_TIMEOUT_S,
    accept: Sequence[int] = (0,),
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run a program to its end and return what it printed.

    `timeout` is in seconds; `accept` lists the exit statuses that are not errors.
    Raises `Unavailable` (no such program), `TimedOut`, `CommandFailed`.
    """
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=timeout,
            env=environment(env),
            check=False,
        )
    except FileNotFoundError:
        raise _missing(argv[0]) from None
    except PermissionError as error:
        raise Unavailable(f"`{argv[0]}` can not be run", why=error.strerror or "") from None
    except subprocess.TimeoutExpired:
        raise TimedOut(
            f"`{' '.join(argv)}` did not end", why=f"it was given {timeout:g} seconds"
        ) from None
    if done.returncode not in accept:
        raise CommandFailed(tuple(argv), done.returncode, done.stderr or done.stdout)
    return Completed(done.returncode, done.stdout, done.stderr)


def spawn(
    argv: Sequence[str],
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    new_session: bool = False,
) -> Running:
    """Start a program that goes on beside this one; the caller ends it and waits for it."""
    try:
        return subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment(env),
            start_new_session=new_session,
        )
    except FileNotFoundError:
        raise _missing(argv[0]) from None
    except PermissionError as error:
        raise Unavailable(f"`{argv[0]}` can not be run", why=error.strerror or "") from None


def wait(process: Running, timeout: float, *, accept: Sequence[int] = (0,)) -> int:
    """The exit status of a spawned program. Raises `TimedOut` (it goes on), `CommandFailed`."""
    argv = process.args if isinstance(process.args, list) else [process.args]
    words = tuple(str(word) for word in argv)
    try:
        status = process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise TimedOut(
            f"`{' '.join(words)}` did not end", why=f"it was given {timeout:g} seconds"
        ) from None
    if status not in accept:
        raise CommandFailed(words, status, "")
    return status


def _missing(program: str) -> Unavailable:
    package = _PACKAGES.get(os.path.basename(program), "")
    return Unavailable(
        f"`{program}` is not installed",
        hint=f"install the package {package}" if package else "",
    )
