"""Brings the kernel's links into an arrangement."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from itertools import groupby

from msgspec import Struct

from kvmnet.adapters import kernel
from kvmnet.adapters.run import run
from kvmnet.adapters.sysctl_write import write_sysctl
from kvmnet.adapters.sysctls import read_sysctls
from kvmnet.errors import Failed
from kvmnet.formats.arrange import Command, Line, Setting, Settle, commands
from kvmnet.formats.iproute import parse_links
from kvmnet.model.arrangement import Arrangement
from kvmnet.model.state import State

TRIES = 3
"""Somebody else, a host network manager most of all, may change a link between look and change."""
SETTLE_S = 0.5
POLL_S = 0.001
_AT = re.compile(r"Command failed -:(\d+)")


class _Miss(Struct, frozen=True):
    """A command that the kernel refused, and why."""

    line: Line
    why: str

    def __str__(self) -> str:
        return f"{self.why} (`ip {self.line.text}`)"


def carry_out(target: Arrangement) -> None:
    """Do what is missing, in one batch. Raises `Failed` with the kernel's reason.

    A command that fails is looked at again from what is there by then. If it still fails and the
    host could be cut off by going on, that is the end; else the rest is done first.
    """
    misses: list[_Miss] = []
    for _ in range(TRIES):
        todo = commands(read_kernel(), target)
        misses = _run(todo)
        if not misses:
            return
        if misses[-1].line.essential and _again(misses[-1], target):
            break
    first = misses[-1] if misses[-1].line.essential else misses[0]
    raise Failed(f"{first.line.link or 'the network'} could not be arranged", why=str(first))


def _again(miss: _Miss, target: Arrangement) -> bool:
    """Whether the same command would be tried again: nobody else has done it meanwhile."""
    return any(
        isinstance(x, Line) and x.text == miss.line.text for x in commands(read_kernel(), target)
    )


def read_kernel() -> State:
    """What the kernel has now, as far as an arrangement can change it."""
    found = kernel.read_network()
    return State(
        taken_at=0,
        hostname="",
        links=found.links,
        addresses=found.addresses,
        routes=found.routes,
        rules=found.rules,
        neighbours=found.neighbours,
        sysctls=read_sysctls(skip=frozenset(x.name for x in found.links if x.kind == "tap")),
    )


def _run(todo: Sequence[Command]) -> list[_Miss]:
    """Take the commands; those that failed. It ends at an essential one that does."""
    misses: list[_Miss] = []
    for _, some in groupby(todo, _batch):
        same = tuple(some)
        for setting in same:
            if isinstance(setting, Setting):
                write_sysctl(setting.path, setting.value)
            elif isinstance(setting, Settle):
                _settle(setting)
        lines = [x for x in same if isinstance(x, Line)]
        for miss in _run_neighbours(lines) if _batch(same[0]) == "neighbour" else _run_batch(lines):
            misses.append(miss)
            if miss.line.essential:
                return misses
    return misses


def _settle(wait: Settle) -> None:
    """Not an error where it takes longer: a NIC without a cable never carries."""
    end = time.monotonic() + SETTLE_S
    while time.monotonic() < end:
        text = run(["ip", "-json", "link", "show", "dev", wait.link], accept=(0, 1)).stdout
        links = parse_links(text)
        if not links or (links[0].operstate == "up") is wait.carries:
            return
        time.sleep(POLL_S)


def _batch(command: Command) -> str:
    """What can be done by one program, and by which: settings are written, not run."""
    if not isinstance(command, Line):
        return ""
    if command.text.startswith("neighbour "):
        return "neighbour"
    return "-6" if command.family == 6 else "-4" if command.family == 4 else "both"


def _run_neighbours(lines: Sequence[Line]) -> tuple[_Miss, ...]:
    """What is known of neighbours can be found out again, so a failure is none.

    `ip neighbour` ends the whole batch at an error, and does not say in which line it was.
    """
    everything = "".join(f"{x.text}\n" for x in lines)
    if run(["ip", "-batch", "-"], stdin=everything, accept=(0, 1, 2, 255)).status != 0:
        for line in lines:
            run(["ip", "-batch", "-"], stdin=f"{line.text}\n", accept=(0, 1, 2, 255))
    return ()


def _run_batch(lines: Sequence[Line]) -> Iterator[_Miss]:
    """`ip` stops at the first that fails; what comes after it is another batch."""
    while lines:
        family = _batch(lines[0])
        words = ["ip", *([family] if family.startswith("-") else []), "-batch", "-"]
        text = "".join(f"{x.text}\n" for x in lines)
        done = run(words, stdin=text, accept=(0, 1, 2, 255))
        if done.status == 0:
            return
        at = _AT.search(done.stderr)
        number = int(at[1]) if at else 1
        said = [x for x in done.stderr.splitlines() if x.strip() and not _AT.search(x)]
        why = said[-1].removeprefix("RTNETLINK answers: ").removeprefix("Error: ") if said else ""
        yield _Miss(lines[number - 1], why or "`ip` gave no reason")
        lines = lines[number:]
