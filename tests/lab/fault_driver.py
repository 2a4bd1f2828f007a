"""Breaks a lab and is killed on the way: `fault_driver.py LAB FAULT DONE`.

SIGKILL comes when DONE commands of the fault are done: with 0 when its record is written and
nothing is made yet.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from kvmnet.adapters.run import Completed
from kvmnet.lab.faults import breaking, broken
from kvmnet.lab.lab import Lab


class Cut(Lab):
    """A lab in which the last command that is run for a fault is the one of that number."""

    left = int(sys.argv[3])

    def run(self, *words: Any, **options: Any) -> Completed:
        if any(x.name == sys.argv[2] for x in broken.active(self.name)):
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
        return super().run(*words, **options)


breaking.break_(Cut.attach(sys.argv[1]), sys.argv[2])
