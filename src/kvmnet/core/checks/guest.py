"""Checks of guests' NICs: cable, filter, addresses, macvtap, hosts that let no guest through."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from kvmnet.core import plugged
from kvmnet.core.finding import Finding, command, some
from kvmnet.core.guest_addresses import NicAddresses, guest_addresses
from kvmnet.core.plugged import Plug
from kvmnet.model.host import ForwardingEntry, Link
from kvmnet.model.state import State
from kvmnet.model.virt import Guest, GuestNic

HEARD_S = 120
"""A MAC that a bridge heard so long ago is that of a guest that sends."""
_FOREIGN_MACS_BLOCKED = {
    "VMware": "the port group's security policy: forged transmits and promiscuous mode",
    "innotek": "VirtualBox: VBoxManage modifyvm VM --nicpromisc1 allow-all",
    "Oracle": "VirtualBox: VBoxManage modifyvm VM --nicpromisc1 allow-all",
    "Microsoft": "Hyper-V: Set-VMNetworkAdapter -MacAddressSpoofing On",
    "Amazon": "EC2 delivers only to addresses of its own interfaces",
    "Google": "Compute Engine delivers only to addresses of its own interfaces",
    "DigitalOcean": "the provider delivers only to the machine's own MAC",
    "Hetzner": "the provider delivers only to the machine's own MAC",
    "Vultr": "the provider delivers only to the machine's own MAC",
    "Linode": "the provider delivers only to the machine's own MAC",
    "OpenStack": "OpenStack's port security: allowed address pairs",
}
"""By the beginning of the firmware's vendor: who lets only the host's own MAC through, and what
could be changed there."""
_FIXED_IP = frozenset({"clean-traffic", "clean-traffic-gateway", "no-ip-spoofing",
                       "no-arp-ip-spoofing", "no-arp-spoofing"})  # fmt: skip
"""Stock filters of libvirt that let only the addresses in their parameter `IP` through."""


def cable_out(state: State) -> Iterator[Finding]:
    """A running guest whose cable is pulled by its own definition."""
    for guest in state.guests:
        for nic in guest.live_nics:
            if nic.link_up:
                continue
            yield Finding(
                name="guest-link-down", severity="problem", subject=f"guest {guest.name}",
                what=f"the cable of its NIC {nic.mac} is pulled, by its own definition",
                breaks=f"guest {guest.name} sees no carrier and has no network by {nic.mac}",
                evidence=(f"guest {guest.name}: NIC {nic.mac}: <link state='down'/>",),
                fix=(command("virsh", "-c", guest.connection, "domif-setlink", guest.name,
                             nic.mac or "", "up"),),
            )  # fmt: skip


def filter_address(state: State) -> Iterator[Finding]:
    """A guest whose filter lets another address through than the one that it has."""
    known = {(x.connection, x.name): x.nics for x in guest_addresses(state)}
    for guest in state.guests:
        if not guest.active:
            continue
        for nic, found in zip(guest.nics, known[guest.connection, guest.name], strict=True):
            if nic.filter not in _FIXED_IP or not nic.filter_ips:
                continue
            wrong = [x.ip for x in found.addresses
                     if x.family == 4 and x.ip not in nic.filter_ips
                     and any(s.source == "agent" for s in x.sources)]  # fmt: skip
            if wrong:
                allowed = some(nic.filter_ips)
                yield Finding(
                    name="filter-address", severity="problem", subject=f"guest {guest.name}",
                    what=f"it has {some(wrong)}, its filter {nic.filter} lets only {allowed} "
                    "through",
                    breaks=f"guest {guest.name}: all it sends as {some(wrong)} is dropped",
                    evidence=(f"NIC {nic.mac}: filterref {nic.filter}, IP {allowed}",
                              f"its agent says {some(wrong)}"),
                    fix=(command("virsh", "-c", guest.connection, "edit", guest.name),),
                )  # fmt: skip


def _heard(state: State) -> dict[tuple[str, str], ForwardingEntry]:
    """What each bridge has learnt lately, by port and MAC."""
    return {
        (x.port, x.mac): x
        for x in state.forwarding
        if x.kind == "learned" and (x.age_s or 0) <= HEARD_S
    }


def _addressless(state: State) -> Iterator[tuple[Plug, NicAddresses]]:
    """Running guests' NICs that are plugged in and have no address that anybody knows."""
    for guest, known in zip(state.guests, guest_addresses(state), strict=True):
        if guest.state != "running":
            continue
        for nic, found in zip(guest.nics, known.nics, strict=True):
            usable = [x for x in found.addresses if not x.ip.startswith(("fe80:", "169.254."))]
            if nic.link_up and nic.target is not None and not usable:
                yield Plug(guest, nic), found


def address_unknown(state: State) -> Iterator[Finding]:
    """A guest that is alive and has no address, although it was to get one."""
    heard = _heard(state)
    served = {
        (x.connection, x.name)
        for x in state.networks
        if x.live is not None and any(ip.ranges or ip.reservations for ip in x.live.ips)
    }
    unread = any(x.what.startswith(("libvirt", "network ", "guest ")) for x in state.unread)
    for plug, _ in _addressless(state) if not unread else ():
        guest, nic = plug
        seen = heard.get((nic.target or "", nic.mac or ""))
        told = guest.agent == "connected" and bool(guest.agent_addresses)
        by_dhcp = nic.type == "network" and (guest.connection, nic.source) in served
        if seen is None or not (told or by_dhcp):
            continue
        yield Finding(
            name="address-unknown", severity="warning", subject=f"guest {guest.name}",
            what=f"its NIC {nic.mac} sends and has no address",
            breaks=f"nobody reaches guest {guest.name} by {nic.mac}",
            evidence=(f"bridge fdb: {nic.mac} heard behind {nic.target} {seen.age_s or 0} s ago",
                      *(("its agent tells no address of this NIC",) if told else ()),
                      *((f"network {nic.source} has no lease for it",) if by_dhcp else ())),
            fix=(command("kvmnet", "probe", f"guest:{guest.name}"),),
        )  # fmt: skip


def mac_locked_uplink(state: State) -> Iterator[Finding]:
    """A host inside something that passes only the host's own MAC, and no bridged guest gets on."""
    machine = state.machine
    key = next((x for x in _FOREIGN_MACS_BLOCKED if machine and machine.vendor.startswith(x)), None)
    if machine is None or key is None:
        return
    heard, ports = _heard(state), plugged.ports(state)
    lost = {(x.guest.name, x.nic.mac): x for x, _ in _addressless(state)}
    reached = {x.link for x in state.neighbours if x.state in {"REACHABLE", "DELAY", "PROBE"}}
    for bridge, plugs in plugged.by_bridge(state).items():
        uplinks = plugged.uplinks(ports.get(bridge, []))
        running = [x for x in plugs if x.guest.state == "running" and x.nic.target is not None]
        alive = [x for x in running if (x.nic.target or "", x.nic.mac or "") in heard]
        told = [x for x in alive if x.guest.agent == "connected"]
        if not uplinks or bridge not in reached or not told:
            continue
        if any((x.guest.name, x.nic.mac) not in lost for x in running):
            continue
        guests = some(plugged.guests_of(running))
        yield Finding(
            name="mac-locked-uplink", severity="warning", subject=f"bridge {bridge}",
            what=f"{machine.vendor} seems to let only this host's own MAC through "
            f"{uplinks[0].name}",
            breaks=f"guests {guests} get no address of the LAN, and no answer",
            evidence=(f"this host runs on {machine.vendor} {machine.product}".rstrip(),
                      f"{guests} send on {bridge} and none has an address",
                      "neighbours answer the host itself on it",
                      f"what decides: {_FOREIGN_MACS_BLOCKED[key]}"),
            fix=(command("kvmnet", "probe", f"bridge:{bridge}"), "kvmnet up",
                 *(command("kvmnet", "guest", "move", x, "--to", "network:default")
                   for x in plugged.guests_of(running)[:1])),
        )  # fmt: skip


def macvtap_host(state: State) -> Iterator[Finding]:
    """Guests on macvtap over the NIC by which the host has its address: they never meet."""
    own = defaultdict[str, list[str]](list)
    for address in state.addresses:
        if address.scope == "global":
            own[address.link].append(address.ip)
    found: defaultdict[str, list[Plug]] = defaultdict(list)
    for plug in plugged.nics(state):
        for nic in _parents(state, plug.guest, plug.nic):
            if own[nic] and plug.guest.active:
                found[nic].append(plug)
    for nic, plugs in found.items():
        deaf = [x for x in plugs if not x.nic.trusts_guest_filters]
        yield Finding(
            name="macvtap-host", severity="note", subject=f"NIC {nic}",
            what=f"guests {some(plugged.guests_of(plugs))} are on macvtap over {nic}: they and "
            f"the host ({some(own[nic])}) can not reach each other",
            breaks=f"connections between this host and {some(plugged.guests_of(plugs))}; all "
            "others work",
            evidence=(*(f"guest {x.guest.name}: NIC {x.nic.mac}: direct {nic}" for x in plugs[:5]),
                      f"{nic} has {some(own[nic])}",
                      *((f"without trustGuestRxFilters='yes' multicast may not reach "
                         f"{some(plugged.guests_of(deaf))}",) if deaf else ())),
            fix=(command("kvmnet", "bridge", "create", "br0", "--port", nic),
                 *(command("kvmnet", "guest", "move", x, "--to", "bridge:br0")
                   for x in plugged.guests_of(plugs)[:5])),
        )  # fmt: skip


def _parents(state: State, guest: Guest, nic: GuestNic) -> tuple[str, ...]:
    """The NICs of the host that a guest's NIC of macvtap is on."""
    if nic.type == "direct":
        return (nic.source,) if nic.source is not None else ()
    if nic.type != "network":
        return ()
    links: dict[str, Link] = {x.name: x for x in state.links}
    tap = links.get(nic.target or "")
    return (tap.parent,) if tap is not None and tap.kind == "macvtap" and tap.parent else ()


def isolated_guest(state: State) -> Iterator[Finding]:
    """A guest whose networks are all isolated: it is meant to have no way out."""
    modes = {(x.connection, x.name): x.config.mode for x in state.networks if x.config is not None}
    for guest in state.guests:
        kinds = {modes.get((guest.connection, x.source or "")) if x.type == "network" else x.type
                 for x in guest.nics}  # fmt: skip
        if kinds == {"isolated"}:
            names = some(x.source or "" for x in guest.nics)
            yield Finding(
                name="network-isolated", severity="note", subject=f"guest {guest.name}",
                what=f"it is only on {names}, which leads nowhere but to its own guests and host",
                breaks=f"guest {guest.name} reaches neither the LAN nor the internet",
                evidence=tuple(f"NIC {x.mac}: network {x.source}, mode isolated"
                               for x in guest.nics),
                fix=(command("kvmnet", "guest", "move", guest.name, "--to", "network:default"),),
            )  # fmt: skip
