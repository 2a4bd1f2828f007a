"""Which of the host's NICs can become a port of a bridge, and why the others can not.

Facts: `br_add_if` (kernel: net/bridge/br_if.c) refuses links that are not Ethernet, bridges, and
those that somebody else has taken (`rx_handler`: bonds, macvlans, Open vSwitch) or marked
(IFF_DONT_BRIDGE: wireless stations); it switches large receive offload off by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kvmnet.core.finding import command, some
from kvmnet.errors import NotFound, Refused
from kvmnet.model.host import Link
from kvmnet.model.state import State
from kvmnet.model.values import Mac
from kvmnet.model.virt import Guest

NOT_ETHERNET = frozenset(
    {"loopback", "tun", "wireguard", "ppp", "sit", "gre", "ipip", "ip6tnl", "ip6gre", "vti", "vti6",
     "none", "infiniband", "can", "vcan", "xfrm", "ipvlan", "l3mdev", "vrf"}
)  # fmt: skip
TAKES_ALL = frozenset({"macvlan", "macvtap", "ipvlan", "ipvtap"})
"""Links on a NIC that take its frames, so that no bridge can."""
_BRIDGED_MODES = frozenset({"AP", "AP/VLAN", "P2P-GO", "mesh point"})
"""Modes of wireless NICs that the kernel lets be ports, in iw(8)'s words."""
_PLUGS = frozenset({"tap", "macvtap"})
_GUESTS_TAP = re.compile(r"vnet[0-9]+")
"""The names that libvirt gives (libvirt: src/util/virnetdev.h)."""


def find_nic(state: State, name: str) -> Link:
    """The link of that name. Raises `NotFound`, naming those that could be meant."""
    link = state.link(name)
    if link is not None:
        return link
    names = some(x.name for x in state.links if x.kind in {"ethernet", "bond", "veth", "vlan"})
    raise NotFound(
        f"there is no NIC {command(name)}",
        why=f"there are: {names}" if names else "",
        hint="ip -brief link",
    )


def check_port(state: State, link: Link, bridge: str) -> None:
    """Raise `Refused` if the link can not, or should not, become a port of that bridge."""
    if link.name == bridge:
        raise _refused(link, bridge, "a bridge and its port need different names")
    if link.kind == "wireless" and not can_be_bridged(link):
        raise wireless_refusal(link)
    _check_kind(link, bridge)
    _check_free(state, link, bridge)
    _check_stacked(state, link, bridge)
    _check_managers(state, link, bridge)


def _refused(link: Link, bridge: str, why: str, hint: str = "") -> Refused:
    return Refused(f"{link.name} can not become a port of {bridge}", why=why, hint=hint)


def can_be_bridged(link: Link) -> bool:
    """Whether the wireless NIC may send frames with other MACs than its own.

    Facts: `cfg80211_change_iface` (kernel: net/wireless/util.c) sets IFF_DONT_BRIDGE for stations
    without 4-address mode, IBSS, OCB and P2P clients.
    """
    if link.mode in _BRIDGED_MODES:
        return True
    return link.mode in {None, "managed"} and link.four_address is True


def is_station(link: Link) -> bool:
    """Whether it surely is a wireless NIC that no bridge takes; not where `iw` tells no mode."""
    return link.kind == "wireless" and link.mode is not None and not can_be_bridged(link)


def wireless_refusal(link: Link) -> Refused:
    """Why a wireless NIC can't be bridged, and the ways for guests that do work.

    Facts: IEEE 802.11 frames to an access point have three addresses, so the sender is always the
    station itself.
    """
    name = link.name
    route = command("kvmnet", "network", "create", "lan", "--mode", "route", "--uplink", name)
    return Refused(
        f"{name} can not become a port of a bridge",
        why=_why_not_wireless(link),
        hint="guests get out behind NAT: `kvmnet up`; with LAN addresses that this host answers "
        f"for: `{route} --lan-range A-B`; without any network of the host, by QEMU's user stack: "
        f"`virt-xml GUEST --edit --network clearxml=yes,type=user`{_four_address_way(link)}",
    )


def _why_not_wireless(link: Link) -> str:
    if link.mode == "managed":
        mode = f"{link.name} is a wireless NIC in station mode"
    elif link.mode is None:
        mode = (
            f"{link.name} is a wireless NIC, in station mode for all that is known (the package iw "
            "is not installed)"
        )
    else:
        mode = f"{link.name} is a wireless NIC in mode {link.mode}"
    return (
        f"{mode}: it sends and gets frames of its own MAC only, so those of guests would be lost, "
        "and the kernel does not allow it"
    )


def _four_address_way(link: Link) -> str:
    if link.mode not in {None, "managed"}:
        return ""
    enable = command("iw", "dev", link.name, "set", "4addr", "on")
    return f"; only where the access point speaks WDS: `{enable}`, then try again"


def _check_kind(link: Link, bridge: str) -> None:
    if link.kind == "bridge":
        raise _refused(link, bridge, "it is a bridge itself, and bridges can't be nested")
    if link.kind in NOT_ETHERNET:
        raise _refused(link, bridge, f"it is no Ethernet link ({link.kind})")
    if link.kind == "openvswitch" or link.master == "ovs-system":
        raise _refused(
            link, bridge, "it belongs to Open vSwitch, which gets its frames",
            command("ovs-vsctl", "del-port", link.name),
        )  # fmt: skip


def _check_free(state: State, link: Link, bridge: str) -> None:
    guest = guest_of(state, link)
    if guest is not None:
        raise _refused(
            link, bridge, f"it is the other end of a NIC of guest {guest.name}",
            _plug_in(state, guest, link, bridge),
        )  # fmt: skip
    if link.kind == "tap" and _GUESTS_TAP.fullmatch(link.name):
        raise _refused(
            link, bridge, "by its name it is the other end of a guest's NIC, and it is not known "
            "of which guest",
            f"{_once_there(state, bridge)}kvmnet guest move GUEST --to "
            f"{command(f'bridge:{bridge}')}; see: kvmnet guest list",
        )  # fmt: skip
    if link.master is None or link.master == bridge:
        return
    master = state.link(link.master)
    if master is not None and master.kind == "bridge":
        raise _refused(
            link, bridge, f"it is a port of bridge {master.name} already",
            f"kvmnet bridge remove-port {command(master.name, link.name)}",
        )  # fmt: skip
    what = master.kind if master is not None else "link"
    raise _refused(
        link, bridge, f"it is a part of {what} {link.master}, which gets its frames",
        f"name {link.master} as the port" if what in {"bond", "team"} else "",
    )  # fmt: skip


def _plug_in(state: State, guest: Guest, link: Link, bridge: str) -> str:
    """The command that puts the guest itself on the bridge."""
    mac = next((x.mac for x in guest.live_nics if x.target == link.name), None)
    which = ("--nic", mac) if mac is not None and len(guest.live_nics) > 1 else ()
    move = command("kvmnet", "guest", "move", guest.name, *which, "--to", f"bridge:{bridge}")
    return f"{_once_there(state, bridge)}{move}"


def _once_there(state: State, bridge: str) -> str:
    there = state.link(bridge)
    made = there is not None and there.bridge is not None
    return "" if made else f"make {bridge} of a NIC of this host, then "


def _check_stacked(state: State, link: Link, bridge: str) -> None:
    above = [x for x in state.links if x.parent == link.name]
    takers = [x for x in above if x.kind in TAKES_ALL]
    if takers:
        guests = {g.name for x in takers if (g := guest_of(state, x)) is not None}
        whose = f" of guest {some(sorted(guests))}" if guests else ""
        raise _refused(
            link, bridge,
            f"{some(x.name for x in takers)} ({takers[0].kind}){whose} gets its frames: "
            "the kernel does not let two have them",
            f"shut the guest down first: {command('virsh', 'shutdown', sorted(guests)[0])}"
            if guests else f"remove it first: {command('ip', 'link', 'delete', takers[0].name)}",
        )  # fmt: skip
    tunnels = [x for x in above if x.kind in {"vxlan", "geneve", "gretap", "macsec"}]
    if tunnels:
        raise _refused(
            link, bridge,
            f"{some(x.name for x in tunnels)} ({tunnels[0].kind}) sends by it, and would find no "
            "way once addresses and routes are on the bridge",
        )  # fmt: skip


def _check_managers(state: State, link: Link, bridge: str) -> None:
    owner = next((x for x in state.owners if x.link == link.name), None)
    if owner is not None and owner.rivals:
        first = f"{owner.manager} ({', '.join(owner.evidence)})"
        raise _refused(
            link, bridge,
            f"more than one host network manager claims it: {'; '.join((first, *owner.rivals))}; "
            "each would undo what the other does",
            "leave it to one of them first",
        )  # fmt: skip


def guest_of(state: State, link: Link) -> Guest | None:
    """The running guest whose NIC ends in that link."""
    if link.kind not in _PLUGS:
        return None
    return next(
        (x for x in state.guests if x.active and link.name in {n.target for n in x.live_nics}),
        None,
    )


def shared_lan(state: State, one: Iterable[str], other: str) -> str | None:
    """What shows that two NICs are plugged into the same LAN; None: nothing does.

    `one` are the NICs and bridges on one side. A bridge without STP that has both as ports is a
    loop: every broadcast goes round for ever.
    """
    mine = set(one)
    own = {x.mac: x.name for x in state.links if x.name in mine and x.mac is not None}
    seen: dict[Mac, str] = {}
    for mac, where in _seen(state):
        if where in mine:
            seen.setdefault(mac, where)
    for mac, where in _seen(state):
        if where != other:
            continue
        if mac in own:
            return f"{own[mac]}'s own frames come in by {other}"
        if mac in seen:
            return f"{mac} is a neighbour on {seen[mac]} and on {other}"
    return None


def _seen(state: State) -> Iterable[tuple[Mac, str]]:
    """MACs of others, each with the link that it was seen on."""
    for entry in state.neighbours:
        if entry.mac is not None and not entry.proxy and entry.state != "NOARP":
            yield entry.mac, entry.link
    for learned in state.forwarding:
        if learned.kind == "learned":
            yield learned.mac, learned.port


def port_notes(state: State, link: Link, bridge: str) -> tuple[str, ...]:
    """What people should know of a NIC that becomes a port."""
    notes: list[str] = []
    if not link.up:
        notes.append(f"{link.name} is down: it is brought up")
    elif link.carrier is False:
        notes.append(f"{link.name} has no link: {bridge} leads nowhere until it is plugged in")
    if link.lro:
        notes.append(
            f"the kernel switches large receive offload of {link.name} off, since a bridge can't "
            f"send merged packets on; should it ever leave {bridge}, it stays off until "
            f"`{command('ethtool', '-K', link.name, 'lro', 'on')}`. Some NICs restart for it, and "
            "are silent for seconds: to choose when, switch it off first"
        )
    vlans = [x for x in state.links if x.parent == link.name and x.kind == "vlan"]
    if vlans:
        numbers = ", ".join(str(x.vlan_id) for x in vlans)
        notes.append(
            f"VLAN {numbers} of {link.name} stays with {some(x.name for x in vlans)}: guests on "
            f"{bridge} do not get its frames"
        )
    return tuple(notes)
