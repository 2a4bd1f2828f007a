"""Where a guest's untagged frames are on a bridge with VLAN filtering, and the host itself."""

from __future__ import annotations

import msgspec
import pytest

from kvmnet.core import vlans
from kvmnet.model.host import BridgeAttributes, Link
from kvmnet.model.setup import PortVlans, VlanRange
from kvmnet.model.state import State, Unread
from kvmnet.model.virt import Guest, GuestNic


def port(name: str, *numbers: int, pvid: int | None) -> PortVlans:
    return PortVlans(
        port=name, ranges=tuple(VlanRange(first=x, last=x) for x in numbers), pvid=pvid
    )


def host(*ports: PortVlans, default: int = 1, filtering: bool = True) -> State:
    """br0 with a guest's tap7 and a VLAN link br0.20."""
    attributes = BridgeAttributes(
        stp=False, forward_delay_s=0, vlan_filtering=filtering, default_pvid=default
    )
    nic = GuestNic(type="bridge", mac=None, source="br0", target="tap7")
    guest = Guest(connection="c", name="web", uuid="u", state="running", id=1, live_nics=(nic,))
    links = (
        Link(index=1, name="br0", kind="bridge", bridge=attributes),
        Link(index=2, name="tap7", kind="tap", master="br0"),
        Link(index=3, name="br0.20", kind="vlan", parent="br0", vlan_id=20),
    )
    return State(taken_at=0, hostname="h", links=links, guests=(guest,), port_vlans=ports)


@pytest.mark.parametrize(
    ("own", "vlan", "link"),
    [
        (port("br0", 1, pvid=1), 1, "br0"),
        (port("br0", 1, 20, pvid=1), 20, "br0.20"),
        (port("br0", 1, pvid=1), 20, None),  # br0.20 gets nothing: br0 itself is not in VLAN 20
        (port("br0", 20, pvid=20), 20, "br0"),
        (port("br0", 1, 30, pvid=1), 30, None),
    ],
)
def test_the_host_in_a_vlan(own: PortVlans, vlan: int, link: str | None) -> None:
    assert vlans.host_link(host(own), "br0", vlan) == link


def test_a_port_that_is_not_listed_is_in_no_vlan_unless_nobody_could_look() -> None:
    state = host()
    assert vlans.of_port(state, "tap7") == PortVlans(port="tap7")
    gap = Unread(what="VLANs of bridge ports", why="no program")
    state = msgspec.structs.replace(state, unread=(gap,))
    assert vlans.of_port(state, "tap7") is None
    assert vlans.host_link(state, "br0", 20) == "br0"


def test_guests_elsewhere_than_a_new_port() -> None:
    assert vlans.elsewhere(host(port("tap7", 20, pvid=20)), "br0") == (20,)
    assert vlans.elsewhere(host(port("tap7", 20, pvid=20), default=20), "br0") == ()
    assert vlans.elsewhere(host(port("tap7", 1, pvid=1)), "br0") == ()
    assert vlans.elsewhere(host(), "br0") == ()
    assert vlans.elsewhere(host(port("tap7", 20, pvid=20), filtering=False), "br0") == ()
