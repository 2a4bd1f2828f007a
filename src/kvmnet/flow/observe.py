"""One pass over the host: from every source at once to one State.

Each source is read in a thread of its own, so the slowest decides how long it takes, and a source
that can't be read becomes an `Unread` beside what the others said.
"""

from __future__ import annotations

import enum
import os
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from kvmnet.adapters import kernel, libvirt_files, libvirt_read
from kvmnet.adapters.libvirt import leave_behind
from kvmnet.adapters.libvirt_read import Kind, VirtRead, unread
from kvmnet.errors import KvmnetError
from kvmnet.flow import sources
from kvmnet.model.host import Link, NicOwner
from kvmnet.model.state import State, Unread
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
    FIREWALL = "firewall"
    LISTENERS = "listening sockets"
    DOCKER = "docker networks"
    OWNERS = "host network managers"
    NETWORKS = "networks"
    GUESTS = "guests"
    LEASES = "leases"
    AGENTS = "guest agents"


ALL_PARTS: frozenset[Part] = frozenset(Part)
_KINDS = {
    Part.NETWORKS: Kind.NETWORKS,
    Part.GUESTS: Kind.GUESTS,
    Part.LEASES: Kind.LEASES,
    Part.AGENTS: Kind.AGENTS,
}
_NEED_LINKS = {Part.LINKS, Part.ADDRESSES, Part.OWNERS, Part.SYSCTLS}


class _Job(threading.Thread, Generic[T]):
    """One source being read; `result` waits for it and raises what it raised."""

    def __init__(self, what: str, call: Callable[[], T], default: T) -> None:
        super().__init__(daemon=True, name=what)
        self.what = what
        self._call = call
        self._value = default
        self._failure: BaseException | None = None
        self._done = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:  # handed over in `result`
            self._failure = error
        finally:
            self._done.set()

    def result(self, missing: list[Unread]) -> T:
        """The value; where the source could not be read, the default and a line in `missing`."""
        try:
            self._done.wait()
        except KeyboardInterrupt:
            leave_behind(self._done)
            raise
        if isinstance(self._failure, KvmnetError):
            missing.append(unread(self.what, self._failure))
        elif self._failure is not None:
            raise self._failure
        return self._value


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
        networks=tuple(sorted(found.networks, key=lambda x: x.name)),
        guests=tuple(sorted(found.guests, key=lambda x: x.name)),
        leases=tuple(found.leases),
        owners=_with_libvirt_bridges(state.owners, found.networks),
        unread=(*missing, *found.unread),
    )


def _read_virt(uri: str | None, kinds: frozenset[Kind]) -> VirtRead:
    """What libvirt tells, and which definitions it should know and does not."""
    before = libvirt_files.listed()
    found = libvirt_read.read(uri, kinds)
    found.unread += libvirt_files.not_taken(before, found, kinds)
    return found


def _read_host(parts: frozenset[Part], missing: list[Unread]) -> State:
    """What the kernel and the host's own programs tell."""

    def job(wanted: set[Part], call: Callable[[], T], default: T) -> _Job[T]:
        what = " and ".join(sorted(x.value for x in wanted))
        return _Job(what, call if parts & wanted else (lambda: default), default)

    blank = State(taken_at=0, hostname="")
    links_job = _Job(
        "links and addresses",
        lambda: kernel.read_links() if parts & _NEED_LINKS else (blank.links, blank.addresses),
        (blank.links, blank.addresses),
    )
    routes = job({Part.ROUTES}, kernel.read_routes, blank.routes)
    rules = job({Part.RULES}, kernel.read_rules, blank.rules)
    neighbours = job({Part.NEIGHBOURS}, kernel.read_neighbours, blank.neighbours)
    forwarding = job({Part.FORWARDING}, kernel.read_forwarding, blank.forwarding)
    walls = job({Part.FIREWALL}, sources.firewall, (blank.firewall, blank.unread))
    listeners = job({Part.LISTENERS}, sources.listeners, (blank.listeners, blank.unread))
    dockers = job({Part.DOCKER}, sources.docker_networks, blank.docker_networks)
    links, addresses = links_job.result(missing)
    settings = job({Part.SYSCTLS}, lambda: sources.sysctls(_plugs(links)), blank.sysctls)
    owners = job({Part.OWNERS}, lambda: sources.owners(links), (blank.owners, blank.unread))
    return State(
        taken_at=int(time.time()),
        hostname=os.uname().nodename,
        kernel=os.uname().release,
        privileged=os.geteuid() == 0,
        links=links,
        addresses=addresses,
        routes=routes.result(missing),
        rules=rules.result(missing),
        neighbours=neighbours.result(missing),
        forwarding=forwarding.result(missing),
        sysctls=settings.result(missing),
        firewall=_pair(walls.result(missing), missing),
        listeners=_pair(listeners.result(missing), missing),
        docker_networks=dockers.result(missing),
        owners=_pair(owners.result(missing), missing),
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
