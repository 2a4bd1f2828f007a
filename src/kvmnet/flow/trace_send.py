"""How a trace's packets are sent: by a stand-in on the bridge, into a link, or by the host."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from ipaddress import ip_address, ip_interface

import msgspec

from kvmnet.adapters import trace_send
from kvmnet.adapters.neighbours import NO_IP, find_mac
from kvmnet.adapters.netns import StandIn
from kvmnet.adapters.route_choice import choice
from kvmnet.core.macs import QEMU_PREFIX, generate, uses_in
from kvmnet.errors import CommandFailed, Failed, KvmnetError
from kvmnet.flow.trace_origin import known_mac
from kvmnet.formats.ethernet import IPV4, IPV6, Frame, encode_frame
from kvmnet.formats.trace_packet import encode
from kvmnet.model.host import Link
from kvmnet.model.reached import MacResult
from kvmnet.model.standin import (
    BeQuiet,
    BringUp,
    CheckAddress,
    Done,
    SendFrames,
    SendPackets,
    Sent,
    TakeAddress,
)
from kvmnet.model.state import State
from kvmnet.model.trace import Flow, Origin
from kvmnet.model.values import Cidr, Ip, Mac

_ARP_WAIT_S = 0.5
_TAKEN_WAIT_S = 0.06
_PORT_WAIT_S = 0.3


class Sender:
    """Something that is ready to send. `problem` says why nothing can be."""

    def __init__(self, helper: StandIn | None, origin: Origin, problem: str = "") -> None:
        self._helper = helper
        self.origin = origin
        self.problem = problem

    @property
    def cable(self) -> str | None:
        """A link that is only there to bring the packets in: no station of theirs."""
        return self._helper.nic if self._helper is not None and self.origin.how == "aimed" else None

    def send(self, flow: Flow, gaps_s: Sequence[float]) -> Sent:
        """Send as many packets as there are gaps, numbered from 1. Raises `KvmnetError`."""
        packets = [encode(flow, number + 1) for number in range(len(gaps_s))]
        gaps, wait_s = tuple(gaps_s), sum(gaps_s)
        if self._helper is None:
            return trace_send.packets(packets, gaps)
        if self.origin.how == "plugged":
            order = SendPackets(packets=tuple(x.hex() for x in packets), gaps_s=gaps)
            return self._helper.call(order, Sent, wait_s)
        frames = tuple(_frame(self.origin, flow, x).hex() for x in packets)
        return self._helper.call(SendFrames(frames=frames, gaps_s=gaps), Sent, wait_s)


def _frame(origin: Origin, flow: Flow, packet: bytes) -> bytes:
    assert origin.mac is not None and origin.to_mac is not None
    kind = IPV6 if flow.family == 6 else IPV4
    return encode_frame(
        Frame(destination=origin.to_mac, source=origin.mac, ethertype=kind, payload=packet)
    )


def sender(helper: StandIn | None, state: State, origin: Origin, to: Ip) -> Sender:
    """Make everything ready. Raises `KvmnetError`."""
    if helper is None:
        return _by_host(origin, to)
    if origin.how == "plugged":
        return _plugged(helper, state, origin)
    return _aimed(helper, state, origin, to)


def _by_host(origin: Origin, to: Ip) -> Sender:
    way = choice(to, source=None if ip_address(origin.address).is_unspecified else origin.address)
    if way.error:
        return Sender(None, origin, way.error)
    if ip_address(origin.address).is_unspecified:
        origin = msgspec.structs.replace(origin, address=way.source or origin.address)
    return Sender(None, origin)


def _plugged(helper: StandIn, state: State, origin: Origin) -> Sender:
    bridge = state.link(origin.bridge or "")
    assert bridge is not None
    mac = generate(QEMU_PREFIX, 1, {x.mac for x in uses_in(state)}, os.urandom)[0]
    helper.plug_in(bridge.name, mac, bridge.mtu)
    helper.call(BringUp(), Done)
    _await_port(helper, bridge)
    origin = msgspec.structs.replace(origin, link=helper.nic, mac=mac)
    if ":" not in origin.address:
        found = helper.call(
            CheckAddress(ip=origin.address, wait_s=_TAKEN_WAIT_S), MacResult, _TAKEN_WAIT_S
        )
        if found.mac is not None:
            raise Failed(
                f"{origin.address} belongs to somebody else",
                why=f"{found.mac} answers for it",
                hint="name another: --source ADDRESS",
            )
    address = Cidr(f"{origin.address}/{origin.prefix_len}")
    helper.call(TakeAddress(address=address, router=origin.router), Done)
    return Sender(helper, origin)


def _await_port(helper: StandIn, bridge: Link) -> None:
    """Wait until the new port forwards: where spanning tree runs that takes twice its delay."""
    attributes = bridge.bridge
    delay_s = attributes.forward_delay_s if attributes is not None and attributes.stp else 0.0
    end = time.monotonic() + _PORT_WAIT_S + 2 * delay_s
    while bridge.up and time.monotonic() < end and helper.port_state() != "forwarding":
        time.sleep(0.01)


def _aimed(helper: StandIn, state: State, origin: Origin, to: Ip) -> Sender:
    link = origin.link or ""
    hop = next_hop(origin, to)
    to_mac = known_mac(state, origin, hop) or _asked(origin, hop)
    if to_mac is None:
        place = origin.bridge or link
        return Sender(helper, origin, f"nobody answers for the next hop {hop} on {place}")
    try:
        helper.aim_at(link, to_mac)
    except CommandFailed as error:
        raise Failed(
            f"no packets can be made to come in through {link}", why=error.why,
            hint=f"from beside it: kvmnet trace bridge:{origin.bridge} …" if origin.bridge else "",
        ) from None  # fmt: skip
    helper.call(BeQuiet(), Done)
    return Sender(helper, msgspec.structs.replace(origin, to_mac=to_mac))


def next_hop(origin: Origin, to: Ip) -> Ip:
    """Whose MAC a frame to the destination carries: the router's, or its own."""
    if origin.router is not None:
        return origin.router
    subnet = ip_interface(f"{origin.address}/{origin.prefix_len}").network
    if ip_address(to) in subnet:
        return to
    raise Failed(
        f"{to} is beyond {subnet}, and no router is known there",
        why=f"the host has no address of its own on {origin.bridge or origin.link}",
    )


def _asked(origin: Origin, hop: Ip) -> Mac | None:
    """The next hop's answer to an ARP request of the host's own."""
    if ":" in hop:
        return None
    with contextlib.suppress(KvmnetError):
        place = origin.bridge or origin.link or ""
        return find_mac(place, None, hop, NO_IP, _ARP_WAIT_S).mac
    return None
