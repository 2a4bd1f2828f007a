"""Runs inside a world: prove CHECKS WITHIN_S, or baseline NIC[,NIC] CHECKS, and prints what came.

CHECKS is a JSON list. Exit status: 0, or 1 with the error's text on standard output.
"""

from __future__ import annotations

import sys

import msgspec

from kvmnet.adapters import checks
from kvmnet.errors import KvmnetError
from kvmnet.flow.baseline import baseline
from kvmnet.flow.guard import Silent
from kvmnet.flow.observe import Part, observe
from kvmnet.model.check import Check

PARTS = frozenset({Part.LINKS, Part.ADDRESSES, Part.ROUTES})


class Teller(Silent):
    def say(self, text: str) -> None:
        print(text, file=sys.stderr)


def main() -> int:
    verb, first, second = sys.argv[1:]
    try:
        if verb == "prove":
            wanted = msgspec.json.decode(first, type=tuple[Check, ...])
            checks.prove(wanted, within_s=float(second))
            return 0
        extra = msgspec.json.decode(second, type=tuple[Check, ...])
        found = baseline(observe(None, PARTS), tuple(first.split(",")), extra, Teller())
    except KvmnetError as error:
        print(f"{type(error).__name__}: {error}")
        return 1
    print(msgspec.json.encode(found).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
