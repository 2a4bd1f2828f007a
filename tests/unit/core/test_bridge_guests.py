"""Guests on host bridges: who is in the way of a change, and what to do with them."""

from __future__ import annotations

import msgspec
import pytest

from kvmnet.core import bridge_plan
from kvmnet.errors import Refused
from kvmnet.model.virt import GuestNic, Network, NetworkConfig

from .test_bridge_plan import BR, GUEST, MAC, OTHER, TAP, bridged, create, host, nic, refusal


def test_a_guests_tap_is_no_port_and_the_guest_is_plugged_in_instead() -> None:
    tap = msgspec.structs.replace(TAP, master="virbr0")
    virbr0 = nic("virbr0", index=4, kind="bridge", bridge=BR)
    state = host(nic(), tap, virbr0, guests=(GUEST,))
    assert refusal(state, "vnet0") == (
        "vnet0 can not become a port of br0: it is the other end of a NIC of guest web "
        "make br0 of a NIC of this host, then kvmnet guest move web --to bridge:br0"
    )
    there = host(nic(), tap, virbr0, nic("br0", index=3, kind="bridge", bridge=BR), guests=(GUEST,))
    with pytest.raises(Refused, match="NIC of guest web") as caught:
        bridge_plan.plan_add_port(there, "br0", "vnet0")
    assert caught.value.hint == "kvmnet guest move web --to bridge:br0"
    other = GuestNic(mac=OTHER, type="network", source="default", target="vnet1")
    two = msgspec.structs.replace(GUEST, live_nics=(*GUEST.live_nics, other))
    said = refusal(msgspec.structs.replace(state, guests=(two,)), "vnet0")
    assert f"kvmnet guest move web --nic {MAC} --to bridge:br0" in said


def test_a_tap_of_nobody_known_is_no_port_by_its_name_only() -> None:
    said = refusal(host(nic(), TAP), "vnet0")
    assert "of which guest" in said and "kvmnet guest move GUEST --to bridge:br0" in said
    assert create(host(nic(), nic("tap0", kind="tap")), "tap0").arrange is not None


NATS = tuple(
    Network(connection="qemu:///system", name=name, uuid=name, active=active, persistent=True,
            autostart=True,
            live=NetworkConfig(mode=mode, bridge=bridge) if active else None)
    for name, active, mode, bridge in (
        ("off", False, "nat", "virbr9"), ("lan", True, "bridge", "br0"),
        ("alone", True, "isolated", "virbr1"), ("lab1", True, "nat", "virbr0"),
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("networks", "way"),
    [
        (NATS, "first: kvmnet guest move --all --from bridge:br0 --to network:lab1; or cut it off"),
        (NATS[:3], "make one with kvmnet up, then kvmnet guest move --all --from bridge:br0 --to "
                   "network:default"),
        ((*NATS, msgspec.structs.replace(NATS[3], name="default")), "--to network:default"),
    ],
)  # fmt: skip
def test_where_guests_can_go_before_their_bridge_does(
    networks: tuple[Network, ...], way: str
) -> None:
    with pytest.raises(Refused, match="guest web is plugged into it, and") as caught:
        bridge_plan.plan_delete(msgspec.structs.replace(bridged(), networks=networks), "br0")
    assert way in caught.value.hint and "virsh" not in caught.value.hint


def test_a_guest_on_a_network_that_leads_to_the_bridge_is_named_by_that_network() -> None:
    nic = GuestNic(mac=MAC, type="network", source="lan", bridge="br0", target="vnet0")
    web = msgspec.structs.replace(GUEST, live_nics=(nic,))
    with pytest.raises(Refused) as caught:
        bridge_plan.plan_delete(msgspec.structs.replace(bridged(), guests=(web,)), "br0")
    assert "--from network:lan --to" in caught.value.hint


def test_a_tap_of_nobody_known_is_named_and_how_to_find_whose_it_is() -> None:
    with pytest.raises(Refused, match=r"tap vnet0 \(whose is not known\) is plugged") as caught:
        bridge_plan.plan_delete(msgspec.structs.replace(bridged(), guests=()), "br0")
    assert "grep -lswF vnet0 /proc/[0-9]*/fdinfo/*" in caught.value.hint
    assert "guest move" not in caught.value.hint and "virsh" not in caught.value.hint
