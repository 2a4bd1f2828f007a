"""Speaks to NetworkManager over D-Bus (org.freedesktop.NetworkManager): nmcli costs its start.

Facts: networkmanager.dev/docs/api/latest, "D-Bus API reference", and nm-dbus-types.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from msgspec import Struct

from kvmnet.adapters import bus
from kvmnet.adapters.bus import Bus
from kvmnet.errors import Failed, TimedOut
from kvmnet.formats.dbus import Call
from kvmnet.formats.networkmanager import NmDevice

_NAME = "org.freedesktop.NetworkManager"
_PATH = "/org/freedesktop/NetworkManager"
_ACTIVE = f"{_NAME}.Connection.Active"
_DEVICE = f"{_NAME}.Device"
_NOTHING = ("", "/")
_IS_CONTROLLER, _LAYER2_READY, _EXTERNAL = 0x1, 0x4, 0x80
"""NMActivationStateFlags. External: somebody else made the link so, and it only looks on."""
_READY = {4: 0x8, 6: 0x10}
"""Flags of the families whose addresses are done with: a profile is in force before that."""
_ACTIVATING, _ACTIVATED = 1, 2
_STATES = {1: "activating", 2: "activated", 3: "deactivating", 4: "deactivated"}
"""NMActiveConnectionState, in nmcli's words."""
_DEVICE_STATES = {10: "unmanaged", 20: "unavailable", 30: "disconnected", 100: "connected",
                  110: "deactivating", 120: "connection failed"}  # fmt: skip
"""NMDeviceState, in nmcli's words; what is between is on its way."""
LOAD_S = 20.0
_POLL_S = 0.02


class Active(Struct, frozen=True, kw_only=True):
    """A profile that is in force."""

    path: str
    uuid: str
    name: str
    links: tuple[str, ...]
    state: str
    external: bool
    is_port: bool


class Overview(Struct, frozen=True, kw_only=True):
    """What it does, and with which links."""

    active: tuple[Active, ...]
    devices: tuple[NmDevice, ...]
    """As `nmcli device` tells them, without their types."""


def ask_for_answer(within_s: float = bus.TIMEOUT_S) -> None:
    """Raises `Unavailable`, `Refusal` or `TimedOut` where there is no NetworkManager to answer."""
    with bus.connected(timeout_s=within_s) as wire:
        wire.property(_NAME, _PATH, _NAME, "State", within_s)


def active() -> tuple[Active, ...]:
    """The profiles in force. Raises `Unavailable` where there is no bus or no NetworkManager."""
    with bus.connected() as wire:
        return tuple(_active(wire, {}))


def overview() -> Overview:
    """All links that it knows, and the profiles in force. Raises what `active` raises."""
    known: dict[str, dict[str, object]] = {}
    with bus.connected() as wire:
        in_force = tuple(_active(wire, known))
        by_link = {link: x for x in in_force for link in x.links}
        return Overview(active=in_force, devices=tuple(_devices(wire, by_link, known)))


def _active(wire: Bus, known: dict[str, dict[str, object]]) -> Iterator[Active]:
    """`known` gets the properties of links, by their paths."""
    for path in _paths(wire.property(_NAME, _PATH, _NAME, "ActiveConnections")):
        try:
            found = wire.properties(_NAME, path, _ACTIVE)
            names = tuple(_link(wire, x, known) for x in _paths(found.get("Devices")))
        except bus.Refusal:
            continue  # it ended meanwhile
        state = found.get("State")
        yield Active(
            path=path,
            uuid=str(found.get("Uuid", "")),
            name=str(found.get("Id", "")),
            links=names,
            state=_STATES.get(state, "") if isinstance(state, int) else "",
            external=bool(_flags(found) & _EXTERNAL),
            is_port=str(found.get("Controller") or found.get("Master") or "") not in _NOTHING,
        )


def _flags(found: dict[str, object]) -> int:
    flags = found.get("StateFlags")
    return flags if isinstance(flags, int) else 0


def _link(wire: Bus, path: str, known: dict[str, dict[str, object]]) -> str:
    if path not in known:
        known[path] = wire.properties(_NAME, path, _DEVICE)
    return str(known[path].get("Interface", ""))


def _paths(value: object) -> tuple[str, ...]:
    return tuple(str(x) for x in value) if isinstance(value, tuple) else ()


def _devices(
    wire: Bus, by_link: dict[str, Active], known: dict[str, dict[str, object]]
) -> Iterator[NmDevice]:
    for path in _paths(wire.property(_NAME, _PATH, _NAME, "Devices")):
        try:
            name = _link(wire, path, known)
        except bus.Refusal:
            continue
        number = known[path].get("State")
        state = _DEVICE_STATES.get(number, "connecting") if isinstance(number, int) else ""
        profile = by_link.get(name)
        if profile is not None and profile.external:
            state += " (externally)"
        yield NmDevice(
            name=name, type="", state=state, connection=profile.name if profile else ""
        )  # fmt: skip


def activate(uuid: str, link: str | None, within_s: float) -> str:
    """Put a profile in force, on a link or (None) on that which it makes; the path of what is.

    It is waited for until it is in force, or waits for ports. Raises `Failed` without a reason
    where it ends instead (it is in signals that nobody reads here), `TimedOut`, `Unavailable`.
    """
    with bus.connected() as wire:
        (profile,) = wire.call(_settings("GetConnectionByUuid", "s", uuid))
        device: object = "/"
        if link is not None:
            (device,) = wire.call(_manager("GetDeviceByIpIface", "s", link))
        what = _manager("ActivateConnection", "ooo", profile, device, "/")
        path = str(wire.call(what, within_s)[0])
        end = time.monotonic() + within_s
        while not _has_begun(wire.properties(_NAME, path, _ACTIVE)):
            _wait(f"the profile {uuid} is not in force", end)
        return path


def _has_begun(found: dict[str, object]) -> bool:
    """Raises `Failed` where it is over."""
    state, flags = found.get("State"), _flags(found)
    if state == _ACTIVATING:
        return bool(flags & _IS_CONTROLLER and flags & _LAYER2_READY)
    if state != _ACTIVATED:
        raise Failed("NetworkManager gave it up")
    return True


def await_addresses(path: str, versions: frozenset[int], within_s: float) -> None:
    """Wait until what is at `path` is in force with the addresses of these IP versions.

    NetworkManager takes off what a link had and puts on what the profile says, with DHCP after a
    while: until then there is nothing to be seen of either. Raises `TimedOut`, `Refusal` (it has
    ended), `Unavailable`.
    """
    wanted = sum(_READY[x] for x in versions)
    end = time.monotonic() + within_s
    with bus.connected() as wire:
        while True:
            found = wire.properties(_NAME, path, _ACTIVE)
            if found.get("State") == _ACTIVATED and _flags(found) & wanted == wanted:
                return
            _wait("not all addresses are there", end)


def deactivate(uuid: str, within_s: float) -> None:
    """Take a profile out of force; NetworkManager does not start it again by itself.

    Raises `TimedOut`, `Refusal`, `Unavailable`.
    """
    end = time.monotonic() + within_s
    with bus.connected() as wire:
        for path in [x.path for x in _active(wire, {}) if x.uuid == uuid]:
            try:
                wire.call(_manager("DeactivateConnection", "o", path), within_s)
            except bus.Refusal:
                if _is_there(wire, path):
                    raise
            while _is_there(wire, path):
                _wait(f"the profile {uuid} is still in force", end)


def _is_there(wire: Bus, path: str) -> bool:
    return path in _paths(wire.property(_NAME, _PATH, _NAME, "ActiveConnections"))


def _wait(what: str, end: float) -> None:
    if time.monotonic() > end:
        raise TimedOut(f"NetworkManager: {what}")
    time.sleep(_POLL_S)


def load(paths: tuple[str, ...]) -> None:
    """Have it read these files anew; those that are gone it forgets. Raises `Failed`, and so on."""
    with bus.connected() as wire:
        wire.call(_settings("LoadConnections", "as", paths), LOAD_S)


def _manager(member: str, signature: str, *arguments: object) -> Call:
    return Call(
        destination=_NAME, path=_PATH, interface=_NAME,
        member=member, signature=signature, arguments=arguments,
    )  # fmt: skip


def _settings(member: str, signature: str, argument: object) -> Call:
    return Call(
        destination=_NAME, path=f"{_PATH}/Settings", interface=f"{_NAME}.Settings",
        member=member, signature=signature, arguments=(argument,),
    )  # fmt: skip
