"""State to JSON and back. A file from elsewhere is checked as a whole before anybody sees it."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from kvmnet.errors import InvalidInput
from kvmnet.model.state import STATE_VERSION, State

FORMAT = "kvmnet.state"
MAX_BYTES = 256 * 1024 * 1024


class _Head(Struct):
    format: str = ""
    version: int = 0


class StateDocument(Struct, frozen=True, kw_only=True):
    """The file that `kvmnet state save` writes."""

    format: str = FORMAT
    version: int = STATE_VERSION
    state: State


def render(state: State) -> str:
    """The State as indented JSON, with a newline at its end."""
    raw = msgspec.json.encode(StateDocument(version=state.version, state=state))
    return msgspec.json.format(raw, indent=1).decode("utf-8") + "\n"


def parse(text: str) -> State:
    """The State of a file. Raises `InvalidInput`: no JSON, not a State, a newer version."""
    try:
        raw = text.encode("utf-8")
        head = msgspec.json.decode(raw, type=_Head)
        if head.format != FORMAT:
            raise InvalidInput(
                "this is not a saved State",
                why=f'its "format" is {head.format[:40]!a}, not "{FORMAT}"',
                hint="make one with: kvmnet state save FILE",
            )
        if head.version > STATE_VERSION:
            raise InvalidInput(
                "this State was saved by a newer kvmnet",
                why=f"its version is {head.version}, this kvmnet knows up to {STATE_VERSION}",
                hint="update kvmnet, or save it again with this one",
            )
        return msgspec.json.decode(raw, type=StateDocument).state
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidInput(
            "this is not a saved State",
            why=str(error)[:300],
            hint="make one with: kvmnet state save FILE",
        ) from None
