"""`kvmnet bridge list` and `show`: tables of what is there."""

from __future__ import annotations

import argparse

from kvmnet.cli import output, picture
from kvmnet.cli.host_documents import BridgeDocument, BridgeListDocument
from kvmnet.core import views
from kvmnet.core.missing import no_such
from kvmnet.flow.observe import Part
from kvmnet.model.values import parse_nic_name

HEADERS = ("bridge", "state", "stp", "addresses", "network", "managed by", "ports")
PARTS = frozenset(
    {Part.LINKS, Part.ADDRESSES, Part.FORWARDING, Part.OWNERS, Part.NETWORKS, Part.GUESTS}
)
"""libvirt's part tells which port is which guest's."""


def list_bridges(args: argparse.Namespace) -> int:
    state = picture.read_state(args, PARTS)
    found = views.bridges(state)
    if output.wants_json(args):
        output.print_json(BridgeListDocument(bridges=found, unread=state.unread))
        return picture.host_status(state)
    picture.tell_unread(args, state)
    if not found:
        output.say(args, "there are no bridges to show")
        return picture.host_status(state)
    output.print_table(args, HEADERS, map(row, found))
    return picture.host_status(state)


def row(bridge: views.BridgeView) -> tuple[str, ...]:
    """The bridge's line in a table."""
    ports = [f"{x.link} ({x.guest})" if x.guest else x.link for x in bridge.ports]
    return (
        bridge.name,
        picture.link_state(bridge.up, bridge.carrier),
        picture.stp(bridge.attributes),
        ", ".join(x for x in bridge.addresses if not x.startswith("fe80:")) or "-",
        bridge.network or "-",
        bridge.manager,
        picture.some(ports) or "-",
    )


def show_bridge(args: argparse.Namespace) -> int:
    state = picture.read_state(args, PARTS)
    everyone = views.bridges(state)
    found = next((x for x in everyone if x.name == args.name), None)
    if found is None:
        raise no_such(state, "bridge", parse_nic_name(args.name), (x.name for x in everyone))
    if output.wants_json(args):
        output.print_json(BridgeDocument(bridge=found, unread=state.unread))
        return 0
    picture.tell_unread(args, state)
    output.print_table(args, ("bridge", ""), _facts(found))
    print()
    output.print_table(
        args,
        ("port", "kind", "state", "carrier", "guest", "addresses behind it"),
        [
            (x.link, x.kind, x.state, picture.yes(x.carrier), x.guest or "-", str(x.macs))
            for x in found.ports
        ],
    )
    return 0


def _facts(bridge: views.BridgeView) -> list[tuple[str, str]]:
    facts = [
        ("name", bridge.name),
        ("mac", bridge.mac or "-"),
        ("mtu", str(bridge.mtu)),
        ("state", picture.link_state(bridge.up, bridge.carrier)),
        ("addresses", ", ".join(bridge.addresses) or "-"),
        ("libvirt network", bridge.network or "-"),
        ("managed by", bridge.manager),
        ("STP", picture.stp(bridge.attributes)),
    ]
    if (has := bridge.attributes) is not None:
        facts += [
            ("VLAN filtering", picture.yes(has.vlan_filtering)),
            ("multicast snooping", picture.yes(has.multicast_snooping)),
            ("multicast querier", picture.yes(has.multicast_querier)),
            ("forgets a MAC after", f"{has.ageing_s:g} s"),
        ]
    return facts
