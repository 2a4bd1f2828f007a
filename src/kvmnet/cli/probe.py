"""What a guest on this network or bridge would experience, measured by a stand-in guest.

A throw-away machine is plugged into the bridge and does what a guest does: it waits for the
bridge's port, takes a lease, looks for its gateway, the host, a DNS server and a target beyond.
Then it gives its lease back and is gone. Needs root. Exit 1 if a step failed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from kvmnet.cli import output
from kvmnet.model.probe import ProbeReport, ProbeStep, ProbeTarget

_COLORS = {"ok": "32", "warn": "33", "failed": "31", "skipped": "2"}
_LAYOUT = "{:<9} {:<8} {:>11}  {}"


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    del common  # there are no sub-commands
    parser.add_argument("target", metavar="TARGET", help="network:NAME or bridge:NAME")
    parser.add_argument(
        "--to", metavar="HOST[:PORT]",
        help="reach this from there, by TCP if a port is given (default: the host's own gateway)",
    )  # fmt: skip
    parser.add_argument(
        "--evidence", action="store_true", help="show what every step saw, not only the broken ones"
    )
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from kvmnet.flow.probe import parse_endpoint, parse_target, probe

    kind, name = parse_target(args.target)
    target = ProbeTarget(
        kind=kind,
        name=name,
        to=None if args.to is None else parse_endpoint(args.to),
        connection=getattr(args, "connect", None),
    )
    if output.wants_json(args):
        from kvmnet.cli.documents import ProbeDocument

        report = probe(target)
        output.print_json(ProbeDocument(ok=report.ok, report=report))
        return 0 if report.ok else 1
    report = probe(target, on_step=printer(args, evidence=args.evidence))
    _print_end(report)
    return 0 if report.ok else 1


def printer(args: argparse.Namespace, *, evidence: bool) -> Callable[[ProbeStep], None]:
    """A function that prints each step as a row of a table, as soon as it is done."""
    colored = output.use_color(args)
    head = _LAYOUT.format("STEP", "RESULT", "TIME", "DETAIL")
    rows = 0

    def show(step: ProbeStep) -> None:
        nonlocal rows
        if rows == 0:
            print(head)
        rows += 1
        for line in _lines(step, colored=colored, evidence=evidence):
            print(line, flush=True)

    return show


def _lines(step: ProbeStep, *, colored: bool, evidence: bool) -> list[str]:
    time = f"{step.ms:.1f} ms" if step.verdict != "skipped" else ""
    detail = output.safe(step.detail or step.reason)
    row = _LAYOUT.format(step.name, step.verdict, time, detail).rstrip()
    if colored:
        mark = f"\033[{_COLORS[step.verdict]}m{step.verdict}\033[0m"
        row = row.replace(f" {step.verdict} ", f" {mark} ", 1)
    indent = " " * 32
    more = []
    if step.reason and step.detail:
        more.append(f"why: {step.reason}")
    if evidence or step.verdict == "failed":
        more += [f"saw: {x}" for x in step.evidence]
    if step.hint:
        more.append(f"try: {step.hint}")
    return [row, *(indent + output.safe(x) for x in more)]


def _print_end(report: ProbeReport) -> None:
    failed = [x.name for x in report.steps if x.verdict == "failed"]
    slow = max(report.steps, key=lambda x: x.ms)
    cost = f", {slow.ms / 1000:.1f} s of it {slow.name}" if report.ms > 1500 else ""
    result = f"broken at: {failed[0]}" if failed else "a guest here is online"
    target = next((x for x in report.steps if x.name == "target"), None)
    if not failed and (target is None or target.verdict == "skipped"):
        result = "a guest here has a working network; nothing beyond the host was tried"
    print(f"{report.target}: {output.safe(result)} ({report.ms / 1000:.2f} s{cost})")
