"""What an `Arrangement` is carried out by: lines for programs, settings, and waiting."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.host import Family


class Line(Struct, frozen=True, kw_only=True):
    """A command of one `ip -batch`, or `bridge -batch`."""

    text: str
    link: str
    """Which link it is about, for people."""
    essential: bool = False
    """If it fails, going on would cut the host off."""
    family: Family | None = None
    """Of a rule: it has to be in a batch of that family (`ip -6 -batch`)."""
    program: Literal["ip", "bridge"] = "ip"


class Setting(Struct, frozen=True, kw_only=True):
    """A kernel setting of one link."""

    path: str
    """Below /proc/sys."""
    value: str
    link: str


class Settle(Struct, frozen=True, kw_only=True):
    """Wait until the kernel has noticed that a bridge has a port that carries, or has none.

    It does so a moment after the fact (net/core/link_watch.c). Until then what is sent by the
    bridge is thrown away, since its queue is not active yet.
    """

    link: str
    carries: bool


Command = Line | Setting | Settle
