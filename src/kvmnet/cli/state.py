"""A picture of this host as a file, to be looked at here or on another machine with --state."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kvmnet.adapters.files import write_atomic
from kvmnet.cli import output, picture
from kvmnet.core.finding import command
from kvmnet.errors import InvalidInput
from kvmnet.flow.observe import ALL_PARTS, observe
from kvmnet.formats import state_json


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    saving = verbs.add_parser("save", help="save everything that can be read", parents=[common])
    saving.add_argument("file", metavar="FILE", help="where to (-: standard output)")
    saving.set_defaults(handler=save)


def save(args: argparse.Namespace) -> int:
    if args.file != "-":
        _check_place(args.file)
    state = observe(getattr(args, "connect", None), ALL_PARTS)
    text = state_json.render(state)
    picture.tell_unread(args, state)
    if args.file == "-":
        sys.stdout.write(text)
        return 0
    # It tells about the whole network: for its owner only.
    write_atomic(Path(args.file), text, mode=0o600)
    look = command("kvmnet", "status", "--state", args.file)
    output.say(args, f"saved to {args.file}; look at it with: {look}")
    return 0


def _check_place(file: str) -> None:
    """Raise unless the file may be replaced: a device, or /dev/stdout (a link), must never be."""
    path = Path(file)
    if not file or path.is_dir():
        raise InvalidInput(
            f"{file!a} is no file to save to", why="it is a folder" if file else "it is empty",
            hint="an example: kvmnet state save host.json",
        )  # fmt: skip
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InvalidInput(
            f"{file!a} is not an ordinary file",
            why="it is a symbolic link, a device, a pipe or a socket",
            hint="to standard output: kvmnet state save -",
        )  # fmt: skip
