"""What asking for one thing has shown: the host's own asking, and a stand-in's answers to it."""

from __future__ import annotations

from msgspec import Struct

from kvmnet.model.values import Ip, Mac


class Answer(Struct, frozen=True, kw_only=True, tag_field="answer"):
    """What was seen; a stand-in sends it as an answer."""


class MacResult(Answer, frozen=True, kw_only=True, tag=True):
    mac: Mac | None = None
    ms: float | None = None


class PingResult(Answer, frozen=True, kw_only=True, tag=True):
    ms: float | None = None
    sent: int = 0
    error: str = ""
    """What came instead of an answer: `No route to host`."""


class NameResult(Answer, frozen=True, kw_only=True, tag=True):
    alive_ms: float | None = None
    """Until the first answer of any kind."""
    ms: float | None = None
    """Until the answer about the name."""
    code: str = ""
    addresses: tuple[Ip, ...] = ()
    error: str = ""


class ConnectResult(Answer, frozen=True, kw_only=True, tag=True):
    ms: float | None = None
    error: str = ""
