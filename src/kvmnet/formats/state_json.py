"""State to JSON and back. A file from elsewhere is checked as a whole before anybody sees it."""

from __future__ import annotations

import functools
import ipaddress
import re
import typing
from collections.abc import Callable

import msgspec
from msgspec import Struct

from kvmnet.errors import InvalidInput
from kvmnet.model.state import STATE_VERSION, State
from kvmnet.model.values import Cidr, Ip, Mac

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
        state = msgspec.json.decode(raw, type=StateDocument).state
        check(state)
        return state
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(
            "this is not a saved State",
            why=str(error)[:300],
            hint="make one with: kvmnet state save FILE",
        ) from None


_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def check(value: object) -> None:
    """Raise `ValueError` where an address, prefix or MAC inside that object is none.

    The types of the model only say that they are text; the rest of the project relies on more.
    """
    if isinstance(value, tuple):
        for item in value:
            check(item)
    elif isinstance(value, Struct):
        for name, checker in _checkers(type(value)):
            inner = getattr(value, name)
            for item in inner if isinstance(inner, tuple) else (inner,):
                if item is not None:
                    checker(item)


@functools.cache
def _checkers(kind: type[Struct]) -> tuple[tuple[str, Callable[[object], None]], ...]:
    """The fields of that type that have to be looked into, each with how."""
    found: list[tuple[str, Callable[[object], None]]] = []
    for name, hint in typing.get_type_hints(kind).items():
        inner = {hint, *typing.get_args(hint)}
        if Ip in inner:
            found.append((name, _check_ip))
        elif Cidr in inner:
            found.append((name, _check_cidr))
        elif Mac in inner:
            found.append((name, _check_mac))
        elif name == "prefix_len":
            found.append((name, _check_prefix_len))
        elif any(isinstance(x, type) and issubclass(x, Struct) for x in inner):
            found.append((name, check))
    return tuple(found)


def _check_ip(value: object) -> None:
    ipaddress.ip_address(str(value))


def _check_cidr(value: object) -> None:
    if "/" not in str(value):
        raise ValueError(f"{str(value)[:60]!a} is not a subnet")
    ipaddress.ip_network(str(value), strict=False)


def _check_mac(value: object) -> None:
    if not _MAC.fullmatch(str(value)):
        raise ValueError(f"{str(value)[:60]!a} is not a MAC address")


def _check_prefix_len(value: object) -> None:
    if not isinstance(value, int) or not 0 <= value <= 128:
        raise ValueError(f"{value!a} is not the length of a prefix")
