"""A guest whose address does not fit where it is plugged in: moved, and not told so."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kvmnet.core import plugged
from kvmnet.core.finding import Finding, command, some
from kvmnet.core.plugged import Plug
from kvmnet.core.subnets import DEFAULT_LIKE_BITS, Subnet
from kvmnet.model.host import Family
from kvmnet.model.state import State
from kvmnet.model.values import Ip
from kvmnet.model.virt import AgentAddress


class _Home(NamedTuple):
    """Where an address belongs."""

    link: str
    subnet: Subnet


class _Foreign(NamedTuple):
    """Addresses of one family on a guest's NIC, none of which fits."""

    family: Family
    addresses: tuple[Ip, ...]
    home: _Home | None
    own: tuple[Subnet, ...]
    """What the link where the guest is has of this family."""


class _Subnets:
    """What is on which link of the host: by its own addresses, by routes, and by libvirt."""

    def __init__(self, state: State) -> None:
        self.homes: defaultdict[str, set[Subnet]] = defaultdict(set)
        self.reached: defaultdict[str, set[Subnet]] = defaultdict(set)
        self.closed = plugged.libvirts_bridges(state)
        self._links = {x.name: x for x in state.links}
        for address in state.addresses:
            if address.scope == "global":
                self._add(address.link, f"{address.ip}/{address.prefix_len}")
        for network in state.networks:
            config = network.live
            if config is not None and config.bridge is not None:
                for ip in config.ips:
                    self._add(config.bridge, f"{ip.address}/{ip.prefix_len}")
        for route in state.routes:
            subnet = ipaddress.ip_network(route.destination)
            few = subnet.prefixlen > DEFAULT_LIKE_BITS[subnet.version]
            if route.link is not None and few and not (subnet.is_link_local or subnet.is_multicast):
                self.reached[route.link].add(subnet)

    def _add(self, link: str, text: str) -> None:
        subnet = ipaddress.ip_interface(text).network
        if 0 < subnet.prefixlen < subnet.max_prefixlen and not subnet.is_link_local:
            self.reached[link].add(subnet)
            if self._is_home(link):
                self.homes[link].add(subnet)

    def _is_home(self, link: str) -> bool:
        """Whether guests can be there: no VPN, no container's network."""
        found = self._links.get(link)
        return found is not None and (found.kind == "bridge" or found.kind in plugged.WIRES)

    def near(self, link: str, bridge: str) -> bool:
        """Whether it is the bridge, one of its ports, or stacked on one of these (VLANs)."""
        seen: set[str] = set()
        at: str | None = link
        while at is not None and at not in seen:
            found = self._links.get(at)
            if at == bridge or (found is not None and found.master == bridge):
                return True
            seen.add(at)
            at = found.parent if found is not None else None
        return False

    def of(self, bridge: str, family: Family) -> tuple[Subnet, ...]:
        """What is known to be on the bridge, tagged or not."""
        found = {y for x, some in self.reached.items() if self.near(x, bridge) for y in some}
        return tuple(sorted((x for x in found if x.version == family), key=str))

    def home(self, ip: Ip, bridge: str) -> _Home | None:
        """The other link where the address belongs; two NICs may lead to one LAN with all of its
        subnets, so from a LAN only a network of libvirt's is surely elsewhere.
        """
        address = ipaddress.ip_address(ip)
        for link in sorted(self.homes):
            if self.near(link, bridge) or not {bridge, link} & self.closed:
                continue
            for subnet in self.homes[link]:
                if address in subnet:
                    return _Home(link, subnet)
        return None


def wrong_subnet(state: State) -> Iterator[Finding]:
    """A guest none of whose addresses is of a subnet on the link that it is plugged into.

    libvirt's own networks have what their definition says and no more, unless guests there have a
    subnet among themselves. On a LAN there may be more subnets than the host's, and so may be of
    IPv6 anywhere: there it counts only where the host has the address's subnet on another link.
    """
    subnets = _Subnets(state)
    for bridge, plugs in plugged.by_bridge(state).items():
        for plug in plugs:
            found = [
                x for family in (4, 6) if (x := _foreign(subnets, bridge, plugs, plug, family))
            ]
            if found:
                yield _finding(plug, bridge, found)


def _told(plug: Plug, family: Family) -> tuple[AgentAddress, ...]:
    return tuple(x for x in plug.guest.agent_addresses
                 if x.mac == plug.nic.mac and x.family == family
                 and not ipaddress.ip_address(x.ip).is_link_local)  # fmt: skip


def _foreign(
    subnets: _Subnets, bridge: str, plugs: Sequence[Plug], plug: Plug, family: Family
) -> _Foreign | None:
    own, told = subnets.of(bridge, family), _told(plug, family)
    is_closed = bridge in subnets.closed
    if not told or not (own or (family == 6 and is_closed)):
        return None
    if any(ipaddress.ip_address(x.ip) in subnet for x in told for subnet in own):
        return None
    homes = [subnets.home(x.ip, bridge) for x in told]
    is_certain = family == 4 and is_closed and not _is_shared(told, plugs, plug)
    if not is_certain and any(x is None for x in homes):
        return None
    return _Foreign(family, tuple(x.ip for x in told), homes[0], own)


def _is_shared(told: Sequence[AgentAddress], plugs: Sequence[Plug], plug: Plug) -> bool:
    """Whether another guest there has an address of the same subnet: they reach each other."""
    mine = [ipaddress.ip_interface(f"{x.ip}/{x.prefix_len}").network for x in told]
    others = [y.ip for x in plugs if x.guest != plug.guest for y in _told(x, told[0].family)]
    return any(ipaddress.ip_address(x) in subnet for x in others for subnet in mine)


def _finding(plug: Plug, bridge: str, found: list[_Foreign]) -> Finding:
    guest, nic = plug
    first, lost = found[0], found[0].family == 4
    virsh = ("virsh", "-c", guest.connection)
    again = tuple(command(*virsh, "domif-setlink", guest.name, nic.mac or "", x)
                  for x in ("down", "up"))  # fmt: skip
    addresses = some(x for y in found for x in y.addresses)
    return Finding(
        name="wrong-subnet", severity="problem" if lost else "warning",
        subject=f"guest {guest.name}",
        what=f"its NIC {nic.mac} has {addresses}"
        + (f", of the subnet of {first.home.link}," if first.home is not None else "")
        + f" and is plugged into {bridge}",
        breaks=f"guest {guest.name} reaches nobody by it, and nobody reaches the guest" if lost
        else f"what guest {guest.name} tries by IPv6 first leads nowhere: it waits before it "
        "takes IPv4",
        evidence=(*(f"its agent says {some(x.addresses)}" for x in found),
                  *(f"{x.home.link} of this host has {x.home.subnet}"
                    for x in found if x.home is not None),
                  *(f"{bridge} has {some(str(y) for y in x.own)}" if x.own
                    else f"the network of {bridge} has no IPv{x.family}" for x in found),
                  "an address of DHCP is asked for anew when the cable is plugged in; one that was "
                  "set by hand is changed inside the guest" if lost else
                  "it was learnt from a router where the guest was before, and lasts until its "
                  "time is over or the guest starts anew"),
        fix=again if lost else (command(*virsh, "reboot", guest.name),),
    )  # fmt: skip
