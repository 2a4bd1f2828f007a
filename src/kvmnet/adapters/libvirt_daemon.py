"""Which of libvirt's daemons has the networks here: told by its file of process id."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from kvmnet.adapters.files import read_optional

Daemon = Literal["virtnetworkd", "libvirtd"]
DAEMONS: tuple[Daemon, ...] = ("virtnetworkd", "libvirtd")
"""Where there is the first, it has the networks (https://libvirt.org/daemons.html)."""


def running(root: Path = Path("/")) -> tuple[Daemon, int] | None:
    """The daemon that has the networks, and its process id; None: none runs now."""
    for name in DAEMONS:
        text = (read_optional(root / f"run/{name}.pid") or "").strip()
        if text.isdecimal() and (read_optional(root / f"proc/{text}/comm") or "").strip() == name:
            return name, int(text)
    return None
