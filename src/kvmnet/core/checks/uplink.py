"""Checks of a bridge's way to the LAN: cable, port, VLANs, MTU, offloads, wireless NICs."""

from __future__ import annotations

from collections.abc import Iterator

from kvmnet.core import mending, plugged, vlans
from kvmnet.core.finding import Finding, command, some
from kvmnet.core.plugged import Plug
from kvmnet.core.uplinks import is_station
from kvmnet.model.host import Link
from kvmnet.model.state import State

USUAL_MTU = 1500
"""What a guest takes for its MTU unless its NIC is told otherwise."""


def _bridged(state: State) -> Iterator[tuple[Link, list[Plug], list[Link]]]:
    """The bridges that guests belong on and that are there, with those NICs and all ports."""
    ports = plugged.ports(state)
    links = {x.name: x for x in state.links}
    for name, plugs in plugged.by_bridge(state).items():
        bridge = links.get(name)
        if bridge is not None and bridge.kind == "bridge":
            yield bridge, plugs, ports.get(name, [])


def uplink_down(state: State) -> Iterator[Finding]:
    """No uplink of a bridge has a cable: its guests reach each other and nobody else."""
    for bridge, plugs, ports in _bridged(state):
        uplinks = plugged.uplinks(ports)
        if not bridge.up or not uplinks or any(x.up and x.carrier is not False for x in uplinks):
            continue
        off = [x for x in uplinks if not x.up]
        yield Finding(
            name="uplink-down", severity="problem", subject=f"bridge {bridge.name}",
            what=f"its uplink {some(x.name for x in uplinks)} "
            + ("is switched off" if off else "has no cable (no carrier)"),
            breaks=f"guests {some(plugged.guests_of(plugs))} do not reach the LAN by "
            f"{bridge.name}",
            evidence=tuple(
                f"ip link show {x.name}: {'no carrier' if x.up else 'down'}" for x in uplinks
            ),
            fix=tuple(command("ip", "link", "set", x.name, "up") for x in off)
            or tuple(command("ethtool", x.name) for x in uplinks),
            mend=tuple(mending.switch_on(x.name) for x in off),
        )  # fmt: skip


def port_blocked(state: State) -> Iterator[Finding]:
    """A port that has a cable and does not forward."""
    taps = plugged.taps(state)
    for bridge, plugs, ports in _bridged(state):
        watched = [x.name for x in plugged.uplinks(ports)]
        for port in ports:
            plug = taps.get(port.name)
            if port.port is None or port.port.state not in {"disabled", "blocking"}:
                continue
            if not (bridge.up and port.up and port.carrier) or (
                plug is None and port.name not in watched
            ):
                continue
            stp = bridge.bridge is not None and bridge.bridge.stp
            who = plug.guest.name if plug else some(plugged.guests_of(plugs))
            yield Finding(
                name="port-blocked", severity="problem",
                subject=f"guest {plug.guest.name}" if plug else f"bridge {bridge.name}",
                what=f"port {port.name} of {bridge.name} is {port.port.state}: nothing passes",
                breaks=f"guests {who}: no packet passes {port.name}",
                evidence=(f"bridge link show dev {port.name}: state {port.port.state}",
                          "STP is on: it has seen a loop" if stp else "STP is off: set by hand"),
                fix=() if stp else (command("bridge", "link", "set", "dev", port.name,
                                            "state", "forwarding"),),
            )  # fmt: skip


def lro_on_port(state: State) -> Iterator[Finding]:
    """A port that merges packets: what it merged can't be forwarded to guests."""
    for bridge, plugs, ports in _bridged(state):
        for port in ports:
            if port.lro is not True:
                continue
            yield Finding(
                name="lro-on-port", severity="warning", subject=f"NIC {port.name}",
                what=f"it merges received packets (LRO), though {bridge.name} forwards them",
                breaks=f"TCP to guests {some(plugged.guests_of(plugs))} crawls or stalls",
                evidence=(f"ethtool -k {port.name}: large-receive-offload: on",
                          f"{port.name} is a port of {bridge.name}"),
                fix=(command("ethtool", "-K", port.name, "lro", "off"),),
                mend=(mending.switch_off(port.name, "lro"),),
            )  # fmt: skip


def vlan_missing(state: State) -> Iterator[Finding]:
    """A guest's VLAN that its bridge does not carry: not on its tap, or not on the uplink."""
    links = {x.name: x for x in state.links}
    ports = plugged.ports(state)
    for tap, plug in plugged.taps(state).items():
        link = links.get(tap)
        bridge = links.get(link.master) if link is not None and link.master else None
        if bridge is None or bridge.bridge is None:
            continue
        wanted = plug.nic.vlans
        if not bridge.bridge.vlan_filtering:
            if wanted:
                yield _untagged(plug, tap, bridge)
            continue
        own = vlans.of_port(state, tap)
        if own is None:
            continue
        missing = [x for x in wanted if not own.has(x)]
        if missing:
            yield _no_vlan(plug, tap, missing, tap)
            continue
        if not own.ranges:
            yield _in_none(plug, tap, bridge.name, bridge.bridge.default_pvid)
            continue
        used = list(wanted) or ([own.pvid] if own.pvid is not None else [])
        for uplink in plugged.uplinks(ports[bridge.name]):
            there = vlans.of_port(state, uplink.name)
            lacking = [x for x in used if there is not None and not there.has(x)]
            if lacking:
                yield _no_vlan(plug, tap, lacking, uplink.name)


def _no_vlan(plug: Plug, tap: str, lacking: list[int], port: str) -> Finding:
    numbers = some(map(str, lacking))
    return Finding(
        name="vlan-missing", severity="problem", subject=f"guest {plug.guest.name}",
        what=f"its VLAN {numbers} does not pass port {port}",
        breaks=f"guest {plug.guest.name} reaches nobody on VLAN {numbers} behind {port}",
        evidence=(f"NIC {plug.nic.mac}, tap {tap}: VLAN {numbers}",
                  f"bridge vlan show dev {port}: without {numbers}"),
        fix=tuple(command("bridge", "vlan", "add", "dev", port, "vid", str(x), *(
            ("pvid", "untagged") if port == tap and len(lacking) == 1 else ())) for x in lacking),
    )  # fmt: skip


def _in_none(plug: Plug, tap: str, bridge: str, given: int) -> Finding:
    add = command("bridge", "vlan", "add", "dev", tap, "vid", str(given), "pvid", "untagged")
    return Finding(
        name="vlan-missing", severity="problem", subject=f"guest {plug.guest.name}",
        what=f"its port {tap} is in no VLAN, and {bridge} filters by VLAN: nothing passes",
        breaks=f"guest {plug.guest.name} reaches nobody by {tap}",
        evidence=(f"NIC {plug.nic.mac} is behind {tap}", f"bridge vlan show dev {tap}: nothing",
                  f"ip -d link show {bridge}: vlan_filtering 1, vlan_default_pvid {given}"),
        fix=(add,) if given else (command("bridge", "vlan", "show"),),
    )  # fmt: skip


def _untagged(plug: Plug, tap: str, bridge: Link) -> Finding:
    numbers = some(map(str, plug.nic.vlans))
    return Finding(
        name="vlan-missing", severity="problem", subject=f"guest {plug.guest.name}",
        what=f"its definition asks for VLAN {numbers}, its bridge {bridge.name} knows no VLANs",
        breaks=f"guest {plug.guest.name} is on the untagged LAN instead of VLAN {numbers}",
        evidence=(f"NIC {plug.nic.mac}, tap {tap}: VLAN {numbers}",
                  f"ip -d link show {bridge.name}: vlan_filtering 0"),
    )  # fmt: skip


def mtu_mismatch(state: State) -> Iterator[Finding]:
    """A guest sends bigger frames than the way takes: those vanish, small ones pass."""
    taps = plugged.taps(state)
    for bridge, _, ports in _bridged(state):
        uplinks = [x for x in plugged.uplinks(ports) if x.up]
        if not uplinks:
            continue
        narrow = min(uplinks, key=lambda x: x.mtu)
        bigger = [x for x in ports if x.name in taps and _sends(x, taps[x.name]) > narrow.mtu]
        if not bigger:
            continue
        guests = some(taps[x.name].guest.name for x in bigger)
        size = max(_sends(x, taps[x.name]) for x in bigger)
        yield Finding(
            name="mtu-mismatch", severity="problem", subject=f"bridge {bridge.name}",
            what=f"guests send up to {size} bytes, its uplink {narrow.name} takes {narrow.mtu}",
            breaks=f"guests {guests}: connections to the LAN open, then stall with the first "
            "big packet",
            evidence=(f"ip link show {narrow.name}: mtu {narrow.mtu}",
                      *(f"ip link show {x.name}: mtu {x.mtu}" for x in bigger[:3])),
            fix=(command("ip", "link", "set", narrow.name, "mtu", str(size)),),
        )  # fmt: skip


def _sends(tap: Link, plug: Plug) -> int:
    """The size up to which a guest sends, as far as the host knows: its own setting is its own."""
    return plug.nic.mtu or min(tap.mtu, USUAL_MTU)


def wireless_uplink(state: State) -> Iterator[Finding]:
    """Guests that are to send by a wireless NIC, whose access point knows only the host's MAC."""
    stations = {x.name: x for x in state.links if is_station(x)}
    if not stations:
        return
    for plug in plugged.nics(state):
        station = stations.get(plug.nic.source or "")
        if plug.nic.type == "direct" and station is not None:
            yield _wireless(
                station, f"guest {plug.guest.name}", (f"NIC {plug.nic.mac}: direct {station.name}",)
            )
    for bridge in state.configured_bridges or ():
        for port in bridge.ports:
            station = stations.get(port.link or "")
            if station is not None and station.master is None:
                evidence = (f"{port.path}: {bridge.name} is to have the port {port.name}",)
                yield _wireless(station, f"bridge {bridge.name}", evidence)
    ways = {x.link for x in state.routes if x.destination.endswith("/0") and x.table == "main"}
    if ways and ways <= stations.keys():
        names = {x.name for x in state.links} | {x.name for x in state.networks}
        for name, plugs in plugged.by_bridge(state).items():
            if name not in names and any(x.nic.type == "bridge" for x in plugs):
                way = stations[min(x for x in ways if x is not None)]
                users = f"used by: {some(plugged.guests_of(plugs))}"
                yield _wireless(way, f"bridge {name}", (users, "the host's only way out"))
    for network in state.networks:
        config = network.config
        for name in config.uplinks if config is not None and config.mode in _MACVTAP else ():
            if name in stations:
                evidence = (f"network {network.name}: mode {config.mode if config else ''}",)
                yield _wireless(stations[name], f"network {network.name}", evidence)


_MACVTAP = frozenset({"bridge", "private", "vepa", "passthrough"})


def _wireless(station: Link, subject: str, evidence: tuple[str, ...]) -> Finding:
    address = "off" if station.four_address is False else "not known"
    return Finding(
        name="wireless-uplink", severity="problem", subject=subject,
        what=f"the wireless NIC {station.name} takes no frames of guests: the access point knows "
        "only the host",
        breaks=f"{subject} never reaches the LAN by {station.name}",
        evidence=(*evidence, f"iw dev {station.name} info: type {station.mode or 'not known'}, "
                  f"4-address mode {address}"),
        fix=("kvmnet up",),
    )  # fmt: skip
