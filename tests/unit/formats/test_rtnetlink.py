"""Messages of rtnetlink: which say that something is gone."""

import struct

import pytest

from kvmnet.formats import rtnetlink


def message(kind: int, body: bytes = b"") -> bytes:
    data = struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body
    return data + bytes(-len(data) % 4)


NEW_ADDRESS, GONE_ADDRESS, NEW_ROUTE, GONE_ROUTE = 20, 21, 24, 25


@pytest.mark.parametrize(
    ("data", "gone"),
    [
        (message(GONE_ADDRESS, b"12345678"), True),
        (message(GONE_ROUTE), True),
        (message(NEW_ROUTE, b"123") + message(GONE_ROUTE), True),
        (message(NEW_ROUTE) + message(NEW_ADDRESS, b"12345"), False),
        (b"", False),
        (message(GONE_ROUTE)[:15], False),
        (struct.pack("=IHHII", 0, NEW_ROUTE, 0, 0, 0) * 3, False),
    ],
)  # fmt: skip
def test_what_is_gone(data: bytes, gone: bool) -> None:
    assert rtnetlink.takes_away(data) == gone
