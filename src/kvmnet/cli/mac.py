"""MAC addresses that nobody uses.

An address is free only if it is in none of: NICs of every guest on every libvirt connection of
this machine (of one that does not answer, its files are read), networks (bridges and reservations),
leases, the host's NICs, its neighbours (what `ip neigh` shows), its bridges' forwarding databases.
With --probe the LAN is asked as well.
"""

from __future__ import annotations

import argparse
import sys

from kvmnet.cli import output
from kvmnet.cli.arguments import integer
from kvmnet.core.macs import QEMU_PREFIX, birthday_chance, chance_among
from kvmnet.errors import InvalidInput
from kvmnet.flow.macs import KnownMacs, known_in, known_macs, lan_uses, new_macs
from kvmnet.model.values import Mac, parse_mac, parse_mac_prefix, parse_nic_name

DEFAULT_WAIT_S = 1.0
LONGEST_WAIT_S = 60


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    del common  # there are no sub-commands
    parser.add_argument("-n", metavar="N", help="how many (1)")
    parser.add_argument("--prefix", help="leading octets (52:54:00, QEMU's own)")
    parser.add_argument(
        "--check", metavar="MAC", help="tell whether this address is free (exit 1: no)"
    )
    parser.add_argument(
        "--probe", metavar="NIC", help="also ask the LAN behind this NIC (needs root)"
    )
    parser.add_argument(
        "--wait", metavar="SECONDS",
        help=f"how long --probe listens for answers ({DEFAULT_WAIT_S:g})",
    )  # fmt: skip
    parser.add_argument(
        "--explain", action="store_true", help="say how likely a collision is (standard error)"
    )
    parser.add_argument(
        "--among", metavar="N",
        help="--explain: NICs on the LAN that this host can not see (default: those it knows)",
    )  # fmt: skip
    parser.add_argument(
        "--state", metavar="FILE",
        help="take what is in use from a State saved by `kvmnet state save` (-: stdin)",
    )  # fmt: skip
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    nic = None if args.probe is None else parse_nic_name(args.probe)
    wait_s = _wait(args)
    if args.check is not None:
        _refuse_beside_check(args)
        return _check(args, parse_mac(args.check), nic, wait_s)
    count = 1 if args.n is None else integer(args.n, "-n")
    if args.among is not None:
        args.among = integer(args.among, "--among")
    prefix = QEMU_PREFIX if args.prefix is None else parse_mac_prefix(args.prefix)
    return _make(args, prefix, count, nic, wait_s)


def _wait(args: argparse.Namespace) -> float:
    if args.wait is None:
        return DEFAULT_WAIT_S
    if args.probe is None:
        raise InvalidInput("--wait is for --probe only", hint="--probe NIC --wait SECONDS")
    try:
        seconds = float(args.wait)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST_WAIT_S:
        raise InvalidInput(
            f"--wait takes seconds, more than 0 and up to {LONGEST_WAIT_S}",
            why=f"this is none: {args.wait[:40]!a}",
        )
    return seconds


def _refuse_beside_check(args: argparse.Namespace) -> None:
    given = {"-n": args.n, "--prefix": args.prefix, "--among": args.among,
             "--explain": args.explain or None}  # fmt: skip
    for option, value in given.items():
        if value is not None:
            raise InvalidInput(
                f"{option} does not go with --check",
                why="--check makes no address, it looks at one",
            )


def _known(args: argparse.Namespace) -> KnownMacs:
    """The addresses in use on this host, or in the saved State that was asked for."""
    if args.state is None:
        return known_macs(getattr(args, "connect", None))
    from kvmnet.cli import picture

    return known_in([picture.read_state(args, frozenset())])


def _check(args: argparse.Namespace, mac: Mac, nic: str | None, wait_s: float) -> int:
    known = _known(args)
    uses = known.of(mac)
    if nic is not None:
        uses += lan_uses(nic, (mac,), wait_s)
    if output.wants_json(args):
        from kvmnet.cli.documents import MacCheckDocument

        output.print_json(MacCheckDocument(mac=mac, free=not uses, uses=uses, unread=known.unread))
        return 1 if uses else 0
    _say_unread(args, known)
    if not uses:
        asked = "" if nic is None else f", and nobody on the LAN behind {nic} answered for it"
        print(f"{mac} is free: nobody that this host can see uses it{asked}")
        return 0
    print(f"{mac} is in use:")
    for use in uses:
        print(f"  {output.safe(use.where)}")
    return 1


def _make(args: argparse.Namespace, prefix: str, count: int, nic: str | None, wait_s: float) -> int:
    known = _known(args)
    macs = new_macs(prefix, count, known, probe_nic=nic, wait_s=wait_s)
    if output.wants_json(args):
        _print_document(args, prefix, macs, known)
        return 0
    _say_unread(args, known)
    sys.stdout.write("\n".join(macs) + "\n")
    if args.explain:
        _explain(args, prefix, len(macs), known)
    return 0


def _among(args: argparse.Namespace, prefix: str, known: KnownMacs) -> int:
    return known.under(prefix) if args.among is None else int(args.among)


def _print_document(
    args: argparse.Namespace, prefix: str, macs: tuple[Mac, ...], known: KnownMacs
) -> None:
    from kvmnet.cli.documents import MacDocument

    among = _among(args, prefix, known)
    octets = 6 - len(prefix.split(":"))
    output.print_json(
        MacDocument(
            macs=macs,
            prefix=prefix,
            known_in_use=known.under(prefix),
            chance_of_collision=chance_among(len(macs) * among, octets),
            among=among,
            unread=known.unread,
        )
    )


def _say_unread(args: argparse.Namespace, known: KnownMacs) -> None:
    """An address in use where nobody could look is not known: that has to be said."""
    for gap in known.unread:
        output.say(args, f"kvmnet: not looked at: {gap.what} ({gap.why})")


def _explain(args: argparse.Namespace, prefix: str, count: int, known: KnownMacs) -> None:
    octets = 6 - len(prefix.split(":"))
    space = 256**octets
    among = _among(args, prefix, known)
    lines = [
        f"{prefix} leaves {space:,} addresses; {known.under(prefix)} of them are known to be in "
        "use and were avoided.",
        f"If {among:,} more NICs that this host can not see drew theirs at random from the same "
        f"prefix, {'the new one' if count == 1 else f'one of the {count:,} new ones'} equals one "
        f"of them with a chance of about {_odds(count * among, space)}.",
        "New addresses that this command makes together are always distinct. Were they drawn "
        f"independently, {max(count, among):,} of them would collide somewhere with a chance of "
        f"{birthday_chance(max(count, among), octets):.2g} (birthday problem).",
    ]
    sys.stdout.flush()
    print("\n".join(lines), file=sys.stderr)


def _odds(cases: int, space: int) -> str:
    if cases == 0:
        return "0"
    if space >= 1_000_000:
        return f"{cases:,} in {space / 1e6:.1f} million"
    return f"{cases:,} in {space:,}"
