"""Proof by packets that a running guest's NIC has arrived where it was put.

Its tap is a forwarding port of the right bridge, the bridge has learnt its MAC behind that tap, and
it answers an ARP probe (RFC 5227) for an address of the place. What addresses to try is told by
the guest's agent, the leases of a libvirt network, and ARP packets that the guest sends itself.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import time
from collections.abc import Iterator

from kvmnet.adapters import kernel, libvirt_guests
from kvmnet.adapters.neighbours import NO_IP, find_owners
from kvmnet.adapters.packets import PacketSocket
from kvmnet.errors import Failed, KvmnetError
from kvmnet.formats.ethernet import ARP, decode_arp
from kvmnet.formats.leases import agent_addresses
from kvmnet.model.guest_steps import ProveGuest
from kvmnet.model.target import place
from kvmnet.model.values import Ip, Mac
from kvmnet.model.virt import GuestNic

_LOOK_AGAIN_S = 0.2
_ANSWER_S = 0.7
_LINGER_S = 0.2


def prove(uri: str | None, step: ProveGuest) -> Ip | None:
    """Return when it is proven; the address that answered. Raises `Failed` with what is missing."""
    end = time.monotonic() + step.within_s
    if step.if_off == "skip" and not libvirt_guests.is_running(uri, step.uuid):
        return None
    while (missing := _not_plugged(uri, step)) is not None:
        _wait_or_fail(step, missing, end)
    if step.demands == "port":
        return None
    nic = libvirt_guests.live_nic(uri, step.uuid, step.mac)
    bridge = _bridge(nic) if nic is not None else None
    if nic is None or bridge is None:
        raise _failed(step, "it has gone again")
    return _address(uri, step, nic, bridge, end)


def _address(uri: str | None, step: ProveGuest, nic: GuestNic, bridge: str, end: float) -> Ip:
    missing = "it is at no address there"
    with contextlib.ExitStack() as stack:
        listener = None
        if os.geteuid() == 0:
            listener = stack.enter_context(PacketSocket(bridge, ARP))
        heard: set[Ip] = set()
        while True:
            tried = [x for x in {*_told(uri, step, nic), *heard} if _counts(step, x)]
            for ip in tried:
                if listener is None or _answers(bridge, ip, step.mac):
                    if _is_learnt(bridge, nic, step.mac):
                        return ip
                    missing = f"bridge {bridge} has not learnt its MAC behind {nic.target}"
                else:
                    missing = f"it does not answer at {ip}"
            _wait_or_fail(step, missing, end)
            if listener is not None:
                heard.update(_heard(listener, step.mac))


def _wait_or_fail(step: ProveGuest, missing: str, end: float) -> None:
    if time.monotonic() > end:
        raise _failed(step, f"{missing} within {step.within_s:g} seconds")
    time.sleep(_LOOK_AGAIN_S)


def _failed(step: ProveGuest, why: str) -> Failed:
    return Failed(f"NIC {step.mac} of guest {step.guest} has not arrived on {step.place}", why=why)


def _not_plugged(uri: str | None, step: ProveGuest) -> str | None:
    """What keeps the NIC from being a forwarding port of the place's bridge; None: it is."""
    nic = libvirt_guests.live_nic(uri, step.uuid, step.mac)
    if nic is None:
        raise _failed(step, "the guest was shut down, or has no such NIC any more")
    if place(nic) != step.place:
        raise _failed(step, f"it is on {place(nic)}")
    bridge = _bridge(nic)
    if bridge is None:
        return None  # no bridge of the host's: nothing to look at
    link = next((x for x in kernel.read_links()[0] if x.name == nic.target), None)
    if link is None:
        return f"its tap {nic.target} is gone"
    if link.master != bridge:
        return f"its tap {link.name} is {'in ' + link.master if link.master else 'in no bridge'}"
    if nic.link_up and (link.port is None or link.port.state != "forwarding"):
        return f"port {link.name} of bridge {bridge} does not forward"
    return None


def _bridge(nic: GuestNic) -> str | None:
    return nic.source if nic.type == "bridge" else nic.bridge


def _told(uri: str | None, step: ProveGuest, nic: GuestNic) -> Iterator[Ip]:
    """IPv4 addresses that the agent or the network's leases name."""
    if nic.type == "network" and nic.source is not None:
        yield from libvirt_guests.leased(uri, nic.source, step.mac)
    with contextlib.suppress(KvmnetError):
        answer = libvirt_guests.agent_answer(uri, step.uuid)
        yield from (x.ip for x in agent_addresses(answer) if x.mac == step.mac and x.family == 4)


def _counts(step: ProveGuest, ip: Ip) -> bool:
    """Whether an address is one of the place, and not what the guest had before."""
    address = ipaddress.ip_address(ip)
    if address.version != 4 or address.is_link_local or address.is_unspecified:
        return False
    if step.subnets:
        return any(address in ipaddress.ip_network(x, strict=False) for x in step.subnets)
    return ip not in step.old


def _answers(bridge: str, ip: Ip, mac: Mac) -> bool:
    # A guest with two NICs on one LAN answers by both.
    return mac in find_owners(bridge, ip, NO_IP, _ANSWER_S, _LINGER_S)


def _is_learnt(bridge: str, nic: GuestNic, mac: Mac) -> bool:
    return any(
        x.mac == mac and x.bridge == bridge and x.port == nic.target
        for x in kernel.read_forwarding()
    )


def _heard(listener: PacketSocket, mac: Mac) -> Iterator[Ip]:
    """Addresses from which the guest itself has asked for others."""
    until = time.monotonic() + 0.01
    while (received := listener.receive(until)) is not None:
        arp = decode_arp(received.frame.payload)
        if arp is not None and arp.sender_mac == mac:
            yield arp.sender_ip
