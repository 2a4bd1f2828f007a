"""`kvmnet lab break` and `kvmnet lab mend`: known problems, put into a lab and taken out."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from kvmnet.cli.output import print_json, say, wants_json
from kvmnet.cli.parser import Parser
from kvmnet.errors import InvalidInput

_WIDTH = 100


def add_verbs(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add both to the sub-verbs of `kvmnet lab`."""
    lab = Parser(add_help=False)
    lab.add_argument(
        "--name", "--lab", dest="name", default="default", metavar="LAB",
        help="which lab (default)",
    )  # fmt: skip
    breaking = verbs.add_parser(
        "break", parents=[common, lab], help="put a known problem into a lab, to learn from it"
    )
    breaking.add_argument("fault", metavar="FAULT", nargs="?", help="which one, see --list")
    breaking.add_argument(
        "--list", action="store_true", dest="listing",
        help="all faults, and what a user sees of each",
    )  # fmt: skip
    breaking.set_defaults(handler=_break)
    mending = verbs.add_parser("mend", parents=[common, lab], help="take a fault out of a lab")
    mending.add_argument("fault", metavar="FAULT", help="which one, see kvmnet lab status")
    mending.set_defaults(handler=_mend)


def _break(args: argparse.Namespace) -> int:
    if args.listing and args.fault is not None:
        raise InvalidInput("--list takes no name", hint="kvmnet lab break --list")
    if args.listing:
        return _list(args)
    if args.fault is None:
        raise InvalidInput("no fault is named", hint="see them all: kvmnet lab break --list")
    from kvmnet.lab.faults.breaking import break_, find
    from kvmnet.lab.lab import Lab

    find(args.fault)
    fault = break_(Lab.attach(args.name), args.fault, lambda text: say(args, f"  {text}"))
    option = "" if args.name == "default" else f" --name {args.name}"
    suffix = "" if args.name == "default" else f"={args.name}"
    print(f"the lab {args.name!r} is broken now")
    print(textwrap.fill(f"what a user sees: {fault.seen}", _WIDTH - 2, initial_indent="  ",
                        subsequent_indent="    "))  # fmt: skip
    if fault.trial is not None and fault.trial.probe:
        say(args, f"  see it:  kvmnet --lab{suffix} probe {' '.join(fault.trial.probe)}")
    say(args, f"  find it: kvmnet --lab{suffix} doctor")
    say(args, f"  mend it: kvmnet lab mend {fault.name}{option}")
    return 0


def _mend(args: argparse.Namespace) -> int:
    from kvmnet.lab.faults.breaking import find, mend
    from kvmnet.lab.lab import Lab

    fault = find(args.fault)
    mend(Lab.attach(args.name), fault.name)
    for line in textwrap.wrap(f"{fault.name} is mended; it was: {fault.how}", _WIDTH):
        say(args, line)
    return 0


def _list(args: argparse.Namespace) -> int:
    from kvmnet.lab.faults.table import FAULTS, NOT_MADE

    if wants_json(args):
        from kvmnet.cli.documents import FaultsDocument, FaultView

        views = (FaultView(name=x.name, problem=x.problem, seen=x.seen) for x in FAULTS)
        print_json(FaultsDocument(faults=tuple(views)))
        return 0
    for fault in FAULTS:
        print(fault.name)
        print(textwrap.indent(textwrap.fill(fault.seen, _WIDTH - 4), "    "))
    print("\nNot to be had in a lab:")
    for name, why in NOT_MADE.items():
        print(
            textwrap.fill(f"{name}: {why}", _WIDTH, initial_indent="  ", subsequent_indent="    ")
        )
    return 0
