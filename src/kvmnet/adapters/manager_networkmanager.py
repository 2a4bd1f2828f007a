"""NetworkManager: reads its profiles and what it does with links, and tells it what changed.

By nmcli(1), and by the files that it keeps of each link below /run/NetworkManager/devices.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from kvmnet.adapters import files, manager_networkd
from kvmnet.adapters.run import run
from kvmnet.errors import Failed, InvalidInput, KvmnetError
from kvmnet.formats import networkmanager
from kvmnet.formats import networkmanager_edit as edit
from kvmnet.model.handover import FileState, NmPort, NmUp
from kvmnet.model.networkmanager import NmFacts, NmProfile, NmView
from kvmnet.model.values import Mac, parse_mac

_FOLDERS = ("run/NetworkManager", "etc/NetworkManager", "usr/lib/NetworkManager")
"""Of two files with one UUID, the one in the earlier folder is in force."""
_VOLATILE = "/run/NetworkManager/system-connections"
_PERMANENT = "0"
"""/sys/class/net/*/addr_assign_type: the address is the one that was burnt in."""
_UP_S = 40
_PORTS_WITHIN_S = 20.0
_PORTS_BY_THEMSELVES_S = 4.0
_LEASE_WITHIN_S = 20.0
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
    states = {x.name: x.state for x in _devices()} if answers else {}
    active = {link: uuid for uuid, link, _ in _active()} if answers else {}
    names = [x for x in dict.fromkeys([heir or "", *ports, bridge]) if x]
    facts = (_facts(root, x, states.get(x, ""), active.get(x)) for x in names)
    return NmView(profiles=_profiles(root, _uuids() if answers else {}), devices=tuple(facts))


def _profiles(root: Path, uuids: dict[str, str]) -> tuple[NmProfile, ...]:
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
    if not Path("/run/NetworkManager").is_dir():  # asked first: nmcli costs 20 ms
        return False
    try:
        said = run(["nmcli", "-t", "-f", "RUNNING", "general"], accept=range(256)).stdout
    except KvmnetError:
        return False
    return said.strip() == "running"


def _nmcli(*words: str) -> list[list[str]]:
    lines = run(["nmcli", "-t", *words]).stdout.splitlines()
    return [networkmanager.fields(x) for x in lines if x]


def _devices() -> tuple[networkmanager.NmDevice, ...]:
    command = ["nmcli", "-t", "-f", "DEVICE,TYPE,STATE,CONNECTION", "device"]
    return networkmanager.parse_devices(run(command).stdout)


def _active() -> list[tuple[str, str, str]]:
    rows = _nmcli("-f", "UUID,DEVICE,STATE", "connection", "show", "--active")
    return [(x[0], x[1], x[2]) for x in rows if len(x) == 3]


def _uuids() -> dict[str, str]:
    rows = _nmcli("-f", "FILENAME,UUID", "connection", "show")
    return {x[0]: x[1] for x in rows if len(x) == 2}


def load(paths: tuple[str, ...]) -> None:
    """Have it read these files anew; those that are gone it forgets.

    Where NetworkManager does not run there is nothing to tell: it reads its files when it starts.
    """
    if paths and is_running():
        run(["nmcli", "connection", "load", *paths], timeout=20.0)


def up(call: NmUp) -> None:
    """Have a profile be in force on a link. Raises `Failed` with NetworkManager's own reason.

    Where it is already, nothing is done: activating it again would let go of the link's addresses
    for a moment.
    """
    if not is_running() or _is_up(call.uuid, call.link, call.ports):
        return
    held = _holding(call)
    try:
        if held is not None:
            files.put(Path(held.path), held.text or "", mode=0o600, owner=(0, 0))
            load((held.path,))
        where = [] if call.ports else ["ifname", call.link]
        command = ["nmcli", "--wait", str(_UP_S), "connection", "up", "uuid", call.uuid, *where]
        run(command, timeout=_UP_S + 10.0)
        for port in call.ports:
            _await_port(call, port)
        if held is not None:
            _await(lambda: _has_lease(call.link, held.text or ""), _LEASE_WITHIN_S)
    finally:
        if held is not None:
            files.remove(Path(held.path))
            load((held.path, call.path))
            _reapply(call.link)


def _is_up(uuid: str, link: str, ports: tuple[NmPort, ...]) -> bool:
    active = {(u, d) for u, d, state in _active() if state == "activated"}
    return {(uuid, link), *((x.uuid, x.nic) for x in ports)} <= active


def _holding(call: NmUp) -> FileState | None:
    """The profile with the addresses that are leased on a link, for the time until the next lease.

    NetworkManager takes all addresses off a link before it asks for one, which took seconds.
    """
    text = files.read_optional(Path(call.path)) if call.path.startswith("/etc/") else None
    if text is None or call.keeps_from is None:
        return None
    link, changed = call.keeps_from, f"{text}\n"
    for family, option in ((4, "-4"), (6, "-6")):
        shown = run(["ip", "-j", option, "address", "show", "dev", link], accept=(0, 1)).stdout
        addresses = networkmanager.leased(shown)
        routes = run(["ip", "-j", option, "route", "show", "default", "dev", link], accept=(0, 1))
        gateways = networkmanager.gateways(routes.stdout)
        changed = edit.with_addresses(changed, f"ipv{family}", addresses, gateways)
    if changed == f"{text}\n":
        return None
    return FileState(path=f"{_VOLATILE}/kvmnet-{call.uuid}.nmconnection", text=changed)


def _await_port(call: NmUp, port: NmPort) -> None:
    """NetworkManager starts a bridge's ports by itself; one that it leaves out is started."""

    def is_up() -> bool:
        return _is_up(call.uuid, call.link, (port,))

    if _await(is_up, _PORTS_BY_THEMSELVES_S):
        return
    command = ["nmcli", "--wait", str(_UP_S), "connection", "up", "uuid", port.uuid]
    run([*command, "ifname", port.nic], timeout=_UP_S + 10.0, accept=_NMCLI_FAILED)
    if not _await(is_up, _PORTS_WITHIN_S):
        raise Failed(
            f"NetworkManager does not make {port.nic} a port of {call.link}",
            hint=f"journalctl -u NetworkManager -g {port.nic}",
        )


def _has_lease(link: str, text: str) -> bool:
    """Whether what the profile leaves to DHCP servers and routers has come."""
    rows = {x[0].split(".")[0] for x in _nmcli("-f", "DHCP4,DHCP6", "device", "show", link)}
    v4 = "DHCP4" in rows or edit.get(text, "ipv4", "gateway") is None
    if edit.get(text, "ipv6", "gateway") is None:
        return v4
    learnt = run(["ip", "-6", "route", "show", "dev", link, "proto", "ra"]).stdout
    return v4 and bool(learnt.strip())


def _reapply(link: str) -> None:
    """Have a changed profile count on its link at once; its addresses stay."""
    run(["nmcli", "device", "reapply", link], timeout=20.0, accept=_NMCLI_FAILED)


def reapply(link: str) -> None:
    """The same, where NetworkManager runs."""
    if is_running():
        _reapply(link)


def down(uuid: str) -> None:
    """Take a profile out of force; it does not start again by itself."""
    if is_running() and any(u == uuid for u, _, _ in _active()):
        run(
            ["nmcli", "--wait", "20", "connection", "down", "uuid", uuid],
            timeout=30.0, accept=_NMCLI_FAILED,
        )  # fmt: skip


def _await(condition: Callable[[], bool], within_s: float) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        with contextlib.suppress(KvmnetError):
            if condition():
                return True
        time.sleep(0.1)
    return False
