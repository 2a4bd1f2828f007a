"""One pass over the host: from every source at once to one State.

Each source is read in a thread of its own, so the slowest decides how long it takes, and a source
that can't be read becomes an `Unread` beside what the others said.
"""

from __future__ import annotations

import contextlib
import enum
import os
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from kvmnet.adapters import kernel
from kvmnet.adapters.libvirt import check_installed
from kvmnet.adapters.virt_read import Kind, VirtRead, named, unread
from kvmnet.errors import KvmnetError
from kvmnet.flow import sources
from kvmnet.flow.beside import Beside
from kvmnet.model.host import Link, NicOwner
from kvmnet.model.state import State, Unread, only_sessions
from kvmnet.model.virt import Network

T = TypeVar("T")


class Part(enum.Enum):
    """A part of the State. What is not asked for stays empty, and is not in `unread`."""

    LINKS = "links"
    ADDRESSES = "addresses"
    ROUTES = "routes"
    RULES = "rules"
    NEIGHBOURS = "neighbours"
    FORWARDING = "forwarding databases"
    SYSCTLS = "kernel settings"
    SYSCTL_FILES = "kernel settings in files"
    FIREWALL = "firewall"
    FIREWALL_SETS = "elements of the firewall's sets"
    LISTENERS = "listening sockets"
    DOCKER = "docker networks"
    OWNERS = "host network managers"
    NETWORKS = "networks"
    GUESTS = "guests"
    LEASES = "leases"
    AGENTS = "guest agents"
    PORT_FACTS = "features of NICs"
    VLANS = "VLANs of bridge ports"
    MULTICAST = "multicast listeners"
    CONFIGURED = "configured bridges"
    SETUP = "machine and bridge helper"


ALL_PARTS: frozenset[Part] = frozenset(Part)
ONLY_DOCTOR: frozenset[Part] = frozenset(
    {
        Part.PORT_FACTS,
        Part.VLANS,
        Part.MULTICAST,
        Part.CONFIGURED,
        Part.SETUP,
        Part.FIREWALL_SETS,
        Part.SYSCTL_FILES,
    }
)
"""Parts that explain faults and show nowhere else: `kvmnet status` does without."""
_KINDS = {
    Part.NETWORKS: Kind.NETWORKS,
    Part.GUESTS: Kind.GUESTS,
    Part.LEASES: Kind.LEASES,
    Part.AGENTS: Kind.AGENTS,
}
_NEED_LINKS = {
    Part.LINKS, Part.ADDRESSES, Part.OWNERS, Part.SYSCTLS, Part.PORT_FACTS, Part.CONFIGURED,
    Part.FORWARDING,
}  # fmt: skip
_NETWORK = {Part.LINKS, Part.ADDRESSES, Part.ROUTES, Part.RULES, Part.NEIGHBOURS}
_NO_SWITCHES = frozenset({"loopback", "ethernet", "wireless"})
"""Where there are only such links, nothing has a forwarding database."""


class _Job(Beside[T]):
    """One source being read."""

    def __init__(self, what: str, call: Callable[[], T], default: T) -> None:
        self._default = default
        super().__init__(what, call)

    def result(self, missing: list[Unread]) -> T:
        """The value; where the source could not be read, the default and a line in `missing`."""
        try:
            return self.value()
        except KvmnetError as error:
            missing.append(unread(self.what, error))
            return self._default


def observe(uri: str | None = None, parts: frozenset[Part] = ALL_PARTS) -> State:
    """The host as it is now, as far as this user may see it.

    `uri` None is libvirt's own default for this user. Never raises for a part that can't be read:
    that part is in `unread`, with the reason. Takes at most about five seconds, however libvirt,
    Docker or a guest's agent behave.
    """
    kinds = frozenset(_KINDS[x] for x in parts if x in _KINDS)
    virt = _Job("libvirt", lambda: _read_virt(uri, kinds) if kinds else VirtRead(), VirtRead())
    missing: list[Unread] = []
    state = _read_host(parts, missing)
    found = virt.result(missing)
    return msgspec.structs.replace(
        state,
        connections=tuple(found.connections),
        system_libvirt=_system_beside(found),
        networks=tuple(sorted(found.networks, key=lambda x: x.name)),
        guests=tuple(sorted(found.guests, key=lambda x: x.name)),
        leases=tuple(found.leases),
        owners=_with_libvirt_bridges(state.owners, found.networks),
        unread=(*missing, *found.unread),
    )


def _read_virt(uri: str | None, kinds: frozenset[Kind]) -> VirtRead:
    """What libvirt tells, and which definitions it should know and does not."""
    try:
        check_installed(uri)
    except KvmnetError as error:
        return VirtRead(unread=[unread(named(uri), error)])
    from kvmnet.adapters import libvirt_files, libvirt_read  # they load a parser of XML

    before = libvirt_files.listed()
    found = libvirt_read.read(uri, kinds)
    found.unread += libvirt_files.not_taken(before, found, kinds)
    return found


def _system_beside(found: VirtRead) -> bool | None:
    if not only_sessions(found.connections):
        return None
    from kvmnet.adapters.connections import system_is_there

    return system_is_there()


def _read_host(parts: frozenset[Part], missing: list[Unread]) -> State:
    """What the kernel and the host's own programs tell."""

    def job(wanted: set[Part], call: Callable[[], T], default: T) -> _Job[T]:
        what = " and ".join(sorted(x.value for x in wanted))
        return _Job(what, call if parts & wanted else (lambda: default), default)

    blank = State(taken_at=0, hostname="")
    with_sets = Part.FIREWALL_SETS in parts
    walls = job(
        {Part.FIREWALL},
        lambda: sources.firewall(with_sets=with_sets),
        (blank.firewall, blank.unread),
    )
    files = job({Part.SYSCTL_FILES}, sources.sysctl_files, blank.sysctl_files)
    listeners = job({Part.LISTENERS}, sources.listeners, (blank.listeners, blank.unread))
    dockers = job({Part.DOCKER}, sources.docker_networks, blank.docker_networks)
    vlans = job({Part.VLANS}, sources.port_vlans, blank.port_vlans)
    multicast = job({Part.MULTICAST}, sources.multicast, blank.multicast)
    setup = job({Part.SETUP}, sources.setup, sources.Setup())
    found = _read_network(parts, missing)
    links = found.links
    facts = job({Part.PORT_FACTS}, lambda: sources.port_facts(links), links)
    configured = job(
        {Part.CONFIGURED}, lambda: sources.configured_bridges(links), sources.NOT_ASKED
    )
    settings = job({Part.SYSCTLS}, lambda: sources.sysctls(_plugs(links)), blank.sysctls)
    owners = job({Part.OWNERS}, lambda: sources.owners(links), (blank.owners, blank.unread))
    learned = {Part.FORWARDING} if any(x.kind not in _NO_SWITCHES for x in links) else set()
    forwarding = job(learned, kernel.read_forwarding, blank.forwarding)
    return State(
        taken_at=int(time.time()),
        hostname=os.uname().nodename,
        kernel=os.uname().release,
        privileged=os.geteuid() == 0,
        links=facts.result(missing),
        addresses=found.addresses,
        routes=found.routes,
        rules=found.rules,
        neighbours=found.neighbours,
        forwarding=forwarding.result(missing),
        sysctls=settings.result(missing),
        sysctl_files=files.result(missing),
        firewall=_pair(walls.result(missing), missing),
        listeners=_pair(listeners.result(missing), missing),
        docker_networks=dockers.result(missing),
        owners=_pair(owners.result(missing), missing),
        port_vlans=vlans.result(missing),
        multicast=multicast.result(missing),
        configured_bridges=_pair(configured.result(missing), missing),
        bridge_helper=setup.result(missing).bridge_helper,
        machine=setup.result([]).machine,
        rp_filter_drops=setup.result([]).rp_filter_drops,
        failed_units=setup.result([]).failed_units,
    )


def _read_network(parts: frozenset[Part], missing: list[Unread]) -> kernel.Network:
    """Links and what is on them: by one look where all of it is wanted, else only what is."""
    if parts >= _NETWORK:
        with contextlib.suppress(KvmnetError):  # one by one it shows what can not be read
            return kernel.read_network()
    none = kernel.NOTHING
    both = (none.links, none.addresses)

    def job(what: str, part: Part, call: Callable[[], T], default: T) -> _Job[T]:
        return _Job(what, call if part in parts else (lambda: default), default)

    links_job = _Job(
        "links and addresses", lambda: kernel.read_links() if parts & _NEED_LINKS else both, both
    )
    routes = job("routes", Part.ROUTES, kernel.read_routes, none.routes)
    rules = job("rules", Part.RULES, kernel.read_rules, none.rules)
    neighbours = job("neighbours", Part.NEIGHBOURS, kernel.read_neighbours, none.neighbours)
    links, addresses = links_job.result(missing)
    return kernel.Network(
        links=links,
        addresses=addresses,
        routes=routes.result(missing),
        rules=rules.result(missing),
        neighbours=neighbours.result(missing),
    )


def _pair(read: tuple[T, tuple[Unread, ...]], missing: list[Unread]) -> T:
    """What was read, of a source that can be read in part."""
    value, unreadable = read
    missing.extend(unreadable)
    return value


def _plugs(links: tuple[Link, ...]) -> frozenset[str]:
    """Taps that are ports: they have no addresses, so their IP settings decide nothing."""
    return frozenset(x.name for x in links if x.kind == "tap" and x.master is not None)


def _with_libvirt_bridges(
    owners: tuple[NicOwner, ...], networks: list[Network]
) -> tuple[NicOwner, ...]:
    """libvirt owns the bridges that its networks made, whatever their names are."""
    made = {
        config.bridge: network.name
        for network in networks
        if (config := network.live) is not None and config.bridge and config.mode != "bridge"
    }
    return tuple(
        NicOwner(link=x.link, manager="libvirt", evidence=(f"network {made[x.link]}",))
        if x.link in made
        else x
        for x in owners
    )
