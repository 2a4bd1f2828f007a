"""The readers of the host, each imported only when its part is asked for.

`kvmnet mac` needs five of fifteen parts; importing the readers of the others, with the parsers
behind them, would cost it a fifth of its time.
"""

from __future__ import annotations

from typing import NamedTuple

from kvmnet.model.host import DockerNetwork, Firewall, Link, Listener, NicOwner, Sysctl, SysctlFile
from kvmnet.model.setup import (
    BridgeHelper,
    BridgeMulticast,
    ConfiguredBridge,
    Machine,
    PortVlans,
)
from kvmnet.model.state import Unread


def firewall(*, with_sets: bool) -> tuple[Firewall, tuple[Unread, ...]]:
    from kvmnet.adapters.firewall import read_firewall

    return read_firewall(with_sets=with_sets)


def listeners() -> tuple[tuple[Listener, ...], tuple[Unread, ...]]:
    from kvmnet.adapters.sockets import read_listeners

    return read_listeners()


def docker_networks() -> tuple[DockerNetwork, ...]:
    from kvmnet.adapters.docker import read_networks

    return read_networks()


def sysctls(skip: frozenset[str]) -> tuple[Sysctl, ...]:
    from kvmnet.adapters.sysctls import read_sysctls

    return read_sysctls(skip=skip)


def sysctl_files() -> tuple[SysctlFile, ...]:
    from kvmnet.adapters.sysctl_files import read_sysctl_files

    return read_sysctl_files()


def owners(links: tuple[Link, ...]) -> tuple[tuple[NicOwner, ...], tuple[Unread, ...]]:
    from kvmnet.adapters.managers import read_owners

    return read_owners(links)


def port_facts(links: tuple[Link, ...]) -> tuple[Link, ...]:
    from kvmnet.adapters.nics import with_port_facts

    return with_port_facts(links)


def port_vlans() -> tuple[PortVlans, ...]:
    from kvmnet.adapters.bridge_facts import read_port_vlans

    return read_port_vlans()


def multicast() -> tuple[BridgeMulticast, ...]:
    from kvmnet.adapters.bridge_facts import read_multicast

    return read_multicast()


ConfiguredRead = tuple[tuple[ConfiguredBridge, ...] | None, tuple[Unread, ...]]
NOT_ASKED: ConfiguredRead = (None, ())


def configured_bridges(links: tuple[Link, ...]) -> ConfiguredRead:
    from kvmnet.adapters.configured import read_configured

    return read_configured(links)


class Setup(NamedTuple):
    """What is read of small files that have nothing to do with each other."""

    bridge_helper: BridgeHelper | None = None
    machine: Machine | None = None
    rp_filter_drops: int | None = None
    failed_units: tuple[str, ...] | None = None


def setup() -> Setup:
    from kvmnet.adapters import machine, systemd

    return Setup(
        bridge_helper=machine.read_bridge_helper(),
        machine=machine.read_machine(),
        rp_filter_drops=machine.read_rp_filter_drops(),
        failed_units=systemd.failed_services(),
    )
