"""Put NICs of a guest's definition, an XML file, on something else. No libvirt is needed.

Only the chosen NICs change; every other byte of the file stays as it is. What is not valid on the
new kind of network goes, and each such part is named on standard error. Without -o or --in-place
the new definition is printed.

A guest that libvirt knows is better changed through libvirt: `kvmnet guest move`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from kvmnet.adapters import domain_files
from kvmnet.cli import output
from kvmnet.cli.parser import RawFormatter
from kvmnet.core.nic_choice import choose, new_addresses
from kvmnet.errors import InvalidInput
from kvmnet.formats import domain_edit
from kvmnet.formats.domain_edit import Converted, DomainText, NicChange, NicEdit
from kvmnet.model.nic_choice import MacWish, parse_mac_wish, parse_nic_choice
from kvmnet.model.target import FORMS, Target, UserTarget, is_on, parse_target

NEW_FILE_MODE = 0o600
"""Of a file made from standard input: a definition may have the password of the guest's screen."""


def add_verb(verbs: argparse._SubParsersAction[argparse.ArgumentParser],
             common: argparse.ArgumentParser) -> None:  # fmt: skip
    """`guest convert` among the verbs of `guest`."""
    parser = verbs.add_parser(
        "convert", help="put NICs of a domain XML file on something else", description=__doc__,
        parents=[common], formatter_class=RawFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", help="domain XML (-: standard input)")
    parser.add_argument("--to", metavar="TARGET", required=True, help=FORMS)
    parser.add_argument(
        "--nic", metavar="MAC|INDEX|all", help="which NIC, counted from 1 (default: the only one)"
    )
    parser.add_argument("--from", metavar="TARGET", dest="origin", help="those NICs that are on it")
    parser.add_argument(
        "--mac", metavar="keep|new|ADDRESS", default="keep", help="its MAC address (keep)"
    )
    parser.add_argument(
        "--diff", action="store_true", help="show what changes; nothing of the rest is shown"
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "-o", metavar="OUT", dest="out",
        help="write it there; a file of that name is kept as OUT.bak",
    )  # fmt: skip
    place.add_argument(
        "--in-place", action="store_true", help="change FILE; the old one is kept as FILE.bak"
    )
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    target = parse_target(args.to)
    origin = None if args.origin is None else parse_target(args.origin)
    nic = None if args.nic is None else parse_nic_choice(args.nic)
    wish = parse_mac_wish(args.mac)
    _check_places(args)
    file = None if args.file == "-" else domain_files.read_file(Path(args.file))
    domain = domain_edit.read(domain_files.read_stdin() if file is None else file.data)
    guest = f"guest {domain.name}" if domain.name else "this guest"
    chosen = choose(domain.nics, nic, origin, guest)
    converted = domain_edit.convert(domain, _edits(domain, chosen, target, wish))
    if not output.wants_json(args):
        _tell(args, converted)
    written, backup = _write(args, domain, file, converted, target)
    if output.wants_json(args):
        _print_document(args, domain, converted, written, backup)
    elif args.diff:
        _print_diff(args, domain, _diff(args, domain, converted))
    elif written is None and not args.in_place:
        _print_bytes(converted.data)
    return 0


def _check_places(args: argparse.Namespace) -> None:
    if not args.file or args.out == "":
        raise InvalidInput("an empty name names no file")
    if args.file == "-" and args.in_place:
        raise InvalidInput("standard input can not be changed in place", hint="-o OUT")
    named = args.out is not None and "-" not in {args.file, args.out}
    if named and domain_files.same_file(Path(args.out), Path(args.file)):
        raise InvalidInput(f"{args.out} is the file that is read", hint="--in-place")


def _edits(
    domain: DomainText, chosen: Sequence[int], target: Target, wish: MacWish
) -> list[NicEdit]:
    macs = new_addresses(domain.nics, chosen, wish, os.urandom)
    staying = {number for number in chosen if is_on(domain.nics[number - 1], target)}
    wanted = target
    if target == UserTarget() and len(staying) < len(chosen):
        from kvmnet.adapters.libvirt import knows_passt

        wanted = UserTarget(backend="slirp" if knows_passt() is False else "passt")
    return [
        NicEdit(
            number=number,
            target=target if number in staying else wanted,
            mac=macs.get(number),
        )
        for number in chosen
    ]


def _tell(args: argparse.Namespace, converted: Converted) -> None:
    for nic in converted.nics:
        for line in _lines(nic):
            output.say(args, f"kvmnet: {line}")


def _lines(nic: NicChange) -> list[str]:
    name = f"NIC {nic.number} ({nic.mac})" if nic.mac else f"NIC {nic.number}"
    if nic.before == nic.after:
        lines = [f"{name} is on {nic.after} already"]
    else:
        lines = [f"{name}: {nic.before} becomes {nic.after}"]
    if nic.new_mac is not None:
        lines.append(f"{name} gets the address {nic.new_mac}: the guest sees another NIC")
    lines += (f"{name} loses {x.what}: {x.why}" for x in nic.removed)
    lines += (f"{name}: {x}" for x in nic.remarks)
    return lines


def _write(
    args: argparse.Namespace,
    domain: DomainText,
    file: domain_files.DomainFile | None,
    converted: Converted,
    target: Target,
) -> tuple[Path | None, Path | None]:
    """The file that was written and the backup of it, if there are such."""
    if args.in_place and file is not None:
        if converted.data == file.data:
            return None, None
        backup = domain_files.replace(file, converted.data)
        path = file.path
    elif args.out is not None and args.out != "-":
        path = Path(args.out)
        mode = NEW_FILE_MODE if file is None else file.mode
        backup_or_none = domain_files.write_out(path, converted.data, mode=mode)
        if backup_or_none is None:
            _warn_of_libvirt(args, domain, path, target)
            return path, None
        backup = backup_or_none
    else:
        return None, None
    output.say(args, f"kvmnet: {path} is changed; the old one is {backup}")
    _warn_of_libvirt(args, domain, path, target)
    return path, backup


def _warn_of_libvirt(
    args: argparse.Namespace, domain: DomainText, path: Path, target: Target
) -> None:
    whose = domain_files.owner(path.resolve())
    if whose is None:
        return
    why = (
        "it reads its definitions when it starts, and writes over them when they change"
        if whose == "definition"
        else "it is a note of libvirtd's about what runs"
    )
    guest = domain.name or "GUEST"
    output.say(args, f"kvmnet: libvirtd does not see this edit of {path}: {why}")
    output.say(args, f"  try: kvmnet guest move {guest} --to {target}, or virsh edit {guest}")


def _diff(args: argparse.Namespace, domain: DomainText, converted: Converted) -> str:
    from kvmnet.formats.domain_edit_diff import unified

    old = "stdin" if args.file == "-" else args.file
    new = args.out if args.out not in {None, "-"} else old
    return unified(domain, converted, output.safe(old), output.safe(new))


def _print_document(
    args: argparse.Namespace,
    domain: DomainText,
    converted: Converted,
    written: Path | None,
    backup: Path | None,
) -> None:
    from kvmnet.cli.guest_documents import GuestConvertDocument

    here = written is None and not args.in_place and not args.diff
    output.print_json(
        GuestConvertDocument(
            guest=domain.name,
            changed=any(x.changed for x in converted.nics),
            nics=converted.nics,
            xml=converted.data.decode(domain.located.codec) if here else None,
            diff=_diff(args, domain, converted) if args.diff else None,
            written=None if written is None else output.safe(str(written)),
            backup=None if backup is None else output.safe(str(backup)),
        )
    )


def _print_diff(args: argparse.Namespace, domain: DomainText, diff: str) -> None:
    """In a pipe in the file's own encoding, so that `patch` takes it; safe on a terminal."""
    codec = domain.located.codec
    if not sys.stdout.isatty() and not output.use_color(args) and not codec.startswith("utf-16"):
        _print_bytes(diff.encode(codec, "backslashreplace"))
        return
    colours = {"+": "\x1b[32m", "-": "\x1b[31m", "@": "\x1b[36m"} if output.use_color(args) else {}
    for line in diff.splitlines():
        shown = "\t".join(output.safe(x) for x in line.rstrip("\r").split("\t"))
        colour = colours.get(line[:1])
        print(f"{colour}{shown}\x1b[0m" if colour else shown)


def _print_bytes(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
