"""Guests and their NICs, with addresses from every source at once."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from kvmnet.cli import arguments, guest_convert, guest_move, guest_nics, output, picture
from kvmnet.cli.host_documents import GuestDocument, GuestListDocument
from kvmnet.core import views
from kvmnet.core.missing import no_such

HEADERS = ("guest", "state", "nic", "mac", "on", "tap", "addresses", "remarks")


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="all guests, one NIC a line", parents=[common])
    arguments.add_state_option(listing)
    listing.set_defaults(handler=list_guests)
    showing = verbs.add_parser("show", help="one guest in full", parents=[common])
    showing.add_argument("name", metavar="NAME", help="the guest's name or UUID")
    arguments.add_state_option(showing)
    showing.set_defaults(handler=show_guest)
    guest_convert.add_verb(verbs, common)
    guest_move.add_verb(verbs, common)
    guest_nics.add_verbs(verbs, common)


def list_guests(args: argparse.Namespace) -> int:
    state = picture.read_state(args, picture.ADDRESSES)
    found = views.guests(state)
    if output.wants_json(args):
        output.print_json(GuestListDocument(guests=found, unread=state.unread))
        return picture.virt_status(state)
    picture.tell_unread(args, state)
    if not found:
        picture.say_none(args, state, "guests")
        return picture.virt_status(state)
    print_guests(args, found)
    return picture.virt_status(state)


def print_guests(args: argparse.Namespace, guests: Iterable[views.GuestView]) -> None:
    """The guests as a table; the column of remarks only where there are any: lines are long."""
    lines = [row for guest in guests for row in rows(guest)]
    columns = len(HEADERS) if any(row[-1] for row in lines) else len(HEADERS) - 1
    output.print_table(args, HEADERS[:columns], [row[:columns] for row in lines])


def rows(guest: views.GuestView) -> list[tuple[str, ...]]:
    """The guest's lines in a table: one for each NIC, or one if it has none; remarks are last."""
    lines: list[tuple[str, ...]] = []
    differs = {x.nic for x in guest.differences}
    for number, entry in enumerate(guest.nics, 1):
        nic, known = entry.nic, entry.known
        remarks = [*known.disagreements]
        if not nic.link_up:
            remarks.append("its link is set down")
        if (nic.mac or f"#{number}") in differs:
            remarks.append("differs from what is saved")
        lines.append(
            (guest.name, guest.state, str(number), nic.mac or "-", picture.source(nic),
             nic.target or "-", picture.addresses(known), "; ".join(remarks))
        )  # fmt: skip
    return lines or [(guest.name, guest.state, "-", "-", "-", "-", "-", "")]


def show_guest(args: argparse.Namespace) -> int:
    state = picture.read_state(args, picture.ADDRESSES)
    everyone = views.guests(state)
    found = next((x for x in everyone if args.name in (x.name, x.uuid)), None)
    if found is None:
        raise no_such(state, "guest", args.name, (x.name for x in everyone))
    if output.wants_json(args):
        output.print_json(GuestDocument(guest=found, unread=state.unread))
        return 0
    picture.tell_unread(args, state)
    facts = [("name", found.name), ("uuid", found.uuid), ("connection", found.connection),
             ("state", found.state), ("starts with the host", picture.yes(found.autostart)),
             ("guest agent", found.agent)]  # fmt: skip
    output.print_table(args, ("guest", ""), facts)
    print()
    output.print_table(args, HEADERS[2:], [row[2:] for row in rows(found)])
    sightings = [
        (str(number), x.ip, s.source, picture.age(s.age_s) or "-", s.detail)
        for number, entry in enumerate(found.nics, 1)
        for x in entry.known.addresses
        for s in x.sources
    ]
    if sightings:
        print()
        output.print_table(args, ("nic", "address", "source", "age", "seen"), sightings)
    if found.differences:
        print()
        output.print_table(
            args, ("nic", "difference", "running", "saved"),
            [(x.nic, x.what, x.running or "-", x.saved or "-") for x in found.differences],
        )  # fmt: skip
    return 0
