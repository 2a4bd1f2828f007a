"""The packets that a guest's life depends on, hook by hook, in the order of its life."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.core.firewall_packet import Hook, Packet

Family = Literal["ip", "ip6"]
Kind = Literal["service", "forward", "bridged"]

OUTSIDE: dict[Family, str] = {"ip": "93.184.216.34", "ip6": "2606:2800:220:1:248:1893:25c8:1946"}
"""Stands for any address of the internet. Those kept for documents will not do: many rulesets drop
them as bogons. Nothing is ever sent there."""


class Plug(Struct, frozen=True, kw_only=True):
    """Where a guest is plugged in and who it is, as far as rules may ask."""

    bridge: str
    tap: str | None = None
    address: str | None = None
    address6: str | None = None
    mac: str | None = None

    def source(self, family: Family) -> str | None:
        return self.address if family == "ip" else self.address6


class Way(Struct, frozen=True, kw_only=True):
    """One thing that a guest does, as the hooks that its packet passes, in their order."""

    what: str
    kind: Kind
    """service: the host itself answers. forward: the host routes it. bridged: a frame."""
    packets: tuple[Packet, ...]


class _Message(Struct, frozen=True, kw_only=True):
    """What all packets of one way have in common."""

    what: str
    family: Family = "ip"
    protocol: Literal["udp", "tcp", "icmp", "ipv6-icmp"] = "udp"
    sport: int = 0
    dport: int = 0
    icmp_type: int | None = None
    source: str | None = None
    destination: str | None = None
    destination_type: Literal["local", "unicast", "broadcast", "multicast"] | None = None
    ct_state: str = "new"
    mac: str | None = None

    def at(
        self, hook: Hook, layer: Literal["ip", "bridge", "netdev"] = "ip", *,
        iif: str | None = None, oif: str | None = None, physin: str | None = None,
        physout: str | None = None,
    ) -> Packet:  # fmt: skip
        return Packet(
            hook=hook, what=self.what, layer=layer, family=self.family, iif=iif, oif=oif,
            physin=physin, physout=physout, protocol=self.protocol, sport=self.sport,
            dport=self.dport, icmp_type=self.icmp_type, source=self.source,
            destination=self.destination, destination_type=self.destination_type,
            ct_state=self.ct_state, mac=self.mac,
        )  # fmt: skip


def service_ways(plug: Plug, host: str | None, family: Family, *, dhcp: bool, dns: bool) -> (
    tuple[Way, ...]
):  # fmt: skip
    """What a guest asks the host for, and the answers; `host` is the host's address there."""
    source = plug.source(family)
    found: list[Way] = []
    if dhcp and family == "ip":
        ask = _Message(
            what="a guest's DHCP request",
            sport=68,
            dport=67,
            source="0.0.0.0",
            destination="255.255.255.255",
            destination_type="broadcast",
            mac=plug.mac,
        )
        answer = _Message(
            what="the DHCP answer",
            sport=67,
            dport=68,
            source=host,
            destination=source,
            destination_type="unicast",
        )
        found += [_to_host(plug, ask), _from_host(plug, answer)]
    if dhcp and family == "ip6":
        found += [_to_host(plug, x) for x in _first_messages_v6(plug)]
        advert = _Message(
            what="the router advertisement",
            family="ip6",
            protocol="ipv6-icmp",
            icmp_type=134,
            destination="ff02::1",
            destination_type="multicast",
        )
        found.append(_from_host(plug, advert))
    if dns:
        query = _Message(
            what="a guest's DNS query",
            family=family,
            sport=40000,
            dport=53,
            source=source,
            destination=host,
            destination_type="local",
            mac=plug.mac,
        )
        found.append(_to_host(plug, query))
        reply = _Message(
            what="the DNS answer",
            family=family,
            sport=53,
            dport=40000,
            source=host,
            destination=source,
            destination_type="unicast",
            ct_state="established",
        )
        found.append(_from_host(plug, reply))
    return tuple(found)


def _first_messages_v6(plug: Plug) -> tuple[_Message, ...]:
    return (
        _Message(what="a guest's neighbour solicitation", family="ip6", protocol="ipv6-icmp",
                 icmp_type=135, destination_type="multicast", mac=plug.mac),
        _Message(what="a guest's router solicitation", family="ip6", protocol="ipv6-icmp",
                 icmp_type=133, destination="ff02::2", destination_type="multicast",
                 mac=plug.mac),
    )  # fmt: skip


def _to_host(plug: Plug, message: _Message) -> Way:
    bridge, tap = plug.bridge, plug.tap
    packets = [] if tap is None else [
        message.at("ingress", "netdev", iif=tap),
        message.at("prerouting", "bridge", iif=tap),
        message.at("input", "bridge", iif=tap),
    ]  # fmt: skip
    packets += [message.at("ingress", "netdev", iif=bridge), message.at("prerouting", iif=bridge),
                message.at("input", iif=bridge)]  # fmt: skip
    return Way(what=message.what, kind="service", packets=tuple(packets))


def _from_host(plug: Plug, message: _Message) -> Way:
    packets = [message.at("output", oif=plug.bridge), message.at("postrouting", oif=plug.bridge)]
    if plug.tap is not None:
        packets += [message.at("output", "bridge", oif=plug.tap),
                    message.at("postrouting", "bridge", oif=plug.tap)]  # fmt: skip
    return Way(what=message.what, kind="service", packets=tuple(packets))


def routed_ways(plug: Plug, uplink: str, family: Family, *, physdev: bool) -> tuple[Way, ...]:
    """A guest's connection through the host's routing, and its answer.

    `physdev`: br_netfilter is on, so that IP's rules see the tap too.
    """
    source, bridge, tap = plug.source(family), plug.bridge, plug.tap
    physin = tap if physdev else None
    out = _Message(what="a guest's connection to the outside", family=family, protocol="tcp",
                   sport=40000, dport=443, source=source, destination=OUTSIDE[family],
                   destination_type="unicast", mac=plug.mac)  # fmt: skip
    back = _Message(what="the answer from the outside", family=family, protocol="tcp", sport=443,
                    dport=40000, source=OUTSIDE[family], destination=source,
                    destination_type="unicast", ct_state="established")  # fmt: skip
    first = [] if tap is None else [
        out.at("ingress", "netdev", iif=tap), out.at("prerouting", "bridge", iif=tap),
        out.at("input", "bridge", iif=tap),
    ]  # fmt: skip
    last = [] if tap is None else [
        back.at("output", "bridge", oif=tap), back.at("postrouting", "bridge", oif=tap),
    ]  # fmt: skip
    # Before the forward hook an answer to a masqueraded connection still goes to the host itself,
    # or does not, by the chain's priority: the destination is not known there.
    outer = _Message(what=back.what, family=family, protocol="tcp", sport=443, dport=0,
                     source=OUTSIDE[family], ct_state="established")  # fmt: skip
    return (
        Way(what=out.what, kind="forward", packets=(
            *first, out.at("ingress", "netdev", iif=bridge),
            out.at("prerouting", iif=bridge, physin=physin),
            out.at("forward", iif=bridge, oif=uplink),
            # Since Linux 5.7 this hook sees by which link a forwarded packet came.
            out.at("postrouting", iif=bridge, oif=uplink))),
        Way(what=back.what, kind="forward", packets=(
            outer.at("ingress", "netdev", iif=uplink), outer.at("prerouting", iif=uplink),
            back.at("forward", iif=uplink, oif=bridge),
            back.at("postrouting", iif=uplink, oif=bridge), *last)),
    )  # fmt: skip


def bridged_ways(plug: Plug, port: str | None, family: Family, *, netfilter: bool) -> (
    tuple[Way, ...]
):  # fmt: skip
    """The frames between a guest and what is behind `port` (None: somebody on its bridge).

    `netfilter`: br_netfilter shows them to IP's hooks, in and out by the bridge.
    """
    source, tap = plug.source(family), plug.tap
    ask = (
        _Message(what="a bridged guest's DHCP request", sport=68, dport=67, source="0.0.0.0",
                 destination="255.255.255.255", mac=plug.mac)
        if family == "ip" else
        _Message(what="a bridged guest's router solicitation", family="ip6", protocol="ipv6-icmp",
                 icmp_type=133, destination="ff02::2", destination_type="multicast", mac=plug.mac)
    )  # fmt: skip
    out = _Message(what="a bridged guest's connection", family=family, protocol="tcp",
                   sport=40000, dport=443, source=source, destination=OUTSIDE[family],
                   mac=plug.mac)  # fmt: skip
    back = _Message(what="the answer to a bridged guest", family=family, protocol="tcp",
                    sport=443, dport=40000, source=OUTSIDE[family], destination=source,
                    ct_state="established")  # fmt: skip
    return (
        _frame(plug.bridge, ask, tap, port, netfilter=netfilter),
        _frame(plug.bridge, out, tap, port, netfilter=netfilter),
        _frame(plug.bridge, back, port, tap, netfilter=netfilter),
    )


def _frame(
    bridge: str, message: _Message, inward: str | None, outward: str | None, *, netfilter: bool
) -> Way:
    """One frame through a bridge, in by one port and out by another."""
    packets: list[Packet] = []
    if inward is not None:
        packets += [message.at("ingress", "netdev", iif=inward),
                    message.at("prerouting", "bridge", iif=inward)]  # fmt: skip
    if netfilter:
        packets.append(message.at("prerouting", iif=bridge, physin=inward))
    if inward is not None and outward is not None:
        packets.append(message.at("forward", "bridge", iif=inward, oif=outward))
    if netfilter:
        packets.append(
            message.at("forward", iif=bridge, oif=bridge, physin=inward, physout=outward)
        )
    if outward is not None:
        packets.append(message.at("postrouting", "bridge", oif=outward))
    return Way(what=message.what, kind="bridged", packets=tuple(packets))


def guest_packets(
    bridge: str, uplink: str | None, guest: str | None, family: Literal["ip", "ip6"] = "ip"
) -> tuple[Packet, ...]:
    """The packets that a guest behind `bridge` needs to get through, in the order of its life.

    `guest` is an address inside the network's subnet; `uplink` the host's way out, if it has one.
    """
    packets = [
        *(_first_packets_v6(bridge) if family == "ip6" else _first_packets_v4(bridge, guest))
    ]
    packets += [
        Packet(hook="input", what="a guest's DNS query", family=family, iif=bridge, dport=53,
               source=guest),
        Packet(hook="input", what="a guest's DNS query over TCP", family=family, iif=bridge,
               protocol="tcp", dport=53, source=guest),
    ]  # fmt: skip
    if uplink is not None:
        outside = "192.0.2.1" if family == "ip" else "2001:db8::1"
        packets += [
            Packet(hook="forward", what="a guest's connection to the outside", family=family,
                   iif=bridge, oif=uplink, protocol="tcp", dport=443, source=guest,
                   destination=outside),
            Packet(hook="forward", what="the answer from the outside", family=family, iif=uplink,
                   oif=bridge, protocol="tcp", dport=50000, source=outside, destination=guest,
                   ct_state="established"),
        ]  # fmt: skip
    return tuple(packets)


def _first_packets_v4(bridge: str, guest: str | None) -> tuple[Packet, ...]:
    return (
        dhcp_request("prerouting", bridge),
        dhcp_request("input", bridge),
        Packet(hook="output", what="the DHCP answer", oif=bridge, sport=67, dport=68,
               destination=guest, destination_type="unicast"),
    )  # fmt: skip


def dhcp_request(hook: Hook, bridge: str) -> Packet:
    """A guest's DHCP request: from no address yet, to everybody (RFC 2131)."""
    return Packet(
        hook=hook, what="a guest's DHCP request", iif=bridge, sport=68, dport=67,
        source="0.0.0.0", destination="255.255.255.255", destination_type="broadcast",
    )  # fmt: skip


def _first_packets_v6(bridge: str) -> tuple[Packet, ...]:
    return (
        Packet(hook="input", what="a guest's router solicitation", family="ip6", iif=bridge,
               protocol="ipv6-icmp", icmp_type=133, source="fe80::1", destination="ff02::2",
               destination_type="multicast"),
        Packet(hook="output", what="the router advertisement", family="ip6", oif=bridge,
               protocol="ipv6-icmp", icmp_type=134, source="fe80::1", destination="ff02::1",
               destination_type="multicast"),
    )  # fmt: skip
