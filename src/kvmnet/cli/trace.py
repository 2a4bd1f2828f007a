"""Follow one real packet hop by hop, to the place where it dies.

A few packets are sent from FROM to TO, marked so that only they are followed: links they pass,
firewall rules they meet, the routing decision, NAT, the neighbour they are sent to. The last line
says what became of them. Needs root; nothing stays switched on. Exit 1 if they did not arrive.
"""

from __future__ import annotations

import argparse

from kvmnet.cli import output
from kvmnet.model.trace import WAIT_S, Hop, TraceReport, TraceRequest

_COLORS = {"drop": "31", "nat": "33", "rule": "36", "policy": "36", "answer": "32"}


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    del common  # there are no sub-commands
    parser.add_argument(
        "source", metavar="FROM",
        help="guest:NAME (or a guest's bare name), network:NAME, bridge:NAME, host, or lan:NIC: "
        "as if it came in there",
    )  # fmt: skip
    parser.add_argument("to", metavar="TO[:PORT]", help="address, name, or guest:NAME")
    parser.add_argument(
        "--proto", choices=("tcp", "udp", "icmp"), help="default: tcp with a port, else icmp"
    )
    parser.add_argument("--reply", action="store_true", help="show the answer's way back too")
    parser.add_argument(
        "--source", dest="address", metavar="ADDRESS", help="send from this IP address"
    )
    parser.add_argument(
        "--wait", metavar="SECONDS", type=_seconds, default=WAIT_S,
        help=f"for an answer (default {WAIT_S:g}, at most 30)",
    )  # fmt: skip
    parser.add_argument(
        "--evidence", action="store_true", help="show what each line rests on, and every policy"
    )
    parser.set_defaults(handler=run)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.05 <= value <= 30:
        raise argparse.ArgumentTypeError(f"{text!a} is no time from 0.05 to 30 seconds")
    return value


def run(args: argparse.Namespace) -> int:
    from kvmnet.flow.trace import trace
    from kvmnet.flow.trace_target import parse_source, parse_to, protocol_for
    from kvmnet.model.values import parse_ip

    to = parse_to(args.to)
    request = TraceRequest(
        source=parse_source(args.source),
        to=to,
        protocol=protocol_for(args.proto, to),
        reply=args.reply,
        address=None if args.address is None else parse_ip(args.address),
        wait_s=args.wait,
        connection=getattr(args, "connect", None),
    )
    report = trace(request)
    if output.wants_json(args):
        from kvmnet.cli.documents import TraceDocument

        output.print_json(TraceDocument(ok=report.ok, report=report))
    else:
        _print(args, report)
    return 0 if report.ok else 1


def _print(args: argparse.Namespace, report: TraceReport) -> None:
    rows = [x for x in report.hops if args.evidence or not _is_dull(x)]
    if not output.is_quiet(args):
        _print_hops(args, rows)
        for gap in report.missing:
            output.say(args, f"not watched: {gap.what}: {gap.why}")
    print(f"{output.safe(report.verdict)} ({report.ms / 1000:.2f} s)")
    if report.hint:
        print(f"try: {output.safe(report.hint)}")


def _is_dull(hop: Hop) -> bool:
    return hop.kind == "policy" and hop.what == "policy accept"


def _print_hops(args: argparse.Namespace, hops: list[Hop]) -> None:
    colored = output.use_color(args)
    where = max((len(x.where) for x in hops), default=0)
    where = min(max(where, 5), 34)
    print(f"{'TIME':>9}    {'WHERE'.ljust(where)}  WHAT")
    for hop in hops:
        time = "" if hop.at_ms is None else f"{hop.at_ms:.2f} ms"
        arrow = "<" if hop.way == "back" else " "
        place = output.safe(hop.where).ljust(where)
        if colored and hop.kind in _COLORS:
            place = f"\033[{_COLORS[hop.kind]}m{place}\033[0m"
        print(f"{time:>9} {arrow}  {place}  {output.safe(hop.what)}", flush=True)
        if args.evidence or hop.kind in ("drop", "rule"):
            for line in hop.evidence:
                print(f"{'':13}{'':{where}}  {output.safe(line)}")
