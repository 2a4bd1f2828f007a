"""A hundred hosts on which guests work, composed at random: not one finding on any of them."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings

from kvmnet.core.scope import Scope, concern_of, places
from kvmnet.flow.doctor import examine_state
from kvmnet.formats import state_json

from .healthy_hosts import Host, Recipe, recipes

FULL = Recipe(nets=3, sleeping=1, lan=True, uplink="bond", dhcp=True, docker=True, ufw=True,
              netfilter=True, stp=True, noise=9, routes=3, strict=True, tagged=True, jumbo=True,
              asked=True, manager="ifupdown", vendor="VMware, Inc.",
              guests=tuple((x, True, True) for x in range(8)))  # fmt: skip


@settings(max_examples=100, deadline=None, derandomize=True)
@given(recipes)
def test_a_host_in_good_order_has_no_finding(recipe: Recipe) -> None:
    state = Host(recipe).state()
    examined = examine_state(state, Scope())
    assert examined.findings == (), msgspec.json.encode(examined.findings).decode()
    assert examined.healthy


@settings(max_examples=20, deadline=None, derandomize=True)
@given(recipes)
def test_parts_of_a_healthy_host_are_healthy(recipe: Recipe) -> None:
    state = Host(recipe).state()
    for scope in (
        *(Scope(kind="guest", name=x.name) for x in state.guests),
        *(Scope(kind="network", name=x.name) for x in state.networks if x.active),
    ):
        found = [x.name for x in examine_state(state, scope).findings]
        guest = state.guest(scope.name) if scope.kind == "guest" else None
        asleep = guest is not None and not guest.active
        assert found == (["guest-not-running"] if asleep else [])
        assert all(x.guests or x.kind == "network" for x in places(state, concern_of(state, scope)))


def test_a_fault_in_such_a_host_is_found() -> None:
    """The hosts are full enough to be wrong: each of these takes one thing away."""
    state = Host(FULL).state()
    assert examine_state(state, Scope()).findings == ()
    emptied = {"DOCKER-USER", "ufw-user-forward"}
    without = tuple(
        msgspec.structs.replace(x, rules=()) if x.name in emptied else x
        for x in state.firewall.chains
    )
    broken = msgspec.structs.replace(
        state, firewall=msgspec.structs.replace(state.firewall, chains=without)
    )
    assert "docker-forward-drop" in [x.name for x in examine_state(broken, Scope()).findings]
    unplugged = tuple(
        msgspec.structs.replace(x, master=None) if x.name == "vnet0" else x for x in state.links
    )
    (finding,) = examine_state(msgspec.structs.replace(state, links=unplugged), Scope()).findings
    assert finding.name == "orphaned-tap"


def test_what_only_the_doctor_reads_decides_too() -> None:
    state = Host(FULL).state()
    narrow = tuple(
        msgspec.structs.replace(x, mtu=1500) if x.name == "bond0" else x for x in state.links
    )
    vlans = tuple(x for x in state.port_vlans if x.port != "bond0")
    lacking = (*vlans, msgspec.structs.replace(vlans[0], port="bond0", ranges=()))
    deaf = tuple(msgspec.structs.replace(x, listeners=()) for x in state.multicast)
    late = tuple(msgspec.structs.replace(x, at_boot=False) for x in state.configured_bridges or ())
    for broken, name in (
        (msgspec.structs.replace(state, links=narrow), "mtu-mismatch"),
        (msgspec.structs.replace(state, port_vlans=lacking), "vlan-missing"),
        (msgspec.structs.replace(state, multicast=deaf), "multicast-snooping"),
        (msgspec.structs.replace(state, configured_bridges=late), "guests-before-bridge"),
    ):
        found = {x.name for x in examine_state(broken, Scope()).findings}
        assert found == {name}


def test_such_a_host_can_be_saved() -> None:
    state = Host(FULL).state()
    assert state_json.parse(state_json.render(state)) == state
