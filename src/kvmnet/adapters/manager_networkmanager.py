"""NetworkManager: reads its profiles and what it does with links, and tells it what changed.

Over D-Bus and by nmcli(1), and by the files that it keeps of each link in
/run/NetworkManager/devices.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from kvmnet.adapters import files, manager_networkd, managers, networkmanager_bus, rcu
from kvmnet.adapters.lent_addresses import addresses_lent, take_back
from kvmnet.adapters.run import run
from kvmnet.errors import Failed, InvalidInput, KvmnetError, Unavailable
from kvmnet.formats import networkmanager
from kvmnet.formats import networkmanager_edit as edit
from kvmnet.model.handover import NmLoad, NmPort, NmUp
from kvmnet.model.networkmanager import NmFacts, NmProfile, NmView
from kvmnet.model.values import Mac, parse_mac

_FOLDERS = ("run/NetworkManager", "etc/NetworkManager", "usr/lib/NetworkManager")
"""Of two files with one UUID, the one in the earlier folder is in force."""
_PERMANENT = "0"
"""/sys/class/net/*/addr_assign_type: the address is the one that was burnt in."""
_UP_S = 40
_PORTS_WITHIN_S = 20.0
_PORTS_BY_THEMSELVES_S = 4.0
_NMCLI_FAILED = (0, 4, 6, 10)
"""Its exit statuses for what is not, or no more, as it was asked (nmcli(1))."""


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
    answers = root == Path("/") and is_running()
    states = {x.name: x.state for x in managers.nm_devices()} if answers else {}
    active = {link: uuid for uuid, link, _ in _active()} if answers else {}
    names = [x for x in dict.fromkeys([heir or "", *ports, bridge]) if x]
    facts = (_facts(root, x, states.get(x, ""), active.get(x)) for x in names)
    return NmView(profiles=_profiles(root, answers), devices=tuple(facts))


def _profiles(root: Path, answers: bool) -> tuple[NmProfile, ...]:
    """NetworkManager is asked only where a file does not say its UUID: nmcli costs its start."""
    found = read_profiles(root, {})
    unnamed = any(x.uuid == x.file.path for x in found)
    return read_profiles(root, _uuids()) if answers and unnamed else found


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
    if not Path("/run/NetworkManager").is_dir():
        return False
    with contextlib.suppress(KvmnetError):
        networkmanager_bus.active()
        return True
    try:
        said = run(["nmcli", "-t", "-f", "RUNNING", "general"], accept=range(256)).stdout
    except KvmnetError:
        return False
    return said.strip() == "running"


def _nmcli(*words: str) -> list[list[str]]:
    lines = run(["nmcli", "-t", *words]).stdout.splitlines()
    return [networkmanager.fields(x) for x in lines if x]


def _active() -> list[tuple[str, str, str]]:
    """UUID, link and state of each profile that is in force."""
    with contextlib.suppress(KvmnetError):
        found = networkmanager_bus.active()
        return [(x.uuid, link, x.state) for x in found for link in x.links]
    rows = _nmcli("-f", "UUID,DEVICE,STATE", "connection", "show", "--active")
    return [(x[0], x[1], x[2]) for x in rows if len(x) == 3]


def _uuids() -> dict[str, str]:
    rows = _nmcli("-f", "FILENAME,UUID", "connection", "show")
    return {x[0]: x[1] for x in rows if len(x) == 2}


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
            run(["nmcli", "connection", "load", *call.paths], timeout=20.0)


def up(call: NmUp) -> None:
    """Have a profile be in force on a link. Raises `Failed` with NetworkManager's own reason.

    Where it is already, nothing is done. While NetworkManager takes the link's addresses off and
    puts them on again, with DHCP for seconds, they are lent to the loopback.
    """
    if not is_running() or (_is_up(call.uuid, call.link, call.ports) and _has_role(call)):
        return
    where = None if call.ports else call.link
    # It lets ports come and go itself meanwhile.
    with rcu.hurried(), addresses_lent(call.keeps_from or call.link, call.link):
        if call.instead_of is not None and _is_active(call.instead_of):
            _connection("down", "uuid", call.instead_of)
        _up(call.uuid, where)
        for port in call.ports:
            _await_port(call, port)


def _connection(*words: str) -> None:
    """Have nmcli put a profile in force or out of it. Raises `CommandFailed`, `TimedOut`."""
    run(["nmcli", "--wait", str(_UP_S), "connection", *words], timeout=_UP_S + 10.0)


def _up(uuid: str, link: str | None) -> None:
    _connection("up", "uuid", uuid, *(["ifname", link] if link else []))


def _is_active(uuid: str) -> bool:
    return any(u == uuid for u, _, _ in _active())


def _is_up(uuid: str, link: str, ports: tuple[NmPort, ...]) -> bool:
    active = {(u, d) for u, d, state in _active() if state == "activated"}
    wanted = {(uuid, link), *((x.uuid, x.nic) for x in ports)}
    return wanted <= active and all(_is_port(x.uuid) for x in ports)


def _is_port(uuid: str) -> bool:
    """Whether its link is a port by it: it may be in force as it was before it was changed."""
    with contextlib.suppress(KvmnetError):
        return any(x.is_port for x in networkmanager_bus.active() if x.uuid == uuid)
    words = ["-g", "GENERAL.MASTER-PATH", "connection", "show", "uuid", uuid]
    return run(["nmcli", *words], accept=_NMCLI_FAILED).stdout.strip() not in ("", "--", "/")


def _has_role(call: NmUp) -> bool:
    return call.role is None or _is_port(call.uuid) == (call.role == "port")


def _await_port(call: NmUp, port: NmPort) -> None:
    """NetworkManager starts a bridge's ports by itself; one that it leaves out is started."""

    def is_up() -> bool:
        return _is_up(call.uuid, call.link, (port,))

    in_force = _is_up(port.uuid, port.nic, ())  # NetworkManager will not start that anew
    if _await(is_up, 0.1 if in_force else _PORTS_BY_THEMSELVES_S):
        return
    with contextlib.suppress(Failed):
        _up(port.uuid, port.nic)
    if not _await(is_up, _PORTS_WITHIN_S):
        raise Failed(
            f"NetworkManager does not make {port.nic} a port of {call.link}",
            hint=f"journalctl -u NetworkManager -g {port.nic}",
        )


def _reapply(link: str) -> None:
    """Have a changed profile count on its link at once; its addresses stay."""
    run(["nmcli", "device", "reapply", link], timeout=20.0, accept=_NMCLI_FAILED)


def reapply(link: str) -> None:
    """The same, where NetworkManager runs."""
    if is_running():
        _reapply(link)


def down(uuid: str) -> None:
    """Take a profile out of force; it does not start again by itself."""
    if is_running() and _is_active(uuid):
        with contextlib.suppress(Failed):
            _connection("down", "uuid", uuid)


def _await(condition: Callable[[], bool], within_s: float) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        with contextlib.suppress(KvmnetError):
            if condition():
                return True
        time.sleep(0.1)
    return False
