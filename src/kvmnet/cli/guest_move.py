"""Put guests on another network: those that run live, the others in their definition.

GUEST is a name, a UUID or a pattern ('web*'); --all --from network:default means every guest on it.
A running guest moves at once where its NIC can stay the same device (between networks and bridges).
It sees its cable pulled for a moment and asks for an address; kvmnet proves by packets that it
arrived, or puts it back. Otherwise it moves at its next start, or with --replug by a new NIC.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from kvmnet.cli import changes, output
from kvmnet.cli.parser import RawFormatter
from kvmnet.errors import InvalidInput
from kvmnet.model.nic_choice import parse_mac_wish, parse_nic_choice
from kvmnet.model.target import FORMS, parse_target

if TYPE_CHECKING:  # the flows are heavy to import, and --help does not need them
    from kvmnet.flow import guests
    from kvmnet.model.move import GuestMove, How, MovePlan


def add_verb(verbs: argparse._SubParsersAction[argparse.ArgumentParser],
             common: argparse.ArgumentParser) -> None:  # fmt: skip
    """`guest move` among the verbs of `guest`."""
    parser = verbs.add_parser(
        "move", help="put guests on another network, running or not", description=__doc__,
        parents=[common, changes.change_options()],
        formatter_class=RawFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("guests", metavar="GUEST", nargs="*", help="name, UUID or pattern")
    parser.add_argument("--all", action="store_true", help="every guest that has a NIC on --from")
    parser.add_argument("--to", metavar="TARGET", required=True, help=FORMS)
    parser.add_argument("--from", metavar="TARGET", dest="origin", help="those NICs that are on it")
    parser.add_argument(
        "--nic", metavar="MAC|INDEX|all", help="which NIC, counted from 1 (default: the only one)"
    )
    parser.add_argument(
        "--mac", metavar="keep|new|ADDRESS", default="keep", help="its MAC address (keep)"
    )
    how = parser.add_mutually_exclusive_group()
    for name, what in (
        ("live", "running guests at once, or not at all"),
        ("offline", "only guests that are shut off"),
        ("replug", "running guests at once, with a new NIC where it has to be"),
        ("next-boot", "running guests at their next start"),
    ):
        how.add_argument(f"--{name}", action="store_const", const=name, dest="how", help=what)
    parser.add_argument(
        "--all-or-nothing", action="store_true", help="one guest that fails takes the others back"
    )
    parser.add_argument(
        "--force", action="store_true", help="even where a guest's own address does not fit"
    )
    parser.set_defaults(handler=run, how="auto")


def _request(args: argparse.Namespace) -> guests.MoveRequest:
    from kvmnet.flow import guests
    from kvmnet.model.move import MoveWish

    if args.all == bool(args.guests):
        raise InvalidInput(
            "which guests are meant is not clear",
            why="--all and names exclude each other" if args.all else "no guest is named",
            hint="GUEST …, or --all --from network:default",
        )
    if args.all and args.origin is None:
        raise InvalidInput("--all needs --from", hint="--all --from network:default")
    how: How = args.how
    return guests.MoveRequest(
        patterns=tuple(args.guests),
        target=parse_target(args.to),
        nic=None if args.nic is None else parse_nic_choice(args.nic),
        origin=None if args.origin is None else parse_target(args.origin),
        mac=parse_mac_wish(args.mac),
        wish=MoveWish(how=how, force=args.force, together=args.all_or_nothing),
    )


def run(args: argparse.Namespace) -> int:
    from kvmnet.flow import guests

    request = _request(args)
    uri = getattr(args, "connect", None)
    watcher = changes.TerminalWatcher(args)
    if args.dry_run:
        proposed = guests.propose(request, uri, watcher)
        _tell_guests(args, proposed)
        changes.show_dry_run(args, proposed.plan)
        if request.mac.kind == "new" and proposed.plan.steps:
            output.say(args, "kvmnet: a new address is drawn at each run; to have the one that is "
                             "shown, say --mac ADDRESS")  # fmt: skip
        return 1 if proposed.refused else 0
    moved = guests.carry_out(
        request, uri=uri, command=shlex.join(["kvmnet", *sys.argv[1:]]), watcher=watcher,
        consent=_consent(args, request),
    )  # fmt: skip
    return _show(args, moved)


def _consent(args: argparse.Namespace, request: guests.MoveRequest) -> guests.Consent:
    ask = changes.consent(args, f"Put them on {request.target}?")

    def decide(proposed: MovePlan) -> None:
        _tell_guests(args, proposed)
        if any(x.how in {"live", "replug", "next-boot"} for x in proposed.guests):
            ask(proposed.plan)

    return decide


def _tell_guests(args: argparse.Namespace, proposed: MovePlan) -> None:
    if len(proposed.guests) <= 20:
        for move in proposed.guests:
            output.say(args, f"kvmnet: guest {move.guest}: {_told(move, 'notices')}")
        return
    for how in dict.fromkeys(x.how for x in proposed.guests):
        named = [x for x in proposed.guests if x.how == how]
        output.say(args, f"kvmnet: {len(named)} guests: {_told(named[0], 'notice')}")


def _told(move: GuestMove, verb: str) -> str:
    if move.how == "nothing":
        return f"nothing to do: {move.notices.removeprefix('nothing: ')}"
    return f"{move.how}; {verb}: {move.notices}"


def _show(args: argparse.Namespace, moved: guests.Moved) -> int:
    plan = moved.plan
    failed = {x.group for x in moved.left_out} | {x.guest for x in plan.refused}
    count = len([x for x in plan.guests if x.guest not in failed and x.how != "nothing"])
    names = ", ".join(x.guest for x in plan.guests[:1]) if len(plan.guests) == 1 else (
        f"{count} guests"
    )  # fmt: skip
    when = " at the next start" if {x.how for x in plan.guests} == {"next-boot"} else ""
    verb = "is" if len(plan.guests) == 1 or count == 1 else "are"
    changes.show_done(args, plan.plan, f"{names} {verb} on {plan.target}{when}")
    for move in plan.refused:
        output.say(args, f"kvmnet: guest {move.guest} was left alone: {move.notices}")
    for left in moved.left_out:
        output.say(args, f"kvmnet: guest {left.group} is where it was: {left.why}")
    return 1 if failed else 0
