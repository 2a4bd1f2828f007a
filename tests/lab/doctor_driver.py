"""Runs inside a lab's host: `kvmnet doctor --fix`, with a fault at one of its steps.

    doctor_driver.py FAULT began|done STEP

Faults and exit status are those of `transaction_driver`.
"""

from __future__ import annotations

import sys

from transaction_driver import Saboteur

from kvmnet.core.scope import parse_scope
from kvmnet.errors import Interrupted, NotUndone, Undone
from kvmnet.flow import doctor
from kvmnet.model.plan import Plan


def consent(before: doctor.Examination, plan: Plan) -> None:
    print(f"{len(plan.steps)} steps")


def main() -> int:
    fault, moment, step = sys.argv[1:]
    try:
        doctor.repair(
            parse_scope(None), uri=None, said=" ".join(sys.argv), consent=consent,
            watcher=Saboteur(fault, moment, int(step)), probing=False,
        )  # fmt: skip
    except (Undone, Interrupted, NotUndone) as error:
        print(error)
        return {Undone: 4, Interrupted: 130, NotUndone: 5}[type(error)]
    return 0


if __name__ == "__main__":
    sys.exit(main())
