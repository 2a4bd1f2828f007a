"""A routed network whose guests carry addresses of the LAN: the host answers ARP for them.

Where only the host's own MAC may speak (Wi-Fi in station mode, ports of hosting providers, outer
hypervisors) guests can't be bridged. Here the host takes a part of the LAN's own subnet to a bridge
of its own. A route to a longer prefix wins, so what is for that part goes to the guests, and with
`proxy_arp` the kernel answers ARP requests on the uplink for whatever it routes to another NIC
(kernel: Documentation/networking/ip-sysctl.rst, RFC 1027). The LAN needs no route.

The range is cut into aligned blocks, each an `<ip>` of one libvirt network: libvirt then makes the
routes and firewall rules itself whenever the network starts, and none of its neighbours' addresses
is taken away. libvirt refuses only the very prefix that a route of the host has already
(networkCheckRouteCollision), and a part of it is another prefix.
"""

from __future__ import annotations

import ipaddress

import msgspec
from msgspec import Struct

from kvmnet.core.finding import command, some
from kvmnet.core.subnets import occupied
from kvmnet.errors import InvalidInput, NotFound, Refused
from kvmnet.model.desired import NetworkRequest
from kvmnet.model.host import Address, Link
from kvmnet.model.state import State
from kvmnet.model.values import Ip, Mac
from kvmnet.model.virt import DhcpRange, NetworkConfig, NetworkIp

Block = ipaddress.IPv4Network

MAX_ADDRESSES = 1024
"""Addresses of one range at most: each is asked for on the LAN before it is taken."""
LONGEST_BLOCK = 30
"""The smallest block is a /30: its first and last address can't be a guest's."""
ASK_AT_MOST_S = 1.0
"""How long the LAN is asked whether somebody uses addresses of the range."""
PROXY_DELAY = "80"
"""Hundredths of a second: the kernel's own limit of the delay before it answers for others."""


class InUse(Struct, frozen=True, kw_only=True):
    """An address of the range that somebody on the LAN answers for."""

    ip: Ip
    mac: Mac


class LanFacts(Struct, frozen=True, kw_only=True):
    """What a range's plan needs beside the State."""

    in_use: tuple[InUse, ...] = ()
    in_use6: tuple[InUse, ...] = ()
    proxy_delay: str = PROXY_DELAY
    """`net.ipv4.neigh.NIC.proxy_delay` of the uplink."""
    proxy_delay6: str = PROXY_DELAY
    """The same of IPv6."""


def check_options(request: NetworkRequest) -> None:
    """Raise `InvalidInput` where an option does not go with `--lan-range`."""
    if request.mode != "route":
        raise InvalidInput(
            f"--lan-range does not go with --mode {request.mode}",
            why="only a routed network's guests can carry the LAN's addresses without a bridge "
            "to the LAN",
            hint="--mode route --uplink NIC --lan-range A-B",
        )
    if request.uplink is None:
        raise InvalidInput(
            "--lan-range needs --uplink", why="the host answers for the guests on one NIC",
            hint="name the NIC that is on the LAN: --uplink NIC",
        )  # fmt: skip
    for value, option in (
        (request.subnet, "--subnet"),
        (request.dhcp_range, "--dhcp-range"),
        (None if request.ipv6 == "off" else request.ipv6, "--ipv6"),
    ):
        if value is not None:
            raise InvalidInput(
                f"{option} does not go with --lan-range",
                why="the guests' addresses are those of the range",
            )


def addresses_of(wanted: DhcpRange) -> tuple[ipaddress.IPv4Address, ipaddress.IPv4Address]:
    """First and last address of a range. Raises `InvalidInput` for IPv6, for none, for too many."""
    start, end = ipaddress.ip_address(wanted.start), ipaddress.ip_address(wanted.end)
    if start.version == 6 or end.version == 6:
        raise InvalidInput(f"{start}-{end} is a range of two families")
    assert isinstance(start, ipaddress.IPv4Address)
    assert isinstance(end, ipaddress.IPv4Address)
    if start > end:
        raise InvalidInput(f"the range {start}-{end} ends before it starts")
    if int(end) - int(start) >= MAX_ADDRESSES:
        raise InvalidInput(
            f"the range {start}-{end} is too long",
            why=f"at most {MAX_ADDRESSES} addresses can be asked for on the LAN",
        )
    return start, end


def blocks_of(wanted: DhcpRange) -> tuple[Block, ...]:
    """The aligned blocks inside the range that have room for guests, the largest one first.

    Raises `InvalidInput` where there is none.
    """
    start, end = addresses_of(wanted)
    blocks = [
        block
        for block in ipaddress.summarize_address_range(start, end)
        if block.prefixlen <= LONGEST_BLOCK
    ]
    if not blocks:
        base = ipaddress.ip_network(f"{start}/29", strict=False)
        raise InvalidInput(
            f"the range {start}-{end} has no room for a guest",
            why="a part of a subnet begins at a multiple of its size, of four addresses at least, "
            "and one of them is the host's",
            hint=f"an example: --lan-range {base[0]}-{base[-1]}",
        )
    return tuple(sorted(blocks, key=lambda block: block.prefixlen))


def guests_of(block: Block) -> DhcpRange:
    """The guests' addresses of a block: without its first and last one, and the host's."""
    return DhcpRange(start=Ip(str(block[2])), end=Ip(str(block[-2])))


def check_uplink(state: State, request: NetworkRequest) -> Link:
    """The uplink, if its LAN can be shared. Raises `NotFound` or `Refused`."""
    assert request.uplink is not None
    link = state.link(request.uplink)
    if link is None:
        names = some(x.name for x in state.links if x.kind != "loopback")
        raise NotFound(f"there is no NIC {command(request.uplink)}", hint=f"there are: {names}")
    if link.master is not None:
        raise Refused(
            f"guests can not share the LAN of {link.name}",
            why=f"it is a part of {link.master}, which has the addresses",
            hint=f"--uplink {link.master}",
        )
    if not link.up or link.carrier is False:
        raise Refused(
            f"guests can not share the LAN of {link.name}",
            why="it has no link" if link.up else "it is down",
            hint=command("ip", "link", "set", link.name, "up") if not link.up else "",
        )
    if not _own(state, link.name):
        raise Refused(
            f"guests can not share the LAN of {link.name}",
            why="this host has no IPv4 address there",
        )
    return link


def _own(state: State, nic: str) -> tuple[Address, ...]:
    return tuple(
        x for x in state.addresses if x.link == nic and x.family == 4 and x.scope == "global"
    )


def _prefix(address: Address) -> Block:
    interface = ipaddress.ip_interface(f"{address.ip}/{address.prefix_len}")
    assert isinstance(interface, ipaddress.IPv4Interface)
    return interface.network


def source_address(state: State, nic: str) -> Ip | None:
    """The address that the LAN is asked from."""
    return next((x.ip for x in _own(state, nic)), None)


def check_range(state: State, nic: str, wanted: DhcpRange, facts: LanFacts) -> None:
    """Raise `Refused` where the range holds what is somebody else's."""
    start, end = addresses_of(wanted)

    def holds(ip: str) -> bool:
        address = ipaddress.ip_address(ip)
        return address.version == 4 and start <= address <= end

    def refuse(why: str, hint: str = "") -> Refused:
        return Refused(f"guests can not have {start}-{end}", why=why, hint=hint)

    _check_inside(state, nic, start, end)
    _check_alone(state, nic)
    mine = next((x for x in state.addresses if holds(x.ip)), None)
    if mine is not None:
        raise refuse(f"{mine.ip} is this host's own, on {mine.link}")
    gateway = next((r for r in state.routes if r.gateway is not None and holds(r.gateway)), None)
    if gateway is not None:
        raise refuse(f"{gateway.gateway} is a router, by which this host reaches "
                     f"{gateway.destination}")  # fmt: skip
    if facts.in_use:
        who = some(f"{x.ip} ({x.mac})" for x in facts.in_use)
        raise refuse(f"somebody on the LAN answers for {who}", "choose addresses that are free")
    seen = [
        x
        for x in state.neighbours
        if x.link == nic and x.mac is not None and not x.proxy and x.state != "FAILED"
        and holds(x.ip)
    ]  # fmt: skip
    if seen:
        raise refuse(
            f"this host has just seen {some(f'{x.ip} ({x.mac})' for x in seen)} on the LAN",
            f"if it is gone for good: {command('ip', 'neigh', 'flush', 'dev', nic)}",
        )
    for block in blocks_of(wanted):
        check_free(state, nic, block)


def _check_inside(
    state: State,
    nic: str,
    start: ipaddress.IPv4Address,
    end: ipaddress.IPv4Address,
) -> None:
    """The range is a part of one of the NIC's subnets, or public addresses that are routed here."""
    prefixes = [_prefix(x) for x in _own(state, nic)]
    for prefix in prefixes:
        if start in prefix and end in prefix:
            if start == prefix[0] or end == prefix[-1]:
                raise Refused(
                    f"guests can not have {start}-{end}",
                    why="the first and last address of the LAN's subnet are nobody's: they stand "
                    "for the network and for all of its hosts",
                    hint=f"addresses of the LAN: {prefix[1]} to {prefix[-2]}",
                )
            return
    if start.is_global and end.is_global:
        return  # a provider's further addresses, often of another subnet
    raise Refused(
        f"guests can not have {start}-{end}",
        why=f"it is not inside the subnet of {nic} ({some(map(str, prefixes))}), so nobody "
        "on the LAN would ask for it by ARP",
    )


def _check_alone(state: State, nic: str) -> None:
    """Raise `Refused` if another NIC leads into the same LAN.

    The kernel would answer for every address of the LAN that it reaches by that other NIC, and
    take it away from its owner.
    """
    lans = [_prefix(x) for x in _own(state, nic)]
    guests = {
        x.config.bridge
        for x in state.networks
        if x.config is not None and is_lan_range(state, x.config, nic)
    }
    for route in state.routes:
        if route.family != 4 or route.link in {None, nic, *guests} or route.table == "local":
            continue
        there = ipaddress.ip_network(route.destination)
        if any(isinstance(there, ipaddress.IPv4Network) and there.subnet_of(lan) for lan in lans):
            raise Refused(
                f"guests can not share the LAN of {nic}",
                why=f"this host reaches {route.destination} of it through {route.link}: it would "
                f"answer on {nic} for those addresses too, and take them from their owners",
            )


def check_free(state: State, nic: str, block: Block | ipaddress.IPv6Network) -> None:
    """Raise `Refused` where something else than the uplink's LAN overlaps the block."""
    for item in occupied(state):
        taken = ipaddress.ip_network(item.subnet)
        if taken.version != block.version or not taken.overlaps(block):
            continue
        if item.link == nic and taken.prefixlen < block.prefixlen:
            continue  # the LAN itself
        raise Refused(f"{block} is in use", why=f"it overlaps {item.subnet}: {item.by}")


def range_ips(wanted: DhcpRange) -> tuple[NetworkIp, ...]:
    """The network's addresses: in each block the host's own, and what DHCP gives out."""
    return tuple(
        NetworkIp(
            family=4,
            address=Ip(str(block[1])),
            prefix_len=block.prefixlen,
            ranges=(guests_of(block),),
        )
        for block in blocks_of(wanted)
    )


def range_options(wanted: DhcpRange) -> tuple[str, ...]:
    """What libvirt tells dnsmasq only where `<dhcp>` is in the XML, and several ranges are not."""
    blocks = blocks_of(wanted)
    if len(blocks) == 1:
        return ()
    room = sum(block.num_addresses - 3 for block in blocks)
    return ("dhcp-authoritative", f"dhcp-lease-max={room}")


def range_notes(state: State, nic: str, wanted: DhcpRange) -> tuple[str, ...]:
    """What people must know and do."""
    start, end = addresses_of(wanted)
    blocks = blocks_of(wanted)
    room = sum(block.num_addresses - 3 for block in blocks)
    total = int(end) - int(start) + 1
    cut = ", ".join(map(str, sorted(blocks)))
    notes = [
        f"have the LAN's DHCP server leave out {start}-{end}: what it gives out there would be "
        "in use twice",
        f"room for {room} guests: the {total} addresses make {cut}, and in each the first, the "
        "last and one for the host are no guest's",
        "guests are not in the LAN's broadcast domain: discovery (mDNS, SSDP, NetBIOS), DHCP of "
        "the LAN and Wake-on-LAN do not reach them",
    ]
    prefixes = [_prefix(x) for x in _own(state, nic)]
    if not any(start in prefix and end in prefix for prefix in prefixes):
        notes.append(
            f"{start}-{end} is not in a subnet of {nic}: it works where the provider asks for "
            "these addresses by ARP, or routes them to this host"
        )
    return tuple(notes)


def is_lan_range(state: State, config: NetworkConfig | None, nic: str | None = None) -> bool:
    """Whether a network's IPv4 subnets are parts of its uplink's own subnet (of that NIC)."""
    if config is None or config.mode != "route" or len(config.uplinks) != 1 or not config.ips:
        return False
    uplink = config.uplinks[0]
    if nic is not None and uplink != nic:
        return False
    lans = [_prefix(x) for x in _own(state, uplink)]
    fours = [ip for ip in config.ips if ip.family == 4]
    return bool(fours) and all(
        any(
            lan.prefixlen < ip.prefix_len and ipaddress.ip_address(ip.address) in lan
            for lan in lans
        )
        for ip in fours
    )


def with_range(
    config: NetworkConfig, wanted: DhcpRange, more: tuple[NetworkIp, ...] = ()
) -> NetworkConfig:
    """A routed network's definition with the range's blocks as its subnets; `more` are of IPv6."""
    return msgspec.structs.replace(
        config,
        ips=(*range_ips(wanted), *more),
        dnsmasq_options=(*config.dnsmasq_options, *range_options(wanted)),
    )
