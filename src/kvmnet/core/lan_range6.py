"""The IPv6 half of a LAN range: addresses that the host answers neighbour solicitations for.

For IPv6 the kernel answers for others only where each address is listed as a proxy
(ip-neighbour(8); kernel: Documentation/networking/ip-sysctl.rst, `proxy_ndp`). The list is the
kernel's: a reboot loses it, and so does a NIC that goes down. libvirt runs the programs in its
folder of hooks when a network starts (https://libvirt.org/hooks.html, since 6.5), so the list is
kept as such a program.

libvirt serves DHCPv6 in one `<ip>` of a network only, so the guests get one aligned block. A prefix
longer than /64 is no obstacle: router advertisements name it as on-link, without the flag by which
guests would make addresses of their own (RFC 4861, section 4.6.2), and say that DHCPv6 has them.
"""

from __future__ import annotations

import ipaddress
import shlex

from kvmnet.core.finding import command, some
from kvmnet.core.lan_range import InUse, blocks_of, check_free, is_lan_range
from kvmnet.errors import InvalidInput, Refused
from kvmnet.model.plan import (
    AnswerNeighbours,
    IgnoreNeighbours,
    PlannedStep,
    RemoveFile,
    WriteFile,
)
from kvmnet.model.state import State
from kvmnet.model.values import Ip
from kvmnet.model.virt import DhcpRange, Network, NetworkConfig, NetworkIp

Block = ipaddress.IPv6Network

MAX_ADDRESSES = 256
"""Addresses of one range at most: each is an entry of the kernel's list."""
LONGEST_BLOCK = 126
"""The smallest one: the first address is any router's (RFC 4291, 2.6.1), the second the host's."""
SHORTEST_BLOCK = 120
HOOKS = "/etc/libvirt/hooks/network.d"


def hook_file(network: str) -> str:
    """The program that libvirt runs when the network starts or stops."""
    return f"{HOOKS}/kvmnet-lan-{network}"


def block_of(wanted: DhcpRange) -> Block:
    """The largest aligned block inside the range. Raises `InvalidInput` where none has room."""
    start, end = ipaddress.ip_address(wanted.start), ipaddress.ip_address(wanted.end)
    if not isinstance(start, ipaddress.IPv6Address) or not isinstance(end, ipaddress.IPv6Address):
        raise InvalidInput(f"{start}-{end} is a range of two families")
    if start > end:
        raise InvalidInput(f"the range {start}-{end} ends before it starts")
    if int(end) - int(start) >= MAX_ADDRESSES:
        raise InvalidInput(
            f"the range {start}-{end} is too long",
            why=f"each address is an entry of the kernel's list, {MAX_ADDRESSES} at most",
        )
    blocks = list(ipaddress.summarize_address_range(start, end))
    block = min(blocks, key=lambda x: x.prefixlen)
    if block.prefixlen > LONGEST_BLOCK:
        base = ipaddress.IPv6Network(f"{start}/124", strict=False)
        raise InvalidInput(
            f"the range {start}-{end} has no room for a guest",
            why="a part of a prefix begins at a multiple of its size, of four addresses at least",
            hint=f"an example: --lan-range {base[0]}-{base[-1]}",
        )
    return block


def check_with(four: DhcpRange) -> None:
    """Raise `InvalidInput` where the IPv4 range beside it makes more than one block.

    libvirt then tells dnsmasq how many leases there may be, for the IPv6 range alone, and dnsmasq
    takes no second word about it (`illegal repeated keyword`).
    """
    blocks = blocks_of(four)
    if len(blocks) > 1:
        raise InvalidInput(
            f"the range {four.start}-{four.end} does not go with one of IPv6",
            why=f"it makes {len(blocks)} blocks ({some(map(str, blocks))}), and beside IPv6 "
            "libvirt takes one",
            hint=f"the largest of them: --lan-range {blocks[0][0]}-{blocks[0][-1]}",
        )


def range_ip(wanted: DhcpRange) -> NetworkIp:
    """The host's own address in the block, and what DHCPv6 gives out."""
    block = block_of(wanted)
    guests = DhcpRange(start=Ip(str(block[2])), end=Ip(str(block[-1])))
    return NetworkIp(
        family=6, address=Ip(str(block[1])), prefix_len=block.prefixlen, ranges=(guests,)
    )


def answered(config: NetworkConfig | None) -> tuple[Ip, ...]:
    """The addresses that the host has to answer for: guests' of a block as `range_ip` makes it."""
    if config is None or config.mode != "route" or len(config.uplinks) != 1:
        return ()
    return tuple(
        Ip(str(address))
        for ip in config.ips
        if ip.family == 6 and SHORTEST_BLOCK <= ip.prefix_len <= LONGEST_BLOCK
        for address in list(ipaddress.IPv6Network((ip.address, ip.prefix_len), strict=False))[2:]
    )


def lan_prefixes(state: State, nic: str) -> tuple[Block, ...]:
    """The IPv6 prefixes that are on the NIC's own LAN, by the host's routes."""
    found = (
        ipaddress.ip_network(x.destination)
        for x in state.routes
        if x.family == 6 and x.link == nic and x.gateway is None and x.type == "unicast"
    )
    return tuple(
        x for x in found
        if isinstance(x, Block) and 0 < x.prefixlen < SHORTEST_BLOCK
        and not x.is_link_local and not x.is_multicast
    )  # fmt: skip


def on_lan(state: State, config: NetworkConfig) -> bool:
    """Whether the block is of the uplink's LAN, and not one that a router has a route to."""
    lans = lan_prefixes(state, config.uplinks[0])
    return any(ipaddress.IPv6Address(x) in lan for x in answered(config)[:1] for lan in lans)


def check_range(state: State, nic: str, wanted: DhcpRange, in_use: tuple[InUse, ...]) -> None:
    """Raise `Refused` where the range holds what is somebody else's."""
    block = block_of(wanted)

    def holds(ip: str) -> bool:
        address = ipaddress.ip_address(ip)
        return isinstance(address, ipaddress.IPv6Address) and address in block

    def refuse(why: str, hint: str = "") -> Refused:
        return Refused(f"guests can not have {wanted.start}-{wanted.end}", why=why, hint=hint)

    lans = lan_prefixes(state, nic)
    if not any(block.subnet_of(lan) for lan in lans):
        there = f"the IPv6 prefixes of {nic} ({some(map(str, lans))})" if lans else "any prefix"
        raise refuse(f"it is not inside {there}, so nobody on the LAN would ask for it")
    mine = next((x for x in state.addresses if holds(x.ip)), None)
    if mine is not None:
        raise refuse(f"{mine.ip} is this host's own, on {mine.link}")
    gateway = next((r for r in state.routes if r.gateway is not None and holds(r.gateway)), None)
    if gateway is not None:
        raise refuse(f"{gateway.gateway} is a router")
    if in_use:
        who = some(f"{x.ip} ({x.mac})" for x in in_use)
        raise refuse(f"somebody on the LAN answers for {who}", "choose addresses that are free")
    seen = [
        x for x in state.neighbours
        if x.link == nic and x.mac is not None and not x.proxy and x.state != "FAILED"
        and holds(x.ip)
    ]  # fmt: skip
    if seen:
        raise refuse(
            f"this host has just seen {some(f'{x.ip} ({x.mac})' for x in seen)} on the LAN",
            f"if it is gone for good: {command('ip', '-6', 'neigh', 'flush', 'dev', nic)}",
        )
    check_free(state, nic, block)


def range_notes(wanted: DhcpRange) -> tuple[str, ...]:
    """What people must know."""
    block, whole = block_of(wanted), int(ipaddress.ip_address(wanted.end))
    total = whole - int(ipaddress.ip_address(wanted.start)) + 1
    notes = [
        f"room for {block.num_addresses - 2} guests' IPv6 addresses, in {block}; guests get them "
        "by DHCPv6",
        f"where a provider changes the LAN's prefix now and then, {block} does not follow: take a "
        "range of the LAN's unique local prefix (fd…) there",
    ]
    if total > block.num_addresses:
        notes.append(f"of the {total} IPv6 addresses only the aligned block {block} is used")
    return tuple(notes)


def render_hook(name: str, config: NetworkConfig) -> str:
    """The text of `hook_file`: it never fails, for a failing hook keeps a network from starting."""
    listed = "\n".join(answered(config))
    return f"""\
#!/bin/sh
# Written by kvmnet for network {name}: this host answers neighbour solicitations for its guests.
# libvirt runs it when a network starts, stops or gets a guest (https://libvirt.org/hooks.html).
# `kvmnet network delete` removes it.
[ "$1" = {shlex.quote(name)} ] || exit 0
nic={shlex.quote(config.uplinks[0])}
case "$2" in
    started | port-created) verb=replace ;;
    stopped) verb=delete ;;
    *) exit 0 ;;
esac
while read -r address; do
    printf 'neighbour %s proxy %s dev %s\\n' "$verb" "$address" "$nic"
done << 'END' | ip -6 -force -batch - > /dev/null 2>&1
{listed}
END
exit 0
"""


def hook_steps(name: str, config: NetworkConfig) -> tuple[PlannedStep, ...]:
    """The step that keeps the list for every later start of the network."""
    if not answered(config):
        return ()
    path = hook_file(name)
    step = WriteFile(path=path, text=render_hook(name, config), mode=0o755)
    return (PlannedStep(step=step, undo=RemoveFile(path=path)),)


def answer_steps(config: NetworkConfig) -> tuple[PlannedStep, ...]:
    """The step that lists the addresses now: libvirt sees its first hook only when it starts."""
    addresses = answered(config)
    if not addresses:
        return ()
    nic = config.uplinks[0]
    return (
        PlannedStep(
            step=AnswerNeighbours(nic=nic, addresses=addresses),
            undo=IgnoreNeighbours(nic=nic, addresses=addresses),
        ),
    )


def again_steps(state: State, network: Network, hook: str | None) -> tuple[PlannedStep, ...]:
    """The steps that list again what the kernel has lost, and keep it where no hook does."""
    config = network.config
    if config is None or (network.active and not unanswered(state, config)):
        return ()
    if hook is not None:
        return answer_steps(config)
    if not is_lan_range(state, config) or not on_lan(state, config):
        return ()
    return (*hook_steps(network.name, config), *answer_steps(config))


def ignore_steps(state: State, network: Network) -> tuple[PlannedStep, ...]:
    """The step that takes the list back when the network stops."""
    config = network.config
    if config is None:
        return ()
    listed = {x.ip for x in state.neighbours if x.proxy and x.link in config.uplinks}
    if not listed.intersection(answered(config)):
        return ()
    return tuple(PlannedStep(step=x.undo, undo=x.step) for x in answer_steps(config) if x.undo)


def unhook_steps(name: str, text: str | None) -> tuple[PlannedStep, ...]:
    """The step that removes the hook when the network is deleted."""
    if text is None:
        return ()
    path = hook_file(name)
    return (
        PlannedStep(step=RemoveFile(path=path), undo=WriteFile(path=path, text=text, mode=0o755)),
    )


def unanswered(state: State, config: NetworkConfig) -> tuple[Ip, ...]:
    """The addresses that are not in the kernel's list, as far as it was read."""
    if any(x.what == "neighbours" for x in state.unread):
        return ()
    listed = {x.ip for x in state.neighbours if x.proxy and x.link in config.uplinks}
    return tuple(x for x in answered(config) if x not in listed)
