"""`kvmnet network list` and `show`: the half of `network` that only looks."""

from __future__ import annotations

import argparse

from kvmnet.cli import arguments, output, picture
from kvmnet.cli.host_documents import NetworkListDocument, NetworkShowDocument
from kvmnet.core import views
from kvmnet.core.missing import no_such
from kvmnet.flow.observe import Part
from kvmnet.model.virt import NetworkConfig

HEADERS = ("network", "state", "autostart", "mode", "bridge", "subnets", "guests", "leases")
PARTS = frozenset({Part.NETWORKS, Part.LEASES, Part.GUESTS})


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_state_option(parser)


def add_show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the network's name or UUID")
    arguments.add_state_option(parser)


def list_networks(args: argparse.Namespace) -> int:
    state = picture.read_state(args, PARTS)
    found = views.networks(state)
    if output.wants_json(args):
        output.print_json(NetworkListDocument(networks=found, unread=state.unread))
        return picture.virt_status(state)
    picture.tell_unread(args, state)
    if not found:
        picture.say_none(args, state, "networks")
        return picture.virt_status(state)
    output.print_table(args, HEADERS, map(row, found))
    return picture.virt_status(state)


def row(view: views.NetworkView) -> tuple[str, ...]:
    """The network's line in a table."""
    network, config = view.network, view.network.config
    subnets = [f"{x.address}/{x.prefix_len}" for x in config.ips] if config is not None else []
    return (
        network.name,
        "active" if network.active else "inactive",
        picture.yes(network.autostart),
        config.mode if config is not None else "?",
        (config.bridge if config is not None else None) or "-",
        ", ".join(subnets) or "-",
        picture.some(view.guests) or "-",
        str(len(view.leases)),
    )


def show_network(args: argparse.Namespace) -> int:
    state = picture.read_state(args, PARTS)
    everyone = views.networks(state)
    found = next((x for x in everyone if args.name in (x.network.name, x.network.uuid)), None)
    if found is None:
        names = (x.network.name for x in everyone)
        raise no_such(state, "network", args.name, names)
    if output.wants_json(args):
        output.print_json(NetworkShowDocument(network=found, unread=state.unread))
        return 0
    picture.tell_unread(args, state)
    network = found.network
    facts = [
        ("name", network.name, network.name),
        ("connection", network.connection, ""),
        ("active", picture.yes(network.active), ""),
        ("autostart", "", picture.yes(network.autostart)),
    ]
    running, saved = _facts(network.live), _facts(network.saved)
    facts += [
        (name, running.get(name, "-"), saved.get(name, "-"))
        for name in dict.fromkeys([*running, *saved])
    ]
    output.print_table(args, ("network", "running", "saved"), facts)
    print(f"\nguests: {output.safe(', '.join(found.guests)) or 'none'}")
    if found.leases:
        print()
        _print_leases(args, found, state.taken_at)
    return 0


def _print_leases(args: argparse.Namespace, view: views.NetworkView, now: int) -> None:
    output.print_table(
        args,
        ("address", "mac", "host name", "ends in"),
        [
            (
                x.ip,
                x.mac or "-",
                x.hostname or "-",
                "never" if x.expires_at is None else picture.age(max(0, x.expires_at - now)),
            )
            for x in view.leases
        ],
    )


def _facts(config: NetworkConfig | None) -> dict[str, str]:
    """What a definition says, in people's words, in the order of importance."""
    if config is None:
        return {}
    if config.bridge is None or config.mode == "bridge":
        return _facts_of_others_bridge(config)
    ranges = [f"{r.start}-{r.end}" for ip in config.ips for r in ip.ranges]
    fixed = [f"{r.ip} = {r.mac or r.id or r.name}" for ip in config.ips for r in ip.reservations]
    return {
        "mode": config.mode,
        "bridge": config.bridge or "-",
        "subnets": ", ".join(f"{x.address}/{x.prefix_len}" for x in config.ips) or "-",
        "DHCP": ", ".join(ranges) or "off",
        "reservations": ", ".join(fixed) or "-",
        "DNS": picture.yes(config.dns),
        "domain": config.domain or "-",
        "uplinks": ", ".join(config.uplinks) or "any",
        "STP": f"on, {config.forward_delay_s} s" if config.stp else "off",
        "MTU": str(config.mtu) if config.mtu is not None else "default",
        "dnsmasq options": "; ".join(config.dnsmasq_options) or "-",
        **({"routes": ", ".join(config.routes)} if config.routes else {}),
    }


def _facts_of_others_bridge(config: NetworkConfig) -> dict[str, str]:
    """Where libvirt makes no bridge it runs no DHCP, DNS or spanning tree either."""
    return {
        "mode": config.mode,
        "bridge": config.bridge or "-",
        "NICs": ", ".join(config.uplinks) or "-",
        "virtual port": config.virtualport or "-",
        "port groups": ", ".join(config.portgroups) or "-",
    }
