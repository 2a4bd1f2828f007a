"""Checks of what guests are plugged into: networks, bridges, taps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from kvmnet.core.finding import MANY, Finding, command, some
from kvmnet.core.firewall import Packet, passage
from kvmnet.core.nic_differences import nic_differences
from kvmnet.model.host import Link
from kvmnet.model.state import State
from kvmnet.model.virt import Guest, GuestNic, Network

SLOW_DELAY_S = 4.0
"""A forward delay from which guests' DHCP clients begin to give up (it is waited for twice)."""

BRIDGEABLE = frozenset({"ethernet", "bond", "vlan", "veth"})
"""Kinds of links that can be a bridge's way to the LAN."""


def _nics(state: State) -> Iterator[tuple[Guest, GuestNic]]:
    return ((guest, nic) for guest in state.guests for nic in guest.nics)


def _users(state: State) -> dict[tuple[str, str], list[Guest]]:
    """The guests on each network."""
    users: defaultdict[tuple[str, str], list[Guest]] = defaultdict(list)
    for guest, nic in _nics(state):
        if nic.type == "network" and nic.source is not None:
            users[guest.connection, nic.source].append(guest)
    return users


def _networks_read(state: State, connection: str) -> bool:
    """Whether all networks of that connection are in the State."""
    failed = any(
        x.what == "libvirt networks" or x.what.startswith("network ") for x in state.unread
    )
    return not failed and any(x.connection == connection for x in state.networks)


def network_inactive(state: State) -> Iterator[Finding]:
    """A network that guests use is off, absent, or will be off after the next boot."""
    known = {(x.connection, x.name): x for x in state.networks}
    for (connection, name), guests in _users(state).items():
        network, users = known.get((connection, name)), some(x.name for x in guests)
        if network is None:
            if _networks_read(state, connection):
                yield Finding(
                    name="network-inactive", severity="problem", subject=f"network {name}",
                    what=f"guests use the network {name}, which does not exist",
                    evidence=(f"used by: {users}",),
                    fix=("kvmnet up",) if name == "default" else
                    (command("kvmnet", "network", "create", name, "--mode", "nat"),),
                )  # fmt: skip
        elif not network.active:
            yield Finding(
                name="network-inactive", severity="problem", subject=f"network {name}",
                what=f"guests use the network {name}, which is not active: they can not start",
                evidence=(f"used by: {users}",),
                fix=(command("kvmnet", "network", "start", name),),
            )  # fmt: skip
        elif network.persistent and not network.autostart and any(x.autostart for x in guests):
            starting = some(x.name for x in guests if x.autostart)
            yield Finding(
                name="network-inactive", severity="warning", subject=f"network {name}",
                what=f"guests that start with the host use the network {name}, which does not",
                evidence=(f"started with the host: {starting}",),
                fix=(command("virsh", "-c", connection, "net-autostart", name),),
            )  # fmt: skip


def _bridge_users(state: State) -> dict[str, list[str]]:
    """Who expects each bridge to be there: guests' NICs, and networks of mode bridge."""
    users: defaultdict[str, list[str]] = defaultdict(list)
    for guest, nic in _nics(state):
        if nic.type == "bridge" and nic.source is not None and nic.virtualport is None:
            users[nic.source].append(f"guest {guest.name}")
    for network in state.networks:
        config = network.config
        if config is None or config.mode != "bridge" or config.virtualport is not None:
            continue
        if config.bridge:
            users[config.bridge].append(f"network {network.name}")
    return users


def bridges_of_guests(state: State) -> Iterator[Finding]:
    """bridge-missing and not-a-bridge: what a guest is to be plugged into."""
    if not state.links:
        return
    links = {name: x for x in state.links for name in (x.name, *x.altnames)}
    networks = {x.name for x in state.networks}
    for bridge, users in _bridge_users(state).items():
        link = links.get(bridge)
        if link is None:
            is_network = bridge in networks
            yield Finding(
                name="bridge-missing", severity="problem", subject=f"bridge {bridge}",
                what=f"{bridge} does not exist, but is to be used as a bridge",
                evidence=(f"used by: {some(users)}", f"the host has no link {bridge}")
                + ((f"{bridge} is the name of a libvirt network",) if is_network else ()),
                fix=tuple(command("virsh", "edit", x.removeprefix("guest "))
                          for x in users[:MANY] if x.startswith("guest "))
                if is_network else (_making(state, bridge),),
            )  # fmt: skip
        elif link.kind not in {"bridge", "openvswitch"}:
            yield _not_a_bridge(bridge, link, users)


def _making(state: State, bridge: str) -> str:
    """The command that makes the bridge, of the NIC that leads to the LAN where that is plain."""
    ways = {x.link for x in state.routes if x.destination == "0.0.0.0/0" and x.table == "main"}
    uplinks = [
        x.name for x in state.links if x.name in ways and x.kind in BRIDGEABLE and x.master is None
    ]
    port = ("--port", uplinks[0]) if len(uplinks) == 1 else ()
    return command("kvmnet", "bridge", "create", bridge, *port)


def _not_a_bridge(bridge: str, link: Link, users: list[str]) -> Finding:
    return Finding(
        name="not-a-bridge", severity="problem", subject=f"bridge {bridge}",
        what=f"{bridge} is not a bridge, no guest can be plugged into it",
        evidence=(f"used by: {some(users)}", f"{bridge} is of kind {link.kind}"),
        fix=tuple(command("virsh", "edit", x.removeprefix("guest "))
                  for x in users[:MANY] if x.startswith("guest ")),
    )  # fmt: skip


def orphaned_tap(state: State) -> Iterator[Finding]:
    """A running guest's tap that is not in its bridge: the guest is unplugged and does not know."""
    if not state.links:
        return
    links = {x.name: x for x in state.links}
    live = {(x.connection, x.name): x.live for x in state.networks if x.live is not None}
    for guest in state.guests:
        for nic in guest.live_nics:
            if nic.target is None or nic.virtualport or nic.type not in {"network", "bridge"}:
                continue
            expected = nic.bridge if nic.type == "network" else nic.source
            config = live.get((guest.connection, nic.source or ""))
            if nic.type == "network" and config is not None:
                expected = config.bridge or expected
            tap = links.get(nic.target)
            if tap is None or expected is None or tap.kind != "tap" or tap.master == expected:
                continue
            now = f"in {tap.master}" if tap.master else "in no bridge"
            mend = command("ip", "link", "set", nic.target, "master", expected)
            yield Finding(
                name="orphaned-tap", severity="problem", subject=f"guest {guest.name}",
                what=f"its tap {nic.target} is {now}, it belongs into {expected}",
                evidence=(f"NIC {nic.mac}: {nic.type} {nic.source}, tap {nic.target}",
                          f"ip link show {nic.target}: {now}"),
                fix=(mend,) if expected in links else
                (*((command("kvmnet", "network", "start", nic.source or ""),)
                   if nic.type == "network" else ()), mend),
            )  # fmt: skip


def stp_delay(state: State) -> Iterator[Finding]:
    """A bridge whose spanning tree keeps new guests silent for long."""
    taps = {x.target: g.name for g in state.guests for x in g.live_nics if x.target is not None}
    users = _bridge_users(state)
    ports: defaultdict[str, list[Link]] = defaultdict(list)
    for link in state.links:
        if link.master is not None:
            ports[link.master].append(link)
    for link in state.links:
        if link.bridge is None or not link.bridge.stp or link.bridge.forward_delay_s <= 0:
            continue
        waiting = [x for x in ports[link.name] if x.name in taps and x.port is not None
                   and x.port.state in {"listening", "learning"}]  # fmt: skip
        used = link.name in users or any(x.name in taps for x in ports[link.name])
        delay = link.bridge.forward_delay_s
        if not used or (delay < SLOW_DELAY_S and not waiting):
            continue
        yield Finding(
            name="stp-delay",
            severity="problem" if waiting else "warning",
            subject=f"bridge {link.name}",
            what=f"a guest that is plugged in hears nothing for {2 * delay:g} s",
            evidence=(
                f"STP is on, forward delay {delay:g} s, waited for twice",
                *(f"{x.name} (guest {taps[x.name]}) is {x.port.state}" for x in waiting if x.port),
            ),
            fix=(command("ip", "link", "set", link.name, "type", "bridge", "stp_state", "0"),
                 command("ip", "link", "set", link.name, "type", "bridge", "forward_delay", "0")),
        )  # fmt: skip


def docker_forward_drop(state: State) -> Iterator[Finding]:
    """Docker's FORWARD policy hits bridged frames, because br_netfilter shows them to it."""
    if "docker" not in state.firewall.front_ends:
        return
    if state.sysctl("net.bridge.bridge-nf-call-iptables") != "1":
        return
    links = {x.name: x for x in state.links}
    for bridge, users in _bridge_users(state).items():
        link = links.get(bridge)
        if link is None or link.kind != "bridge":
            continue
        packet = Packet(hook="forward", what="a bridged guest's connection", iif=bridge,
                        oif=bridge, protocol="tcp", dport=443)  # fmt: skip
        way = passage(state.firewall, packet)
        if way.outcome == "blocked":
            yield Finding(
                name="docker-forward-drop", severity="problem", subject=f"bridge {bridge}",
                what=f"the firewall drops what guests send over {bridge}: Docker's policy hits it",
                evidence=(f"used by: {some(users)}", way.evidence,
                          "net.bridge.bridge-nf-call-iptables = 1"),
                fix=(command("iptables", "-I", "DOCKER-USER", "-i", bridge, "-o", bridge,
                             "-j", "ACCEPT"),),
            )  # fmt: skip


def live_differs(state: State) -> Iterator[Finding]:
    """What runs is not what is saved: the next start changes the guest's network."""
    for guest in state.guests:
        differences = nic_differences(guest)
        if differences:
            yield Finding(
                name="nic-not-saved",
                severity="note",
                subject=f"guest {guest.name}",
                what="its NICs differ from its saved definition, which the next start will use",
                evidence=tuple(
                    f"{x.nic} {x.what}: running {x.running or '-'}, saved {x.saved or '-'}"
                    for x in differences
                ),
            )


def stale_bridge(state: State) -> Iterator[Finding]:
    """A link that stands where a network wants to make its bridge."""
    links = {x.name: x for x in state.links}
    ports = {x.master for x in state.links}
    live = {x.live.bridge for x in state.networks if x.live is not None}
    for network in state.networks:
        if not _makes_bridge(network) or network.saved is None or network.saved.bridge in live:
            continue
        link = links.get(network.saved.bridge or "")
        if link is not None:
            empty = link.kind == "bridge" and link.name not in ports
            yield Finding(
                name="stale-bridge", severity="problem", subject=f"network {network.name}",
                what=f"it can not start: its bridge {link.name} exists already",
                evidence=(f"link {link.name}: {link.kind}, "
                          f"{'no ports' if empty else 'in use'}", "the network is not active"),
                fix=(command("ip", "link", "delete", link.name),
                     command("kvmnet", "network", "start", network.name))
                if empty else (),
            )  # fmt: skip


def _makes_bridge(network: Network) -> bool:
    config = network.saved
    return (
        not network.active
        and config is not None
        and config.bridge is not None
        and config.mode in {"nat", "route", "open", "isolated"}
    )
