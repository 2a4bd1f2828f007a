"""A name that nobody has: what there is, unless libvirt was not read."""

from __future__ import annotations

import pytest

from kvmnet.core.guest_choice import check_found
from kvmnet.core.missing import elsewhere, no_such
from kvmnet.errors import NotFound, Unavailable
from kvmnet.flow.trace_origin import find_origin
from kvmnet.flow.trace_target import resolve
from kvmnet.model.probe import Endpoint
from kvmnet.model.state import Connection, State, Unread
from kvmnet.model.trace import TraceRequest, TraceSource
from kvmnet.model.values import Ip
from kvmnet.model.virt import Guest

HOST = State(
    taken_at=0, hostname="h",
    guests=tuple(Guest(connection="qemu:///system", name=x, uuid=x, state="running")
                 for x in ("web", "db")),
)  # fmt: skip


def request(source: str, to: str) -> TraceRequest:
    return TraceRequest(
        source=TraceSource(kind="guest", name=source), to=Endpoint(host=to), protocol="icmp"
    )


def test_a_trace_of_or_to_a_guest_that_is_not_there_says_which_are() -> None:
    with pytest.raises(NotFound, match="no guest nosuch") as sent:
        find_origin(HOST, request("nosuch", "192.0.2.1"), Ip("192.0.2.1"))
    with pytest.raises(NotFound, match="no guest nosuch") as received:
        resolve(request("web", "guest:nosuch"), HOST)
    assert sent.value.why == received.value.why == "there are: db, web"


def test_where_libvirt_was_not_read_nobody_says_that_there_is_none() -> None:
    lost = State(taken_at=0, hostname="h", unread=(Unread(what="libvirt x", why="silent"),))
    assert isinstance(no_such(lost, "guest", "web"), Unavailable)
    assert isinstance(no_such(lost, "bridge", "br0"), NotFound)


def read(*uris: str, there: bool | None = True) -> State:
    found = tuple(Connection(uri=x, libvirt_version="9.0.0", hypervisor="QEMU") for x in uris)
    return State(taken_at=0, hostname="h", connections=found, system_libvirt=there)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (read("qemu:///session"), True),
        (read("qemu:///session?socket=/x", there=None), True),
        (read("qemu:///session", there=False), False),
        (read("qemu:///session", "qemu:///system"), False),
        (read("qemu:///system"), False),
        (read(), False),
    ],
)
def test_what_a_session_does_not_have_the_systems_libvirt_may(state: State, told: bool) -> None:
    asked = no_such(state, "guest", "web")
    with pytest.raises(NotFound) as moved:
        check_found(["web"], [], [], lambda: elsewhere(state))
    for error in (asked, moved.value):
        assert ("--connect qemu:///system, or sudo" in error.hint) is told
        assert told or error.hint == "kvmnet guest list"
    assert no_such(state, "bridge", "br0").hint == "kvmnet bridge list"
