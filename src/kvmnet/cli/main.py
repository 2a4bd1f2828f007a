"""Entry point: finds the command's module, runs it, turns an error into an exit status.

Start-up is part of the product: only the module of the command that was asked for is imported,
so each module under `cli/` has a row in `COMMANDS` with its one-line help.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import NoReturn, TextIO

from kvmnet import __version__, errors
from kvmnet.cli.parser import Parser, RawFormatter

EXIT_STATUSES: tuple[tuple[type[errors.KvmnetError], int], ...] = (
    (errors.InvalidInput, 2),
    (errors.Refused, 3),
    (errors.Undone, 4),
    (errors.Interrupted, 130),
    (errors.KvmnetError, 1),
)

OUTPUT_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""What a write to standard output fails with; errors of files are reported by who opened them."""

COMMANDS: tuple[tuple[str, str], ...] = (
    ("status", "the host at a glance: uplinks, bridges, networks, guests, what is wrong"),
    ("up", "a working NAT network for guests, proven by a probe"),
    ("mac", "MAC addresses that nobody uses"),
    ("network", "libvirt networks: list, show, create, start, stop, delete"),
    ("bridge", "host bridges: list, show, create, delete, add-port, remove-port"),
    ("guest", "guests and their NICs: list, show, move, attach, detach, convert"),
    ("probe", "what a guest on this network or bridge would experience"),
    ("doctor", "why a guest has no network: what is wrong, what shows it, and what mends it"),
    ("trace", "one real packet followed hop by hop, to the place where it dies"),
    ("confirm", "keep a change that waits for your word"),
    ("undo", "take back a change that was kept"),
    ("history", "what kvmnet has changed, how it ended and why"),
    ("state", "save a picture of this host to a file"),
    ("lab", "a small real world in which everything can be tried"),
)


def common_options() -> Parser:
    """The options that every command takes, before or after its name."""
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    group = common.add_argument_group("common options")
    group.add_argument("--connect", metavar="URI", type=_libvirt_uri,
                       help="libvirt connection (default: libvirt's)")  # fmt: skip
    group.add_argument("--json", action="store_true", help="print JSON (stable, versioned)")
    group.add_argument("--quiet", action="store_true", help="print only results and errors")
    group.add_argument("--color", choices=("auto", "always", "never"), help="colours (auto)")
    return common


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with the arguments of the command that `argv` names."""
    common = common_options()
    wanted = named_command(argv)
    parser = Parser(
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
                allow_abbrev=False, formatter_class=RawFormatter,
            )  # fmt: skip
            module.add_arguments(sub, common)
        else:
            commands.add_parser(name, help=summary)
    return parser


def named_command(argv: Sequence[str]) -> str | None:
    """The first word that is neither an option nor the value of one of the common options."""
    end = _before_command(argv)
    return argv[end] if end < len(argv) else None


def _before_command(argv: Sequence[str]) -> int:
    """How many words come before the command's name."""
    previous = ""
    for number, word in enumerate(argv):
        if not word.startswith("-") and previous not in {"--connect", "--color"}:
            return number
        previous = word
    return len(argv)


def _lab_name(text: str) -> str:
    if not text.isidentifier() or not text.isascii():
        raise argparse.ArgumentTypeError(f"{text!r} is not a lab's name (letters, digits, _)")
    return text


def _libvirt_uri(text: str) -> str:
    if not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!a} is not a libvirt URI, as qemu:///system is")
    return text


def _split_lab_option(argv: Sequence[str]) -> list[str]:
    """`--lab` takes its value only by `=`, or `kvmnet --lab status` would eat the command.

    Only before the command: words after it may be meant for a program (`lab exec`).
    """
    end = _before_command(argv)
    return ["--lab=default" if word == "--lab" else word for word in argv[:end]] + [*argv[end:]]


def _without_lab_option(argv: Sequence[str]) -> list[str]:
    end = _before_command(argv)
    return [word for word in argv[:end] if not word.startswith("--lab=")] + [*argv[end:]]


def complain(error: errors.KvmnetError) -> None:
    """Print an error for people on standard error: what, why, what to try next."""
    lines = [f"kvmnet: {error.what}"]
    if error.why:
        lines.append(f"  why: {error.why}")
    if error.hint:
        lines.append(f"  try: {error.hint}")
    text = "\n".join(lines).encode("utf-8", "backslashreplace").decode("utf-8")
    shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    try:
        print(shown, file=sys.stderr, flush=True)
    except OSError:  # nobody reads it: the exit status tells
        _drop(sys.stderr)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _interrupt_again(lost: sys.UnraisableHookArgs) -> None:
    """Ctrl-C that comes where Python can raise nothing comes once more, a moment later.

    A weak reference's callback and `__del__` are such places: Python would print the traceback
    and go on as if nobody had asked it to stop (`sys.unraisablehook`). SIGTERM, since SIGINT is
    ignored in a shell's background job; sent rather than `interrupt_main()`, which wakes no wait.
    """
    if lost.exc_type is KeyboardInterrupt:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM)).start()
    else:
        sys.__unraisablehook__(lost)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    _have_streams()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        try:
            return _run(_split_lab_option(sys.argv[1:] if argv is None else argv))
        finally:  # also where argparse ends it (--help): a failure shows here, or never
            sys.stdout.flush()
    except errors.KvmnetError as error:
        complain(error)
        return next(status for kind, status in EXIT_STATUSES if isinstance(error, kind))
    except KeyboardInterrupt:
        complain(errors.Interrupted("stopped by the user", why="nothing half-made remains"))
        return 130
    except BrokenPipeError:  # whoever read it has seen enough
        _drop(sys.stdout)
        return 1
    except OSError as error:
        if error.filename is not None or error.errno not in OUTPUT_ERRORS:
            raise
        _drop(sys.stdout)
        complain(errors.Failed("the output could not be written", why=error.strerror or ""))
        return 1


def _run(words: Sequence[str]) -> int:
    parser = build_parser(words)
    args, extra = parser.parse_known_args(words)
    if extra:
        _refuse(parser, args, extra)
    if args.lab is not None and args.command is not None:
        from kvmnet.lab.enter import run_inside

        return run_inside(args.lab, _without_lab_option(words))
    if args.command is None:
        parser.print_help()
        return 0
    _tell_of_waits(args)
    status: int = args.handler(args)
    return status


def _refuse(
    parser: argparse.ArgumentParser, args: argparse.Namespace, extra: Sequence[str]
) -> NoReturn:
    """Argparse would print the usage of `kvmnet`, which tells nothing of the command's words."""
    if args.command is None:
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    raise errors.InvalidInput(
        f"{args.command} can not do anything with {' '.join(map(ascii, extra))}",
        why=getattr(args, "takes", ""),
        hint=f"kvmnet {args.command} --help",
    )


def _tell_of_waits(args: argparse.Namespace) -> None:
    """Say it once if libvirt keeps the command waiting: silence looks like a crash."""
    from kvmnet.adapters import patience  # late: --help does without

    told: list[bool] = []

    def tell() -> None:
        if not told:
            told.append(True)
            with contextlib.suppress(OSError, ValueError):
                print("kvmnet: waiting for libvirt to answer ...", file=sys.stderr, flush=True)

    if not getattr(args, "quiet", False):
        patience.on_wait = tell


def _have_streams() -> None:
    """A stream that was closed before kvmnet started leads to nowhere, not to a crash."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (for the whole process)
        elif mode == "w" and hasattr(stream, "reconfigure"):
            # A locale without UTF-8 must not keep a guest's name from being printed.
            stream.reconfigure(errors="backslashreplace")


def _drop(stream: TextIO) -> None:
    """What is still to be written goes nowhere, or Python would end with status 120 for it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def run() -> NoReturn:
    """`kvmnet` as a program: one command line, then the process ends.

    It ends without taking the interpreter down, which costs 20 ms for objects that nobody needs
    any more, and crashes where a call to libvirt that nobody waits for comes back meanwhile.
    """
    # One command makes little garbage: looking for it at every 700th object costs a tenth.
    gc.set_threshold(100_000, 50, 50)
    sys.unraisablehook = _interrupt_again
    status = main()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)
