"""Take back a change that was kept.

Without ID the last one; one that was cut off comes first. It is refused where something else has
changed since what it would touch.
Taking back is a change like any other: proven, guarded, and undone itself if it does not work.
A transaction that is stuck is tried again, or given up with --give-up. IDs: kvmnet history.
"""

from __future__ import annotations

import argparse
import shlex
import sys

from kvmnet.adapters import ip_program
from kvmnet.cli import changes, confirming, output
from kvmnet.errors import InvalidInput


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    del common  # there are no sub-commands
    parser.add_argument("id", metavar="ID", nargs="?", help="which (the last that was kept)")
    parser.add_argument(
        "--give-up", action="store_true",
        help="leave a stuck one as it is, so that other changes can be made again",
    )  # fmt: skip
    changes.add_change_options(parser)
    confirming.add_confirm_options(parser)
    parser.set_defaults(handler=run)


@ip_program.kept_to_change()
def run(args: argparse.Namespace) -> int:
    from kvmnet.flow import taking_back

    command = shlex.join(["kvmnet", *sys.argv[1:]])
    watcher = changes.TerminalWatcher(args)
    if args.give_up:
        if args.id is None:
            raise InvalidInput("--give-up needs an ID", hint="kvmnet history")
        left = taking_back.give_up(args.id, command, watcher)
        output.say(args, f"{left.plan.title}: given up; left as it is: {left.why}")
        return 0
    extra, confirm = confirming.checks(args), confirming.confirm(args)
    transaction = taking_back.find(args.id)
    if args.dry_run:
        return changes.show_dry_run(args, taking_back.propose(transaction, extra, watcher))
    plan = taking_back.carry_out(
        transaction, extra=extra, confirm=confirm, command=command, watcher=watcher,
        consent=changes.consent(args, f"Undo `{output.safe(transaction.plan.title)}`?"),
    )  # fmt: skip
    return changes.show_done(args, plan, f"{transaction.plan.title}: undone")
