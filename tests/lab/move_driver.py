"""Runs inside a lab's host: a move of guests, with a fault at one of its steps.

    move_driver.py GUEST[,GUEST…] TARGET FAULT began|done STEP [replug]

Beside the faults of `transaction_driver` there are those of a guest: it is shut down, renamed,
removed or started in the middle. Exit status as there; 1: some guests were left out.
"""

from __future__ import annotations

import signal
import subprocess
import sys

from transaction_driver import FAULTS, Saboteur, interrupt

from kvmnet.errors import Interrupted, NotUndone, Undone
from kvmnet.flow import guests
from kvmnet.model.move import MovePlan, MoveWish
from kvmnet.model.target import parse_target


def virsh(*words: str) -> None:
    subprocess.run(["virsh", "-c", "qemu:///system", *words], check=True, timeout=20)


def consent(plan: MovePlan) -> None:
    print(f"{len(plan.plan.steps)} steps")


def main() -> int:
    names, target, fault, moment, step, *how = sys.argv[1:]
    first = names.split(",")[0]
    FAULTS["shut-down"] = lambda: virsh("destroy", first)
    FAULTS["renamed"] = lambda: virsh("domrename", first, "renamed")
    FAULTS["removed"] = lambda: virsh("undefine", first)
    FAULTS["started"] = lambda: virsh("start", first)
    signal.signal(signal.SIGTERM, interrupt)
    request = guests.MoveRequest(
        patterns=tuple(names.split(",")), target=parse_target(target),
        wish=MoveWish(how="replug" if how else "auto"),
    )  # fmt: skip
    try:
        moved = guests.carry_out(
            request, uri=None, command=" ".join(sys.argv), consent=consent,
            watcher=Saboteur(fault, moment, int(step)),
        )  # fmt: skip
    except (Undone, Interrupted, NotUndone) as error:
        print(error)
        return {Undone: 4, Interrupted: 130, NotUndone: 5}[type(error)]
    for left in moved.left_out:
        print(f"{left.group}: {left.why}")
    return 1 if moved.left_out else 0


if __name__ == "__main__":
    sys.exit(main())
