"""The lab as Python sees it: `Lab.up(name)`, run things in its places, add guests, `down()`."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Self

from kvmnet.adapters.run import DEVNULL, PIPE, Completed, Running, run, spawn, wait
from kvmnet.errors import CommandFailed, TimedOut
from kvmnet.lab import guest, record, start, topology
from kvmnet.lab.enter import lab_environment
from kvmnet.lab.guest import LabGuest
from kvmnet.lab.record import Record
from kvmnet.lab.start import Say, silent

STATUS_TIMED_OUT = 124
STATUS_KILLED = 137
"""How timeout(1) ends when the time was over: the program obeyed, or had to be killed."""


class Lab:
    """A running lab. Everything here works from outside of it, as root.

    As a context manager it is taken down at the end.
    """

    def __init__(self, known: Record) -> None:
        self.record = known

    @classmethod
    def up(cls, name: str = "default", say: Say = silent) -> Self:
        """Start a lab. Raises what `start.up` raises."""
        return cls(start.up(name, say))

    @classmethod
    def temporary(cls, name: str, say: Say = silent) -> Self:
        """Start a lab that also ends when this process does, however it ends: for tests."""
        return cls(start.up(name, say, life=start.TIE))

    @classmethod
    def attach(cls, name: str = "default") -> Self:
        """A lab that is up already. Raises `NotFound`, `PermissionDenied`."""
        return cls(record.running(name))

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def alive(self) -> bool:
        return self.record.init.alive()

    @property
    def uri(self) -> str:
        """URI of the lab's libvirtd that works from outside of the lab."""
        return self.record.libvirt_uri

    def path(self, inside: str, where: str = topology.HOST) -> str:
        """A path of a place as it can be opened from outside, while the lab is up."""
        return self.record.path(inside, where)

    def down(self) -> None:
        """End it and all that runs in it; no error if it is gone already."""
        start.down(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    def run(
        self,
        where: str,
        argv: Sequence[str],
        *,
        timeout: float = 30.0,
        accept: Sequence[int] = (0,),
        stdin: str = "",
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a program at a place to its end. Its working directory is `/`.

        When `timeout` (seconds) is over it gets SIGTERM, two seconds later SIGKILL, with all of
        its process group. Raises `TimedOut`, `CommandFailed`, `NotFound` (no such place).
        """
        words = [
            "nsenter", "-t", str(self.record.holder(where).pid), "-m", "-n", "-u", "-p", "-i",
            "--", "timeout", "-k", "2", f"{timeout:.3f}", *argv,
        ]  # fmt: skip
        begin = time.monotonic()
        both = {**self._environment(), **(env or {})}
        done = run(words, stdin=stdin, timeout=timeout + 15, accept=range(-64, 256), env=both)
        late = time.monotonic() - begin >= timeout
        if late and done.status in (STATUS_TIMED_OUT, STATUS_KILLED):
            raise TimedOut(
                f"`{' '.join(argv)}` did not end in the lab's {where}",
                why=f"it was given {timeout:g} seconds",
            )
        if done.status not in accept:
            raise CommandFailed(tuple(argv), done.status, done.stderr or done.stdout)
        return done

    def spawn(
        self,
        where: str,
        argv: Sequence[str],
        *,
        stdin: int | IO[bytes] = PIPE,
        stdout: int | IO[bytes] = PIPE,
        stderr: int | IO[bytes] = PIPE,
        env: Mapping[str, str] | None = None,
    ) -> Running:
        """Start a program at a place; signals sent to the result reach it, SIGKILL too."""
        words = [sys.executable, "-P", "-m", "kvmnet.lab.enter", self.name, where, *argv]
        return spawn(words, stdin=stdin, stdout=stdout, stderr=stderr, env=env)

    def kvmnet(
        self,
        *argv: str,
        timeout: float = 60.0,
        accept: Sequence[int] = (0,),
        stdin: str = "",
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run `kvmnet ARGV` in the lab's host."""
        words = [sys.executable, "-P", "-m", "kvmnet", *argv]
        return self.run(topology.HOST, words, timeout=timeout, accept=accept, stdin=stdin, env=env)

    def signal_libvirtd(self, number: signal.Signals) -> None:
        """Send a signal to the lab's libvirtd: SIGSTOP makes it hang, SIGCONT goes on."""
        pid = int(self.run(topology.HOST, ["cat", "/run/libvirtd.pid"]).stdout)
        self.run(topology.HOST, ["kill", f"-{int(number)}", str(pid)])

    def stop_libvirtd(self) -> None:
        """End the lab's libvirtd; its guests and networks go on. Returns when it is gone."""
        pid = int(self.run(topology.HOST, ["cat", "/run/libvirtd.pid"]).stdout)
        script = f"kill {pid}; while [ -d /proc/{pid} ]; do sleep 0.05; done"
        self.run(topology.HOST, ["sh", "-c", script], timeout=20)

    def start_libvirtd(self) -> None:
        """Start libvirtd again after `stop_libvirtd`; returns when it takes connections."""
        daemon = self.spawn(topology.HOST, ["libvirtd", "-d"], stdin=DEVNULL, stdout=DEVNULL,
                            stderr=DEVNULL)  # fmt: skip
        wait(daemon, 30)
        # Its first process ends before its drivers are ready.
        self.run(topology.HOST, ["virsh", "-c", "qemu:///system", "uri"], timeout=60)

    def add_guest(
        self, name: str, *, on: str = "network:default", nics: int = 1, say: Say = silent
    ) -> LabGuest:
        """Start a guest whose NICs are all on the target `on` (`network:NAME`, `bridge:NAME`).

        It is defined and started; it boots while this returns. Raises `InvalidInput`, `Failed`
        (libvirt refused it), `Unavailable` (no kernel for it can be had).
        """
        return guest.add(self.record, name, on, nics, say)

    def guest(self, name: str) -> LabGuest:
        """A guest that was added before. Raises `NotFound` at its first use if there is none."""
        return LabGuest(self.record, name)

    def _environment(self) -> dict[str, str]:
        inside = lab_environment(self.name)
        return {"HOME": inside["HOME"], "KVMNET_LAB": inside["KVMNET_LAB"]}
