"""What every command that changes something shares: --dry-run, --yes, progress, consent."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from kvmnet.cli import output
from kvmnet.cli.parser import Parser
from kvmnet.errors import Refused
from kvmnet.model.plan import HandOver, Plan, PlannedStep, Prove


def change_options() -> argparse.ArgumentParser:
    """The options of every command that changes something, as a parent parser."""
    options = Parser(add_help=False)
    add_change_options(options)
    return options


def add_change_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that changes something."""
    group = parser.add_argument_group("options of commands that change something")
    group.add_argument(
        "--dry-run", action="store_true", help="print what would be done, and its undo; do nothing"
    )
    group.add_argument("--yes", "-y", action="store_true", help="do not ask")


class TerminalWatcher:
    """Tells people on standard error how far a change is."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args

    def began(self, number: int, planned: PlannedStep) -> None:
        del number
        output.say(self._args, f"  {planned.step} ...")

    def done(self, number: int, planned: PlannedStep) -> None:
        del number, planned

    def undoing(self, planned: PlannedStep) -> None:
        output.say(self._args, f"  undoing: {planned.undo} ...")

    def say(self, text: str) -> None:
        output.say(self._args, f"kvmnet: {text}")


Consent = Callable[[Plan], None]


def no_consent_needed(plan: Plan) -> None:
    """For commands whose name says all that they do."""
    del plan


def consent(args: argparse.Namespace, question: str) -> Callable[[Plan], None]:
    """Ask on a terminal, unless --yes; where nobody can be asked, the answer is no."""

    def ask(plan: Plan) -> None:
        if args.yes or not plan.steps:
            return
        for line in describe(plan):
            output.say(args, line)
        if not sys.stdin.isatty():
            raise Refused(
                f"{plan.title}: not done", why="nobody could be asked", hint="say --yes to do it"
            )
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            raise Refused(f"{plan.title}: not done", why="you said no")

    return ask


def describe(plan: Plan) -> list[str]:
    """The plan for people: each step, whom it disturbs, how it is undone."""
    from kvmnet.cli.file_changes import differences  # late: few plans write files

    lines = [f"{plan.title}:"]
    for number, planned in enumerate(plan.steps, start=1):
        lines.append(f"  {number}. {planned.step}")
        if isinstance(planned.step, Prove):
            lines += [f"       {check}" for check in planned.step.checks]
            continue
        if isinstance(planned.step, HandOver):
            lines += [f"       {line}" for line in differences(plan, planned.step)]
        lines.append(f"     disturbs: {planned.disturbs}")
        lines.append(f"     undo: {planned.undo if planned.undo is not None else 'none'}")
    if not plan.steps:
        lines.append("  nothing to do")
    return [*lines, *(f"  note: {note}" for note in plan.notes)]


def _print_document(plan: Plan, *, applied: bool) -> None:
    from kvmnet.cli.documents import PlanDocument
    from kvmnet.cli.file_changes import without_secrets

    output.print_json(PlanDocument(plan=without_secrets(plan), applied=applied))


def show_dry_run(args: argparse.Namespace, plan: Plan) -> int:
    """Print the plan as a table or document, for --dry-run."""
    if output.wants_json(args):
        _print_document(plan, applied=False)
    else:
        print("\n".join(output.safe(line) for line in describe(plan)))
    return 0


def show_done(args: argparse.Namespace, plan: Plan, sentence: str) -> int:
    """Print what was done, with the plan's notes."""
    if output.wants_json(args):
        _print_document(plan, applied=True)
        return 0
    if plan.steps and not output.is_quiet(args):
        print(output.safe(sentence))
    for note in plan.notes:
        output.say(args, f"note: {note}")
    return 0
