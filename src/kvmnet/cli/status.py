"""The host at a glance: uplinks, bridges, networks, guests with their addresses, what is wrong.

Exit status 0 also where something is wrong (`kvmnet doctor` is for that); 1 if nothing could be
read.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from kvmnet.cli import arguments, bridge_views, guest, network_views, output, picture
from kvmnet.cli.finding_view import FindingView, finding_views
from kvmnet.cli.host_documents import StatusDocument
from kvmnet.core import views
from kvmnet.core.findings import find
from kvmnet.flow.observe import ALL_PARTS, ONLY_DOCTOR
from kvmnet.model.state import State, Unread


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    del common  # there are no sub-commands
    arguments.add_state_option(parser)
    parser.set_defaults(handler=show)


def show(args: argparse.Namespace) -> int:
    state = picture.read_state(args, ALL_PARTS - ONLY_DOCTOR)
    document = StatusDocument(
        hostname=state.hostname,
        taken_at=state.taken_at,
        uplinks=views.uplinks(state),
        bridges=views.bridges(state),
        networks=views.networks(state),
        guests=views.guests(state),
        findings=finding_views(find(state)),
        unread=state.unread,
    )
    status = 0 if state.links or state.connections else 1
    if output.wants_json(args):
        output.print_json(document)
        return status
    _head(state)
    absent = "none" if picture.virt_status(state) == 0 else "not known (libvirt was not read)"
    _section(args, "Uplinks", UPLINK_HEADERS, map(_uplink, document.uplinks))
    _section(args, "Bridges", bridge_views.HEADERS, map(bridge_views.row, document.bridges))
    _section(
        args, "Networks", network_views.HEADERS, map(network_views.row, document.networks), absent
    )
    print("\nGuests" if document.guests else f"\nGuests: {absent}")
    if document.guests:
        guest.print_guests(args, document.guests)
    _findings(document.findings)
    _unread(state.unread)
    return status


UPLINK_HEADERS = ("nic", "kind", "state", "speed", "bridge", "addresses", "gateway", "managed by")


def _head(state: State) -> None:
    connections = [
        f"{x.uri} (libvirt {x.libvirt_version}{', read-only' if x.read_only else ''})"
        for x in state.connections
    ]
    where = ", ".join(connections) or "no libvirt"
    print(output.safe(f"{state.hostname}: Linux {state.kernel}, {where}"))


def _section(
    args: argparse.Namespace,
    title: str,
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    empty: str = "none",
) -> None:
    lines = list(rows)
    print(f"\n{title}" if lines else f"\n{title}: {empty}")
    if lines:
        output.print_table(args, headers, lines)


def _uplink(link: views.UplinkView) -> tuple[str, ...]:
    return (
        link.link,
        link.kind,
        picture.link_state(link.up, link.carrier),
        f"{link.speed_mbit} Mbit/s" if link.speed_mbit else "-",
        link.bridge or "-",
        ", ".join(x for x in link.addresses if not x.startswith("fe80:")) or "-",
        ", ".join(link.gateways) or "-",
        link.manager,
    )


def _findings(found: tuple[FindingView, ...]) -> None:
    print("\nWhat is wrong" if found else "\nWhat is wrong: nothing that can be seen from here")
    for item in found:
        print(output.safe(f"  {item.severity} {item.name}, {item.subject}: {item.what}"))
        for line in item.evidence:
            print(output.safe(f"      because: {line}"))
        for line in item.look:
            print(output.safe(f"      look: {line}"))
        for line in item.fix:
            print(output.safe(f"      try: {line}"))
        if item.lasts:
            print(output.safe(f"      lasts: {item.lasts}"))


def _unread(items: tuple[Unread, ...]) -> None:
    if items:
        print("\nWhat could not be read")
    for item in items:
        hint = f" (try: {item.hint})" if item.hint else ""
        print(output.safe(f"  {item.what}: {item.why}{hint}"))
