"""Where guests meet the host's firewall: networks and bridges, and the guests there that differ."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator

from msgspec import Struct

from kvmnet.core.firewall_match import address_bounds, link_matches
from kvmnet.core.firewall_ways import Family, Plug, Way, bridged_ways, routed_ways, service_ways
from kvmnet.core.guest_addresses import guest_addresses
from kvmnet.model.host import Firewall, Link
from kvmnet.model.state import State
from kvmnet.model.virt import Network, NetworkConfig

OWN_BRIDGE = frozenset({"nat", "route", "open", "isolated"})
FORWARDING = frozenset({"nat", "route", "open"})
_NF_CALL: tuple[tuple[Family, str], ...] = (
    ("ip", "net.bridge.bridge-nf-call-iptables"),
    ("ip6", "net.bridge.bridge-nf-call-ip6tables"),
)


class Place(Struct, frozen=True, kw_only=True):
    """A network or bridge with guests, and who they are to the rules."""

    subject: str
    bridge: str
    plugs: tuple[tuple[Plug, tuple[str, ...]], ...]
    """One for each kind of guest that rules tell apart, with the guests' names."""
    network: Network | None = None
    """None: a bridge of the host."""


def places(state: State) -> tuple[Place, ...]:
    """All active networks with a bridge of their own, and all bridges that guests are on."""
    guests = _plugs(state)
    apart = _Apart(state.firewall, [plug for found in guests.values() for plug, _ in found])
    networks = [x for x in state.networks if x.active and x.live is not None
                and x.live.mode in OWN_BRIDGE and x.live.bridge is not None]  # fmt: skip
    own = {x.live.bridge for x in networks if x.live is not None}
    links = {x.name for x in state.links if x.kind == "bridge"}
    found = [_of_network(x, x.live, guests, apart) for x in networks if x.live is not None]
    found += [
        Place(subject=f"bridge {bridge}", bridge=bridge, plugs=apart.kinds(plugs))
        for bridge, plugs in sorted(guests.items())
        if bridge not in own and bridge in links
    ]
    return tuple(found)


def _of_network(
    network: Network,
    config: NetworkConfig,
    guests: dict[str, list[tuple[Plug, str]]],
    apart: _Apart,
) -> Place:
    bridge = config.bridge or ""
    plain = Plug(bridge=bridge, address=_some_guest(config, 4), address6=_some_guest(config, 6))
    known = [
        (_completed(plug, plain, config), name) for plug, name in guests.get(bridge, [])
    ] or [(plain, "")]  # fmt: skip
    return Place(subject=f"network {network.name}", bridge=bridge, network=network,
                 plugs=apart.kinds(known))  # fmt: skip


def _completed(plug: Plug, plain: Plug, config: NetworkConfig) -> Plug:
    """A guest on a network as it is there when all is well: with an address of the network's.

    That rules drop the address of another network is right, and not what is wrong with that guest.
    """
    blocks = [ipaddress.ip_interface(f"{x.address}/{x.prefix_len}").network for x in config.ips]

    def fits(address: str | None) -> str | None:
        inside = address is not None and any(ipaddress.ip_address(address) in x for x in blocks)
        return address if inside else None

    return Plug(bridge=plug.bridge, tap=plug.tap, mac=plug.mac,
                address=fits(plug.address) or plain.address,
                address6=fits(plug.address6) or plain.address6)  # fmt: skip


def _some_guest(config: NetworkConfig, family: int) -> str | None:
    """An address that a guest of the network may have."""
    ip = next((x for x in config.ips if x.family == family), None)
    if ip is None:
        return None
    if ip.ranges:
        return ip.ranges[0].start
    block = ipaddress.ip_interface(f"{ip.address}/{ip.prefix_len}").network
    return str(block.network_address + min(2, block.num_addresses - 1))


def _plugs(state: State) -> dict[str, list[tuple[Plug, str]]]:
    """The running guests by the bridge that they are on, with their addresses where known."""
    known = {(x.connection, x.name): x.nics for x in guest_addresses(state)}
    found: defaultdict[str, list[tuple[Plug, str]]] = defaultdict(list)
    for guest in state.guests:
        nics = known.get((guest.connection, guest.name), ())
        for nic, addresses in zip(guest.nics, nics, strict=False):
            if addresses.bridge is None or nic.virtualport is not None:
                continue
            by = {x.family: x.ip for x in reversed(addresses.addresses)}
            plug = Plug(bridge=addresses.bridge, tap=nic.target, mac=nic.mac,
                        address=by.get(4), address6=by.get(6))  # fmt: skip
            found[addresses.bridge].append((plug, guest.name))
    return found


class _Apart:
    """What rules ask of a guest alone: its address, its tap, its MAC."""

    def __init__(self, firewall: Firewall, plugs: Iterable[Plug]) -> None:
        every = list(plugs)
        owned = [address_bounds(x) for plug in every for x in (plug.address, plug.address6) if x]
        least = {v: min(x[1] for x in owned if x and x[0] == v) for v in {x[0] for x in owned if x}}
        most = {v: max(x[1] for x in owned if x and x[0] == v) for v in least}
        asked = {x for x in map(address_bounds, _addresses(firewall)) if x is not None}
        self.blocks = [
            x for x in sorted(asked)
            if x[0] in least and x[1] <= most[x[0]] and x[2] >= least[x[0]]
            and not (x[1] <= least[x[0]] and x[2] >= most[x[0]])
        ]  # fmt: skip
        names = set(_links(firewall))
        taps = {x.tap for x in every if x.tap is not None}
        self.taps = {tap: tuple(sorted(x for x in names if link_matches(x, tap))) for tap in taps}
        self.macs = {x.lower() for x in _values(firewall, "mac")}

    def kinds(self, plugs: Iterable[tuple[Plug, str]]) -> tuple[tuple[Plug, tuple[str, ...]], ...]:
        """One plug for all guests that no rule tells apart."""
        found: dict[object, tuple[Plug, list[str]]] = {}
        for plug, name in plugs:
            kind = (self._inside(plug.address), self._inside(plug.address6),
                    self.taps.get(plug.tap or "", ()), plug.mac if plug.mac in self.macs else None,
                    plug.address is None, plug.address6 is None, plug.tap is None)  # fmt: skip
            found.setdefault(kind, (plug, []))[1].append(name)
        return tuple((plug, tuple(x for x in names if x)) for plug, names in found.values())

    def _inside(self, address: str | None) -> tuple[int, ...]:
        own = None if address is None else address_bounds(address)
        if own is None:
            return ()
        version, number, _ = own
        return tuple(
            n for n, (v, first, last) in enumerate(self.blocks)
            if v == version and first <= number <= last
        )  # fmt: skip


def _addresses(firewall: Firewall) -> Iterator[str]:
    for chain in firewall.chains:
        for rule in chain.rules:
            for pattern in (rule.source, rule.destination):
                if pattern is not None:
                    yield pattern.lstrip("! ")
    for key in ("source", "destination"):
        yield from _values(firewall, key)
    for named in firewall.sets:
        for text in (*named.elements, *(x.value for x in named.branches)):
            yield from text.split(" . ")


def _links(firewall: Firewall) -> Iterator[str]:
    for chain in firewall.chains:
        yield from chain.devices
        for rule in chain.rules:
            for pattern in (rule.iif, rule.oif):
                if pattern is not None:
                    yield pattern.lstrip("!")
    for key in ("iif", "oif", "physin", "physout"):
        yield from _values(firewall, key)


def _values(firewall: Firewall, key: str) -> Iterator[str]:
    """What rules compare that key with, in conditions that have no field of their own."""
    for chain in firewall.chains:
        for rule in chain.rules:
            for match in rule.more:
                if key in match.keys:
                    yield from (part for value in match.values for part in value.split(" . "))
            if key in rule.branch_keys:
                yield from (part for x in rule.branches for part in x.value.split(" . "))


def ways(state: State, place: Place, plug: Plug) -> Iterator[Way]:
    """Everything that such a guest does there and that the host's firewall may see."""
    config = None if place.network is None else place.network.live
    if config is None:
        yield from _bridged(state, plug)
        return
    uplink = uplinks(state, config)
    for ip in config.ips:
        family: Family = "ip6" if ip.family == 6 else "ip"
        dhcp = ip.family == 6 or bool(ip.ranges or ip.reservations)
        yield from service_ways(plug, ip.address, family, dhcp=dhcp, dns=config.dns)
        shown = dict(_NF_CALL)[family]
        physdev = state.sysctl(shown) == "1"
        way_out = uplink.get(family)
        if config.mode in FORWARDING and way_out is not None:
            yield from routed_ways(plug, way_out, family, physdev=physdev)
        if physdev and plug.tap is not None:
            yield from bridged_ways(plug, None, family, netfilter=True)


def uplinks(state: State, config: NetworkConfig) -> dict[Family, str]:
    """The links by which guests' packets leave the host."""
    if config.uplinks:
        return {"ip": config.uplinks[0], "ip6": config.uplinks[0]}
    found: dict[Family, str] = {}
    for route in sorted(state.routes, key=lambda x: x.metric):
        if route.table == "main" and route.link and route.destination in {"0.0.0.0/0", "::/0"}:
            found.setdefault("ip6" if route.family == 6 else "ip", route.link)
    return found


def _bridged(state: State, plug: Plug) -> Iterator[Way]:
    link = state.link(plug.bridge)
    own = link is not None and link.bridge is not None
    port = _uplink_port(state.ports(plug.bridge))
    for family, setting in _NF_CALL:
        shown = state.sysctl(setting) == "1"
        if own and link is not None and link.bridge is not None and not shown:
            # The kernel takes the bridge's own setting too (br_netfilter: either will do).
            shown = (link.bridge.nf_call_iptables if family == "ip"
                     else link.bridge.nf_call_ip6tables)  # fmt: skip
        yield from bridged_ways(plug, port, family, netfilter=shown)


def _uplink_port(ports: tuple[Link, ...]) -> str | None:
    """The port that leads to the LAN: one that is no guest's tap."""
    return next((x.name for x in ports if x.kind != "tap"), None)
