"""Checks of what guests are plugged into: networks, bridges, taps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from kvmnet.core import mending, plugged
from kvmnet.core.finding import MANY, Finding, command, some
from kvmnet.core.network_plan import orphaned_taps
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
    known = {x.uri for x in state.connections} | {x.connection for x in state.networks}
    return not failed and connection in known


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
                    breaks=f"guests {users} can not start",
                    evidence=(f"used by: {users}",),
                    fix=("kvmnet up",) if name == "default" else
                    (command("kvmnet", "network", "create", name, "--mode", "nat"),),
                )  # fmt: skip
        elif not network.active:
            yield Finding(
                name="network-inactive", severity="problem", subject=f"network {name}",
                what=f"guests use the network {name}, which is not active: they can not start",
                breaks=f"guests {users} can not start, or run without their cable",
                evidence=(f"used by: {users}",),
                fix=(command("kvmnet", "network", "start", name),),
                mend=(mending.start_network(name, orphaned_taps(state, network)),)
                if network.saved is not None else (),
            )  # fmt: skip
        elif network.persistent and not network.autostart and any(x.autostart for x in guests):
            starting = some(x.name for x in guests if x.autostart)
            yield Finding(
                name="network-inactive", severity="warning", subject=f"network {name}",
                what=f"guests that start with the host use the network {name}, which does not",
                breaks=f"after the next reboot {starting} can not start",
                evidence=(f"started with the host: {starting}",),
                fix=(command("virsh", "-c", connection, "net-autostart", name),),
                mend=(mending.autostart(name),),
            )  # fmt: skip


def network_not_started(state: State) -> Iterator[Finding]:
    """A network that is to start with the host, and is off: its start failed, or it was stopped."""
    used = _users(state)
    for network in state.networks:
        if network.active or not network.autostart or network.saved is None:
            continue
        if (network.connection, network.name) not in used:
            yield Finding(
                name="network-inactive", severity="warning", subject=f"network {network.name}",
                what="it is to start with the host, and is not active",
                breaks=f"no guest can be started on the network {network.name}",
                evidence=("autostart: yes", "active: no"),
                fix=(command("kvmnet", "network", "start", network.name),),
                mend=(mending.start_network(network.name, orphaned_taps(state, network)),),
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
                breaks=f"{some(users)} can not start",
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
        breaks=f"{some(users)} can not start",
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
    off = {(x.connection, x.name) for x in state.networks if not x.active}
    for guest in state.guests:
        for nic in guest.live_nics:
            if nic.target is None or nic.virtualport or nic.type not in {"network", "bridge"}:
                continue
            if nic.type == "network" and (guest.connection, nic.source) in off:
                continue  # that is the problem, and starting the network plugs its taps
            expected = nic.bridge if nic.type == "network" else nic.source
            config = live.get((guest.connection, nic.source or ""))
            if nic.type == "network" and config is not None:
                expected = config.bridge or expected
            tap = links.get(nic.target)
            if tap is None or expected is None or tap.kind != "tap" or tap.master == expected:
                continue
            if expected not in links and (nic.type == "bridge" or config is None):
                continue  # that is bridge-missing, or network-inactive, whose mending plugs it in
            now = f"in {tap.master}" if tap.master else "in no bridge"
            mend = command("ip", "link", "set", nic.target, "master", expected)
            yield Finding(
                name="orphaned-tap", severity="problem", subject=f"guest {guest.name}",
                what=f"its tap {nic.target} is {now}, it belongs into {expected}",
                evidence=(f"NIC {nic.mac}: {nic.type} {nic.source}, tap {nic.target}",
                          f"ip link show {nic.target}: {now}"),
                breaks=f"guest {guest.name} has no network by {nic.mac}, and does not know",
                fix=(mend,) if expected in links else
                (*((command("kvmnet", "network", "start", nic.source or ""),)
                   if nic.type == "network" else ()), mend),
                mend=(mending.plug(tap, expected, guest.name),) if expected in links else (),
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
        mute = [x for x in ports[link.name] if x.port is not None
                and x.port.state in {"listening", "learning"}]  # fmt: skip
        waiting = [x for x in mute if x.name in taps]
        ways = [x for x in plugged.uplinks(ports[link.name]) if x in mute]
        used = link.name in users or any(x.name in taps for x in ports[link.name]) or (
            bool(ways) and any(x.link == link.name for x in state.addresses))  # fmt: skip
        delay = link.bridge.forward_delay_s
        if not used or (delay < SLOW_DELAY_S and not waiting and not ways):
            continue
        yield Finding(
            name="stp-delay",
            severity="problem" if waiting or ways else "warning",
            subject=f"bridge {link.name}",
            what=f"a guest that is plugged in hears nothing for {2 * delay:g} s" if not ways else
            f"it leads nowhere for {2 * delay:g} s after {ways[0].name} was plugged in",
            evidence=(
                f"STP is on, forward delay {delay:g} s, waited for twice",
                *(f"{x.name} (guest {taps[x.name]}) is {x.port.state}" for x in waiting if x.port),
                *(f"{x.name} (its uplink) is {x.port.state}" for x in ways if x.port),
            ),
            breaks="DHCP and PXE clients of guests give up before that" if not ways else
            "this host and guests reach nobody beyond it, and DHCP clients give up before that",
            mend=mending.no_spanning_tree(link),
            fix=(command("ip", "link", "set", link.name, "type", "bridge", "stp_state", "0"),
                 command("ip", "link", "set", link.name, "type", "bridge", "forward_delay", "0")),
        )  # fmt: skip


def live_differs(state: State) -> Iterator[Finding]:
    """What runs is not what is saved: the next start changes the guest's network."""
    for guest in state.guests:
        # A pulled cable is a finding of its own.
        differences = [
            x for x in nic_differences(guest) if (x.what, x.running) != ("link_up", "no")
        ]
        if differences:
            yield Finding(
                name="nic-not-saved",
                severity="note",
                subject=f"guest {guest.name}",
                what="its NICs differ from its saved definition, which the next start will use",
                breaks="nothing now; after its next start it has the network that is saved",
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
                breaks="no guest of this network can start",
                fix=(command("ip", "link", "delete", link.name),
                     command("kvmnet", "network", "start", network.name))
                if empty else (),
                mend=(mending.remove_bridge(state, link.name),
                      mending.start_network(network.name, orphaned_taps(state, network)))
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
