"""Breaking and mending a lab, and remembering what is broken in it."""

from __future__ import annotations

import difflib
import sys
import time

from kvmnet.adapters.run import Completed
from kvmnet.errors import Failed, KvmnetError, NotFound, NotUndone, Refused, Unavailable
from kvmnet.lab import record, start
from kvmnet.lab.faults import broken
from kvmnet.lab.faults.fault import Command, Fault, Look, Stage
from kvmnet.lab.faults.table import FAULTS, NOT_MADE
from kvmnet.lab.faults.unpacked import lay_out
from kvmnet.lab.lab import Lab

TIMEOUT_S = 60.0
READY_S = 90.0


def find(name: str) -> Fault:
    """The fault of that name. Raises `NotFound` with the names that are near."""
    for fault in FAULTS:
        if fault.name == name:
            return fault
    if name in NOT_MADE:
        raise Unavailable(f"the fault {name} can not be made in a lab", why=NOT_MADE[name])
    near = difflib.get_close_matches(name, [x.name for x in FAULTS], n=3, cutoff=0.5)
    parts = [x.name for x in FAULTS if name and name in x.name and x.name not in near][:3]
    meant = ", ".join([*near, *parts])
    raise NotFound(
        f"there is no fault {name[:60]!a}",
        why=f"names like it: {meant}" if meant else "",
        hint="see them all: kvmnet lab break --list",
    )


def break_(lab: Lab, name: str, say: start.Say = start.silent) -> Fault:
    """Put a fault into a lab; what it needs to stand there first is made and stays.

    Raises `NotFound` (no such fault), `Refused` (it is broken in that way already), `Unavailable`
    (the machine lacks something), `Failed` (it did not work; what was done is undone).
    """
    fault = find(name)
    with record.lock(lab.name, timeout_s=TIMEOUT_S):
        record.running(lab.name)
        before = broken.active(lab.name)
        if any(x.name == name for x in before):
            raise Refused(
                f"the lab {lab.name!r} has the fault {name} already",
                hint=f"mend it: {_words(lab, 'mend', name)}",
            )
        _check_room(lab, fault, before)
        set_up(lab, fault, say)
        breakage = fault.prepare(Look(lab))
        # On disk before the first command: whatever happens to this process, it can be mended.
        broken.write(lab.name, (*before, broken.Broken(name=name, mend=breakage.mend)))
        try:
            for one in breakage.make:
                _run(lab, one)
        except KvmnetError as error:
            _take_out(lab, breakage.mend)
            broken.write(lab.name, before)
            raise Failed(
                f"the fault {name} could not be made", why=str(error), hint=error.hint
            ) from error
    return fault


def mend(lab: Lab, name: str) -> None:
    """Take a fault out of a lab, exactly. Raises `NotFound`, `Refused` (it is not in there)."""
    find(name)
    with record.lock(lab.name, timeout_s=TIMEOUT_S):
        record.running(lab.name)
        before = broken.active(lab.name)
        known = next((x for x in before if x.name == name), None)
        if known is None:
            others = ", ".join(x.name for x in before)
            raise Refused(
                f"the lab {lab.name!r} does not have the fault {name}",
                why=f"what is broken in it: {others}" if others else "nothing is broken in it",
            )
        _take_out(lab, known.mend)
        broken.write(lab.name, tuple(x for x in before if x is not known))


def _words(lab: Lab, verb: str, name: str) -> str:
    option = "" if lab.name == "default" else f" --name {lab.name}"
    return f"kvmnet lab {verb} {name}{option}"


def _check_room(lab: Lab, fault: Fault, before: tuple[broken.Broken, ...]) -> None:
    """Raise `Refused` if what is broken already stands in the way of this fault."""
    for other in before:
        shared = set(fault.touches) & set(find(other.name).touches)
        if shared:
            raise Refused(
                f"{fault.name} can not be put into the lab {lab.name!r} now",
                why=f"{other.name} is in it, and both change {' and '.join(sorted(shared))}",
                hint=f"mend that first: {_words(lab, 'mend', other.name)}",
            )
    absent = [x.what for x in fault.stages if _status(lab, x.check) != 0]
    if absent and before:
        raise Refused(
            f"{fault.name} can not be put into the lab {lab.name!r} now",
            why=f"it needs {absent[0]}, which is not there while the lab is broken",
            hint=f"mend that first: {_words(lab, 'mend', before[-1].name)}",
        )


def set_up(lab: Lab, fault: Fault, say: start.Say = start.silent) -> None:
    """Make what has to stand in the lab before that fault. Raises `Unavailable`, `Failed`."""
    _check_needs(lab, fault)
    for unpacked in fault.packages:
        lay_out(lab, unpacked, say)
    for stage in fault.stages:
        _stand(lab, stage, say)


def _check_needs(lab: Lab, fault: Fault) -> None:
    for need in fault.needs:
        if _status(lab, need.check) != 0:
            raise Unavailable(
                f"the fault {fault.name} can not be made on this machine",
                why=f"it needs {need.what}",
                hint=need.hint,
            )


def _stand(lab: Lab, stage: Stage, say: start.Say) -> None:
    if _status(lab, stage.check) == 0:
        return
    if not stage.make and not stage.guest:
        raise Refused(
            f"the lab {lab.name!r} does not have what this fault needs",
            why=f"it needs {stage.what}",
            hint="a new lab has it: kvmnet lab up --name other",
        )
    say(f"it needs {stage.what}, which is made first")
    for one in stage.make:
        say(f"  {one.where}$ {' '.join(one.argv)}")
        _run(lab, one)
    if stage.guest:
        guest = lab.add_guest(stage.guest, on=stage.on, say=lambda text: say(f"  {text}"))
        guest.wait_ready(READY_S)
        guest.wait_address(READY_S)


def _status(lab: Lab, one: Command) -> int:
    return _try(lab, one.where, one.argv).status


def _try(lab: Lab, where: str, argv: tuple[str, ...]) -> Completed:
    return lab.run(where, argv, timeout=TIMEOUT_S, accept=range(256))


def _run(lab: Lab, one: Command) -> None:
    if one.unless and _try(lab, one.where, one.unless).status == 0:
        return
    own = one.argv[0] == "kvmnet"
    argv = (sys.executable, "-P", "-m", *one.argv) if own else one.argv
    deadline = time.monotonic() + one.patience_s
    while time.monotonic() < deadline:
        if lab.run(one.where, argv, stdin=one.stdin, accept=range(256)).status in one.accept:
            return
        time.sleep(0.1)
    lab.run(one.where, argv, stdin=one.stdin, accept=one.accept, timeout=TIMEOUT_S)


def _take_out(lab: Lab, commands: tuple[Command, ...]) -> None:
    """Run all of them, also after one that failed. Raises `NotUndone` naming those that did."""
    failed: list[str] = []
    for one in commands:
        try:
            _run(lab, one)
        except KvmnetError as error:
            failed.append(str(error))
    if failed:
        raise NotUndone(
            "the lab is not as it was before",
            why="; ".join(failed),
            hint="a lab that is started anew is whole: kvmnet lab down, kvmnet lab up",
        )
