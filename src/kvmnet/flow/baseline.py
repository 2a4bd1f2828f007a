"""The baseline: which checks hold now for what goes through some NICs.

What works before a change has to work after it; what does not is not demanded, and that is said.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path

from kvmnet.adapters import checks, process, tcp
from kvmnet.adapters.files import read_optional
from kvmnet.adapters.ways import Seen, look
from kvmnet.core import proofs
from kvmnet.errors import KvmnetError, Refused
from kvmnet.flow.rollback import Watcher
from kvmnet.formats.route_get import Way
from kvmnet.formats.sockets import Established
from kvmnet.model.check import (
    Check,
    ConnectionLives,
    DnsAnswers,
    GatewayAnswers,
    parse_check,
)
from kvmnet.model.state import State
from kvmnet.model.values import Ip

__all__ = ["baseline", "parse_check"]

MAX_CONNECTIONS = 50
_MAX_LOOKED_AT = 400
_RESOLVERS = (
    "/etc/resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
)
_TRIES_S = (1.0, 0.5)
"""A DNS server that is long dead should not keep anybody waiting."""


def baseline(
    state: State,
    nics: tuple[str, ...],
    extra: tuple[Check, ...],
    watcher: Watcher,
    opened: Callable[[], tuple[Established, ...]] = tcp.established,
) -> tuple[Check, ...]:
    """The checks that hold now, the user's own connection first.

    `extra` is what the user asked for by --check: where that does not hold before the change, a
    proof after it would say nothing. Raises `Refused` then, before anything is touched.

    The host's other ways out are watched too: a route or address on the wrong NIC can end them.
    `opened` tells the open TCP connections, or raises `KvmnetError`.
    """
    nics = tuple(dict.fromkeys((*nics, *proofs.ways_out(state))))
    connections = _established(opened, watcher)
    destinations, servers = proofs.destinations(state, nics), _listed_servers()
    links = proofs.of_links(state, nics)
    gateways = (x.ip for x in links if isinstance(x, GatewayAnswers))
    ways = _Ways(nics, (*(x.remote for x in connections), *destinations, *servers, *gateways))
    candidates = (
        *_connections(connections, ways, watcher),
        *links,
        *(proofs.route(ip, way.gateway) for ip in destinations
          if (way := ways.to(ip)) is not None),
        *(DnsAnswers(server=ip) for ip in _name_servers(state, servers, ways)),
    )  # fmt: skip
    wanted = tuple(dict.fromkeys((*candidates, *extra)))
    evidence = _measured(wanted, ways.seen)
    _refuse_failing(extra, evidence)
    for check, why in evidence.items():
        if why is not None:
            watcher.say(f"not demanded, for it does not hold now: {check} ({why})")
    return tuple(x for x in wanted if evidence[x] is None)


def _measured(wanted: tuple[Check, ...], seen: Seen | None) -> dict[Check, str | None]:
    """Evidence against each check; what fails once is tried again: a packet may be lost."""
    found: dict[Check, str | None] = dict.fromkeys(wanted, "not tried")
    for wait_s in _TRIES_S:
        failing = tuple(x for x in wanted if found[x] is not None)
        if not failing:
            break
        evidence = checks.measure(failing, wait_s=wait_s, seen=seen)
        found.update(zip(failing, evidence, strict=True))
        seen = None
    return found


def _refuse_failing(extra: tuple[Check, ...], evidence: dict[Check, str | None]) -> None:
    failing = [f"{x}: {evidence[x]}" for x in extra if evidence[x] is not None]
    if failing:
        raise Refused(
            "a --check fails already, so it could not tell whether the change works",
            why="; ".join(failing),
            hint="mend that first, or leave the check out",
        )


class _Ways:
    """Which destinations go through the NICs; the kernel is asked once for all."""

    def __init__(self, nics: tuple[str, ...], destinations: Iterable[Ip]) -> None:
        self.nics = nics
        self.seen = look(destinations)

    def to(self, ip: Ip) -> Way | None:
        """The way, if it leads through one of the NICs."""
        way = self.seen.ways[ip]
        return way if way is not None and not way.is_local and way.link in self.nics else None


def _established(
    opened: Callable[[], tuple[Established, ...]], watcher: Watcher
) -> tuple[Established, ...]:
    try:
        return opened()[:_MAX_LOOKED_AT]
    except KvmnetError as error:
        watcher.say(f"open TCP connections are not watched: {error}")
        return ()


def _connections(
    found: tuple[Established, ...], ways: _Ways, watcher: Watcher
) -> tuple[ConnectionLives, ...]:
    """TCP connections through the NICs: the one the user sits in, then ssh, then the others."""
    through = [x for x in found if ways.to(x.remote) is not None]
    bound = [x for x in through if x.bound_to is not None or ip_address(x.remote).is_link_local]
    for one in bound:
        watcher.say(
            f"TCP {one.local}:{one.local_port} to {one.remote}:{one.remote_port} is bound to "
            f"{one.bound_to or 'its link'} itself and may end"
        )
    kept = sorted((x for x in through if x not in bound), key=_Rank())
    if len(kept) > MAX_CONNECTIONS:
        watcher.say(f"{MAX_CONNECTIONS} of {len(kept)} open TCP connections are watched")
    return tuple(
        ConnectionLives(
            local=x.local, local_port=x.local_port, remote=x.remote, remote_port=x.remote_port,
            process=x.process,
        )
        for x in kept[:MAX_CONNECTIONS]
    )  # fmt: skip


class _Rank:
    """0: the connection that the user sits in; 1: others of sshd; 2: the rest."""

    def __init__(self) -> None:
        # sudo drops SSH_CONNECTION, but not whose child a process is.
        self._ancestors = frozenset(process.ancestors())
        words = os.environ.get("SSH_CONNECTION", "").split()
        self._ports = (words[3], words[1]) if len(words) == 4 else None

    def __call__(self, one: Established) -> int:
        if self._ports == (str(one.local_port), str(one.remote_port)):
            return 0
        if any(pid in self._ancestors for pid, _ in one.owners):
            return 0
        return 1 if one.process is not None and one.process.startswith("sshd") else 2


def _listed_servers() -> tuple[Ip, ...]:
    found = (ip for path in _RESOLVERS for ip in
             proofs.name_servers(read_optional(Path(path)) or ""))  # fmt: skip
    return tuple(dict.fromkeys(found))


def _name_servers(state: State, servers: tuple[Ip, ...], ways: _Ways) -> Iterable[Ip]:
    """Servers that are reached through the NICs; a link-local one if it is a gateway there."""
    gateways = {x.ip for x in proofs.of_links(state, ways.nics) if isinstance(x, GatewayAnswers)}
    for ip in servers:
        near = ip_address(ip).is_link_local
        if ip in gateways if near else ways.to(ip) is not None:
            yield ip
