"""Asking the LAN whether somebody uses a MAC address.

Frames go to that very address, each with something inside that its owner would answer; whatever
then comes from the address proves that it is in use. Silence proves nothing (see docs/probe.md).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network

from msgspec import Struct

from kvmnet.adapters.kernel import read_links
from kvmnet.adapters.packets import ALL_PROTOCOLS, PacketSocket, Received
from kvmnet.errors import Failed, NotFound, Refused
from kvmnet.formats import icmp
from kvmnet.formats.ethernet import (
    ARP,
    IPV4,
    IPV6,
    Arp,
    Frame,
    Ipv4,
    decode_arp,
    decode_ipv4,
    encode_arp,
    encode_frame,
    encode_ipv4,
)
from kvmnet.formats.icmp import ALL_NODES, ICMP, ICMPV6, Echo, Ipv6, decode_ipv6, link_local
from kvmnet.model.probe import MacAnswer
from kvmnet.model.values import Ip, Mac

MAX_MACS = 4096
MAX_ARP_FRAMES = 8192
"""ARP requests in one pass: every address of the NIC's subnets, for every MAC."""
FRAMES_A_SLICE = 32
SLICE_S = 0.002
"""The pace: about 16,000 small frames, or 10 Mbit, a second."""

_EVERYONE = Ip("255.255.255.255")
_NO_MAC = Mac("00:00:00:00:00:00")
_IDENT = 0x6B76


class _Asker(Struct, frozen=True, kw_only=True):
    """The NIC that asks, with its own addresses."""

    mac: Mac
    link_local: Ip
    ips: tuple[tuple[Ip, IPv4Network], ...] = ()


def ask_lan(nic: str, macs: Sequence[Mac], wait_s: float) -> tuple[MacAnswer, ...]:
    """Those of `macs` that somebody on the LAN behind `nic` uses, one answer for each.

    Listens until `wait_s` seconds after the last question. Raises `NotFound`, `Failed` (NIC down),
    `PermissionDenied` (needs root), `Refused` (more than `MAX_MACS` addresses, or no LAN there).
    """
    if len(macs) > MAX_MACS:
        raise Refused(
            f"the LAN can not be asked for {len(macs):,} addresses at once",
            why=f"{MAX_MACS:,} are the limit, each costs everybody on the LAN some frames",
            hint="make them without --probe, it is about n in 16.8 million that one is in use",
        )
    asker = _asker(nic)
    wanted = set(macs)
    found: dict[Mac, MacAnswer] = {}
    with PacketSocket(nic, ALL_PROTOCOLS, promiscuous=True) as sock:
        for count, raw in enumerate(_questions(asker, macs), 1):
            sock.send(raw)
            if count % FRAMES_A_SLICE == 0:
                _listen(sock, time.monotonic() + SLICE_S, wanted, found)
        _listen(sock, time.monotonic() + wait_s, wanted, found)
    return tuple(found[mac] for mac in macs if mac in found)


def _listen(
    sock: PacketSocket, deadline: float, wanted: set[Mac], found: dict[Mac, MacAnswer]
) -> None:
    """Collect until the deadline, or until all of `wanted` have shown themselves."""
    while len(found) < len(wanted) and time.monotonic() < deadline + SLICE_S:
        received = sock.receive(deadline)
        if received is None:
            return
        mac = received.frame.source
        if mac in wanted:
            answer = understand(received)
            if mac not in found or (found[mac].ip is None and answer.ip is not None):
                found[mac] = answer


def _asker(nic: str) -> _Asker:
    links, addresses = read_links()
    link = next((x for x in links if nic == x.name or nic in x.altnames), None)
    if link is None:
        raise NotFound(f"there is no NIC {nic}", hint="list them: ip -br link")
    if link.mac is None or link.mac == _NO_MAC or link.kind == "loopback":
        raise Refused(f"the LAN can not be asked on {nic}", why="it has no MAC address")
    if not link.up or link.carrier is False:
        raise Failed(
            f"the LAN can not be asked on {nic}",
            why="it has no carrier" if link.up else "it is down",
            hint=f"look: ip link show {nic}",
        )
    own = [x for x in addresses if x.link == link.name]
    local = next((x.ip for x in own if x.family == 6 and x.scope == "link"), None)
    nets = tuple(
        (x.ip, IPv4Network(f"{x.ip}/{x.prefix_len}", strict=False)) for x in own if x.family == 4
    )
    return _Asker(mac=link.mac, link_local=local or link_local(link.mac), ips=nets)


def _questions(asker: _Asker, macs: Sequence[Mac]) -> Iterator[bytes]:
    """All frames to send. The cheap questions for all addresses come first."""
    for mac in macs:
        for ethertype, payload in (*_for_everyone(asker), _by_address(asker, mac)):
            yield encode_frame(
                Frame(destination=mac, source=asker.mac, ethertype=ethertype, payload=payload)
            )
    for ip, net in asker.ips:
        if (net.num_addresses - 2) * len(macs) > MAX_ARP_FRAMES:
            continue
        for mac in macs:
            yield from (_arp(asker, mac, ip, Ip(str(host))) for host in net.hosts())


def _for_everyone(asker: _Asker) -> Iterator[tuple[int, bytes]]:
    """Packets that are for whoever gets them: ethertype and content."""
    data = b"kvmnet: is this MAC address in use?"
    echo6 = Echo(type=icmp.ECHO_REQUEST6, ident=_IDENT, sequence=1, data=data)
    packet = Ipv6(
        source=asker.link_local,
        destination=ALL_NODES,
        next_header=ICMPV6,
        payload=icmp.encode_echo6(echo6, asker.link_local, ALL_NODES),
        hop_limit=1,
    )
    yield IPV6, icmp.encode_ipv6(packet)
    echo = icmp.encode_echo(Echo(type=icmp.ECHO_REQUEST, ident=_IDENT, sequence=1, data=data))
    for ip, net in asker.ips:
        for everyone in (_EVERYONE, Ip(str(net.broadcast_address))):
            yield (
                IPV4,
                encode_ipv4(
                    Ipv4(source=ip, destination=everyone, protocol=ICMP, payload=echo, ttl=1)
                ),
            )


def _by_address(asker: _Asker, mac: Mac) -> tuple[int, bytes]:
    """A question for the link-local address that many systems make of their MAC (EUI-64)."""
    target = link_local(mac)
    packet = Ipv6(
        source=asker.link_local,
        destination=icmp.solicited_node(target),
        next_header=ICMPV6,
        payload=icmp.encode_neighbour_solicitation(target, asker.link_local, asker.mac),
    )
    return IPV6, icmp.encode_ipv6(packet)


def _arp(asker: _Asker, mac: Mac, own: Ip, ip: Ip) -> bytes:
    """Who has that address, asked of one machine alone."""
    question = Arp(
        operation=1, sender_mac=asker.mac, sender_ip=own, target_mac=_NO_MAC, target_ip=ip
    )
    return encode_frame(
        Frame(destination=mac, source=asker.mac, ethertype=ARP, payload=encode_arp(question))
    )


_ICMPV6_WORDS: Mapping[int, str] = {
    icmp.ECHO_REPLY6: "answered an echo request to ff02::1",
    icmp.NEIGHBOUR_ADVERTISEMENT: "answered an IPv6 neighbour solicitation",
    icmp.NEIGHBOUR_SOLICITATION: "asked who sent it an echo request to ff02::1",
    143: "told its IPv6 multicast groups",
    131: "told its IPv6 multicast groups",
}


def understand(received: Received) -> MacAnswer:
    """What a frame from a wanted address shows."""
    frame = received.frame
    if frame.ethertype == ARP and (arp := decode_arp(frame.payload)) is not None:
        if arp.operation == 2:
            return MacAnswer(mac=frame.source, how="answered an ARP request", ip=arp.sender_ip)
        return MacAnswer(mac=frame.source, how="was heard asking by ARP", ip=arp.sender_ip)
    if frame.ethertype == IPV6 and (six := decode_ipv6(frame.payload)) is not None:
        kind = six.payload[0] if six.next_header == ICMPV6 and six.payload else -1
        if six.next_header == 0 and len(six.payload) > 8:  # MLD comes behind a router alert
            kind = six.payload[8]
        how = _ICMPV6_WORDS.get(kind, "was heard sending IPv6 packets")
        return MacAnswer(mac=frame.source, how=how, ip=six.source)
    if frame.ethertype == IPV4 and (four := decode_ipv4(frame.payload)) is not None:
        echo = icmp.decode_echo(four.payload) if four.protocol == ICMP else None
        if echo is not None and echo.type == icmp.ECHO_REPLY and echo.ident == _IDENT:
            how = "answered an echo request to the IPv4 broadcast address"
            return MacAnswer(mac=frame.source, how=how, ip=four.source)
        return MacAnswer(mac=frame.source, how="was heard sending IPv4 packets", ip=four.source)
    return MacAnswer(mac=frame.source, how="was heard")
