"""How far a DHCP request and its answer came, out of what was seen on the host's links."""

from __future__ import annotations

from typing import Any

import pytest

from kvmnet.core.dhcp_way import Way, dhcp_way
from kvmnet.core.scope import Place
from kvmnet.formats import dhcp, dhcp_seen
from kvmnet.formats.ethernet import Udp, udp_frame
from kvmnet.model.dhcp_seen import DhcpSeen
from kvmnet.model.host import BridgeAttributes, Link
from kvmnet.model.state import State
from kvmnet.model.values import Ip, Mac

MAC, OTHER = Mac("52:54:00:00:00:01"), Mac("52:54:00:00:00:02")
STATE = State(
    taken_at=0,
    hostname="h",
    links=(
        Link(index=1, name="eth1", kind="ethernet", master="br0"),
        Link(index=2, name="br0", kind="bridge",
             bridge=BridgeAttributes(stp=False, forward_delay_s=0)),
        Link(index=3, name="vnet0", kind="tap", master="br0"),
    ),
)  # fmt: skip
BRIDGE = Place(kind="bridge", name="br0", bridge="br0")
NETWORK = Place(kind="network", name="net", bridge="br0")


def seen(link: str, **more: Any) -> DhcpSeen:
    blank = {"mac": MAC, "out": False, "reply": False, "source": Ip("0.0.0.0")}
    return DhcpSeen(link=link, **{**blank, **more})


ASKED = (seen(""), seen("vnet0", out=True), seen("br0"))


@pytest.mark.parametrize(
    ("place", "packets", "last", "left"),
    [
        (BRIDGE, (), "", False),
        (BRIDGE, (seen("", mac=OTHER),), "", False),
        (BRIDGE, (seen(""),), "the stand-in's port of br0", False),
        (NETWORK, ASKED, "the bridge br0", False),
        (BRIDGE, (*ASKED, seen("eth1", out=True)), "eth1, by which they left the host", True),
        (BRIDGE, (*ASKED, seen("eth1", out=True), seen("eth1", reply=True)), "the link eth1",
         False),
        (BRIDGE, (*ASKED, seen("br0", reply=True), seen("vnet0", reply=True, out=True)),
         "the tap vnet0", False),
    ],
)  # fmt: skip
def test_the_last_place_is_named(
    place: Place, packets: tuple[DhcpSeen, ...], last: str, left: bool
) -> None:
    way = dhcp_way(STATE, place, MAC, packets)
    assert (way.last_seen, way.left) == (last, left)
    assert (way == Way()) == (last == "")


def test_a_frame_is_read_as_the_client_sent_it() -> None:
    message = dhcp.encode(dhcp.discover(7, MAC, secs=0, lease_s=120))
    frame = udp_frame(
        Udp(source_port=68, destination_port=67, payload=message), source=Ip("0.0.0.0"),
        destination=Ip("255.255.255.255"), source_mac=MAC,
        destination_mac=Mac("ff:ff:ff:ff:ff:ff"),
    )  # fmt: skip
    assert dhcp_seen.parse(frame, "eth1", out=True) == seen("eth1", out=True)
    for length in range(len(frame) - len(message) + 40):
        dhcp_seen.parse(frame[:length], "eth1", out=True)
    assert dhcp_seen.parse(frame[:60], "eth1", out=True) is None
    assert len(dhcp_seen.filter_code()) == 12 * 8
