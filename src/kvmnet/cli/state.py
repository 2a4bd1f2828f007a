"""A picture of this host as a file, to be looked at here or on another machine with --state."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kvmnet.adapters.files import write_atomic
from kvmnet.cli import output, picture
from kvmnet.flow.observe import ALL_PARTS, observe
from kvmnet.formats import state_json


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    saving = verbs.add_parser("save", help="save everything that can be read", parents=[common])
    saving.add_argument("file", metavar="FILE", help="where to (-: standard output)")
    saving.set_defaults(handler=save)


def save(args: argparse.Namespace) -> int:
    state = observe(getattr(args, "connect", None), ALL_PARTS)
    text = state_json.render(state)
    picture.tell_unread(args, state)
    if args.file == "-":
        sys.stdout.write(text)
        return 0
    # It tells about the whole network: for its owner only.
    write_atomic(Path(args.file), text, mode=0o600)
    output.say(args, f"saved to {args.file}; look at it with: kvmnet status --state {args.file}")
    return 0
