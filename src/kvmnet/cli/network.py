"""libvirt networks: what is there, and making, starting, stopping and deleting them.

A network that is made here hands a guest its lease at once (STP off, no ping before a lease), on a
subnet and a bridge name that nothing else uses.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING, Literal

from kvmnet.cli import arguments, changes, output
from kvmnet.errors import InvalidInput
from kvmnet.model.values import (
    Cidr,
    parse_cidr,
    parse_domain_name,
    parse_ip,
    parse_nic_name,
    parse_object_name,
)
from kvmnet.model.virt import FORWARD_MODES, DhcpRange

if TYPE_CHECKING:  # the flows are heavy to import, and --help does not need them
    from kvmnet.flow import networks
    from kvmnet.model.plan import Plan


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    from kvmnet.cli import network_views

    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    change = [common, changes.change_options()]
    listing = verbs.add_parser("list", parents=[common], help="all networks, active or not")
    network_views.add_list_arguments(listing)
    listing.set_defaults(handler=network_views.list_networks)
    showing = verbs.add_parser("show", parents=[common], help="one network: definition and use")
    network_views.add_show_arguments(showing)
    showing.set_defaults(handler=network_views.show_network)
    _add_create(verbs.add_parser("create", parents=change, help="make a network and start it"))
    for verb, summary, handler in (
        ("start", "start a network", _start),
        ("stop", "stop a network", _stop),
        ("delete", "stop a network and forget its definition", _delete),
    ):
        one = verbs.add_parser(verb, parents=change, help=summary)
        one.add_argument("name", metavar="NAME")
        one.set_defaults(handler=handler)
        if verb != "start":
            one.add_argument(
                "--force", action="store_true", help="even while guests use it: they are cut off"
            )


def _add_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--mode", choices=FORWARD_MODES, default="nat", help="forward mode (nat)")
    parser.add_argument("--subnet", metavar="CIDR|auto", help="IPv4 subnet (auto: a free one)")
    parser.add_argument(
        "--ipv6", metavar="CIDR|auto|off", default="off", help="IPv6 subnet, a /64 (off)"
    )
    parser.add_argument(
        "--bridge",
        metavar="NAME",
        help="name of its bridge (a free virbrN); mode bridge: the host's",
    )
    parser.add_argument("--dhcp-range", metavar="A-B", help="addresses that DHCP gives out")
    parser.add_argument("--domain", metavar="NAME", help="DNS domain of its guests")
    parser.add_argument("--mtu", metavar="N", help="MTU, announced to guests")
    parser.add_argument("--uplink", metavar="NIC", help="let guests out by this NIC only")
    parser.add_argument(
        "--lan-range",
        metavar="A-B",
        action="append",
        help="with --mode route and --uplink: guests get these addresses of the uplink's LAN, and "
        "the host answers ARP for them; a second time for IPv6",
    )
    parser.add_argument(
        "--dhcp-ping", action="store_true",
        help="have dnsmasq ping an address before it gives it out (3 s a lease)",
    )  # fmt: skip
    parser.add_argument("--no-autostart", action="store_true", help="not when the host starts")
    parser.set_defaults(handler=_create)


def _create(args: argparse.Namespace) -> int:
    from kvmnet.flow import networks
    from kvmnet.model.desired import NetworkRequest

    lan_range, lan_range6 = _lan_ranges(args.lan_range or [])
    request = NetworkRequest(
        name=parse_object_name(args.name, "network"),
        mode=args.mode,
        subnet=None if args.subnet is None else _subnet(args, args.subnet),
        ipv6="off" if args.ipv6 == "off" else _subnet(args, args.ipv6),
        bridge=None if args.bridge is None else parse_nic_name(args.bridge),
        dhcp_range=None if args.dhcp_range is None else _range(args.dhcp_range, "--dhcp-range"),
        domain=None if args.domain is None else parse_domain_name(args.domain),
        mtu=None if args.mtu is None else arguments.integer(args.mtu, "--mtu"),
        uplink=None if args.uplink is None else parse_nic_name(args.uplink),
        lan_range=lan_range,
        lan_range6=lan_range6,
        autostart=not args.no_autostart,
        dhcp_ping=args.dhcp_ping,
    )
    return _run(args, networks.creation(request), _consent_to_openings(args),
                f"network {request.name} is made and active; put a guest on it: network:"
                f"{request.name}")  # fmt: skip


def _consent_to_openings(args: argparse.Namespace) -> networks.Consent:
    """The host's firewall is somebody's decision: rules in it are asked for, nothing else is."""
    from kvmnet.model.plan import MakeOpening

    ask = changes.consent(args, "Make it, with these openings in the firewall?")

    def decide(plan: Plan) -> None:
        if any(isinstance(planned.step, MakeOpening) for planned in plan.steps):
            ask(plan)

    return decide


def _subnet(args: argparse.Namespace, text: str) -> Cidr | Literal["auto"]:
    """An address in a subnet is taken for the subnet, and that is said."""
    if text == "auto":
        return "auto"
    subnet = parse_cidr(text)
    given, _, _ = text.strip().partition("/")
    if parse_ip(given) != subnet.partition("/")[0]:
        output.say(args, f"kvmnet: {text.strip()} is an address in the subnet {subnet}, which is "
                         "taken; this host gets the first address of it")  # fmt: skip
    return subnet


def _range(text: str, option: str) -> DhcpRange:
    start, dash, end = text.partition("-")
    if not dash:
        raise InvalidInput(
            f"{option} takes two addresses", hint="an example: 192.168.122.100-192.168.122.200"
        )
    return DhcpRange(start=parse_ip(start), end=parse_ip(end))


def _lan_ranges(texts: list[str]) -> tuple[DhcpRange | None, DhcpRange | None]:
    """The range of IPv4 and that of IPv6."""
    ranges = [_range(text, "--lan-range") for text in texts]
    fours = [x for x in ranges if ":" not in x.start]
    sixes = [x for x in ranges if ":" in x.start]
    if len(fours) > 1 or len(sixes) > 1:
        raise InvalidInput(
            "--lan-range is given twice for one family",
            hint="one range of IPv4 and one of IPv6; more of them: more networks",
        )
    if sixes and not fours:
        raise InvalidInput(
            "--lan-range of IPv6 needs one of IPv4 too",
            hint="IPv6 alone: a routed prefix (--mode route --ipv6 CIDR), or a bridge",
        )
    return fours[0] if fours else None, sixes[0] if sixes else None


def _start(args: argparse.Namespace) -> int:
    from kvmnet.flow import networks

    return _run(args, networks.start(args.name), changes.no_consent_needed,
                f"network {args.name} is active")  # fmt: skip


def _stop(args: argparse.Namespace) -> int:
    from kvmnet.flow import networks

    return _run(args, networks.stop(args.name, even_in_use=args.force), changes.no_consent_needed,
                f"network {args.name} is stopped")  # fmt: skip


def _delete(args: argparse.Namespace) -> int:
    from kvmnet.flow import networks

    return _run(args, networks.deletion(args.name, even_in_use=args.force),
                changes.consent(args, f"Delete network {output.safe(args.name)}?"),
                f"network {args.name} is deleted")  # fmt: skip


def _run(
    args: argparse.Namespace,
    planner: networks.Planner,
    ask: networks.Consent,
    done: str,
) -> int:
    from kvmnet.flow import networks

    uri = getattr(args, "connect", None)
    watcher = changes.TerminalWatcher(args)
    if args.dry_run:
        return changes.show_dry_run(args, networks.propose(planner, args.name, uri, watcher))
    plan = networks.carry_out(
        planner, args.name, uri=uri, command=shlex.join(["kvmnet", *sys.argv[1:]]),
        consent=ask, watcher=watcher,
    )  # fmt: skip
    return changes.show_done(args, plan, done)
