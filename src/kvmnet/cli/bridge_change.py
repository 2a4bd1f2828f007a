"""Making, changing and deleting host bridges: the arguments, and what is said before and after."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from kvmnet.adapters import ip_program
from kvmnet.cli import arguments, changes, confirming
from kvmnet.errors import InvalidInput
from kvmnet.model.takeover import AddressPlan
from kvmnet.model.values import parse_host_cidr, parse_mac, parse_nic_name

if TYPE_CHECKING:  # the flows are heavy to import, and --help does not need them
    from kvmnet.flow import bridges


def add_arguments(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """The verbs that change something."""
    change = [common, changes.change_options(), confirming.confirm_options()]
    _add_create(verbs.add_parser("create", parents=change, help="make a bridge of the host's NIC"))
    deleting = verbs.add_parser(
        "delete", parents=change, help="take a bridge away; its NIC gets everything back"
    )
    deleting.add_argument("name", metavar="NAME")
    deleting.add_argument(
        "--force", action="store_true", help="even while guests use it: they are cut off"
    )
    deleting.set_defaults(handler=_delete)
    for verb, summary, handler in (
        ("add-port", "plug another NIC into a bridge", _add_port),
        ("remove-port", "take a NIC out of a bridge", _remove_port),
    ):
        one = verbs.add_parser(verb, parents=change, help=summary)
        one.add_argument("name", metavar="NAME")
        one.add_argument("port", metavar="NIC")
        one.set_defaults(handler=handler)


def _add_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the bridge, for example br0")
    parser.add_argument(
        "--port", metavar="NIC", action="append", default=[],
        help="a NIC to be its port; the bridge takes the place of the first (may be repeated)",
    )  # fmt: skip
    parser.add_argument(
        "--address", metavar="keep|dhcp|none|CIDR", default="keep",
        help="keep: what the first port has, as it got it (keep)",
    )  # fmt: skip
    parser.add_argument("--stp", choices=("on", "off"), default="off", help="spanning tree (off)")
    parser.add_argument(
        "--forward-delay", metavar="S", help="seconds a new port listens, and learns, with STP on"
    )
    parser.add_argument("--vlan-filtering", action="store_true", help="let ports differ by VLAN")
    parser.add_argument(
        "--mac", metavar="keep|ADDRESS", default="keep", help="keep: the first port's (keep)"
    )
    parser.add_argument(
        "--no-persist", action="store_true", help="until the host reboots; no file is written"
    )
    parser.set_defaults(handler=_create)


@ip_program.kept_to_change()
def _create(args: argparse.Namespace) -> int:
    from kvmnet.flow import bridges
    from kvmnet.model.desired import BridgeRequest

    ports = tuple(map(parse_nic_name, args.port))
    if len(set(ports)) != len(ports):
        raise InvalidInput("a NIC is named twice as --port", why=", ".join(ports))
    request = BridgeRequest(
        name=parse_nic_name(args.name),
        ports=ports,
        address=_address(args.address),
        stp=args.stp == "on",
        forward_delay_s=_delay(args.forward_delay, args.stp),
        vlan_filtering=args.vlan_filtering,
        mac="keep" if args.mac == "keep" else parse_mac(args.mac),
        persist=not args.no_persist,
    )
    done = f"bridge {request.name} is made; put a guest on it: bridge:{request.name}"
    return _run(args, bridges.creation(request), f"Make bridge {request.name}?", done)


def _address(text: str) -> AddressPlan:
    if text == "keep":
        return "keep"
    if text == "dhcp":
        return "dhcp"
    return "none" if text == "none" else parse_host_cidr(text)


def _delay(text: str | None, stp: str) -> float | None:
    """Seconds; with STP on the kernel takes 2 to 30 (IEEE 802.1D-1998, table 8-3)."""
    if text is None:
        return None
    seconds = arguments.integer(text, "--forward-delay")
    if stp == "on" and not 2 <= seconds <= 30:
        raise InvalidInput("--forward-delay takes 2 to 30 seconds while STP is on")
    if stp == "off" and seconds:
        raise InvalidInput(
            "--forward-delay counts only while STP is on", hint="say --stp on, or leave it out"
        )
    return float(seconds)


@ip_program.kept_to_change()
def _delete(args: argparse.Namespace) -> int:
    from kvmnet.flow import bridges

    name = parse_nic_name(args.name)
    planner = bridges.forced_deletion(name) if args.force else bridges.deletion(name)
    return _run(args, planner, f"Delete bridge {name}?", f"bridge {name} is gone")


@ip_program.kept_to_change()
def _add_port(args: argparse.Namespace) -> int:
    from kvmnet.flow import bridges

    name, nic = parse_nic_name(args.name), parse_nic_name(args.port)
    return _run(args, bridges.port_addition(name, nic), f"Plug {nic} into {name}?",
                f"{nic} is a port of {name}")  # fmt: skip


@ip_program.kept_to_change()
def _remove_port(args: argparse.Namespace) -> int:
    from kvmnet.flow import bridges

    name, nic = parse_nic_name(args.name), parse_nic_name(args.port)
    return _run(args, bridges.port_removal(name, nic), f"Take {nic} out of {name}?",
                f"{nic} is no port of {name} any more")  # fmt: skip


def _run(args: argparse.Namespace, planner: bridges.Planner, question: str, done: str) -> int:
    from kvmnet.flow import bridges

    uri = getattr(args, "connect", None)
    watcher = changes.TerminalWatcher(args)
    extra = confirming.checks(args)
    if args.dry_run:
        plan = bridges.propose(planner, uri=uri, extra=extra, watcher=watcher)
        return changes.show_dry_run(args, plan)
    plan = bridges.carry_out(
        planner,
        uri=uri,
        extra=extra,
        confirm=confirming.confirm(args),
        command=shlex.join(["kvmnet", *sys.argv[1:]]),
        consent=changes.consent(args, question),
        watcher=watcher,
    )
    return changes.show_done(args, plan, done)
