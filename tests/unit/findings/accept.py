"""Writes `expected.json` of the cases named, for review: `python3 accept.py NAME...` (none: all).

Fields that have their default are left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from kvmnet.core import findings
from kvmnet.core.finding import Finding
from kvmnet.formats import state_json

HERE = Path(__file__).parent
CASES = {"cases": findings.find, "asked": findings.explain}


def _short(finding: Finding) -> dict[str, Any]:
    whole = msgspec.to_builtins(finding)
    usual = {x.name: msgspec.to_builtins(x.default) for x in msgspec.structs.fields(Finding)
             if x.default is not msgspec.NODEFAULT}  # fmt: skip
    return {k: v for k, v in whole.items() if k not in usual or list(v) != list(usual[k])}


def main() -> None:
    for folder in sorted(x.parent for y in CASES for x in HERE.glob(f"{y}/*/state.json")):
        if sys.argv[1:] and folder.name not in sys.argv[1:]:
            continue
        state = state_json.parse((folder / "state.json").read_text())
        found = [_short(x) for x in CASES[folder.parent.name](state)]
        (folder / "expected.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
