"""Checks as people write them."""

from __future__ import annotations

import pytest

from kvmnet.errors import InvalidInput
from kvmnet.model.check import Check, PingAnswers, TcpConnects, parse_check


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("ping:10.0.0.1", PingAnswers(host="10.0.0.1")),
        ("ping:fe80::1", PingAnswers(host="fe80::1")),
        ("ping:[2001:DB8::1]", PingAnswers(host="2001:db8::1")),
        ("ping:gw.example.org", PingAnswers(host="gw.example.org")),
        ("tcp:db:5432", TcpConnects(host="db", port=5432)),
        ("tcp:[fd00::2]:22", TcpConnects(host="fd00::2", port=22)),
        ("tcp:10.0.0.1:65535", TcpConnects(host="10.0.0.1", port=65535)),
    ],
)
def test_forms(text: str, check: Check) -> None:
    assert parse_check(text) == check


@pytest.mark.parametrize(
    "text",
    ["", "ping", "ping:", "ping:a b", "ping:-x", "ping:10.0.0.999", "ping:a..b", "http:x:80",
     "tcp:host", "tcp:host:", "tcp:host:0", "tcp:host:65536", "tcp::80", "tcp:host:8o",
     "tcp:host:٨٠", "ping:\x1b[31m", "ping:" + "a." * 200, "tcp:host:" + "9" * 5000],
)  # fmt: skip
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_check(text)
    assert "ping:HOST" in str(caught.value)
    assert str(caught.value).isprintable()
