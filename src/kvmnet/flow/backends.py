"""The host network managers that kvmnet hands a bridge over to: one row each.

Rendering (what the files will say) is in `formats/*_bridge.py`, reading and telling in
`adapters/manager_*.py`. A new manager is a pair of such files and a row here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from kvmnet.errors import Refused
from kvmnet.model.handover import HandedOver
from kvmnet.model.host import NicOwner
from kvmnet.model.takeover import Takeover

V = TypeVar("V")
ROOT = Path("/")


class Backend(Protocol):
    """A manager that keeps bridges in its own files."""

    def create(self, takeover: Takeover) -> HandedOver:
        """Have it keep the bridge in its NIC's place."""

    def delete(self, takeover: Takeover) -> HandedOver:
        """Have it forget the bridge and give the NIC its configuration back."""

    def set_ports(self, before: Takeover, after: Takeover) -> HandedOver:
        """Have it keep the bridge with other ports."""


class _Row(Struct, frozen=True, kw_only=True):
    """A backend put together from a manager's reader and its pure functions."""

    name: str
    load: Callable[[], Backend]


class _Pair(Generic[V]):
    """A manager's reader and its pure functions as a `Backend`."""

    def __init__(
        self,
        observe: Callable[[Path, str | None, tuple[str, ...], str], V],
        create: Callable[[V, Takeover], HandedOver],
        delete: Callable[[V, Takeover], HandedOver],
        set_ports: Callable[[V, Takeover, Takeover], HandedOver],
    ) -> None:
        self._observe = observe
        self._create = create
        self._delete = delete
        self._set_ports = set_ports

    def _view(self, *takeovers: Takeover) -> V:
        last = takeovers[-1]
        ports = dict.fromkeys(port.name for x in takeovers for port in x.ports)
        return self._observe(ROOT, last.heir_of, tuple(ports), last.bridge)

    def create(self, takeover: Takeover) -> HandedOver:
        return self._create(self._view(takeover), takeover)

    def delete(self, takeover: Takeover) -> HandedOver:
        return self._delete(self._view(takeover), takeover)

    def set_ports(self, before: Takeover, after: Takeover) -> HandedOver:
        return self._set_ports(self._view(before, after), before, after)


def _netplan() -> Backend:
    from kvmnet.adapters.manager_netplan import observe
    from kvmnet.formats import netplan_bridge as pure

    return _Pair(observe, pure.create, pure.delete, pure.set_ports)


def _networkmanager() -> Backend:
    from kvmnet.adapters.manager_networkmanager import observe
    from kvmnet.formats import networkmanager_bridge as pure

    return _Pair(observe, pure.create, pure.delete, pure.set_ports)


def _networkd() -> Backend:
    from kvmnet.adapters.manager_networkd import observe
    from kvmnet.formats import networkd_bridge as pure

    return _Pair(observe, pure.create, pure.delete, pure.set_ports)


def _ifupdown() -> Backend:
    from kvmnet.adapters.manager_ifupdown import observe
    from kvmnet.formats import interfaces_bridge as pure

    return _Pair(observe, pure.create, pure.delete, pure.set_ports)


_TABLE = (
    _Row(name="netplan", load=_netplan),
    _Row(name="NetworkManager", load=_networkmanager),
    _Row(name="systemd-networkd", load=_networkd),
    _Row(name="ifupdown", load=_ifupdown),
)


def backend(owner: NicOwner) -> Backend | None:
    """The backend of the manager that owns a NIC; None: nobody does. Raises `Refused`."""
    if owner.manager == "none":
        return None
    row = next((x for x in _TABLE if x.name == owner.manager), None)
    if row is None:
        raise Refused(
            f"{owner.link} can not become a bridge's port",
            why=f"it belongs to {owner.manager} ({', '.join(owner.evidence)})",
        )
    return row.load()
