"""NetworkManager: reads its profiles and what it does with links, and tells it what changed.

Over D-Bus, where that does not work by nmcli(1), and by the files that it keeps of each link in
/run/NetworkManager/devices.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from kvmnet.adapters import files, manager_networkd, managers, networkmanager_bus, nmcli, rcu
from kvmnet.adapters.lent_addresses import addresses_lent, take_back
from kvmnet.adapters.networkmanager_bus import Active
from kvmnet.errors import Failed, InvalidInput, KvmnetError, TimedOut, Unavailable
from kvmnet.formats import networkmanager
from kvmnet.formats import networkmanager_edit as edit
from kvmnet.model.handover import NmLoad, NmPort, NmUp
from kvmnet.model.networkmanager import NmFacts, NmProfile, NmView
from kvmnet.model.values import Mac, parse_mac

_FOLDERS = ("run/NetworkManager", "etc/NetworkManager", "usr/lib/NetworkManager")
"""Of two files with one UUID, the one in the earlier folder is in force."""
_FOLDER = Path("/run/NetworkManager")
"""There while NetworkManager runs, and after it."""
_PERMANENT = "0"
"""/sys/class/net/*/addr_assign_type: the address is the one that was burnt in."""
_UP_S = 40
_DOWN_S = 20
_PORT_UP_S = 20
_ADDRESSES_S = 15.0
_PORTS_WITHIN_S = 10.0
_PORTS_BY_THEMSELVES_S = 4.0
"""All of them together are less than the guard gives a step (`flow.rollback.HAND_OVER_S`)."""
_POLL_S = 0.02


def observe(
    root: Path = Path("/"),
    heir: str | None = None,
    ports: tuple[str, ...] = (),
    bridge: str = "",
) -> NmView:
    """All profiles, and the facts of the NICs that are named.

    `root` can be given to read a tree of files. Raises `PermissionDenied` or `Unavailable` where
    a file can't be read: nothing is guessed.
    """
    told = _told() if root == Path("/") else None
    states, active = told or ({}, {})
    names = [x for x in dict.fromkeys([heir or "", *ports, bridge]) if x]
    facts = (_facts(root, x, states.get(x, ""), active.get(x)) for x in names)
    return NmView(profiles=_profiles(root, told is not None), devices=tuple(facts))


def _told() -> tuple[dict[str, str], dict[str, str]] | None:
    """Each link's state, and the UUID of the profile in force on it; None: nobody answers."""
    if not _FOLDER.is_dir():
        return None
    with contextlib.suppress(KvmnetError):
        found = networkmanager_bus.overview()
        return {x.name: x.state for x in found.devices}, _by_link(found.active)
    if not nmcli.is_running():
        return None
    return {x.name: x.state for x in managers.nm_devices()}, _by_link(nmcli.active())


def _by_link(active: tuple[Active, ...]) -> dict[str, str]:
    return {link: x.uuid for x in active for link in x.links}


def _profiles(root: Path, answers: bool) -> tuple[NmProfile, ...]:
    """NetworkManager is asked only where a file does not say its UUID: nmcli costs its start."""
    found = read_profiles(root, {})
    unnamed = any(x.uuid == x.file.path for x in found)
    return read_profiles(root, nmcli.uuids()) if answers and unnamed else found


def read_profiles(root: Path, uuids: dict[str, str]) -> tuple[NmProfile, ...]:
    """The profiles that count; `uuids` tells those of files that name none.

    Raises `PermissionDenied` or `Unavailable`.
    """
    found: dict[str, NmProfile] = {}
    for folder in _FOLDERS:
        for path in sorted((root / folder / "system-connections").glob("*")):
            if not path.is_file() or path.name.startswith(".") or path.name.endswith(".nmmeta"):
                continue
            file = manager_networkd.file_state(root, path)
            own = edit.get(file.text or "", "connection", "uuid")
            uuid = uuids.get(file.path) or own or file.path
            found.setdefault(uuid, NmProfile(file=file, uuid=uuid))
    return tuple(found.values())


def _facts(root: Path, name: str, state: str, active: str | None) -> NmFacts:
    folder = root / "sys/class/net" / name
    index = files.read_optional(folder / "ifindex") or "none"
    kept = networkmanager.parse_keyfile(
        files.read_optional(root / "run/NetworkManager/devices" / index) or ""
    )
    metric = kept.get("device", "route-metric-default-effective") or ""
    mac = _mac(files.read_optional(folder / "address"))
    real = (folder / "device").exists()
    ipv6 = files.read_optional(root / "proc/net/if_inet6") or ""
    permanent = real and files.read_optional(folder / "addr_assign_type") == _PERMANENT
    return NmFacts(
        name=name,
        state=state,
        active=active or kept.get("device", "connection-uuid"),
        permanent_mac=mac if permanent else None,
        mac=mac,
        route_metric=int(metric) if metric.isdecimal() else None,
        client_id=kept.get("dhcp4", "dhcp4.dhcp_client_identifier"),
        duid=kept.get("dhcp6", "dhcp6.dhcp6_client_id"),
        iaid=kept.get("dhcp6", "dhcp6.iaid"),
        token=networkmanager.token(ipv6, name, mac),
    )


def _mac(text: str | None) -> Mac | None:
    try:
        return parse_mac(text or "")
    except InvalidInput:
        return None


def is_running() -> bool:
    """Whether NetworkManager answers."""
    if not _FOLDER.is_dir():
        return False
    with contextlib.suppress(KvmnetError):
        networkmanager_bus.ask_for_answer()
        return True
    return nmcli.is_running()


def _active() -> tuple[Active, ...]:
    """The profiles that are in force. Raises `KvmnetError`."""
    with contextlib.suppress(KvmnetError):
        return networkmanager_bus.active()
    return nmcli.active()


def load(call: NmLoad) -> None:
    """Have it read these files anew; those that are gone it forgets.

    Where NetworkManager does not run there is nothing to tell: it reads its files when it starts.
    """
    take_back()
    for state in call.volatile:
        files.put(Path(state.path), state.text or "", mode=state.mode, owner=(state.uid, state.gid))
    if call.paths and is_running():
        try:
            networkmanager_bus.load(call.paths)
        except Unavailable:
            nmcli.load(call.paths)


def up(call: NmUp) -> None:
    """Have a profile be in force on a link.

    Raises `Failed` with NetworkManager's own reason, `Unavailable` (also where it takes too long).

    Where it is already, nothing is done. While NetworkManager takes the link's addresses off and
    puts them on again, with DHCP for seconds, they are lent to the loopback.
    """
    if not is_running():
        return
    found = _active()
    if _is_up(found, call) and _has_role(found, call):
        return
    # It lets ports come and go itself meanwhile.
    with rcu.hurried(), addresses_lent(call.keeps_from or call.link, call.link) as versions:
        if any(x.uuid == call.instead_of for x in found):
            _down(call.instead_of or "")
        path = _up(call.uuid, None if call.ports else call.link, _UP_S)
        for port in call.ports:
            _await_port(call, port)
        if path is not None and versions:
            with contextlib.suppress(KvmnetError):  # they are looked for on the link itself too
                networkmanager_bus.await_addresses(path, versions, _ADDRESSES_S)


def _up(uuid: str, link: str | None, within_s: int) -> str | None:
    """What is in force now, as D-Bus names it, if it can be told.

    Raises `Failed` with NetworkManager's reason, `Unavailable`.
    """
    try:
        return networkmanager_bus.activate(uuid, link, within_s)
    except networkmanager_bus.NotBegun:
        nmcli.up(uuid, link, within_s)  # it may know another way, and tells why there is none
        return next((x.path for x in _active() if x.uuid == uuid and x.path), None)


def _down(uuid: str) -> None:
    """Raises `CommandFailed`, `Unavailable`."""
    try:
        networkmanager_bus.deactivate(uuid, _DOWN_S)
    except TimedOut:
        raise
    except KvmnetError:
        nmcli.down(uuid, _DOWN_S)


def _is_up(found: tuple[Active, ...], call: NmUp) -> bool:
    return _in_force(found, call.uuid, call.link) and all(_has_joined(found, x) for x in call.ports)


def _in_force(found: tuple[Active, ...], uuid: str, link: str) -> bool:
    return any(x.uuid == uuid and link in x.links and x.state == "activated" for x in found)


def _has_joined(found: tuple[Active, ...], port: NmPort) -> bool:
    """Whether it is a port by its profile: that may be in force as it was before it was changed."""
    is_port = any(x.is_port for x in found if x.uuid == port.uuid and port.nic in x.links)
    return is_port and _in_force(found, port.uuid, port.nic)


def _has_role(found: tuple[Active, ...], call: NmUp) -> bool:
    is_port = any(x.is_port for x in found if x.uuid == call.uuid)
    return call.role is None or is_port == (call.role == "port")


def _await_port(call: NmUp, port: NmPort) -> None:
    """NetworkManager starts a bridge's ports by itself; one that it leaves out is started.

    The bridge itself may still wait for its addresses, which come by this port.
    """

    def has_joined() -> bool:
        return _has_joined(_active(), port)

    found = _active()
    if _has_joined(found, port):
        return
    in_force = _in_force(found, port.uuid, port.nic)  # NetworkManager will not start that anew
    if _await(has_joined, 0.1 if in_force else _PORTS_BY_THEMSELVES_S):
        return
    with contextlib.suppress(Failed, TimedOut):
        _up(port.uuid, port.nic, _PORT_UP_S)
    if not _await(has_joined, _PORTS_WITHIN_S):
        raise Failed(
            f"NetworkManager does not make {port.nic} a port of {call.link}",
            hint=f"journalctl -u NetworkManager -g {port.nic}",
        )


def reapply(link: str) -> None:
    """Have a changed profile count on its link at once; its addresses stay."""
    if is_running():
        nmcli.reapply(link)


def down(uuid: str) -> None:
    """Take a profile out of force; it does not start again by itself."""
    if is_running() and any(x.uuid == uuid for x in _active()):
        with contextlib.suppress(Failed, TimedOut):  # its scripts may take longer
            _down(uuid)


def _await(condition: Callable[[], bool], within_s: float) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        with contextlib.suppress(KvmnetError):
            if condition():
                return True
        time.sleep(_POLL_S)
    return False
