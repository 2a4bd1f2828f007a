"""Checks of bridges and ports as they are: switched off, addresses, MAC, what is configured."""

from __future__ import annotations

from collections.abc import Iterator

from kvmnet.core import mending, plugged
from kvmnet.core.finding import Finding, command, some
from kvmnet.model.host import Address, Link, NicOwner
from kvmnet.model.link_steps import PlugTap, UnplugTap
from kvmnet.model.plan import PlannedStep
from kvmnet.model.setup import ConfiguredBridge
from kvmnet.model.state import State

_LOCALLY_MADE = 0x02
"""The bit of a MAC's first octet that says: not a manufacturer's (IEEE 802, U/L)."""


def bridge_down(state: State) -> Iterator[Finding]:
    """A bridge that is switched off: nothing passes it."""
    links = {x.name: x for x in state.links}
    off = {
        bridge
        for network in state.networks
        if not network.active and network.config is not None
        for bridge in [network.config.bridge]
    }
    for name, plugs in plugged.by_bridge(state).items():
        bridge = links.get(name)
        if bridge is None or bridge.kind != "bridge" or bridge.up or name in off:
            continue
        guests = some(plugged.guests_of(plugs))
        yield Finding(
            name="bridge-down", severity="problem", subject=f"bridge {name}",
            what="it is switched off: nothing passes it",
            breaks=f"guests {guests} have no network by {name}",
            evidence=(f"ip link show {name}: no UP among its flags", f"used by: {guests}"),
            fix=(command("ip", "link", "set", name, "up"),),
            mend=(mending.switch_on(name),),
        )  # fmt: skip


def tap_down(state: State) -> Iterator[Finding]:
    """A running guest's tap that is switched off, or kept apart from the uplink."""
    links = {x.name: x for x in state.links}
    ports = plugged.ports(state)
    for tap, plug in plugged.taps(state).items():
        link = links.get(tap)
        if link is None or link.kind not in {"tap", "macvtap"}:
            continue
        guest = plug.guest.name
        if not link.up:
            yield Finding(
                name="tap-down", severity="problem", subject=f"guest {guest}",
                what=f"its tap {tap} is switched off",
                breaks=f"guest {guest} has no network by {plug.nic.mac}",
                evidence=(f"ip link show {tap}: no UP among its flags",),
                fix=(command("ip", "link", "set", tap, "up"),),
                mend=(mending.switch_on(tap),),
            )  # fmt: skip
        if link.port is not None and link.port.isolated:
            apart = [x.name for x in plugged.uplinks(ports[link.master or ""])
                     if x.port is not None and x.port.isolated]  # fmt: skip
            if apart:
                yield Finding(
                    name="port-isolated", severity="problem", subject=f"guest {guest}",
                    what=f"its tap {tap} and the uplink {some(apart)} are both isolated: nothing "
                    "passes between them",
                    breaks=f"guest {guest} does not reach the LAN",
                    evidence=tuple(f"bridge -d link show dev {x}: isolated on"
                                   for x in (tap, *apart)),
                    fix=tuple(command("bridge", "link", "set", "dev", x, "isolated", "off")
                              for x in apart),
                )  # fmt: skip


def ip_left_on_port(state: State) -> Iterator[Finding]:
    """A port that still has the address which belongs on its bridge."""
    bridges = {x.name for x in state.links if x.kind == "bridge"}
    owners = {x.link: x for x in state.owners}
    for port in state.links:
        if port.master not in bridges:
            continue
        left = [x for x in state.addresses if x.link == port.name and x.scope == "global"]
        ways = [x for x in state.routes if x.link == port.name and x.destination.endswith("/0")]
        if not left:
            continue
        rivals = owners[port.name].rivals if port.name in owners else ()
        yield Finding(
            name="ip-left-on-port", severity="problem", subject=f"NIC {port.name}",
            what=f"it is a port of {port.master} and still has {some(map(_cidr, left))}",
            breaks="the host's own connections: what is sent to that address comes in by "
            f"{port.master}, answers leave by {port.name}",
            evidence=(*(f"ip address show {port.name}: {_cidr(x)}" for x in left),
                      f"{port.name} is a port of {port.master}",
                      *(f"ip route: default dev {x.link}" for x in ways),
                      *(f"also managed by {x}" for x in rivals)),
            fix=tuple(x for one in left for x in _moving(one, port.master or "", state)),
            lasts="" if all(map(_is_self_made, left))
            else _until_boot(port, owners.get(port.name), state),
            mend=tuple(map(mending.remove_address, left))
            if all(_is_needless(x, port.master or "", state) for x in left) else (),
        )  # fmt: skip


def _until_boot(port: Link, owner: NicOwner | None, state: State) -> str:
    """Who gives a port its address at the next boot, and in which files."""
    made = next((x for x in state.configured_bridges or () if x.name == port.master), None)
    known = owner if owner is not None and owner.manager not in {"none", "libvirt"} else None
    said = [_with_files(known)] if known is not None else []
    said += owner.rivals if owner is not None else ()
    files = f"; {made.manager} makes {port.master} by {made.path}" if made is not None else ""
    if not said:
        nobody = f"; no host network manager is known to have {port.name}"
        return (
            f"until the next boot: what sets the address must set it on {port.master} instead"
            f"{files or nobody}"
        )
    return (
        f"until the next boot, or until {port.name} is set up again: take the address from "
        f"{port.name} in the files of {' and '.join(said)}, and give it to {port.master}{files}"
    )


def _with_files(owner: NicOwner) -> str:
    """The manager and what people write for it; where no such file is known, how it is known."""
    written = [x for x in owner.evidence if x.startswith("/etc/")]
    return f"{owner.manager} ({', '.join(written or owner.evidence)})"


def _is_needless(address: Address, bridge: str, state: State) -> bool:
    """Whether nobody reaches the host by this address of a port, so that it can go.

    One that a router told runs out by itself: what routers say is the bridge's from now on, and so
    are neighbours' questions for it (kernel: net/bridge/br_input.c takes a port's frames before
    IPv6 sees them). Another is needless where the bridge has it too, and no default route needs it.
    """
    if _is_self_made(address):
        return True
    there = any(x.link == bridge and x.ip == address.ip for x in state.addresses)
    return there and not any(
        x.link == address.link and x.family == address.family and x.destination.endswith("/0")
        for x in state.routes
    )


def _is_self_made(address: Address) -> bool:
    """Made by the kernel of a router's advertisement (SLAAC)."""
    return address.family == 6 and address.dynamic and address.scope == "global" \
        and address.prefix_len == 64  # fmt: skip


def _moving(address: Address, bridge: str, state: State) -> tuple[str, ...]:
    """The commands that put the address where it belongs."""
    there = any(x.link == bridge and x.ip == address.ip for x in state.addresses)
    gone = command("ip", "address", "del", _cidr(address), "dev", address.link)
    ways = [
        command("ip", *(("-6",) if x.family == 6 else ()), "route", "replace", "default",
                "via", x.gateway, "dev", bridge)
        for x in state.routes
        if x.link == address.link and x.gateway is not None and x.destination.endswith("/0")
        and x.family == address.family
    ]  # fmt: skip
    if there or _is_self_made(address):
        return (gone,)
    return (command("ip", "address", "add", _cidr(address), "dev", bridge), *ways, gone)


def _cidr(address: Address) -> str:
    return f"{address.ip}/{address.prefix_len}"


def bridge_mac_differs(state: State) -> Iterator[Finding]:
    """A bridge with a MAC of its own and an address by DHCP: the server sees another machine."""
    ports, libvirts = plugged.ports(state), plugged.libvirts_bridges(state)
    for bridge in state.links:
        if bridge.kind != "bridge" or bridge.name in libvirts or bridge.mac is None:
            continue
        uplinks = plugged.uplinks(ports.get(bridge.name, []))
        if not uplinks or bridge.mac in {x.mac for x in uplinks}:
            continue
        leased = [
            x
            for x in state.addresses
            if x.link == bridge.name and x.dynamic and x.family == 4 and x.scope == "global"
        ]
        made = bridge.mac_assigned in {"set", "random"} and _is_local(bridge.mac)
        if not leased or not made:
            continue
        nic = uplinks[0]
        yield Finding(
            name="bridge-mac-differs", severity="note", subject=f"bridge {bridge.name}",
            what=f"its MAC {bridge.mac} was made up, that of its uplink {nic.name} is {nic.mac}",
            breaks="DHCP servers and switches take the host for another one than before: its "
            f"address is now {leased[0].ip}",
            evidence=(f"ip link show {bridge.name}: {bridge.mac} "
                      f"(addr_assign_type: {bridge.mac_assigned})",
                      f"ip link show {nic.name}: {nic.mac}",
                      f"{leased[0].ip} is from DHCP"),
            fix=(command("ip", "link", "set", bridge.name, "address", nic.mac or ""),),
        )  # fmt: skip


def _is_local(mac: str) -> bool:
    return bool(int(mac[:2], 16) & _LOCALLY_MADE)


def port_renamed(state: State) -> Iterator[Finding]:
    """A NIC that a bridge or a guest is to use by a name that no NIC has."""
    if not state.links:
        return
    links = {x.name: x for x in state.links}
    known = {name for x in state.links for name in (x.name, *x.altnames)}
    ports = plugged.ports(state)
    for bridge in state.configured_bridges or ():
        missing = [x for x in bridge.ports if x.link is None]
        uplinks = plugged.uplinks(ports.get(bridge.name, []))
        if missing and not uplinks:
            yield _no_port(state, bridge, links.get(bridge.name))
    for plug in plugged.nics(state):
        source = plug.nic.source
        if plug.nic.type == "direct" and source is not None and source not in known:
            yield _renamed(state, f"guest {plug.guest.name}", source,
                           f"NIC {plug.nic.mac}: direct {source}",
                           command("virsh", "edit", plug.guest.name))  # fmt: skip
    for network in state.networks:
        config = network.live
        for name in config.uplinks if config is not None else ():
            if name not in known and config is not None and config.mode in _BY_NAME:
                yield _renamed(state, f"network {network.name}", name,
                               f"network {network.name}: forward dev {name}",
                               command("virsh", "net-edit", network.name))  # fmt: skip


_BY_NAME = frozenset({"nat", "route", "open", "bridge", "private", "vepa"})
"""Forward modes whose `dev` is a link of the host; of others it may be gone with the guest."""


def _no_port(state: State, bridge: ConfiguredBridge, link: Link | None) -> Finding:
    names = [x.name for x in bridge.ports if x.link is None]
    free = _free(state)
    plugs = plugged.by_bridge(state).get(bridge.name, [])
    who = f"guests {some(plugged.guests_of(plugs))} and the host" if plugs else "the host itself"
    return Finding(
        name="port-renamed", severity="problem", subject=f"bridge {bridge.name}",
        what=f"its port {some(names)} does not exist, so it has no uplink",
        breaks=f"no way to the LAN by {bridge.name}: {who}",
        evidence=(*(f"{x.path}: port {x.name}" for x in bridge.ports if x.link is None),
                  f"no link is called {some(names)}",
                  *(() if link else (f"bridge {bridge.name} does not exist either",)),
                  *((f"NICs that nobody uses: {some(free)}",) if free else ())),
        fix=(command("ip", "link", "set", free[0], "up", "master", bridge.name),)
        if len(free) == 1 and link else (),
        mend=_plugging(state, free[0], link) if len(free) == 1 and link else (),
    )  # fmt: skip


def _plugging(state: State, nic: str, bridge: Link) -> tuple[PlannedStep, ...]:
    """Steps that make a NIC the bridge's port: only one that surely was it, by the MAC they share.

    The files still name it otherwise, so this holds until the next boot. The address that it made
    of a router's advertisement meanwhile goes: the bridge makes one of its own.
    """
    link = state.link(nic)
    if link is None or link.mac is None or link.mac != bridge.mac:
        return ()
    # Up before it is a port, it would take an address of its own from the LAN's router.
    on = () if link.up else (mending.switch_on(nic),)
    plug = PlugTap(tap=nic, bridge=bridge.name)
    left = [x for x in state.addresses if x.link == nic and _is_self_made(x)]
    return (
        PlannedStep(step=plug, undo=UnplugTap(tap=nic, bridge=bridge.name)),
        *on,
        *map(mending.remove_address, left),
    )


def _renamed(state: State, subject: str, name: str, evidence: str, fix: str) -> Finding:
    free = _free(state)
    return Finding(
        name="port-renamed", severity="problem", subject=subject,
        what=f"it is to use the NIC {name}, which does not exist",
        breaks=f"{subject} can not start, or reaches nobody by {name}",
        evidence=(evidence, f"no link is called {name}",
                  *((f"NICs that nobody uses: {some(free)}",) if free else ())),
        fix=(fix,),
    )  # fmt: skip


def _free(state: State) -> list[str]:
    """NICs that are nobody's port and have no address, or only one that a router told it."""
    busy = {x.link for x in state.addresses
            if x.scope == "global" and (x.family == 4 or not x.dynamic)}  # fmt: skip
    below = {x.parent for x in state.links}
    return [
        x.name
        for x in state.links
        if x.kind in {"ethernet", "veth"} and x.master is None and x.name not in busy | below
    ]


def portless_bridge_address(state: State) -> Iterator[Finding]:
    """networkd gives a bridge its static address only while it has a carrier."""
    links = {x.name: x for x in state.links}
    ports = plugged.ports(state)
    for bridge in state.configured_bridges or ():
        link = links.get(bridge.name)
        if link is None or not bridge.needs_carrier or not bridge.addresses or bridge.ports:
            continue
        there = {_cidr(x) for x in state.addresses if x.link == bridge.name}
        missing = [x for x in bridge.addresses if x not in there]
        carrier = link.carrier is True
        if missing and carrier:
            continue  # networkd is at it, or something else is wrong
        now = "no port with a carrier" if not carrier else f"{len(ports[link.name])} ports"
        yield Finding(
            name="portless-bridge-address", severity="problem" if missing else "warning",
            subject=f"bridge {bridge.name}",
            what=f"its address {some(missing or bridge.addresses)} "
            + ("is missing until" if missing else "goes when the last guest does, until")
            + " it has a port with a carrier",
            breaks=f"guests on {bridge.name} find no gateway and no DHCP server when they start",
            evidence=(f"{bridge.path}: no ConfigureWithoutCarrier=yes",
                      f"{bridge.name} has {now}"),
            fix=(command("mkdir", "-p", f"/etc/systemd/network/{_unit(bridge)}.d"),
                 "printf '[Network]\\nConfigureWithoutCarrier=yes\\n' | "
                 + command("tee", f"/etc/systemd/network/{_unit(bridge)}.d/carrier.conf"),
                 "networkctl reload"),
        )  # fmt: skip


def _unit(bridge: ConfiguredBridge) -> str:
    return bridge.path.rpartition("/")[2]


def guests_before_bridge(state: State) -> Iterator[Finding]:
    """Guests that start with the host, on a bridge that is not made when the host starts."""
    if state.configured_bridges is None or not state.links:
        return
    links = {x.name: x for x in state.links}
    libvirts = plugged.libvirts_bridges(state)
    known = {x.name: x for x in state.configured_bridges}
    owners = {x.link: x for x in state.owners}
    for name, plugs in plugged.by_bridge(state).items():
        starting = [x for x in plugs if x.guest.autostart]
        owner, bridge = owners.get(name), known.get(name)
        if not starting or name in libvirts or name not in links or owner is None:
            continue
        if bridge is not None and not bridge.at_boot:
            evidence = f"{bridge.path}: {bridge.manager} does not make it by itself at boot"
        elif bridge is None and owner.manager == "none":
            evidence = f"no host network manager has {name} in its files"
        else:
            continue
        guests = some(plugged.guests_of(starting))
        yield Finding(
            name="guests-before-bridge", severity="warning", subject=f"bridge {name}",
            what=f"guests that start with the host are on {name}, which does not come up with it",
            breaks=f"after the next reboot {guests} can not start",
            evidence=(evidence, f"started with the host: {guests}"),
        )  # fmt: skip
