"""Brings the kernel's links into an arrangement."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import groupby
from pathlib import Path

import msgspec
from msgspec import Struct

from kvmnet.adapters import bridge_facts, ip_program, kernel, rcu
from kvmnet.adapters.run import Completed, run
from kvmnet.adapters.sysctl_write import write_sysctl
from kvmnet.adapters.sysctls import read_sysctls
from kvmnet.errors import Failed, KvmnetError, PartlyDone
from kvmnet.formats import arrange_ports
from kvmnet.formats.arrange import commands, port_commands
from kvmnet.formats.arrange_commands import Command, Line, Setting, Settle
from kvmnet.model.arrangement import Arrangement, LinkTarget
from kvmnet.model.state import State

TRIES = 3
"""Somebody else, a host network manager most of all, may change a link between look and change."""
SETTLE_S = 0.5
POLL_S = 0.001
KEEP_S = 0.3
KEEP_ANSWERS = 3
KEEP_ANSWER_S = 2.0
JOIN_S = 5.0
KEEP_POLL_S = 0.02
_NETWORKMANAGER = Path("/run/NetworkManager/devices")
_AT = re.compile(r"Command failed -:(\d+)")


class _Miss(Struct, frozen=True):
    """A command that the kernel refused, and why."""

    line: Line
    why: str

    def __str__(self) -> str:
        return f"{self.why} (`{self.line.program} {self.line.text}`)"


def carry_out(target: Arrangement) -> None:
    """Do what is missing, in one batch.

    Raises `Failed` with the kernel's reason, `PartlyDone` where only flags or VLANs of ports could
    not be set.

    A command that fails is looked at again from what is there by then. If it still fails and the
    host could be cut off by going on, that is the end; else the rest is done first. What a port is
    to have is looked at again once it has joined: what the kernel gives it is not all foreseen.
    """
    misses: list[_Miss] = []
    for _ in range(TRIES):
        todo = commands(_read_for(target), target)
        misses = _run(todo)
        if not misses and any(map(_moves_a_port, todo)) and _tells_of_ports(target):
            misses = _run(commands(_read_for(target), target))
        if not misses:
            _keep(target)
            return
        if misses[-1].line.essential and _again(misses[-1], target):
            break
    if all(_is_of_a_port(x.line) for x in misses):
        _keep(target)
        raise _partly(misses)
    first = misses[-1] if misses[-1].line.essential else misses[0]
    raise Failed(f"{first.line.link or 'the network'} could not be arranged", why=str(first))


def _keep(target: Arrangement) -> None:
    """Do it again where NetworkManager puts back what it misses.

    Once it has seen a NIC's link-local address go it puts on all that its profile says, some 10 ms
    later (`ipv6ll … changed` in its log), and later on a busy host. It does one thing after the
    other, so it has done that once it has answered a few times.
    """
    if not _NETWORKMANAGER.is_dir():
        return
    bare = tuple(msgspec.structs.replace(x, port=None, vlans=None) for x in target.links)
    target = msgspec.structs.replace(target, links=bare)
    end, tries, answered = time.monotonic() + KEEP_S, TRIES, 0
    while tries:
        answers = _networkmanager_answers()
        answered += answers
        todo = commands(read_kernel(), target)
        if any(map(_is_put_back, todo)):
            tries, answered = tries - 1, 0
            _run(todo)
        elif answered >= KEEP_ANSWERS or (not answers and time.monotonic() > end):
            return
        time.sleep(KEEP_POLL_S)


def load() -> None:
    """Have all in memory that `carry_out` needs."""
    if _NETWORKMANAGER.is_dir():
        import_module("kvmnet.adapters.networkmanager_bus")


def _networkmanager_answers() -> bool:
    from kvmnet.adapters import networkmanager_bus  # most hosts have no NetworkManager

    with contextlib.suppress(KvmnetError):
        networkmanager_bus.ask_for_answer(KEEP_ANSWER_S)
        return True
    return False


def set_ports(links: tuple[LinkTarget, ...]) -> None:
    """Set VLANs and flags, once the manager has plugged in what it was told to, and again where it
    comes to that later. Raises `PartlyDone`: a port that is none by then has nothing to be set.
    """
    target = Arrangement(links=links)
    end = time.monotonic() + JOIN_S
    while not _have_joined(target) and time.monotonic() < end:
        time.sleep(KEEP_POLL_S)
    end = time.monotonic() + KEEP_S
    while True:
        misses = _run(port_commands(_read_for(target), target))
        if time.monotonic() > end or not (misses or _NETWORKMANAGER.is_dir()):
            break
        time.sleep(KEEP_POLL_S)
    if misses:
        raise _partly(misses)


def _is_of_a_port(line: Line) -> bool:
    """Whether it sets a port's flags or VLANs and nothing else."""
    return line.program == "bridge" or " type bridge_slave " in line.text


def _partly(misses: Sequence[_Miss]) -> PartlyDone:
    links = ", ".join(dict.fromkeys(x.line.link for x in misses))
    return PartlyDone(
        f"not all of {links} could be set as it was", why="; ".join(map(str, misses[:3])),
        hint="see: bridge -d link; bridge vlan",
    )  # fmt: skip


def _have_joined(target: Arrangement) -> bool:
    now = read_kernel()
    there = [x for x in target.links if now.link(x.name) is not None]
    return len(arrange_ports.joined(now, target).links) == len(there)


def _is_put_back(command: Command) -> bool:
    """An address or a route that is there and should not, or the other way round."""
    words = command.text.split() if isinstance(command, Line) else []
    return words[:1] in (["address"], ["route"]) and words[1] != "change"


def _again(miss: _Miss, target: Arrangement) -> bool:
    """Whether the same command would be tried again: nobody else has done it meanwhile."""
    return any(
        isinstance(x, Line) and x.text == miss.line.text
        for x in commands(_read_for(target), target)
    )


def _tells_of_ports(target: Arrangement) -> bool:
    return any(x.port is not None or x.vlans is not None for x in target.links)


def _read_for(target: Arrangement) -> State:
    """VLANs only where it tells of them: reading them is one program more."""
    now = read_kernel()
    if all(x.vlans is None for x in target.links):
        return now
    return msgspec.structs.replace(now, port_vlans=bridge_facts.read_port_vlans())


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


def _moves_a_port(command: Command) -> bool:
    return isinstance(command, Line) and not {"master", "nomaster"}.isdisjoint(command.text.split())


def _run(todo: Sequence[Command]) -> list[_Miss]:
    """Take the commands; those that failed. It ends at an essential one that does."""
    with rcu.hurried() if any(map(_moves_a_port, todo)) else contextlib.nullcontext():
        return _run_all(todo)


def _run_all(todo: Sequence[Command]) -> list[_Miss]:
    misses: list[_Miss] = []
    for _, some in groupby(todo, _family):
        same = tuple(some)
        for setting in same:
            if isinstance(setting, Setting):
                write_sysctl(setting.path, setting.value)
            elif isinstance(setting, Settle):
                _settle(setting)
        for miss in _run_lines([x for x in same if isinstance(x, Line)]):
            ip_program.start_anew()  # what it knew of links may be why
            misses.append(miss)
            if miss.line.essential:
                return misses
    return misses


def _run_lines(lines: Sequence[Line]) -> Iterator[_Miss]:
    """By as few programs as can be.

    `ip neighbour` ends the whole batch at an error and does not say in which line it was, so a
    batch has them in one place at most: all before it is done then. What is known of neighbours
    can be found out again, so that failure is none.
    """
    for batch in _batches(lines):
        known = [x for x in batch if _is_neighbour(x)]
        done = _ip(batch)
        if done.status == 0:
            continue
        if not known or _AT.search(done.stderr):
            yield from _after_miss(batch, done)
            continue
        for line in known:
            _ip([line])
        yield from _run_lines(batch[batch.index(known[-1]) + 1 :])


def _batches(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Cut before neighbours that would be a second group of them."""
    batch: list[Line] = []
    for is_neighbour, some in groupby(lines, _is_neighbour):
        if is_neighbour and any(map(_is_neighbour, batch)):
            yield batch
            batch = []
        batch += some
    if batch:
        yield batch


def _is_neighbour(line: Line) -> bool:
    return line.text.startswith("neighbour ")


def _settle(wait: Settle) -> None:
    """Not an error where it takes longer: a NIC without a cable never carries."""
    end = time.monotonic() + SETTLE_S
    while time.monotonic() < end and kernel.carries(wait.link) not in (
        None,
        wait.carries,
    ):
        time.sleep(POLL_S)


def _family(command: Command) -> str:
    """What can be done by one program: rules need to know their family, settings are written."""
    if not isinstance(command, Line):
        return ""
    if command.program != "ip":
        return command.program
    return "-6" if command.family == 6 else "-4" if command.family == 4 else "both"


def _ip(lines: Sequence[Line]) -> Completed:
    family, texts = _family(lines[0]), [x.text for x in lines]
    if family == "both":
        return ip_program.change(texts)
    words = [lines[0].program, *([family] if family.startswith("-") else []), "-batch", "-"]
    return run(words, stdin="".join(f"{x}\n" for x in texts), accept=(0, 1, 2, 255))


def _after_miss(lines: Sequence[Line], done: Completed) -> Iterator[_Miss]:
    """`ip` stops at the first that fails; what comes after it is another batch."""
    at = _AT.search(done.stderr)
    number = int(at[1]) if at else 1
    said = [x for x in done.stderr.splitlines() if x.strip() and not _AT.search(x)]
    why = said[-1].removeprefix("RTNETLINK answers: ").removeprefix("Error: ") if said else ""
    yield _Miss(lines[number - 1], why or "it gave no reason")
    if number < len(lines):
        yield from _run_lines(lines[number:])
