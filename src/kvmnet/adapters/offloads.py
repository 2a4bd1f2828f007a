"""Switches what NICs do for the kernel, by the ioctl that ethtool(8) uses: it may not be installed.

Numbers are those of linux/ethtool.h and linux/sockios.h.
"""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct
from typing import NamedTuple

from kvmnet.errors import Failed, PermissionDenied
from kvmnet.model.link_steps import Feature

_SIOCETHTOOL = 0x8946
_GET_FLAGS, _SET_FLAGS = 0x25, 0x26
_LRO_FLAG = 1 << 15


class _Commands(NamedTuple):
    get: int
    set: int
    flag: int
    """The bit that stands for it in the value."""


_COMMANDS: dict[Feature, _Commands] = {
    "lro": _Commands(_GET_FLAGS, _SET_FLAGS, _LRO_FLAG),
    "rx": _Commands(0x14, 0x15, 1),
    "tx": _Commands(0x16, 0x17, 1),
    "tso": _Commands(0x1E, 0x1F, 1),
    "gso": _Commands(0x23, 0x24, 1),
    "gro": _Commands(0x2B, 0x2C, 1),
}


def is_on(nic: str, feature: Feature) -> bool | None:
    """Whether the NIC does that; None: there is no such NIC, or it does not know the word."""
    commands = _COMMANDS[feature]
    try:
        return bool(_call(nic, commands.get, 0) & commands.flag)
    except OSError:
        return None


def switch(nic: str, feature: Feature, *, on: bool) -> None:
    """Switch it on or off; a NIC that is gone needs nothing.

    Raises `PermissionDenied`, `Failed` (the NIC can not).
    """
    commands = _COMMANDS[feature]
    wanted = "on" if on else "off"
    try:
        before = _call(nic, commands.get, 0)
        value = before | commands.flag if on else before & ~commands.flag
        if value != before:
            _call(nic, commands.set, value)
            if _call(nic, commands.get, 0) != value:
                raise Failed(f"{feature} of {nic} could not be switched {wanted}",
                             why="its driver does not let it be changed")  # fmt: skip
    except PermissionError:
        raise PermissionDenied(
            f"{feature} of {nic} can not be switched {wanted}", why="permission denied",
            hint="run it again as root",
        ) from None  # fmt: skip
    except OSError as error:
        if error.errno == errno.ENODEV:
            return
        raise Failed(
            f"{feature} of {nic} could not be switched {wanted}", why=error.strerror or ""
        ) from None


def _call(nic: str, command: int, value: int) -> int:
    """One ETHTOOL_G… or ETHTOOL_S… of a single number. Raises `OSError`."""
    buffer = array.array("B", struct.pack("=II", command, value))
    request = struct.pack("16sP", nic.encode("utf-8", "surrogateescape"), buffer.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        fcntl.ioctl(door, _SIOCETHTOOL, request.ljust(40, b"\0"))
    return int(struct.unpack("=II", buffer.tobytes())[1])
