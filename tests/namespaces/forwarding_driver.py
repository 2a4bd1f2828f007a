"""Runs inside a world: turns forwarding on by PATH below /proc/sys, and keeps it or has it undone.

    forwarding_driver.py PATH keep|fail

Exit status: 0 kept, 4 undone.
"""

from __future__ import annotations

import sys

from kvmnet.core import mending
from kvmnet.core.forwarding_back import forwarding_back
from kvmnet.errors import Failed, Undone
from kvmnet.flow.apply import apply, changing
from kvmnet.flow.guard import Silent
from kvmnet.flow.observe import Part, observe
from kvmnet.model.plan import Plan


def main() -> int:
    path, how = sys.argv[1:]

    def verify() -> None:
        if how == "fail":
            raise Failed("the test's fault")

    on = mending.set_sysctl(path, "1", "0")
    back = forwarding_back(observe(None, frozenset({Part.LINKS, Part.SYSCTLS})), (on,))
    plan = Plan(title="turn forwarding on", steps=(*back, on))
    try:
        with changing("the driver", Silent()):
            apply(plan, uri=None, command="the driver", verify=verify, watcher=Silent())
    except Undone:
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
