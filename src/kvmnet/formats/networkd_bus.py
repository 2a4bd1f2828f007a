"""What systemd-networkd is asked over D-Bus (org.freedesktop.network1(5)), as calls."""

from __future__ import annotations

from kvmnet.formats.dbus import Call

_NAME = "org.freedesktop.network1"
_PATH = "/org/freedesktop/network1"
_MANAGER = f"{_NAME}.Manager"

RELOAD = Call(destination=_NAME, path=_PATH, interface=_MANAGER, member="Reload")
"""Read all unit files anew, and configure the links whose files changed."""


def describe(index: int) -> Call:
    """All about a link, in JSON (since systemd 250): what `networkctl --json` prints."""
    return Call(
        destination=_NAME, path=_PATH, interface=_MANAGER, member="DescribeLink",
        signature="i", arguments=(index,),
    )  # fmt: skip
