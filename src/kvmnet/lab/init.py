"""The init of a lab: `python -m kvmnet.lab.init`, process 1 of the lab's PID namespace.

It talks to the `kvmnet lab up` that started it: orders come on standard input (`go`, then `keep`
or `tie`), reports go to standard output, a JSON document a line. If that process dies before
`keep`, or at any time after `tie`, its end of the pipe closes; then this one ends too, and all of
the lab with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Literal

import msgspec
from msgspec import Struct

from kvmnet.errors import KvmnetError
from kvmnet.lab.places import Places, connect
from kvmnet.lab.record import Holder, Process


class Report(Struct, frozen=True, kw_only=True):
    """One line from the init to whoever starts the lab."""

    kind: Literal["step", "ready", "failed"]
    text: str = ""
    why: str = ""
    hint: str = ""
    holders: tuple[Holder, ...] = ()


def main() -> int:
    """Build the lab, report, and stay until killed. The exit status matters to nobody."""
    signal.signal(signal.SIGTERM, _stop)
    if not _told("go"):
        return 1
    outside = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        places = _build()
    except KvmnetError as error:
        _report(Report(kind="failed", text=error.what, why=error.why, hint=error.hint))
        return 1
    holders = tuple(
        Holder(where=where, process=_seen_from_outside(outside, pid))
        for where, pid in places.pids.items()
    )
    os.close(outside)
    _report(Report(kind="ready", holders=holders))
    order = sys.stdin.readline()
    if order == "tie\n":
        threading.Thread(target=_end_with_starter, daemon=True).start()
    elif order != "keep\n":
        return 1
    _rest()
    return 0


def _end_with_starter() -> None:
    """Wait until the other end of standard input is closed, then end the lab."""
    os.read(0, 1)
    os._exit(0)


def _build() -> Places:
    from kvmnet.lab import mounts, services

    _step("private file systems")
    mounts.make_private()
    _step("namespaces: host, router, peer, internet")
    places = Places()
    places.make()
    _step("libvirtd in the host; the LAN, its router and the internet")
    libvirtd = services.start_libvirtd(places)
    connect(places)
    services.start_router(places)
    services.start_internet(places)
    services.start_lan_clients(places)
    services.start_ssh(places)
    services.wait_for_addresses(places, 30)  # router solicitations come at 0, 4 and 12 s
    services.wait_for_libvirtd(places, libvirtd, 30)
    return places


def _step(text: str) -> None:
    _report(Report(kind="step", text=text))


def _report(report: Report) -> None:
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    sys.stdout.flush()


def _told(word: str) -> bool:
    return sys.stdin.readline() == word + "\n"


def _stop(signum: int, frame: FrameType | None) -> None:
    sys.exit(0)


def _seen_from_outside(outside: int, pid: int) -> Process:
    """The process `pid` of this PID namespace as the machine knows it.

    `outside` is the machine's /proc. A process there lists its pids from the outermost to the
    innermost namespace (proc(5), status: NSpid).
    """
    mine = os.stat("/proc/self/ns/pid").st_ino
    for entry in os.listdir(outside):
        if not entry.isdigit():
            continue
        try:
            if os.stat(f"{entry}/ns/pid", dir_fd=outside).st_ino != mine:
                continue
            status = _read(outside, f"{entry}/status")
            stat = _read(outside, f"{entry}/stat")
        except OSError:
            continue  # it ended meanwhile
        pids = next(x for x in status.splitlines() if x.startswith("NSpid:")).split()[1:]
        if int(pids[-1]) == pid:
            return Process(pid=int(entry), start=int(stat[stat.rindex(")") + 2 :].split()[19]))
    raise KvmnetError(f"the process {pid} of the lab is not to be found in the machine's /proc")


def _read(folder: int, path: str) -> str:
    handle = os.open(path, os.O_RDONLY, dir_fd=folder)
    with os.fdopen(handle, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def _rest() -> None:
    """Reap whatever ends: orphans of the whole lab become this process's children."""
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    with contextlib.suppress(ChildProcessError):  # no child at all: nothing is left of the lab
        while True:
            os.wait()


if __name__ == "__main__":
    sys.exit(main())
