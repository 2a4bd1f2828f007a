"""Host bridges: what is plugged into them, and making, changing and deleting them.

A bridge that is made of the host's NIC takes its place without losing a packet. What worked before
is proven to work after, or everything is put back, also when kvmnet or this connection dies; then
the bridge is kept in the files of the host's own network manager.
"""

from __future__ import annotations

import argparse

from kvmnet.cli import arguments, bridge_change


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="all bridges of the host", parents=[common])
    arguments.add_state_option(listing)
    listing.set_defaults(handler=_list)
    showing = verbs.add_parser("show", help="one bridge and its ports", parents=[common])
    showing.add_argument("name", metavar="NAME", help="the bridge's name")
    arguments.add_state_option(showing)
    showing.set_defaults(handler=_show)
    bridge_change.add_arguments(verbs, common)


def _list(args: argparse.Namespace) -> int:
    from kvmnet.cli.bridge_views import list_bridges

    return list_bridges(args)


def _show(args: argparse.Namespace) -> int:
    from kvmnet.cli.bridge_views import show_bridge

    return show_bridge(args)
