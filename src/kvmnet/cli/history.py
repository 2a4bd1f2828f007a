"""What kvmnet has changed on this host, how each change ended, and why.

Kept: it is so now, unless it was taken back later (`kvmnet undo ID`). Undone: everything was put
back. Stuck: putting it back failed; `why` names what is left.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING

from kvmnet.cli import output

if TYPE_CHECKING:  # imported late: --help does without
    from kvmnet.cli.documents import HistoryEntry


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    del common  # there are no sub-commands
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from kvmnet.cli.documents import HistoryDocument, HistoryEntry
    from kvmnet.flow import taking_back

    every = taking_back.history()
    back = taking_back.taken_back_by(every)
    entries = tuple(
        HistoryEntry(
            id=x.id, began_at=x.began_at, ended_at=x.ended_at, command=x.command,
            title=x.plan.title, outcome=x.outcome, why=x.why, steps=len(x.plan.steps),
            begun=x.begun, undoes=x.undoes, taken_back_by=back.get(x.id),
        )
        for x in every
    )  # fmt: skip
    if output.wants_json(args):
        output.print_json(HistoryDocument(transactions=entries))
        return 0
    if os.geteuid() != 0:
        output.say(args, "only what you did without root; the rest: sudo kvmnet history")
    if not entries:
        output.say(args, "kvmnet has changed nothing here yet")
        return 0
    output.print_table(args, ("time", "id", "command", "outcome", "why"), map(_row, entries))
    return 0


def _row(entry: HistoryEntry) -> tuple[str, ...]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.began_at))
    why = entry.why
    if entry.taken_back_by is not None:
        why = f"taken back by {entry.taken_back_by}"
    return when, entry.id, entry.command, entry.outcome, why
