"""Keep a change that waits for it.

A change made with `--confirm manual` works by the time it waits, and is undone unless somebody runs
this in time: from the same terminal or, better, from a new connection, which proves that one can
still be made.
"""

from __future__ import annotations

import argparse

from kvmnet.cli import output


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    del common  # there are no sub-commands
    parser.add_argument("id", metavar="ID", nargs="?", help="which (the one that waits)")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from kvmnet.flow import taking_back

    kept = taking_back.confirm(args.id)
    if not output.is_quiet(args):
        print(output.safe(f"{kept.plan.title}: kept"))
    return 0
