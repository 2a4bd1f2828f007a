"""What every command that changes the host's own network shares: --confirm and --check."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from kvmnet.cli import arguments
from kvmnet.cli.parser import Parser
from kvmnet.errors import InvalidInput

if TYPE_CHECKING:  # imported late: --help does without
    from kvmnet.model.check import Check
    from kvmnet.model.transaction import Confirm

MAX_CONFIRM_S = 86_400


def confirm_options() -> argparse.ArgumentParser:
    """The options, as a parent parser."""
    options = Parser(add_help=False)
    add_confirm_options(options)
    return options


def add_confirm_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that changes the host's own network."""
    group = parser.add_argument_group("options of commands that change the host's own network")
    group.add_argument(
        "--confirm", metavar="auto|manual[=S]|none", default="auto",
        help="who decides whether it is kept: packets; packets and then you, by `kvmnet confirm` "
        "within S seconds (60); nobody (auto)",
    )  # fmt: skip
    group.add_argument(
        "--check", metavar="ping:HOST|tcp:HOST:PORT", action="append", default=[],
        help="keep it only if this works too (may be repeated)",
    )  # fmt: skip


def confirm(args: argparse.Namespace) -> Confirm:
    """Who decides. Raises `InvalidInput`."""
    from kvmnet.model.transaction import CONFIRM_S, Confirm

    kind, equals, seconds = args.confirm.partition("=")
    if kind == "manual":
        within_s = arguments.integer(seconds, "--confirm manual=") if equals else CONFIRM_S
        if not 1 <= within_s <= MAX_CONFIRM_S:
            raise InvalidInput(f"--confirm manual= takes 1 to {MAX_CONFIRM_S} seconds")
        return Confirm(by="manual", within_s=within_s)
    if equals or kind not in {"auto", "none"}:
        raise InvalidInput(
            f"{args.confirm[:40]!a} is not something --confirm takes",
            hint="auto, manual, manual=SECONDS or none",
        )
    return Confirm(by="auto" if kind == "auto" else "none")


def checks(args: argparse.Namespace) -> tuple[Check, ...]:
    """What the user wants to work besides. Raises `InvalidInput`."""
    from kvmnet.flow.baseline import parse_check

    return tuple(map(parse_check, args.check))
