"""What a new bridge is to be addressed with: `--address keep|dhcp|CIDR|none`."""

from __future__ import annotations

import ipaddress

from msgspec import Struct

from kvmnet.core.bridge_checks import check_cut_off
from kvmnet.core.bridge_picture import (
    default_gateways,
    fitting_routes,
    global_addresses,
    moved_addresses,
    moved_routes,
)
from kvmnet.core.finding import some
from kvmnet.errors import InvalidInput, Refused
from kvmnet.model.arrangement import Arrangement
from kvmnet.model.desired import BridgeRequest
from kvmnet.model.host import Address, Route, Sysctl
from kvmnet.model.state import State
from kvmnet.model.values import Cidr, Ip

_NO_LINK_LOCAL = "1"
"""`addr_gen_mode` none (kernel: ip-sysctl.rst)."""


class Given(Struct, frozen=True, kw_only=True):
    """Addresses and routes of the bridge as the live change makes it."""

    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    notes: tuple[str, ...] = ()


def decide(state: State, request: BridgeRequest, before: Arrangement) -> Given:
    """What the bridge gets. Raises `Refused`, `InvalidInput`."""
    if not before.links:
        return _without_ports(request)
    nic, bridge = before.links[0].name, request.name
    if request.address == "none":
        return _none(state, nic, bridge)
    given = Given(
        addresses=moved_addresses(before.links[0].addresses, bridge),
        routes=moved_routes(before.routes, nic, bridge),
        notes=_kept_notes(state, nic),
    )
    if request.address == "keep":
        return given
    if request.address == "dhcp":
        return _dhcp(state, request, given)
    return _fixed(state, request.address, given, nic, bridge)


def _without_ports(request: BridgeRequest) -> Given:
    if request.address in {"keep", "none"}:
        return Given()
    if request.address == "dhcp":
        raise Refused(
            f"bridge {request.name} can not have its address by DHCP",
            why="without a port there is no server to ask",
            hint="name its NIC: --port NIC",
        )
    return Given(addresses=(_address(Cidr(request.address), request.name),))


def _none(state: State, nic: str, bridge: str) -> Given:
    check_cut_off(state, nic, f"{bridge} can not take {nic} without its addresses")
    lost = global_addresses(state, nic)
    if not lost:
        return Given()
    gone = some(f"{x.ip}/{x.prefix_len}" for x in lost)
    return Given(notes=(f"the host gives up {gone}: neither {nic} nor {bridge} has it any more",))


def _kept_notes(state: State, nic: str) -> tuple[str, ...]:
    notes = []
    temporary = [x for x in state.addresses if x.link == nic and "temporary" in x.flags]
    if temporary:
        notes.append(
            f"the IPv6 privacy address {temporary[0].ip} goes over as an ordinary one, with its "
            "lifetime; the kernel makes new ones on the bridge"
        )
    if state.sysctl(f"net.ipv6.conf.{nic}.addr_gen_mode") in {"2", "3"}:
        notes.append(
            f"the kernel makes IPv6 addresses of {nic} out of its name or hardware address: the "
            "bridge keeps those of now, and gets one more of its own"
        )
    return tuple(notes)


def _dhcp(state: State, request: BridgeRequest, given: Given) -> Given:
    nic = request.ports[0]
    link = state.link(nic)
    leased = any(x.family == 4 and x.dynamic for x in global_addresses(state, nic))
    if leased:
        return given
    if link is not None and link.carrier is False:
        raise Refused(
            f"bridge {request.name} can not have its address by DHCP",
            why=f"{nic} has no link, so no server would answer",
            hint="plug it in first",
        )
    owner = next((x.manager for x in state.owners if x.link == nic), "none")
    if owner == "none" or not request.persist:
        why = f"no host network manager owns {nic}" if request.persist else "nothing is persisted"
        raise Refused(
            f"bridge {request.name} can not have its address by DHCP",
            why=f"{nic} has none by DHCP now, and {why}, so nobody would ask for one",
            hint="keep what it has: --address keep",
        )
    note = (
        f"{nic} has no address by DHCP now: {request.name} keeps what it has until {owner} asks "
        "for one, which may be another"
    )
    return Given(addresses=given.addresses, routes=given.routes, notes=(*given.notes, note))


def _fixed(state: State, address: Cidr, given: Given, nic: str, bridge: str) -> Given:
    """The given address in the place of all of its family; the other family stays."""
    new = _address(address, bridge)
    _check_elsewhere(state, new, nic, bridge)
    kept = [x for x in given.addresses if x.family != new.family or x.scope == "link"]
    addresses = (new, *kept)
    routes = fitting_routes(given.routes, addresses, bridge)
    lost = [x for x in given.routes if x.link == bridge and not _among(x, routes)]
    gateways = [x for x in default_gateways(state, nic) if x is not None]
    gone = [x for x in lost if x.gateway in gateways and x.destination.endswith("/0")]
    if gone:
        raise Refused(
            f"{bridge} can not have {address} instead of what {nic} has",
            why=f"the gateway {gone[0].gateway} is not in that prefix, so the host would be cut "
            "off",
            hint="keep what it has: --address keep",
        )
    old = [x for x in global_addresses(state, nic) if x.family == new.family and x.ip != new.ip]
    notes = list(given.notes)
    if old:
        what = some(f"{x.ip}/{x.prefix_len}" for x in old)
        notes.append(f"{address} takes the place of {what}: connections to the old address end")
    if lost:
        notes.append(f"routes to {some(x.destination for x in lost)} can not go on by {bridge}")
    return Given(addresses=addresses, routes=routes, notes=tuple(notes))


def _check_elsewhere(state: State, new: Address, nic: str, bridge: str) -> None:
    """A subnet that another link leads to would from now on be looked for on the bridge.

    Which of two routes to the same subnet counts is a matter of their metrics, and a NIC that was
    named by mistake would take the LAN away from the one that leads to it.
    """
    wanted = ipaddress.ip_network(f"{new.ip}/{new.prefix_len}", strict=False)
    for there in state.addresses:
        if there.family != new.family or there.link in {nic, "lo"} or there.scope != "global":
            continue
        if ipaddress.ip_network(f"{there.ip}/{there.prefix_len}", strict=False).overlaps(wanted):
            raise Refused(
                f"{bridge} can not have {new.ip}/{new.prefix_len}",
                why=f"{there.link} has {there.ip}/{there.prefix_len} already: what belongs there "
                f"would be sent to {nic}",
                hint=f"was {there.link} meant? --port {there.link}; else choose another subnet",
            )


def _among(route: Route, routes: tuple[Route, ...]) -> bool:
    def key(x: Route) -> tuple[object, ...]:
        return (x.destination, x.gateway, x.table, x.metric, x.link)

    return any(key(route) == key(x) for x in routes)


def _address(text: Cidr, bridge: str) -> Address:
    try:
        value = ipaddress.ip_interface(text)
    except ValueError as error:
        raise InvalidInput(f"{text!a} is not an address", why=str(error)) from None
    four = value.version == 4
    wide = value.network.prefixlen < 31 and four
    return Address(
        link=bridge,
        ip=Ip(str(value.ip)),
        prefix_len=value.network.prefixlen,
        family=4 if four else 6,
        broadcast=Ip(str(value.network.broadcast_address)) if wide else None,
    )


def without_any(settings: tuple[Sysctl, ...]) -> tuple[Sysctl, ...]:
    """Settings of a link that is not even to make itself a link-local address."""
    return tuple(
        Sysctl(name=x.name, value=_NO_LINK_LOCAL) if x.name.endswith(".addr_gen_mode")
        else Sysctl(name=x.name, value="0") if x.name.endswith((".accept_ra", ".autoconf"))
        else x
        for x in settings
    )  # fmt: skip
