"""Reads which host network manager owns each NIC: from its files and its answers.

Where several could, the one that writes the others' files comes first: netplan, then
NetworkManager, systemd-networkd, ifupdown.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from kvmnet.adapters.files import read_optional, read_text
from kvmnet.adapters.run import run
from kvmnet.errors import KvmnetError, NotFound
from kvmnet.formats import interfaces, netplan, networkd, networkmanager
from kvmnet.formats.interfaces import Stanza
from kvmnet.formats.netplan import NetplanDevice
from kvmnet.formats.networkd import LinkState
from kvmnet.formats.networkmanager import NmDevice
from kvmnet.model.host import Link, NicOwner
from kvmnet.model.state import Unread

_NETPLAN = ("usr/lib/netplan", "lib/netplan", "etc/netplan", "run/netplan")
"""A later folder's file replaces one of the same name (netplan-generate(8))."""
_LIBVIRT = re.compile(r"virbr\d+(-nic)?|vnet\d+")
_MAX_DEPTH = 8


class _Found:
    """What the managers' files and programs say."""

    def __init__(self) -> None:
        self.netplan: tuple[NetplanDevice, ...] = ()
        self.nm: Mapping[str, NmDevice] = {}
        self.networkd: Mapping[int, LinkState] = {}
        self.stanzas: tuple[Stanza, ...] = ()
        self.ifstate: Mapping[str, str] = {}


def read_owners(
    links: Iterable[Link], root: Path = Path("/"), nmcli: Callable[[], str] | None = None
) -> tuple[tuple[NicOwner, ...], tuple[Unread, ...]]:
    """An owner for each link but the loopback, and the files that could not be read.

    `root` and `nmcli` (what its device list prints) can be given, to read a tree of files.
    """
    missing: list[Unread] = []
    found = _Found()
    found.netplan = read_netplan(root, missing)
    found.nm = _read_nm(root, nmcli, missing)
    found.networkd = _read_networkd(root)
    found.stanzas = read_interfaces(root, missing)
    found.ifstate = interfaces.parse_ifstate(read_optional(root / "run/network/ifstate") or "")
    owners = tuple(_owner(link, found) for link in links if link.kind != "loopback")
    return owners, tuple(missing)


def _owner(link: Link, found: _Found) -> NicOwner:
    owner = _first_owner(link, found)
    rivals = tuple(_rivals(link, found, owner))
    return msgspec.structs.replace(owner, rivals=rivals) if rivals else owner


def _rivals(link: Link, found: _Found, owner: NicOwner) -> Iterator[str]:
    """Other managers that have the NIC up as their own. A file that nobody uses is no rival."""
    device, state = found.nm.get(link.name), found.networkd.get(link.index)
    names = {owner.manager, owner.renderer}
    by_nm = device.connection if device is not None and device.managed else None
    if by_nm and "NetworkManager" not in names:
        yield f"NetworkManager (profile {by_nm})"
    by_networkd = state.network_file if state is not None and state.managed else None
    if by_networkd and not names & {"systemd-networkd", "networkd"}:
        yield f"systemd-networkd ({by_networkd})"
    if owner.manager != "ifupdown" and link.name in found.ifstate:
        other = _ifupdown_owner(link, found)
        if other.manager == "ifupdown":
            yield f"ifupdown ({', '.join(other.evidence)})"


def _first_owner(link: Link, found: _Found) -> NicOwner:
    if _LIBVIRT.fullmatch(link.name):
        return NicOwner(link=link.name, manager="libvirt", evidence=("its name is libvirt's",))
    device, state = found.nm.get(link.name), found.networkd.get(link.index)
    planned = next((x for x in found.netplan if x.matches(link)), None)
    if planned is not None:
        return NicOwner(
            link=link.name,
            manager="netplan",
            renderer="NetworkManager" if planned.renderer == "NetworkManager" else "networkd",
            evidence=(f"{planned.path}: {planned.kind}: {planned.id}",),
        )
    if device is not None and device.managed:
        profile = f" by profile {device.connection}" if device.connection else ""
        evidence = f"nmcli: {device.state}{profile}"
        return NicOwner(link=link.name, manager="NetworkManager", evidence=(evidence,))
    if state is not None and state.managed:
        evidence = f"networkd: {state.admin_state}, {state.network_file}"
        return NicOwner(link=link.name, manager="systemd-networkd", evidence=(evidence,))
    return _ifupdown_owner(link, found)


def _ifupdown_owner(link: Link, found: _Found) -> NicOwner:
    logical = found.ifstate.get(link.name, link.name)
    stanza = next(
        (x for x in found.stanzas if x.keyword == "iface" and x.words[:1] == (logical,)), None
    )
    if stanza is None:
        return NicOwner(link=link.name, manager="none")
    evidence = [f"{stanza.path}: iface {' '.join(stanza.words)}"]
    if link.name in found.ifstate:
        evidence.append("/run/network/ifstate: up")
    return NicOwner(link=link.name, manager="ifupdown", evidence=tuple(evidence))


def _text(path: Path, missing: list[Unread]) -> str | None:
    """The file's text; None where it is absent, and with a note where it can't be read."""
    try:
        return read_text(path)
    except NotFound:
        return None
    except KvmnetError as error:
        missing.append(Unread(what=str(path), why=error.why, hint=error.hint))
        return None


def read_netplan(root: Path, missing: list[Unread]) -> tuple[NetplanDevice, ...]:
    """All devices of netplan's files; a file that can't be read or understood is in `missing`."""
    files: dict[str, Path] = {}
    for folder in _NETPLAN:
        files.update({x.name: x for x in sorted((root / folder).glob("*.yaml"))})
    devices: list[NetplanDevice] = []
    for name in sorted(files):
        text = _text(files[name], missing)
        path = f"/{files[name].relative_to(root)}"
        try:
            devices.extend(netplan.parse(text, path).devices if text else ())
        except KvmnetError as error:
            missing.append(Unread(what=error.what, why=error.why, hint="netplan generate"))
    return tuple(devices)


def nm_devices() -> tuple[NmDevice, ...]:
    """What NetworkManager does with each link: over D-Bus, else by nmcli. Raises `KvmnetError`."""
    from kvmnet.adapters import networkmanager_bus  # most hosts have no NetworkManager

    with contextlib.suppress(KvmnetError):
        return networkmanager_bus.overview().devices
    command = ["nmcli", "-t", "-f", "DEVICE,TYPE,STATE,CONNECTION", "device"]
    return networkmanager.parse_devices(run(command, timeout=5.0).stdout)


def _read_nm(
    root: Path, nmcli: Callable[[], str] | None, missing: list[Unread]
) -> dict[str, NmDevice]:
    # The folder exists while NetworkManager runs.
    if not (root / "run/NetworkManager").is_dir():
        return {}
    try:
        told = networkmanager.parse_devices(nmcli()) if nmcli is not None else nm_devices()
        return {x.name: x for x in told}
    except KvmnetError as error:
        missing.append(Unread(what="NetworkManager", why=error.why or error.what, hint=error.hint))
        return {}


def _read_networkd(root: Path) -> dict[int, LinkState]:
    folder = root / "run/systemd/netif/links"
    files = (x for x in sorted(folder.glob("*")) if x.name.isdecimal())
    return {int(x.name): networkd.parse_link_state(read_optional(x) or "") for x in files}


def read_interfaces(root: Path, missing: list[Unread]) -> tuple[Stanza, ...]:
    """All stanzas of /etc/network/interfaces and of what it includes."""
    return tuple(_follow(root, root / "etc/network/interfaces", missing, 0))


def _follow(root: Path, path: Path, missing: list[Unread], depth: int) -> Iterable[Stanza]:
    """The stanzas of a file and of those that it names by `source` and `source-directory`."""
    text = _text(path, missing)
    if text is None or depth > _MAX_DEPTH:
        return
    for stanza in interfaces.parse(text, f"/{path.relative_to(root)}"):
        yield stanza
        for word in stanza.words:
            pattern = word.lstrip("/") if word.startswith("/") else f"etc/network/{word}"
            if stanza.keyword == "source-directory":
                pattern += "/*"
            elif stanza.keyword != "source":
                break
            for other in sorted(root.glob(pattern)):
                # ifupdown reads only plain names from a directory (run-parts(8)).
                plain = re.fullmatch(r"\w[\w.-]*", other.name, re.ASCII)
                if plain and other.is_file():
                    yield from _follow(root, other, missing, depth + 1)
