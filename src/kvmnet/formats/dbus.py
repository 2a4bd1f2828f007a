"""D-Bus messages as bytes, and back: as much as calling a method needs.

Facts: the D-Bus specification (dbus.freedesktop.org/doc/dbus-specification.html), "Type system",
"Marshaling", "Message protocol". All is little-endian here; answers may be either.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from msgspec import Struct

from kvmnet.errors import InvalidInput

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
HEAD_BYTES = 16
"""What has to be read before it is known how long a message is."""
MAX_BYTES = 1 << 27
_NO_AUTO_START = 0x2
_ALIGN = {**dict.fromkeys("ygv", 1), **dict.fromkeys("nq", 2), **dict.fromkeys("biusoah", 4),
          **dict.fromkeys("xtd({", 8)}  # fmt: skip
_FIXED = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q",
          "d": "d", "h": "I"}  # fmt: skip
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_TO, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_CLOSING = {"(": ")", "{": "}"}


class Variant(Struct, frozen=True):
    """A value that brings its own type."""

    signature: str
    value: object


class Call(Struct, frozen=True, kw_only=True):
    """A method of an object, and what it is given."""

    destination: str
    """The name on the bus; empty where there is no bus between both."""
    path: str
    interface: str
    member: str
    signature: str = ""
    arguments: tuple[object, ...] = ()


class Message(Struct, frozen=True, kw_only=True):
    """Something that came."""

    kind: int
    reply_to: int | None
    """Which call it answers."""
    error: str | None
    body: tuple[object, ...]


def types(signature: str) -> list[str]:
    """The complete types in a signature, one after the other. Raises `InvalidInput`."""
    found = []
    at = 0
    while at < len(signature):
        end = _end(signature, at)
        found.append(signature[at:end])
        at = end
    return found


def _end(signature: str, at: int) -> int:
    kind = signature[at : at + 1]
    if kind == "a":
        return _end(signature, at + 1)
    if kind in _CLOSING:
        at = _end(signature, at + 1)  # an empty structure is none
        while signature[at : at + 1] != _CLOSING[kind]:
            at = _end(signature, at)
        return at + 1
    if kind not in _ALIGN:
        raise InvalidInput(f"`{signature}` is no D-Bus signature")
    return at + 1


def _pad(data: bytearray, kind: str) -> None:
    data.extend(bytes(-len(data) % _ALIGN[kind[0]]))


def _put(data: bytearray, kind: str, value: object) -> None:
    _pad(data, kind)
    if kind in _FIXED:
        data += struct.pack(f"<{_FIXED[kind]}", value)
    elif kind in ("s", "o"):
        raw = str(value).encode()
        data += struct.pack("<I", len(raw)) + raw + b"\0"
    elif kind == "g":
        raw = str(value).encode()
        data += bytes([len(raw)]) + raw + b"\0"
    elif kind == "v":
        assert isinstance(value, Variant)
        _put(data, "g", value.signature)
        _put(data, value.signature, value.value)
    elif kind[0] == "a":
        _put_array(data, kind[1:], value)
    else:
        assert isinstance(value, Sequence)
        for one, each in zip(types(kind[1:-1]), value, strict=True):
            _put(data, one, each)


def _put_array(data: bytearray, kind: str, values: object) -> None:
    assert isinstance(values, Sequence)
    at = len(data)
    data += bytes(4)
    _pad(data, kind)
    begin = len(data)
    for value in values:
        _put(data, kind, value)
    struct.pack_into("<I", data, at, len(data) - begin)


def call(what: Call, serial: int) -> bytes:
    """The message that makes the call. No service is started by it."""
    body = bytearray()
    for kind, value in zip(types(what.signature), what.arguments, strict=True):
        _put(body, kind, value)
    fields = [(_PATH, Variant("o", what.path)), (_INTERFACE, Variant("s", what.interface)),
              (_MEMBER, Variant("s", what.member))]  # fmt: skip
    if what.destination:
        fields.append((_DESTINATION, Variant("s", what.destination)))
    if what.signature:
        fields.append((_SIGNATURE, Variant("g", what.signature)))
    head = bytearray(struct.pack("<cBBBII", b"l", CALL, _NO_AUTO_START, 1, len(body), serial))
    _put(head, "a(yv)", fields)
    head.extend(bytes(-len(head) % 8))
    return bytes(head + body)


def length(head: bytes) -> int:
    """How many bytes a message has that begins so. Raises `InvalidInput`."""
    if head[:1] not in (b"l", b"B"):
        raise InvalidInput("this is no D-Bus message")
    order = "<" if head[:1] == b"l" else ">"
    body, _, fields = struct.unpack_from(f"{order}III", head, 4)
    whole = HEAD_BYTES + fields + -fields % 8 + body
    if whole > MAX_BYTES:
        raise InvalidInput("this D-Bus message is too long")
    return int(whole)


class _Reader:
    def __init__(self, data: bytes, order: str, at: int) -> None:
        self._data = data
        self._order = order
        self.at = at

    def get(self, kind: str) -> object:
        self.at += -self.at % _ALIGN[kind[0]]
        if kind in _FIXED:
            value = self._number(_FIXED[kind])
            return bool(value) if kind == "b" else value
        if kind in ("s", "o"):
            return self._text(int(self._number("I")))
        if kind == "g":
            return self._text(int(self._number("B")))
        if kind == "v":
            return self.get(str(self.get("g")))
        if kind[0] == "a":
            return self._array(kind[1:])
        return tuple(self.get(x) for x in types(kind[1:-1]))

    def _number(self, code: str) -> int | float:
        (value,) = struct.unpack_from(f"{self._order}{code}", self._data, self.at)
        self.at += struct.calcsize(code)
        found: int | float = value
        return found

    def _text(self, size: int) -> str:
        raw = self._data[self.at : self.at + size]
        self.at += size + 1
        return raw.decode("utf-8", "replace")

    def _array(self, kind: str) -> object:
        size = int(self._number("I"))
        self.at += -self.at % _ALIGN[kind[0]]
        end = self.at + size
        found = []
        while self.at < end:
            found.append(self.get(kind))
        return tuple(found)


def message(data: bytes) -> Message:
    """A whole message. A variant is read as its value, an entry as a pair.

    Raises `InvalidInput`.
    """
    order = "<" if data[:1] == b"l" else ">"
    try:
        fields = dict(_pairs(_Reader(data, order, 12).get("a(yv)")))
        (body_bytes,) = struct.unpack_from(f"{order}I", data, 4)
        reader = _Reader(data, order, len(data) - body_bytes)
        body = tuple(reader.get(x) for x in types(str(fields.get(_SIGNATURE, ""))))
    except (struct.error, LookupError, RecursionError) as error:
        raise InvalidInput("this D-Bus message is not understood", why=str(error)) from None
    reply_to, error_name = fields.get(_REPLY_TO), fields.get(_ERROR_NAME)
    return Message(
        kind=data[1],
        reply_to=reply_to if isinstance(reply_to, int) else None,
        error=str(error_name) if error_name is not None else None,
        body=body,
    )


def _pairs(entries: object) -> list[tuple[object, object]]:
    """The entries of an array of pairs that was read."""
    if not isinstance(entries, tuple):
        return []
    return [(x[0], x[1]) for x in entries if isinstance(x, tuple) and len(x) == 2]


def properties(entries: object) -> list[tuple[str, object]]:
    """What `GetAll` answers, by name."""
    return [(str(name), value) for name, value in _pairs(entries)]
