"""The readers of the host, each imported only when its part is asked for.

`kvmnet mac` needs five of fifteen parts; importing the readers of the others, with the parsers
behind them, would cost it a fifth of its time.
"""

from __future__ import annotations

from kvmnet.model.host import DockerNetwork, Firewall, Link, Listener, NicOwner, Sysctl
from kvmnet.model.state import Unread


def firewall() -> tuple[Firewall, tuple[Unread, ...]]:
    from kvmnet.adapters.firewall import read_firewall

    return read_firewall()


def listeners() -> tuple[tuple[Listener, ...], tuple[Unread, ...]]:
    from kvmnet.adapters.sockets import read_listeners

    return read_listeners()


def docker_networks() -> tuple[DockerNetwork, ...]:
    from kvmnet.adapters.docker import read_networks

    return read_networks()


def sysctls(skip: frozenset[str]) -> tuple[Sysctl, ...]:
    from kvmnet.adapters.sysctls import read_sysctls

    return read_sysctls(skip=skip)


def owners(links: tuple[Link, ...]) -> tuple[tuple[NicOwner, ...], tuple[Unread, ...]]:
    from kvmnet.adapters.managers import read_owners

    return read_owners(links)
