"""libvirt's own files, for when no libvirt answers: its definitions exist all the same.

Where they are, as libvirt documents and its drivers do it: of the system in /etc/libvirt/qemu, of a
user's session in $XDG_CONFIG_HOME/libvirt/qemu, networks in `networks` below; what runs is in
/run/libvirt/{qemu,network}, for a session below $XDG_RUNTIME_DIR. Files of other users are read
with care: whoever owns them chose what they are.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from kvmnet.adapters.connections import SESSION, SYSTEM
from kvmnet.adapters.virt_read import Kind, VirtRead, unread
from kvmnet.errors import InvalidInput, NotFound, PermissionDenied, Unavailable
from kvmnet.formats import domain_xml, network_xml
from kvmnet.model.state import Unread
from kvmnet.model.virt import Guest, Network

P = TypeVar("P")

LARGEST_FILE = 4 * 1024 * 1024
"""Bytes; a domain's XML has some ten thousand, libvirt's own limit over the wire is 4 MiB."""


class Folders(Struct, frozen=True, kw_only=True):
    """Where one libvirt connection keeps its files."""

    uri: str
    """The connection, for people."""
    socket: str
    """The connection's URI; for another user's session how it begins."""
    config: Path
    """Guests that are defined; networks in `networks` below."""
    running_guests: Path
    running_networks: Path | None
    """None: a session makes no networks of its own."""

    def is_of(self, uri: str) -> bool:
        """Whether this is where the connection with that URI keeps its files."""
        return uri == self.socket or (self.socket.endswith("/") and uri.startswith(self.socket))


def system_folders(root: Path = Path("/")) -> Folders:
    """The folders of qemu:///system."""
    return Folders(
        uri=SYSTEM,
        socket=SYSTEM,
        config=root / "etc/libvirt/qemu",
        running_guests=root / "run/libvirt/qemu",
        running_networks=root / "run/libvirt/network",
    )


def own_session_folders() -> Folders:
    """The folders of this user's qemu:///session."""
    home = Path(os.environ.get("HOME") or "/")
    return _session(
        SESSION, SESSION, os.environ.get("XDG_CONFIG_HOME") or home / ".config", os.getuid()
    )


def other_session_folders() -> tuple[Folders, ...]:
    """The folders of all other users' sessions, for root: their daemons end when idle."""
    me, own = os.getuid(), Path(os.environ.get("HOME") or "/")
    return tuple(
        _session(
            f"{SESSION} of {user.pw_name}",
            f"{SESSION}?socket=/run/user/{user.pw_uid}/",
            Path(user.pw_dir) / ".config",
            user.pw_uid,
        )
        for user in pwd.getpwall()
        if user.pw_uid != me and Path(user.pw_dir) != own
    )


def _session(uri: str, socket: str, config: Path | str, uid: int) -> Folders:
    return Folders(
        uri=uri,
        socket=socket,
        config=Path(config) / "libvirt/qemu",
        running_guests=Path("/run/user", str(uid), "libvirt/qemu/run"),
        running_networks=None,
    )


def read(folders: Folders) -> VirtRead:
    """Guests and networks as the files tell. Nothing is raised: gaps are in `unread`.

    Guests that are the same in the definition and running come twice, once from each file.
    """
    found = VirtRead()
    guests = ((folders.config, domain_xml.parse), (folders.running_guests, domain_xml.parse_status))
    for folder, parse_guest in guests:
        for path, guest in _parsed(folder, parse_guest, found.unread):
            found.guests.append(_guest(folders.uri, path, guest))
    networks = [(folders.config / "networks", network_xml.parse)]
    if folders.running_networks is not None:
        networks.append((folders.running_networks, network_xml.parse_status))
    for folder, parse_network in networks:
        for path, network in _parsed(folder, parse_network, found.unread):
            found.networks.append(_network(folders.uri, path, network))
    return found


def listed() -> frozenset[Path]:
    """The files of all definitions of this user's local connections, as far as he may list them."""
    places = [x.config for x in (system_folders(), own_session_folders())]
    return frozenset(
        path for place in places for folder in (place, place / "networks") for path in _xml(folder)
    )


def _xml(folder: Path) -> Iterator[Path]:
    try:
        yield from (x for x in folder.iterdir() if x.suffix == ".xml")
    except OSError:
        return  # not there or not for this user: then libvirt is the only source


def not_taken(before: frozenset[Path], found: VirtRead, kinds: frozenset[Kind]) -> list[Unread]:
    """Definitions that libvirt does not know, though their files were there `before` it was asked.

    A libvirt that starts goes on without those that it can't understand, and says so only in its
    log.
    """
    gaps = {gap.what for gap in found.unread}
    if not found.connections or any(gap.startswith("libvirt ") for gap in gaps):
        return []
    lost: list[Unread] = []
    for folders in (system_folders(), own_session_folders()):
        if not folders.is_of(found.connections[0].uri):
            continue
        networks = {x.name for x in found.networks if x.persistent}
        guests = {x.name for x in found.guests if x.persistent}
        for kind, word, folder, names in (
            (Kind.NETWORKS, "network", folders.config / "networks", networks),
            (Kind.GUESTS, "guest", folders.config, guests),
        ):
            lost += [
                _lost(f"{word} {path.stem}", path)
                for path in sorted(before if kind in kinds else ())
                if path.parent == folder and path.stem not in names and path.exists()
                and f"{word} {path.stem}" not in gaps
            ]  # fmt: skip
    return lost


def _lost(what: str, path: Path) -> Unread:
    return Unread(
        what=what,
        why=f"libvirt does not know it although {path} is there: most likely it can not be "
        "understood",
        hint="libvirtd's log tells why; mend the file or move it away, then restart libvirtd",
    )


def _guest(uri: str, path: Path, parsed: domain_xml.ParsedGuest) -> Guest:
    return Guest(
        connection=uri, name=parsed.name, uuid=parsed.uuid, state=f"says {path}",
        saved_nics=parsed.nics,
    )  # fmt: skip


def _network(uri: str, path: Path, parsed: network_xml.ParsedNetwork) -> Network:
    return Network(
        connection=f"{uri} (says {path})", name=parsed.name, uuid=parsed.uuid, active=False,
        persistent=True, autostart=False, saved=parsed.config,
    )  # fmt: skip


def _parsed(
    folder: Path, parse: Callable[[str], P], gaps: list[Unread]
) -> Iterator[tuple[Path, P]]:
    """What each file of a folder says; what can't be understood is a line in `gaps`."""
    for path, text in _texts(folder, gaps):
        try:
            yield path, parse(text)
        except InvalidInput as error:
            gaps.append(unread(str(path), error))


def _texts(folder: Path, gaps: list[Unread]) -> Iterator[tuple[Path, str]]:
    """All XML files of a folder with their texts; a folder that is not there has none."""
    try:
        paths = sorted(x for x in folder.iterdir() if x.suffix == ".xml")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        gaps.append(Unread(what=f"definitions in {folder}", why=error.strerror or str(error)))
        return
    for path in paths:
        try:
            yield path, _text(path)
        except NotFound:
            continue  # it ended or was undefined meanwhile
        except PermissionDenied as error:
            gaps.append(unread(f"definitions in {folder}", error))
            return  # the others are no different: said once
        except Unavailable as error:
            gaps.append(unread(str(path), error))


def _text(path: Path) -> str:
    """The text of a plain file. Raises `NotFound`, `PermissionDenied`, `Unavailable`.

    Never waits, as it would for a pipe, and never reads without end, as of a device.
    """
    what = f"{path} can not be read"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with os.fdopen(handle, "rb") as stream:
            kind = os.fstat(handle)
            if not stat.S_ISREG(kind.st_mode) or kind.st_size > LARGEST_FILE:
                raise Unavailable(what, why="it is no plain file, or much too large")
            return stream.read(LARGEST_FILE).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist") from None
    except PermissionError:
        raise PermissionDenied(what, why="permission denied", hint="run it as root") from None
    except OSError as error:
        raise Unavailable(what, why=error.strerror or str(error)) from None
