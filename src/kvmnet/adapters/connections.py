"""Which libvirt connections of this machine are there besides the one that is asked for.

Guests of the system's libvirt and of users' own sessions may sit on the same LAN, so a MAC address
must be free on all of them. Sockets are as libvirt documents them (https://libvirt.org/daemons.html):
the system's under /run/libvirt, a session's under $XDG_RUNTIME_DIR/libvirt.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

SYSTEM = "qemu:///system"
SESSION = "qemu:///session"

_SOCKETS = ("virtqemud-sock", "libvirt-sock")


def present_connections(
    *, uid: int | None = None, run: Path = Path("/run"), home: Path | None = None
) -> tuple[str, ...]:
    """URIs of the libvirt connections that exist on this machine for this user.

    The system's if its socket is there; the user's session if it runs or has guests defined (its
    daemon starts on demand); and for root the running sessions of all other users too.
    """
    me = os.getuid() if uid is None else uid
    base = Path.home() if home is None else home
    found: list[str] = []
    if system_is_there(run):
        found.append(SYSTEM)
    own = run / "user" / str(me)
    config = Path(os.environ.get("XDG_CONFIG_HOME") or base / ".config") / "libvirt" / "qemu"
    if _socket(own) is not None or any(config.glob("*.xml")):
        found.append(SESSION)
    if me == 0:
        found += [
            f"{SESSION}?socket={quote(str(socket))}"
            for user in sorted((run / "user").glob("*"))
            if user != own and (socket := _socket(user)) is not None
        ]
    return tuple(found)


def system_is_there(run: Path = Path("/run")) -> bool:
    """Whether the system's libvirt has a socket, which starts it where it does not run."""
    return any((run / "libvirt" / name).exists() for name in _SOCKETS)


def _socket(runtime: Path) -> Path | None:
    return next((p for n in _SOCKETS if (p := runtime / "libvirt" / n).exists()), None)
