"""Runs inside a lab's host: one change of networks, with a fault at one of its steps.

    transaction_driver.py create|delete|delete-by-force NAME FAULT began|done STEP

A fault comes from the watcher, which production code calls for progress. Exit status: 0 kept,
4 undone, 130 interrupted, 5 not undone; a killed one ends by its signal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from kvmnet.adapters import journal
from kvmnet.errors import Failed, Interrupted, NotUndone, Undone
from kvmnet.flow import networks
from kvmnet.model.desired import NetworkRequest
from kvmnet.model.plan import Plan, PlannedStep


def libvirtd_pid() -> int:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # a process that has ended meanwhile
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == "libvirtd":
                return int(entry.name)
    raise SystemExit("no libvirtd here")


def raise_failed() -> None:
    raise Failed("the test's fault")


def raise_bug() -> None:
    raise RuntimeError("the test's bug")


def send(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def restart_libvirtd() -> None:
    stop_libvirtd()
    subprocess.run(["libvirtd", "-d"], check=True, timeout=20)


def stop_libvirtd() -> None:
    pid = libvirtd_pid()
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def hang_libvirtd() -> None:
    os.kill(libvirtd_pid(), signal.SIGSTOP)


def fill_disk() -> None:
    """Fill the file system that the journal is on: a tiny one, see the test."""
    with open(journal.state_directory() / "ballast", "wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(b"x" * 4096)
        except OSError:
            return


FAULTS: dict[str, Callable[[], None]] = {
    "exception": raise_failed,
    "bug": raise_bug,
    "sigint": send(signal.SIGINT),
    "sigterm": send(signal.SIGTERM),
    "sigkill": send(signal.SIGKILL),
    "libvirtd-restarts": restart_libvirtd,
    "libvirtd-dies": stop_libvirtd,
    "libvirtd-hangs": hang_libvirtd,
    "disk-full": fill_disk,
}


class Saboteur:
    """A watcher that does harm at one place."""

    def __init__(self, fault: str, moment: str, step: int) -> None:
        self._fault, self._at = FAULTS[fault], (moment, step)

    def began(self, number: int, planned: PlannedStep) -> None:
        self._maybe("began", number)

    def done(self, number: int, planned: PlannedStep) -> None:
        self._maybe("done", number)

    def undoing(self, planned: PlannedStep) -> None:
        print(f"undoing {planned.undo}")

    def say(self, text: str) -> None:
        print(text)

    def _maybe(self, moment: str, number: int) -> None:
        if (moment, number) == self._at:
            self._fault()


def planner(verb: str, name: str) -> networks.Planner:
    if verb == "create":
        return networks.creation(NetworkRequest(name=name, mode="route", ipv6="auto"))
    return networks.deletion(name, even_in_use=verb == "delete-by-force")


def consent(plan: Plan) -> None:
    print(f"{len(plan.steps)} steps")


def interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    verb, name, fault, moment, step = sys.argv[1:]
    signal.signal(signal.SIGTERM, interrupt)
    try:
        networks.carry_out(
            planner(verb, name), name, uri=None, command=" ".join(sys.argv), consent=consent,
            watcher=Saboteur(fault, moment, int(step)),
        )  # fmt: skip
    except (Undone, Interrupted, NotUndone) as error:
        print(error)
        return {Undone: 4, Interrupted: 130, NotUndone: 5}[type(error)]
    return 0


if __name__ == "__main__":
    sys.exit(main())
