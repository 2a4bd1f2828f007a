"""Entry point: finds the command's module, runs it, turns an error into an exit status.

Start-up is part of the product: only the module of the command that was asked for is imported,
so each module under `cli/` has a row in `COMMANDS` with its one-line help.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType

from kvmnet import __version__, errors

EXIT_STATUSES: tuple[tuple[type[errors.KvmnetError], int], ...] = (
    (errors.InvalidInput, 2),
    (errors.Refused, 3),
    (errors.Undone, 4),
    (errors.Interrupted, 130),
    (errors.KvmnetError, 1),
)

COMMANDS: tuple[tuple[str, str], ...] = (
    ("status", "the host at a glance: uplinks, bridges, networks, guests, what is wrong"),
    ("up", "a working NAT network for guests, proven by a probe"),
    ("mac", "MAC addresses that nobody uses"),
    ("network", "libvirt networks: list, show, create, start, stop, delete"),
    ("bridge", "host bridges: list, show"),
    ("guest", "guests and their NICs: list, show"),
    ("probe", "what a guest on this network or bridge would experience"),
    ("state", "save a picture of this host to a file"),
    ("lab", "a small real world in which everything can be tried"),
)


def common_options() -> argparse.ArgumentParser:
    """The options that every command takes, before or after its name."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = common.add_argument_group("common options")
    group.add_argument("--connect", metavar="URI", help="libvirt connection (default: libvirt's)")
    group.add_argument("--json", action="store_true", help="print JSON (stable, versioned)")
    group.add_argument("--quiet", action="store_true", help="print only results and errors")
    group.add_argument("--color", choices=("auto", "always", "never"), help="colours (auto)")
    return common


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with the arguments of the command that `argv` names."""
    common = common_options()
    wanted = named_command(argv)
    parser = argparse.ArgumentParser(
        prog="kvmnet",
        description="Put KVM/libvirt guests on the network: NAT by default, bridged on demand.",
        epilog="`kvmnet COMMAND --help` tells more about one. Exit status: 0 done, 1 it did not "
        "work or a problem was found, 2 wrong usage, 3 refused because it would do harm, "
        "4 tried and undone.",
        parents=[common],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kvmnet {__version__}")
    parser.add_argument(
        "--lab",
        nargs="?",
        const="default",
        metavar="NAME",
        type=_lab_name,
        help="run the command inside the host of a lab: `--lab`, or `--lab=NAME`",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name, summary in COMMANDS:
        if name == wanted:
            module = import_module(f"kvmnet.cli.{name}")
            sub = commands.add_parser(
                name, help=summary, description=module.__doc__, parents=[common],
                allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
            )  # fmt: skip
            module.add_arguments(sub, common)
        else:
            commands.add_parser(name, help=summary)
    return parser


def named_command(argv: Sequence[str]) -> str | None:
    """The first word that is neither an option nor the value of one of the common options."""
    previous = ""
    for word in argv:
        if not word.startswith("-") and previous not in {"--connect", "--color"}:
            return word
        previous = word
    return None


def _lab_name(text: str) -> str:
    if not text.isidentifier() or not text.isascii():
        raise argparse.ArgumentTypeError(f"{text!r} is not a lab's name (letters, digits, _)")
    return text


def _split_lab_option(argv: Sequence[str]) -> list[str]:
    """`--lab` takes its value only by `=`, or `kvmnet --lab status` would eat the command."""
    return ["--lab=default" if word == "--lab" else word for word in argv]


def complain(error: errors.KvmnetError) -> None:
    """Print an error for people on standard error: what, why, what to try next."""
    lines = [f"kvmnet: {error.what}"]
    if error.why:
        lines.append(f"  why: {error.why}")
    if error.hint:
        lines.append(f"  try: {error.hint}")
    text = "\n".join(lines).encode("utf-8", "backslashreplace").decode("utf-8")
    print("".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text),
          file=sys.stderr)  # fmt: skip


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    words = _split_lab_option(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        parser = build_parser(words)
        args = parser.parse_args(words)
        if args.command is None:
            parser.print_help()
            return 0
        if args.lab is not None:
            from kvmnet.lab.enter import run_inside

            return run_inside(args.lab, [w for w in words if not w.startswith("--lab=")])
        status: int = args.handler(args)
        sys.stdout.flush()
        return status
    except errors.KvmnetError as error:
        complain(error)
        return next(status for kind, status in EXIT_STATUSES if isinstance(error, kind))
    except KeyboardInterrupt:
        complain(errors.Interrupted("stopped by the user", why="nothing half-made remains"))
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
