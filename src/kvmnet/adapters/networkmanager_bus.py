"""Asks NetworkManager over D-Bus (org.freedesktop.NetworkManager), where nmcli costs its start."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from kvmnet.adapters import bus
from kvmnet.adapters.bus import Bus
from kvmnet.formats.dbus import Call
from kvmnet.formats.networkmanager import NmDevice

_NAME = "org.freedesktop.NetworkManager"
_PATH = "/org/freedesktop/NetworkManager"
_ACTIVE = f"{_NAME}.Connection.Active"
_DEVICE = f"{_NAME}.Device"
_NOTHING = ("", "/")
_EXTERNAL = 0x80
"""NM_ACTIVATION_STATE_FLAG_EXTERNAL: somebody else made the link so, and it only looks on."""
_STATES = {1: "activating", 2: "activated", 3: "deactivating", 4: "deactivated"}
"""NMActiveConnectionState, in nmcli's words."""
_DEVICE_STATES = {10: "unmanaged", 20: "unavailable", 30: "disconnected", 100: "connected",
                  110: "deactivating", 120: "connection failed"}  # fmt: skip
"""NMDeviceState, in nmcli's words; what is between is on its way."""
LOAD_S = 20.0


class Active(Struct, frozen=True, kw_only=True):
    """A profile that is in force."""

    path: str
    uuid: str
    name: str
    links: tuple[str, ...]
    state: str
    external: bool
    is_port: bool


def active() -> list[Active]:
    """The profiles in force. Raises `Unavailable` where there is no bus or no NetworkManager."""
    with bus.connected() as wire:
        return list(_active(wire))


def _active(wire: Bus) -> Iterator[Active]:
    links: dict[str, str] = {}
    for path in _paths(wire.properties(_NAME, _PATH, _NAME).get("ActiveConnections")):
        try:
            found = wire.properties(_NAME, path, _ACTIVE)
            names = tuple(_link(wire, x, links) for x in _paths(found.get("Devices")))
        except bus.Refusal:
            continue  # it ended meanwhile
        flags, state = found.get("StateFlags"), found.get("State")
        yield Active(
            path=path,
            uuid=str(found.get("Uuid", "")),
            name=str(found.get("Id", "")),
            links=names,
            state=_STATES.get(state, "") if isinstance(state, int) else "",
            external=isinstance(flags, int) and bool(flags & _EXTERNAL),
            is_port=str(found.get("Controller") or found.get("Master") or "") not in _NOTHING,
        )


def _link(wire: Bus, path: str, known: dict[str, str]) -> str:
    if path not in known:
        known[path] = str(wire.properties(_NAME, path, _DEVICE).get("Interface", ""))
    return known[path]


def _paths(value: object) -> tuple[str, ...]:
    return tuple(str(x) for x in value) if isinstance(value, tuple) else ()


def devices() -> tuple[NmDevice, ...]:
    """All links that it knows, as `nmcli device` tells them, without their types.

    Raises what `active` raises.
    """
    with bus.connected() as wire:
        by_link = {link: x for x in _active(wire) for link in x.links}
        return tuple(_devices(wire, by_link))


def _devices(wire: Bus, by_link: dict[str, Active]) -> Iterator[NmDevice]:
    for path in _paths(wire.properties(_NAME, _PATH, _NAME).get("Devices")):
        try:
            found = wire.properties(_NAME, path, _DEVICE)
        except bus.Refusal:
            continue
        number, name = found.get("State"), str(found.get("Interface", ""))
        state = _DEVICE_STATES.get(number, "connecting") if isinstance(number, int) else ""
        profile = by_link.get(name)
        if profile is not None and profile.external:
            state += " (externally)"
        yield NmDevice(
            name=name, type="", state=state, connection=profile.name if profile else ""
        )  # fmt: skip


def load(paths: tuple[str, ...]) -> None:
    """Have it read these files anew; those that are gone it forgets. Raises `Failed`, and so on."""
    with bus.connected() as wire:
        wire.call(_settings("LoadConnections", "as", paths), LOAD_S)


def _settings(member: str, signature: str, argument: object) -> Call:
    return Call(
        destination=_NAME, path=f"{_PATH}/Settings", interface=f"{_NAME}.Settings",
        member=member, signature=signature, arguments=(argument,),
    )  # fmt: skip
