"""What belongs to a guest, a network, a bridge: for findings, and for where to plug in."""

from __future__ import annotations

import pytest

from kvmnet.core.finding import Finding
from kvmnet.core.scope import Scope, concern_of, concerns, parse_scope, places
from kvmnet.errors import InvalidInput, NotFound, Unavailable
from kvmnet.model.host import BridgeAttributes, Link, Route
from kvmnet.model.state import State, Unread
from kvmnet.model.values import Cidr, Ip
from kvmnet.model.virt import Guest, GuestNic, Network, NetworkConfig

URI = "qemu:///system"
PLAIN = BridgeAttributes(stp=False, forward_delay_s=0)


def nic(type_: str, source: str, target: str | None = None) -> GuestNic:
    return GuestNic(mac=None, type=type_, source=source, target=target)


def guest(name: str, *nics: GuestNic) -> Guest:
    return Guest(connection=URI, name=name, uuid=name, state="running", id=1, live_nics=nics)


def network(name: str, bridge: str | None, *, active: bool = True, mode: str = "nat") -> Network:
    config = NetworkConfig(mode=mode, bridge=bridge)
    return Network(
        connection=URI, name=name, uuid=name, active=active, persistent=True, autostart=True,
        live=config if active else None, saved=config,
    )  # fmt: skip


STATE = State(
    taken_at=0,
    hostname="h",
    links=(
        Link(index=1, name="eth0", kind="ethernet"),
        Link(index=2, name="eth1", kind="ethernet"),
        Link(index=3, name="bond0", kind="bond", master="br0"),
        Link(index=4, name="eth2", kind="ethernet", master="bond0"),
        Link(index=5, name="br0", kind="bridge", bridge=PLAIN),
        Link(index=6, name="virbr0", kind="bridge", bridge=PLAIN),
        Link(index=7, name="vnet0", kind="tap", master="virbr0"),
        Link(index=8, name="br9", kind="bridge", bridge=PLAIN),
        Link(index=9, name="ovs0", kind="openvswitch"),
    ),
    routes=(
        Route(family=4, destination=Cidr("0.0.0.0/0"), link="eth0", gateway=Ip("10.0.0.1")),
    ),
    networks=(
        network("default", "virbr0"), network("lan", "br0", mode="bridge"),
        network("off", "virbr7", active=False), network("taps", None, mode="private"),
    ),
    guests=(
        guest("web", nic("network", "default", "vnet0")),
        guest("db", nic("bridge", "br0")),
        guest("odd", nic("bridge", "ovs0")),
        guest("vtap", nic("direct", "eth1")),
    ),
)  # fmt: skip


def touches(scope: Scope, subject: str) -> bool:
    finding = Finding(name="x", severity="problem", subject=subject, what="")
    return concerns(concern_of(STATE, scope), finding)


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        (None, Scope()),
        ("web", Scope(kind="guest", name="web")),
        ("guest:web", Scope(kind="guest", name="web")),
        ("guest:a:b", Scope(kind="guest", name="a:b")),
        ("network:default", Scope(kind="network", name="default")),
        ("bridge:br0", Scope(kind="bridge", name="br0")),
    ],
)
def test_a_target_is_read(text: str | None, scope: Scope) -> None:
    assert parse_scope(text) == scope


@pytest.mark.parametrize("text", ["", "router:x", "network:", "bridge:a/b", "bridge:", "x\n"])
def test_what_is_no_target_is_said_so(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_scope(text)


@pytest.mark.parametrize(
    ("scope", "mine", "others"),
    [
        (Scope(kind="guest", name="web"),
         ("guest web", "network default", "bridge virbr0", "NIC eth0", "the host", "link vnet0"),
         ("guest db", "network lan", "bridge br0", "NIC eth2")),
        (Scope(kind="guest", name="vtap"), ("guest vtap", "NIC eth1", "NIC eth0"),
         ("network default", "bridge br0", "NIC eth2")),
        (Scope(kind="network", name="lan"), ("network lan", "bridge br0", "NIC eth2", "NIC bond0"),
         ("network default", "guest web", "guest db")),
        (Scope(kind="bridge", name="br0"), ("network lan", "guest db", "NIC eth2", "firewall"),
         ("network default", "guest web", "NIC eth1")),
        (Scope(), ("guest web", "network lan", "anything"), ()),
    ],
    ids=str,
)  # fmt: skip
def test_findings_belong_to_what_they_are_about(
    scope: Scope, mine: tuple[str, ...], others: tuple[str, ...]
) -> None:
    assert [x for x in mine if not touches(scope, x)] == []
    assert [x for x in others if touches(scope, x)] == []


def test_each_bridge_in_use_is_one_place() -> None:
    everywhere = [str(x) for x in places(STATE, None)]
    assert everywhere == ["network:default", "network:lan"], "br9 is nobody's, off is off"
    asked = places(STATE, concern_of(STATE, Scope(kind="bridge", name="br9")))
    assert [str(x) for x in asked] == ["bridge:br9"]
    of_web = places(STATE, concern_of(STATE, Scope(kind="guest", name="web")))
    assert [(str(x), x.guests) for x in of_web] == [("network:default", ("web",))]


@pytest.mark.parametrize(
    "scope",
    [
        Scope(kind="guest", name="x"),
        Scope(kind="network", name="x"),
        Scope(kind="bridge", name="x"),
    ],
    ids=str,
)
def test_what_nobody_has_is_named(scope: Scope) -> None:
    with pytest.raises(NotFound):
        concern_of(STATE, scope)


def test_a_name_that_only_libvirt_knows_is_not_said_to_be_absent() -> None:
    blind = State(taken_at=0, hostname="h", unread=(Unread(what="libvirt qemu", why="down"),))
    with pytest.raises(Unavailable):
        concern_of(blind, Scope(kind="guest", name="web"))
