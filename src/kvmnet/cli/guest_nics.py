"""`guest attach` and `guest detach`: NICs that a guest gets and loses, running and saved alike."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from typing import TYPE_CHECKING

from kvmnet.cli import changes
from kvmnet.errors import InvalidInput
from kvmnet.model.nic_choice import parse_mac_wish, parse_nic_choice
from kvmnet.model.target import FORMS, parse_target

if TYPE_CHECKING:  # the flows are heavy to import, and --help does not need them
    from kvmnet.flow import guest_nics

_MODEL = re.compile(r"[A-Za-z0-9_-]{1,40}")


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser],
              common: argparse.ArgumentParser) -> None:  # fmt: skip
    """`guest attach` and `guest detach` among the verbs of `guest`."""
    parents = [common, changes.change_options()]
    attach = verbs.add_parser("attach", help="give a guest a NIC", parents=parents)
    attach.add_argument("guest", metavar="GUEST", help="name or UUID")
    attach.add_argument("--to", metavar="TARGET", required=True, help=FORMS)
    attach.add_argument("--model", metavar="MODEL", default="virtio", help="its kind (virtio)")
    attach.add_argument("--mac", metavar="new|ADDRESS", default="new", help="its address (new)")
    attach.set_defaults(handler=_attach)
    detach = verbs.add_parser("detach", help="take a NIC from a guest", parents=parents)
    detach.add_argument("guest", metavar="GUEST", help="name or UUID")
    detach.add_argument(
        "--nic", metavar="MAC|INDEX", help="which, counted from 1 (default: the only one)"
    )
    detach.add_argument("--from", metavar="TARGET", dest="origin", help="the NIC that is on it")
    detach.set_defaults(handler=_detach)


def _attach(args: argparse.Namespace) -> int:
    from kvmnet.flow import guest_nics

    wish = parse_mac_wish(args.mac)
    if wish.kind == "keep":
        raise InvalidInput("a NIC that is made has no address to keep", hint="--mac new")
    if not _MODEL.fullmatch(args.model):
        raise InvalidInput(f"{args.model[:40]!a} is no model of a NIC", hint="--model virtio")
    request = guest_nics.Attachment(
        guest=args.guest, target=parse_target(args.to), model=args.model, mac=wish
    )
    return _run(args, guest_nics.attachment(request), changes.no_consent_needed,
                f"guest {args.guest} has a NIC on {request.target}")  # fmt: skip


def _detach(args: argparse.Namespace) -> int:
    from kvmnet.flow import guest_nics

    nic = None if args.nic is None else parse_nic_choice(args.nic)
    origin = None if args.origin is None else parse_target(args.origin)
    return _run(args, guest_nics.detachment(args.guest, nic, origin),
                changes.consent(args, "Take it away?"),
                f"the NIC of guest {args.guest} is gone")  # fmt: skip


def _run(
    args: argparse.Namespace, planner: guest_nics.Planner, ask: changes.Consent, done: str
) -> int:
    from kvmnet.flow import guest_nics

    uri = getattr(args, "connect", None)
    watcher = changes.TerminalWatcher(args)
    if args.dry_run:
        return changes.show_dry_run(args, planner(uri, watcher))
    plan = guest_nics.carry_out(
        planner, uri=uri, command=shlex.join(["kvmnet", *sys.argv[1:]]), consent=ask,
        watcher=watcher,
    )  # fmt: skip
    return changes.show_done(args, plan, done)
