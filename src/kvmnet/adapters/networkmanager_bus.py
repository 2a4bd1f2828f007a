"""Speaks to NetworkManager over D-Bus (org.freedesktop.NetworkManager): nmcli costs its start.

Facts: networkmanager.dev/docs/api/latest, "D-Bus API reference", and nm-dbus-types.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from msgspec import Struct

from kvmnet.adapters import bus
from kvmnet.adapters.bus import Bus, Refusal
from kvmnet.errors import Failed, TimedOut, Unavailable
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
_FAILED = 120
_STATES = {1: "activating", 2: "activated", 3: "deactivating", 4: "deactivated"}
"""NMActiveConnectionState, in nmcli's words."""
_DEVICE_STATES = {10: "unmanaged", 20: "unavailable", 30: "disconnected", 100: "connected",
                  110: "deactivating", 120: "connection failed"}  # fmt: skip
"""NMDeviceState, in nmcli's words; what is between is on its way."""
_REASONS = {4: "config-failed", 5: "ip-config-unavailable", 6: "ip-config-expired",
            7: "no-secrets", 15: "dhcp-start-failed", 16: "dhcp-error", 17: "dhcp-failed",
            36: "removed", 38: "connection-removed", 39: "user-requested", 40: "carrier",
            50: "dependency-failed"}  # fmt: skip
"""NMDeviceStateReason, as the log has it."""
LOAD_S = 20.0
_IPV6_S = 3.0
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
    """The profiles in force. Raises `Unavailable` without a bus, `Refusal` without an answer."""
    with bus.connected() as wire:
        paths = _paths(wire.property(_NAME, _PATH, _NAME, "ActiveConnections"))
        in_force = wire.properties_of(_NAME, paths, _ACTIVE)
        used = {x for found in in_force.values() for x in _paths(found.get("Devices"))}
        return _profiles(in_force, wire.properties_of(_NAME, tuple(used), _DEVICE))


def overview() -> Overview:
    """All links that it knows, and the profiles in force. Raises what `active` raises."""
    with bus.connected() as wire:
        known = wire.properties(_NAME, _PATH, _NAME)
        in_force = wire.properties_of(_NAME, _paths(known.get("ActiveConnections")), _ACTIVE)
        devices = wire.properties_of(_NAME, _paths(known.get("Devices")), _DEVICE)
    profiles = _profiles(in_force, devices)
    by_link = {link: x for x in profiles for link in x.links}
    told = (_device(found, by_link.get(_name(found))) for found in devices.values())
    return Overview(active=profiles, devices=tuple(told))


def _profiles(
    in_force: dict[str, dict[str, object]], devices: dict[str, dict[str, object]]
) -> tuple[Active, ...]:
    links = {path: _name(found) for path, found in devices.items()}
    return tuple(_profile(path, found, links) for path, found in in_force.items())


def _name(device: dict[str, object]) -> str:
    return str(device.get("Interface", ""))


def _profile(path: str, found: dict[str, object], links: dict[str, str]) -> Active:
    state = found.get("State")
    return Active(
        path=path,
        uuid=str(found.get("Uuid", "")),
        name=str(found.get("Id", "")),
        links=tuple(links[x] for x in _paths(found.get("Devices")) if x in links),
        state=_STATES.get(state, "") if isinstance(state, int) else "",
        external=bool(_flags(found) & _EXTERNAL),
        is_port=str(found.get("Controller") or found.get("Master") or "") not in _NOTHING,
    )


def _flags(found: dict[str, object]) -> int:
    flags = found.get("StateFlags")
    return flags if isinstance(flags, int) else 0


def _paths(value: object) -> tuple[str, ...]:
    return tuple(str(x) for x in value) if isinstance(value, tuple) else ()


def _device(found: dict[str, object], profile: Active | None) -> NmDevice:
    number = found.get("State")
    state = _DEVICE_STATES.get(number, "connecting") if isinstance(number, int) else ""
    if profile is not None and profile.external:
        state += " (externally)"
    return NmDevice(
        name=_name(found), type="", state=state, connection=profile.name if profile else ""
    )


def activate(uuid: str, link: str | None, within_s: float) -> str:
    """Put a profile in force, on a link or (None) on that which it makes; the path of what is.

    It is waited for until it is in force, or waits for ports. Raises `Failed` where it ends
    instead, `NotBegun` where NetworkManager does not even try or can not be spoken to, `TimedOut`,
    `Unavailable` (it broke off).
    """
    end = time.monotonic() + within_s
    with contextlib.ExitStack() as stack:
        try:
            wire = stack.enter_context(bus.connected())
        except Unavailable as error:
            raise NotBegun(error.what, why=error.why) from None
        try:
            path = _begin(wire, uuid, link, end)
        except Refusal as error:
            raise NotBegun(error.what, why=error.why) from None
        while True:
            try:
                found = wire.properties(_NAME, path, _ACTIVE, _left(end))
            except Refusal:
                found = {}  # it has ended
            if _has_begun(found):
                return path
            if found.get("State") != _ACTIVATING:
                raise Failed(
                    f"NetworkManager gave the profile {uuid} up", why=_reason(wire.heard),
                    hint="journalctl -u NetworkManager -n 30",
                )  # fmt: skip
            _wait(f"the profile {uuid} is not in force", end)


class NotBegun(Failed):
    """NetworkManager was not told to put a profile in force, or refused to."""


def _begin(wire: Bus, uuid: str, link: str | None, end: float) -> str:
    (profile,) = wire.call(_settings("GetConnectionByUuid", "s", uuid), _left(end))
    device: object = "/"
    if link is not None:
        (device,) = wire.call(_manager("GetDeviceByIpIface", "s", link), _left(end))
    wire.listen(f"type='signal',interface='{_DEVICE}',member='StateChanged'")
    what = _manager("ActivateConnection", "ooo", profile, device, "/")
    return str(wire.call(what, _left(end))[0])


def _has_begun(found: dict[str, object]) -> bool:
    """Whether it is in force; a bridge may wait for its ports, as nmcli(1) counts it too."""
    if found.get("State") != _ACTIVATING:
        return found.get("State") == _ACTIVATED
    flags = _flags(found)
    return bool(flags & _IS_CONTROLLER and flags & _LAYER2_READY)


def _reason(heard: Sequence[tuple[object, ...]]) -> str:
    """Why a link's profile has failed, by the last signal of it (state, state before, reason)."""
    reasons = [x[2] for x in heard if len(x) == 3 and x[0] == _FAILED]
    last = reasons[-1] if reasons else None
    return _REASONS.get(last, f"its reason {last}") if isinstance(last, int) else ""


def await_addresses(path: str, versions: frozenset[int], within_s: float) -> None:
    """Wait until what is at `path` is in force with the addresses of these IP versions.

    NetworkManager takes off what a link had and puts on what the profile says, with DHCP after a
    while: until then there is nothing to be seen of either. IPv6 is waited for a few seconds more
    than the rest: its flag does not come at all where no router answers, or DHCPv6 does not.
    Raises `TimedOut`, `Refusal` (it has ended), `Unavailable`.
    """
    end = time.monotonic() + within_s
    rest = sum(_READY[x] for x in versions - {6})
    with bus.connected() as wire:
        while not _has(wire.properties(_NAME, path, _ACTIVE), rest):
            _wait("not all addresses are there", end)
        end = min(end, time.monotonic() + _IPV6_S)
        while 6 in versions and not _has(wire.properties(_NAME, path, _ACTIVE), _READY[6]):
            _wait("not all IPv6 addresses are there", end)


def _has(found: dict[str, object], wanted: int) -> bool:
    return found.get("State") == _ACTIVATED and _flags(found) & wanted == wanted


def deactivate(uuid: str, within_s: float) -> None:
    """Take a profile out of force; NetworkManager does not start it again by itself.

    Raises `TimedOut`, `Refusal`, `Unavailable`.
    """
    end = time.monotonic() + within_s
    with bus.connected() as wire:
        for path in [x.path for x in active() if x.uuid == uuid]:
            try:
                wire.call(_manager("DeactivateConnection", "o", path), _left(end))
            except Refusal:
                if _is_there(wire, path):
                    raise
            while _is_there(wire, path):
                _wait(f"the profile {uuid} is still in force", end)


def _is_there(wire: Bus, path: str) -> bool:
    return path in _paths(wire.property(_NAME, _PATH, _NAME, "ActiveConnections"))


def _left(end: float) -> float:
    """Seconds until then, for a call: one that is late gets one more."""
    return max(1.0, end - time.monotonic())


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
