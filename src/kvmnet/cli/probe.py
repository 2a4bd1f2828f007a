"""What a guest on this network or bridge would experience, measured by a stand-in guest.

A throw-away machine is plugged into the bridge and does what a guest does: it waits for the
bridge's port, takes a lease, looks for its gateway, the host, a DNS server and a target beyond.
Then it gives its lease back and is gone. Needs root. Exit 1 if a step failed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from kvmnet.cli import output
from kvmnet.errors import InvalidInput
from kvmnet.model.nic_choice import parse_nic_choice
from kvmnet.model.probe import ProbeReport, ProbeStep, ProbeTarget, StepName

_COLORS = {"ok": "32", "warn": "33", "failed": "31", "skipped": "2"}
_LAYOUT = "{:<14} {:<8} {:>11}  {}"
_LAYOUT_BY = "{:<14} {:<9} {:<8} {:>11}  {}"


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    del common  # there are no sub-commands
    parser.add_argument("target", metavar="TARGET", help="network:NAME, bridge:NAME or guest:NAME")
    parser.add_argument(
        "--nic", metavar="MAC|INDEX", help="which NIC of the guest (default: the only one)"
    )
    parser.add_argument(
        "--to", metavar="HOST[:PORT]",
        help="reach this from there, by TCP if a port is given (default: the host's own gateway)",
    )  # fmt: skip
    parser.add_argument(
        "--from", metavar="lan:NIC", dest="origin",
        help="the way in: try to reach TARGET from the LAN of this NIC of the host",
    )  # fmt: skip
    parser.add_argument(
        "--evidence", action="store_true", help="show what every step saw, not only the broken ones"
    )
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from kvmnet.flow.probe import probe
    from kvmnet.flow.probe_words import parse_endpoint, parse_origin, parse_target

    kind, name = parse_target(args.target)
    if args.nic is not None and kind != "guest":
        raise InvalidInput("--nic names a NIC of a guest", hint="kvmnet probe guest:NAME --nic 1")
    target = ProbeTarget(
        kind=kind,
        name=name,
        nic=None if args.nic is None else parse_nic_choice(args.nic),
        to=None if args.to is None else parse_endpoint(args.to),
        lan=None if args.origin is None else parse_origin(args.origin),
        connection=getattr(args, "connect", None),
    )
    if output.wants_json(args):
        from kvmnet.cli.documents import ProbeDocument

        report = probe(target)
        output.print_json(ProbeDocument(ok=report.ok, report=report))
        return 0 if report.ok else 1
    several = target.kind == "guest"
    report = probe(target, on_step=printer(args, evidence=args.evidence, by=several))
    _print_end(report)
    return 0 if report.ok else 1


def printer(
    args: argparse.Namespace, *, evidence: bool, by: bool = False
) -> Callable[[ProbeStep], None]:
    """A function that prints each step as a row of a table, as soon as it is done.

    `by` adds who measured it.
    """
    colored = output.use_color(args)
    head = _LAYOUT.format("STEP", "RESULT", "TIME", "DETAIL")
    if by:
        head = _LAYOUT_BY.format("STEP", "BY", "RESULT", "TIME", "DETAIL")
    rows = 0

    def show(step: ProbeStep) -> None:
        nonlocal rows
        if rows == 0:
            print(head)
        rows += 1
        for line in _lines(step, colored=colored, evidence=evidence, by=by):
            print(line, flush=True)

    return show


def _lines(step: ProbeStep, *, colored: bool, evidence: bool, by: bool) -> list[str]:
    time = f"{step.ms:.1f} ms" if step.verdict != "skipped" else ""
    detail = output.safe(step.detail or step.reason)
    words = (step.name, step.by) if by else (step.name,)
    row = (_LAYOUT_BY if by else _LAYOUT).format(*words, step.verdict, time, detail).rstrip()
    if colored:
        mark = f"\033[{_COLORS[step.verdict]}m{step.verdict}\033[0m"
        row = row.replace(f" {step.verdict} ", f" {mark} ", 1)
    indent = " " * (47 if by else 37)
    more = []
    if step.expected and (evidence or step.verdict == "failed"):
        more.append(f"expected: {step.expected}")
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
    result = f"broken at: {failed[0]}" if failed else _good_end(report)
    print(f"{report.target}: {output.safe(result)} ({report.ms / 1000:.2f} s{cost})")


def _good_end(report: ProbeReport) -> str:
    verdicts = {x.name: x.verdict for x in report.steps}
    who = "a guest here"
    if report.target.lan is not None:
        reached = any(verdicts.get(x) == "ok" for x in ("way-in", "way-in-by-host"))
        way = f"the LAN of {report.target.lan}"
        return f"reached from {way}" if reached else f"nothing was tried from {way}"
    if report.guest is not None:
        who = "the guest" if verdicts.get("inside-target") == "ok" else "a guest beside it"
    beyond: tuple[StepName, ...] = ("target", "target6", "inside-target")
    if any(verdicts.get(name) in ("ok", "warn") for name in beyond):
        return f"{who} is online"
    shown: tuple[StepName, ...] = ("dhcp", "gateway", "host", "address6", "gateway6", "answers",
                                   "inside-address")  # fmt: skip
    if report.guest is not None and all(verdicts.get(x) != "ok" for x in shown):
        return "no step failed, and none shows that the guest has a network"
    return f"{who} has a working network; nothing beyond the host was tried"
