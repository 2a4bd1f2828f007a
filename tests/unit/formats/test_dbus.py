"""D-Bus messages as bytes; the machines' tests speak to the real services."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmnet.errors import InvalidInput
from kvmnet.formats import dbus, networkd_bus, systemd_calls
from kvmnet.formats.dbus import Call, Variant

BUS = "org.freedesktop.DBus"
HELLO = Call(destination=BUS, path="/org/freedesktop/DBus", interface=BUS, member="Hello")


def answer(data: bytes) -> bytes:
    """A call as if it were the answer to itself: the same body, and what it answers."""
    return bytes([*data[:1], dbus.RETURN, *data[2:]])


def said(signature: str, *values: object) -> tuple[object, ...]:
    what = Call(
        destination="", path="/", interface="a.b", member="C", signature=signature,
        arguments=values,
    )  # fmt: skip
    return dbus.message(answer(dbus.call(what, 1))).body


def test_a_call_has_the_bytes_that_sd_bus_sends() -> None:
    """The first message on each bus, as `strace -s 200 busctl` shows it, but for the flags."""
    fields = (
        b"\x01\x01o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0"
        b"\x02\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0"
        b"\x03\x01s\0\x05\0\0\0Hello\0\0\0"
        b"\x06\x01s\0\x14\0\0\0org.freedesktop.DBus\0"
    )
    sent = dbus.call(HELLO, 1)
    assert sent[:16] == b"l\1\2\1" + struct.pack("<III", 0, 1, len(fields))
    assert sent[16 : 16 + len(fields)] == fields
    assert len(sent) == dbus.length(sent[:16])


def test_an_answer_is_read_in_either_byte_order() -> None:
    fields = b"\x05\1u\0" + struct.pack(">I", 7) + b"\x08\1g\0\1s\0"
    body = struct.pack(">I", 2) + b"hi\0"
    head = b"B\2\1\1" + struct.pack(">III", len(body), 9, len(fields))
    data = head + fields + bytes(-len(fields) % 8) + body
    assert dbus.length(data[:16]) == len(data)
    found = dbus.message(data)
    assert (found.kind, found.reply_to, found.error, found.body) == (dbus.RETURN, 7, None, ("hi",))


def test_properties_are_told_by_name() -> None:
    entries = (("State", Variant("u", 2)), ("Devices", Variant("ao", ("/1", "/2"))))
    (body,) = said("a{sv}", entries)
    assert dict(dbus.properties(body)) == {"State": 2, "Devices": ("/1", "/2")}


@pytest.mark.parametrize(
    "signature", ["s", "u", "a{sv}", "ssa(sv)a(sa(sv))", "aai", "(i(ss))a{oa{sa{sv}}}"]
)
def test_a_signature_is_cut_into_whole_types(signature: str) -> None:
    assert "".join(dbus.types(signature)) == signature


@pytest.mark.parametrize("signature", ["(s", "a", "z", "a{", ")"])
def test_what_is_no_signature_is_refused(signature: str) -> None:
    with pytest.raises(InvalidInput):
        dbus.types(signature)


@given(
    st.lists(st.tuples(st.text(), st.integers(0, 255), st.integers(0, 2**64 - 1), st.booleans()))
)
def test_what_is_sent_is_what_comes(rows: list[tuple[str, int, int, bool]]) -> None:
    assert said("a(sytb)y", tuple(rows), 3) == (tuple(rows), 3)


@given(st.binary(max_size=200))
def test_anything_may_come(data: bytes) -> None:
    try:
        dbus.message(b"l" + data)
    except InvalidInput:
        return


def test_the_guards_timer_is_asked_for_in_one_call() -> None:
    what = systemd_calls.start_timer("kvmnet-guard-1", "why", 10, ["/py", "-m", "x"], {"A": "b c"})
    name, mode, timer, others = dbus.message(answer(dbus.call(what, 1))).body
    assert (name, mode) == ("kvmnet-guard-1.timer", "fail")
    times = (("OnActiveSec", 10_000_000), ("OnUnitInactiveSec", 10_000_000))
    assert dict(dbus.properties(timer))["TimersMonotonic"] == times
    assert isinstance(others, tuple)
    ((service, properties),) = others
    assert service == "kvmnet-guard-1.service"
    assert dict(properties)["ExecStart"] == (("/py", ("/py", "-m", "x"), False),)
    assert dict(properties)["Environment"] == ("A=b c",)


def test_a_link_is_named_by_its_index() -> None:
    assert dbus.message(answer(dbus.call(networkd_bus.describe(2), 1))).body == (2,)
