"""Who is moved how, what it notices, and who is refused: pure decisions."""

from __future__ import annotations

from typing import Any

import pytest

from kvmnet.core.guest_choice import check_found, matcher
from kvmnet.core.move_plan import plan_move
from kvmnet.core.move_target import check
from kvmnet.core.nic_plan import plan_attach, plan_detach
from kvmnet.errors import NotFound, Refused
from kvmnet.model.guest_steps import MoveNic, PlugNic, ProveGuest, SaveGuest, UnplugNic
from kvmnet.model.host import Address, BridgeAttributes, ForwardingEntry, Link
from kvmnet.model.move import GuestWork, How, MoveWish, NicWork
from kvmnet.model.state import State
from kvmnet.model.target import BridgeTarget, DirectTarget, NetworkTarget, parse_target
from kvmnet.model.values import Ip, Mac
from kvmnet.model.virt import (
    AgentAddress,
    DhcpRange,
    Guest,
    GuestNic,
    Lease,
    Network,
    NetworkConfig,
    NetworkIp,
)

MAC = Mac("52:54:00:00:00:01")
OTHER = Mac("52:54:00:00:00:02")
BR0 = BridgeTarget(name="br0")
PLAIN = BridgeAttributes(stp=False, forward_delay_s=0.0)


def network(*, active: bool = True, mode: str = "nat") -> Network:
    ip = NetworkIp(
        family=4, address=Ip("192.168.122.1"), prefix_len=24,
        ranges=(DhcpRange(start=Ip("192.168.122.2"), end=Ip("192.168.122.254")),),
    )  # fmt: skip
    config = NetworkConfig(mode=mode, bridge="virbr0", ips=(ip,))
    return Network(
        connection="c", name="default", uuid="n", active=active, persistent=True, autostart=True,
        live=config if active else None, saved=config,
    )  # fmt: skip


def state(*guests: Guest, **more: object) -> State:
    links = (
        Link(index=1, name="br0", kind="bridge", up=True, bridge=PLAIN),
        Link(index=2, name="eth1", kind="ethernet", up=True, carrier=True, master="br0"),
        Link(index=3, name="virbr0", kind="bridge", up=True, bridge=PLAIN),
        Link(index=4, name="eth2", kind="ethernet", up=True, carrier=True),
    )
    addresses = (Address(link="br0", ip=Ip("192.168.77.10"), prefix_len=24, family=4),)
    known = State(
        taken_at=1000, hostname="h", links=links, addresses=addresses, networks=(network(),),
        guests=guests, privileged=True,
    )  # fmt: skip
    import msgspec

    return msgspec.structs.replace(known, **more)


def guest(name: str = "web", *, active: bool = True, mac: Mac = MAC, **more: Any) -> Guest:
    nic = GuestNic(mac=mac, type="network", source="default", bridge="virbr0", target="vnet0")
    return Guest(
        connection="c",
        name=name,
        uuid=f"uuid-{name}",
        state="running" if active else "shut off",
        id=1 if active else None,
        live_nics=(nic,) if active else (),
        saved_nics=(nic,),
        **more,
    )


def work(of: Guest, to: str = "bridge:br0", *, new_mac: Mac | None = None) -> GuestWork:
    mac = of.nics[0].mac
    assert mac is not None
    nic = NicWork(
        number=1, mac=mac, new_mac=new_mac, before="network:default", after=to,
        before_xml="<before/>" if of.active else None, after_xml="<after/>" if of.active else None,
    )  # fmt: skip
    return GuestWork(guest=of, saved_before="<old/>", saved_after="<new/>", nics=(nic,))


def test_a_guest_that_is_off_changes_its_definition_only() -> None:
    web = guest(active=False)
    made = plan_move(state(web), [work(web)], BR0, MoveWish())
    assert [x.how for x in made.guests] == ["offline"]
    (one,) = made.plan.steps
    assert isinstance(one.step, SaveGuest)
    assert (one.step.active, one.disturbs, one.group) == (False, "nobody", None)


def test_a_running_guest_is_moved_proven_and_saved_in_this_order() -> None:
    web = guest()
    lease = Lease(connection="c", network="default", mac=MAC, ip=Ip("192.168.122.7"), family=4)
    made = plan_move(state(web, leases=(lease,)), [work(web)], BR0, MoveWish())
    steps = [x.step for x in made.plan.steps]
    assert [type(x) for x in steps] == [ProveGuest, MoveNic, ProveGuest, SaveGuest]
    proof = steps[2]
    assert isinstance(proof, ProveGuest)
    assert (proof.demands, proof.subnets, proof.old) == (
        "address", ("192.168.77.0/24",), ("192.168.122.7",),
    )  # fmt: skip
    back = made.plan.steps[1].undo
    assert isinstance(back, MoveNic)
    assert (back.place, back.xml, back.if_off) == ("network:default", "<before/>", "skip")


def test_the_cable_stays_in_where_the_bridge_is_the_same() -> None:
    web = guest()
    for target, cable in (("bridge:virbr0", "kept"), ("bridge:br0", "pulled")):
        plan = plan_move(state(web), [work(web, target)], parse_target(target), MoveWish()).plan
        assert [x.step.cable for x in plan.steps if isinstance(x.step, MoveNic)] == [cable]


def test_of_a_guest_without_an_address_none_is_demanded() -> None:
    web = guest()
    steps = [x.step for x in plan_move(state(web), [work(web)], BR0, MoveWish()).plan.steps]
    assert [x.demands for x in steps if isinstance(x, ProveGuest)] == ["port", "port"]


@pytest.mark.parametrize(
    ("how", "target", "becomes"),
    [
        ("auto", "bridge:br0", "live"),
        ("replug", "bridge:br0", "live"),
        ("next-boot", "bridge:br0", "next-boot"),
        ("auto", "direct:eth2", "next-boot"),
        ("replug", "direct:eth2", "replug"),
        ("auto", "user", "next-boot"),
    ],
)
def test_how_a_running_guest_moves(how: How, target: str, becomes: str) -> None:
    web = guest()
    made = plan_move(state(web), [work(web, target)], parse_target(target), MoveWish(how=how))
    assert [x.how for x in made.guests] == [becomes]
    plugs = [x.step for x in made.plan.steps if isinstance(x.step, PlugNic | UnplugNic)]
    assert bool(plugs) == (becomes == "replug")


def test_a_new_address_is_another_nic() -> None:
    web = guest()
    made = plan_move(state(web), [work(web, new_mac=OTHER)], BR0, MoveWish())
    assert made.guests[0].how == "next-boot"


@pytest.mark.parametrize("how", ["replug", "next-boot"])
def test_a_new_address_is_told(how: How) -> None:
    web = guest()
    made = plan_move(state(web), [work(web, new_mac=OTHER)], BR0, MoveWish(how=how)).plan
    assert made.notes[0] == f"web: NIC 1 gets the MAC address {OTHER}, in place of {MAC}"
    saved = made.steps[-1].step
    assert isinstance(saved, SaveGuest)
    assert f"its MAC address {OTHER}" in saved.what
    kept = plan_move(state(web), [work(web)], BR0, MoveWish()).plan
    assert not any("MAC address" in x for x in (*kept.notes, str(kept.steps[-1].step)))


@pytest.mark.parametrize(
    ("how", "active", "target", "why"),
    [
        ("live", True, "direct:eth2", "another device"),
        ("live", False, "bridge:br0", "does not run"),
        ("offline", True, "bridge:br0", "it is running"),
    ],
)
def test_what_the_user_wants_and_can_not_have(
    how: How, active: bool, target: str, why: str
) -> None:
    web = guest(active=active)
    with pytest.raises(Refused) as refused:
        plan_move(state(web), [work(web, target)], parse_target(target), MoveWish(how=how))
    assert why in str(refused.value)


def test_an_address_set_by_hand_that_would_not_fit_is_refused_unless_forced() -> None:
    told = AgentAddress(mac=MAC, ip=Ip("192.168.122.9"), prefix_len=24, family=4, nic="eth0")
    web = guest(agent="connected", agent_addresses=(told,))
    with pytest.raises(Refused, match="set by hand"):
        plan_move(state(web), [work(web)], BR0, MoveWish())
    assert plan_move(state(web), [work(web)], BR0, MoveWish(force=True)).plan.steps
    lease = Lease(connection="c", network="default", mac=MAC, ip=told.ip, family=4)
    assert plan_move(state(web, leases=(lease,)), [work(web)], BR0, MoveWish()).plan.steps
    assert plan_move(state(web), [work(web)], BR0, MoveWish(how="next-boot")).plan.steps


def test_a_mac_that_the_lan_has_already_is_refused() -> None:
    web = guest(active=False)
    entry = ForwardingEntry(mac=MAC, port="eth1", bridge="br0", kind="learned")
    with pytest.raises(Refused, match="somebody behind eth1"):
        plan_move(state(web, forwarding=(entry,)), [work(web)], BR0, MoveWish())
    nic = GuestNic(mac=MAC, type="bridge", source="br0")
    twin = Guest(connection="c", name="twin", uuid="t", state="shut off", saved_nics=(nic,))
    with pytest.raises(Refused, match="guest twin"):
        plan_move(state(web, twin), [work(web)], BR0, MoveWish())


def test_one_that_is_refused_leaves_the_others_a_plan_unless_they_go_together() -> None:
    one, two, three = (
        guest("one", active=False),
        guest("two", active=False),
        guest("three", active=False, mac=OTHER),
    )
    works = [work(x) for x in (one, two, three)]
    made = plan_move(state(one, two, three), works, BR0, MoveWish())
    assert [x.guest for x in made.refused] == ["two"]
    assert [x.group for x in made.plan.steps] == ["one", "three"]
    with pytest.raises(Refused, match="guest one"):
        plan_move(state(one, two, three), works, BR0, MoveWish(together=True))
    alone = plan_move(state(one, three), [work(one), work(three)], BR0, MoveWish(together=True))
    assert [x.group for x in alone.plan.steps] == [None, None]


def test_nothing_to_do_is_no_plan() -> None:
    web = guest(active=False)
    nic = NicWork(number=1, mac=MAC, before="bridge:br0", after="bridge:br0")
    same = GuestWork(guest=web, saved_before="<x/>", saved_after="<x/>", nics=(nic,))
    made = plan_move(state(web), [same], BR0, MoveWish())
    assert (made.guests[0].how, made.plan.steps) == ("nothing", ())


@pytest.mark.parametrize(
    ("target", "error", "said"),
    [
        ("bridge:br7", NotFound, "there is no bridge br7"),
        ("bridge:eth1", Refused, "eth1 is no bridge"),
        ("network:none", NotFound, "there is no network none"),
        ("direct:eth1", Refused, "it is a port of br0"),
        ("direct:br0", Refused, "br0 is a bridge"),
        ("direct:eth9", NotFound, "there is no NIC eth9"),
    ],
)
def test_targets_that_do_not_carry(target: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as raised:
        check(state(), parse_target(target))
    assert said in str(raised.value)


def test_targets_that_carry_and_what_there_is_to_know() -> None:
    assert check(state(), BR0).warnings == ()
    assert check(state(), NetworkTarget(name="default")).subnets == ("192.168.122.0/24",)
    assert "network default" in check(state(), BridgeTarget(name="virbr0")).warnings[0]
    lonely = (Link(index=1, name="br0", kind="bridge", up=True, bridge=PLAIN),)
    assert "no NIC of the host" in check(state(links=lonely), BR0).warnings[0]
    assert "do not reach each other" in check(state(), DirectTarget(nic="eth2")).warnings[0]
    with pytest.raises(Refused, match="not active"):
        check(state(networks=(network(active=False),)), NetworkTarget(name="default"))
    down = (Link(index=1, name="br0", kind="bridge", up=False, bridge=PLAIN),)
    with pytest.raises(Refused, match="it is down"):
        check(state(links=down), BR0)


def test_attach_and_detach_running_and_saved_alike() -> None:
    web = guest()
    made = plan_attach(state(web), web, BR0, OTHER, "<nic/>", "<saved/>")
    assert [type(x.step) for x in made.steps] == [PlugNic, ProveGuest, PlugNic]
    with pytest.raises(Refused, match="is in use"):
        plan_attach(state(web), web, BR0, MAC, "<nic/>", "<saved/>")
    off = guest(active=False)
    made = plan_attach(state(off), off, BR0, OTHER, "<nic/>", "<saved/>")
    assert [getattr(x.step, "where", None) for x in made.steps] == ["saved"]
    gone = plan_detach(web, web.live_nics[0], "<nic/>", "<saved/>")
    assert [getattr(x.step, "where", None) for x in gone.steps] == ["running", "saved"]
    assert gone.notes == ("guest web has no NIC then",)


def test_names_uuids_and_patterns() -> None:
    wanted = matcher(["web*", "db", "a-uuid"])
    assert [wanted(*x) for x in (("web1", "u"), ("db", "u"), ("x", "a-uuid"), ("d", "u"))] == [
        True, True, True, False,
    ]  # fmt: skip
    assert matcher([])("anyone", "u")
    check_found(["web*"], [("web1", "u")], [])
    with pytest.raises(NotFound, match="no guest fits 'x\\*'"):
        check_found(["x*"], [], ["web"])
