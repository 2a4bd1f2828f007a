"""`ip -json route get`: the kernel's choice for one destination."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from kvmnet.model.values import Ip


class Way(Struct, frozen=True, kw_only=True):
    """How a packet to a destination leaves the host."""

    link: str
    gateway: Ip | None = None
    source: Ip | None = None
    is_local: bool = False
    """It does not leave: the destination is an address of the host."""


class _Via(Struct, frozen=True):
    host: str


class _Answer(Struct, frozen=True):
    dev: str
    type: str = "unicast"
    gateway: str | None = None
    via: _Via | None = None
    """A gateway of the other family (RFC 5549)."""
    prefsrc: str | None = None
    source: str | None = msgspec.field(name="from", default=None)


_DECODER = msgspec.json.Decoder(list[_Answer])


def parse(text: str) -> Way | None:
    """The way, or None where there is no answer to understand."""
    try:
        answers = _DECODER.decode(text)
    except msgspec.DecodeError:
        return None
    if not answers:
        return None
    found = answers[0]
    gateway = found.gateway or (found.via.host if found.via is not None else None)
    asked = found.source if found.source not in {None, "::", "0.0.0.0"} else None
    source = found.prefsrc or asked
    return Way(
        link=found.dev,
        gateway=Ip(gateway) if gateway else None,
        source=Ip(source) if source else None,
        is_local=found.type == "local",
    )
