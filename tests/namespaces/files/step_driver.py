"""Takes one step given as JSON; with two words tells whether a NIC does that work."""

from __future__ import annotations

import sys
from typing import cast

import msgspec

from kvmnet.adapters import offloads, steps
from kvmnet.model import plan
from kvmnet.model.link_steps import Feature

if len(sys.argv) == 3:
    print(offloads.is_on(sys.argv[1], cast("Feature", sys.argv[2])))
else:
    steps.take(msgspec.json.decode(sys.argv[1], type=plan.Step), None)
