"""systemd-networkd: reads what it has read and what it does, and tells it what changed."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from kvmnet.adapters import bus, files, systemd
from kvmnet.adapters.run import run
from kvmnet.errors import Failed, InvalidInput, KvmnetError, Unavailable
from kvmnet.formats import networkd, networkd_bus
from kvmnet.formats.iproute_routes import parse_routes
from kvmnet.model.handover import FileState, LinkUnit, NetworkdReload
from kvmnet.model.host import Family
from kvmnet.model.networkd import NetworkdLink, NetworkdView
from kvmnet.model.values import Mac, parse_mac

_FOLDERS = ("etc", "run", "usr/local/lib", "usr/lib", "lib")
"""Highest precedence first (systemd.network(5))."""
_STATE = "run/systemd/netif"
_SETTLED_WITHIN_S = 5.0
_CONFIGURING_S = 0.7
_RELOAD_S = 20.0
_DESCRIBE_S = 2.0
_ANNOUNCE_EVERY_S = 0.2
_ASK_EVERY_S = 0.2
_FAMILIES: tuple[tuple[str, Family], ...] = (("-4", 4), ("-6", 6))
_PERMANENT = "0"  # NET_ADDR_PERM in linux/netdevice.h


def observe(
    root: Path = Path("/"),
    heir: str | None = None,
    ports: tuple[str, ...] = (),
    bridge: str = "",
) -> NetworkdView:
    """All unit files and all links with their state and identity.

    All, since one file may serve several links; so heir, ports and bridge make no difference.
    `root` can be given to read a tree of files. Raises `PermissionDenied` or `Unavailable` where
    a file can't be read: nothing is guessed.
    """
    return NetworkdView(files=_units(root), links=tuple(_link(root, x) for x in _names(root)))


def _names(root: Path) -> list[str]:
    folder = root / "sys/class/net"
    return sorted(x.parent.name for x in folder.glob("*/ifindex"))


def _units(root: Path) -> tuple[FileState, ...]:
    found: dict[Path, FileState] = {}
    for folder in _FOLDERS:
        base = root / folder / "systemd/network"
        for pattern in ("*.network", "*.netdev", "*.network.d/*.conf", "*.netdev.d/*.conf"):
            for path in sorted(base.glob(pattern)):
                real = path.parent.resolve() / path.name  # /lib is often /usr/lib
                if path.is_file() or path.is_symlink():
                    found.setdefault(real, file_state(root, path))
    return tuple(found.values())


def file_state(root: Path, path: Path) -> FileState:
    """A file with its text, mode and owner; a link to /dev/null reads as an empty file."""
    shown = f"/{path.relative_to(root)}"
    if path.is_symlink() and os.readlink(path) == "/dev/null":
        return FileState(path=shown, text="")
    text = files.read_text(path)
    status = path.stat()
    return FileState(
        path=shown,
        text=text,
        mode=status.st_mode & 0o7777,
        uid=status.st_uid,
        gid=status.st_gid,
    )


def _link(root: Path, name: str) -> NetworkdLink:
    folder = root / "sys/class/net" / name
    index = files.read_optional(folder / "ifindex") or ""
    state = networkd.parse_link_state(files.read_optional(root / _STATE / "links" / index) or "")
    lease = networkd.pairs(files.read_optional(root / _STATE / "leases" / index) or "")
    mac = _mac(files.read_optional(folder / "address"))
    virtual = not (folder / "device").exists()
    permanent = files.read_optional(folder / "addr_assign_type") == _PERMANENT and not virtual
    driver = folder / "device/driver"
    return NetworkdLink(
        name=name,
        unit=state.network_file,
        state=state.admin_state,
        mac=mac,
        permanent_mac=mac if permanent else None,
        virtual=virtual,
        driver=driver.resolve().name if driver.exists() else None,
        client_id=lease.get("CLIENTID") or None,
        iaid6=state.dhcp6_iaid,
    )


def _mac(text: str | None) -> Mac | None:
    try:
        return parse_mac(text or "")
    except InvalidInput:
        return None


def reload(call: NetworkdReload) -> None:
    """Write the volatile files, have networkd read all, wait until it is done.

    Where networkd does not run there is nothing to tell: it reads its files when it starts.
    Raises `Failed` where networkd gives a link up; one that it takes long to configure (a silent
    DHCP server) is left to the proofs that follow.
    """
    for state in call.volatile:
        if state.text is None:
            files.remove(Path(state.path))
            if Path(state.path).parent.suffix == ".d":
                with contextlib.suppress(OSError):  # others' drop-ins are in it, or it is gone
                    Path(state.path).parent.rmdir()
        else:
            files.put(Path(state.path), state.text, mode=state.mode, owner=(state.uid, state.gid))
    if not systemd.is_active("systemd-networkd.service"):
        return
    _ask_to_reload()
    _announce(call.bridges)
    _settle(call)


def _ask_to_reload() -> None:
    """Over D-Bus; by networkctl, a program to start, where that can't be."""
    try:
        with bus.connected() as wire:
            wire.call(networkd_bus.RELOAD, _RELOAD_S)
    except Unavailable:
        run(["networkctl", "reload"], timeout=_RELOAD_S)


def _settle(call: NetworkdReload) -> None:
    """Wait until all links are done; what seems to be forgotten is told again."""
    begun = asked = announced = time.monotonic()
    done: set[str] = set()
    while waited := [x for x in call.links if x.link not in done and not _is_settled(x)]:
        now = time.monotonic()
        configuring = [x for x in waited if _is_configuring(x)]
        if configuring and (asked == begun or now - asked > _ASK_EVERY_S):
            done.update(x.link for x in configuring if _is_in_place(x))
            asked = time.monotonic()
            continue
        if configuring and now - begun > _CONFIGURING_S:  # minutes, where no router speaks
            done.update(x.link for x in configuring)
            continue
        if now - begun > _SETTLED_WITHIN_S:
            return
        if now - announced > _ANNOUNCE_EVERY_S:
            _announce(call.bridges)
            for link in waited:
                _announce_routes(link.link)
            announced = time.monotonic()
        time.sleep(0.02)


def _announce(bridges: tuple[str, ...]) -> None:
    """Set each bridge's group to what it is: changes nothing, but the kernel tells all who listen.

    networkd 252 learns the index of a bridge that was there before its .netdev file only by such a
    message (RTM_NEWLINK), and does not finish its ports before.
    """
    for bridge in bridges:
        group = files.read_optional(Path("/sys/class/net") / bridge / "netdev_group")
        if group is not None:
            run(["ip", "link", "set", "dev", bridge, "group", group])


def _announce_routes(link: str) -> None:
    """Have the kernel tell of the routes to the link's own subnets, which stay as they are.

    networkd 252 forgets all it knew of a NIC that leaves a bridge, and does not ask again; it then
    waits for ever for a way to the gateway that is there. The kernel tells nothing of an IPv4 route
    that is replaced by itself: so first by one that says aloud what is the default (RFC 6928).
    """
    for option, family in _FAMILIES:
        listed = ["ip", "-j", "-d", option, "route", "show", "dev", link, "proto", "kernel"]
        for route in parse_routes(run(listed).stdout, family):
            if route.destination == "fe80::/64" or route.type != "unicast":
                continue
            words = ["ip", option, "route", "replace", route.destination, "dev", link]
            words += ["proto", "kernel", "metric", str(route.metric)]
            words += ["scope", route.scope] if route.scope and family == 4 else []
            words += ["src", route.source] if route.source else []
            for same in (["initcwnd", "10"], []) if family == 4 else ([],):
                run([*words, *same], accept=range(256))


def _is_settled(wanted: LinkUnit) -> bool:
    index = _index(wanted)
    if index is None:
        return True  # there is no such link: nothing to wait for
    state = _state(index)
    if wanted.unit is None:
        return state.admin_state == "unmanaged"
    if state.network_file != wanted.unit:
        return False
    if state.admin_state == "failed":
        raise Failed(
            f"systemd-networkd could not configure {wanted.link}",
            why=_reason(wanted.link),
            hint=f"journalctl -u systemd-networkd -g {wanted.link}",
        )
    return state.admin_state == "configured" and _is_leased(wanted, index)


def _is_configuring(wanted: LinkUnit) -> bool:
    index = _index(wanted)
    if index is None or not _is_leased(wanted, index):
        return False
    state = _state(index)
    return state.network_file == wanted.unit and state.admin_state == "configuring"


def _is_in_place(wanted: LinkUnit) -> bool:
    """Whether networkd itself says that all it was told of the link is in the kernel.

    It stays "configuring" after that for as long as it listens for a router.
    """
    unit = wanted.unit or ""
    try:
        with bus.connected(timeout_s=_DESCRIBE_S) as wire:
            told = wire.call(networkd_bus.describe(int(_index(wanted) or 0)), _DESCRIBE_S)
    except KvmnetError:  # before systemd 250 it can not tell
        return False
    return networkd.is_in_place(
        str(told[0]) if told else "", unit, files.read_optional(Path(unit)) or ""
    )


def _index(wanted: LinkUnit) -> str | None:
    return files.read_optional(Path("/sys/class/net") / wanted.link / "ifindex")


def _state(index: str) -> networkd.LinkState:
    text = files.read_optional(Path("/", _STATE, "links", index))
    return networkd.parse_link_state(text or "")


def _is_leased(wanted: LinkUnit, index: str) -> bool:
    return not wanted.leased or Path("/", _STATE, "leases", index).exists()


def _reason(link: str) -> str:
    command = ["journalctl", "-u", "systemd-networkd", "-b", "-o", "cat", "-n", "40", "--no-pager"]
    try:
        lines = run(command).stdout.splitlines()
    except KvmnetError:
        return ""
    return next((x for x in reversed(lines) if x.startswith(f"{link}: ") and "ailed" in x), "")
