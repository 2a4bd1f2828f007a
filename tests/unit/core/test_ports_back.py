"""A port that leaves its bridge comes back with its flags and VLANs: plan, undo, commands."""

from __future__ import annotations

import msgspec

from kvmnet.core import bridge_plan, ports_back, unchanged
from kvmnet.formats.arrange import commands, port_commands
from kvmnet.formats.arrange_commands import Line
from kvmnet.model.arrangement import Arrangement
from kvmnet.model.host import BridgeAttributes, ForwardingEntry, Link, PortAttributes
from kvmnet.model.link_steps import SetPorts
from kvmnet.model.plan import Arrange, HandOver, Plan, PlannedStep
from kvmnet.model.setup import PortVlans, VlanRange
from kvmnet.model.state import State
from kvmnet.model.values import Mac

MAC = Mac("52:54:00:00:00:01")
FILTERS = BridgeAttributes(stp=False, forward_delay_s=0, vlan_filtering=True)
NEW = PortAttributes(state="forwarding", cost=4)
SET = PortAttributes(
    state="forwarding", learning=False, isolated=True, cost=4,
    options=("priority", "7", "mcast_flood", "off"),
)  # fmt: skip
ONE = VlanRange(first=1, last=1, untagged=True)
TRUNK = PortVlans(port="eth1", ranges=(ONE, VlanRange(first=20, last=29)), pvid=1)
OWN = PortVlans(port="br0", ranges=(ONE, VlanRange(first=21, last=21)), pvid=1)
SELF = PortVlans(port="br0", ranges=(ONE,), pvid=1)


def host(
    port: PortAttributes | None = SET, *, bridge: BridgeAttributes | None = FILTERS,
    vlans: tuple[PortVlans, ...] = (TRUNK, OWN),
) -> State:  # fmt: skip
    """A host with its address on eth0, and eth1 in br0. Without `bridge`: after that is gone."""
    links = [Link(index=2, name="eth0", kind="ethernet", up=True)]
    master = "br0" if bridge is not None and port is not None else None
    links.append(Link(index=3, name="eth1", kind="ethernet", mac=MAC, up=True, carrier=True,
                      master=master, port=port if master else None))  # fmt: skip
    if bridge is not None:
        links.append(Link(index=4, name="br0", kind="bridge", mac=MAC, up=True, carrier=True,
                          bridge=bridge))  # fmt: skip
    return State(taken_at=0, hostname="h", links=tuple(links), port_vlans=vlans)


def back_from(change: bridge_plan.BridgeChange) -> Arrangement:
    """The undo, as it comes out of a journal."""
    assert change.arrange is not None and isinstance(change.arrange.undo, Arrange)
    return msgspec.json.decode(msgspec.json.encode(change.arrange.undo.target), type=Arrangement)


def told(now: State, target: Arrangement) -> list[str]:
    """What is said of ports and VLANs, and when the rest of it comes."""
    return [
        f"{x.program} {x.text}" for x in commands(now, target)
        if isinstance(x, Line) and ("vlan" in x.text or "master" in x.text or "_slave" in x.text)
    ]  # fmt: skip


def test_a_deleted_bridge_comes_back_with_all_that_its_port_and_itself_had() -> None:
    change = bridge_plan.plan_delete(host(), "br0")
    assert not change.notes
    assert told(host(bridge=None, vlans=()), back_from(change)) == [
        "ip link add name br0 address 52:54:00:00:00:01 mtu 1500 type bridge stp_state 0 "
        "forward_delay 0 vlan_default_pvid 0",
        "ip link set dev eth1 master br0",
        "ip link set dev eth1 type bridge_slave learning off isolated on priority 7 "
        "mcast_flood off",
        "ip link set dev br0 type bridge vlan_default_pvid 1",
        "bridge vlan add dev br0 vid 21 self",
        "bridge vlan add dev eth1 vid 20-29",
        "ip link set dev br0 type bridge vlan_filtering 1",
    ]


def test_asked_again_it_says_nothing() -> None:
    target = back_from(bridge_plan.plan_delete(host(), "br0"))
    assert told(host(), target) == []


def test_what_is_the_kernels_own_choice_is_not_said() -> None:
    state = host(NEW, vlans=(msgspec.structs.replace(TRUNK, ranges=(ONE,)), SELF))
    target = back_from(bridge_plan.plan_delete(state, "br0"))
    lines = told(host(bridge=None, vlans=()), target)
    assert not [x for x in lines if x.startswith("bridge ") or "_slave" in x]


def test_a_port_that_was_removed_gets_its_vlans_as_soon_as_it_is_one_again() -> None:
    """The bridge goes on filtering meanwhile; the default VLAN that it gives is taken off."""
    untagged = VlanRange(first=20, last=20, untagged=True)
    only = PortVlans(port="eth1", ranges=(untagged,), pvid=20)
    change = bridge_plan.plan_remove_port(host(vlans=(only, OWN)), "br0", "eth1")
    assert not [x for x in change.notes if "lose" in x]
    assert told(host(None, vlans=(OWN,)), back_from(change)) == [
        "ip link set dev eth1 master br0",
        "ip link set dev eth1 type bridge_slave learning off isolated on priority 7 "
        "mcast_flood off",
        "bridge vlan add dev eth1 vid 20 pvid untagged",
        "bridge vlan del dev eth1 vid 1",
    ]


def test_a_cost_that_somebody_set_is_set_once_the_kernels_own_is_seen() -> None:
    """One that is the kernel's for some speed is not: it would no more follow the speed."""
    target = back_from(bridge_plan.plan_delete(host(msgspec.structs.replace(SET, cost=55)), "br0"))
    assert told(host(SET), target) == ["ip link set dev eth1 type bridge_slave cost 55"]
    target = back_from(bridge_plan.plan_delete(host(msgspec.structs.replace(SET, cost=100)), "br0"))
    assert told(host(SET), target) == []


def test_flags_and_vlans_that_are_too_many_go() -> None:
    """Killed half-way, or changed by somebody: what is there is what counts."""
    other = msgspec.structs.replace(NEW, options=("priority", "9"))
    target = back_from(bridge_plan.plan_delete(host(other), "br0"))
    more = PortVlans(
        port="eth1", pvid=5,
        ranges=(ONE, VlanRange(first=5, last=5), VlanRange(first=18, last=25)),
    )  # fmt: skip
    assert told(host(SET, vlans=(more, OWN)), target) == [
        "ip link set dev eth1 type bridge_slave learning on isolated off priority 9 mcast_flood on",
        "bridge vlan add dev eth1 vid 1 pvid untagged",
        "bridge vlan add dev eth1 vid 26-29",
        "bridge vlan del dev eth1 vid 5",
        "bridge vlan del dev eth1 vid 18-19",
    ]


def test_a_backup_port_that_is_gone_is_none() -> None:
    backup = msgspec.structs.replace(NEW, options=("backup_port", "eth9"))
    target = back_from(bridge_plan.plan_delete(host(backup), "br0"))
    assert not [x for x in told(host(bridge=None, vlans=()), target) if "_slave" in x]
    backup = msgspec.structs.replace(NEW, options=("backup_port", "eth0"))
    target = back_from(bridge_plan.plan_delete(host(backup), "br0"))
    joined = host(NEW)
    assert not [x for x in told(joined, target) if "_slave" in x]  # eth0 is no port of br0
    both = tuple(
        msgspec.structs.replace(x, master="br0", port=NEW) if x.name == "eth0" else x
        for x in joined.links
    )
    joined = msgspec.structs.replace(joined, links=both)
    assert told(joined, target) == ["ip link set dev eth1 type bridge_slave backup_port eth0"]
    other = back_from(
        bridge_plan.plan_delete(host(msgspec.structs.replace(NEW, hairpin=True)), "br0")
    )
    assert told(host(backup), other) == [
        "ip link set dev eth1 type bridge_slave hairpin on nobackup_port"
    ]


def test_a_kernel_that_knows_no_vlans_is_told_of_none() -> None:
    plain = BridgeAttributes(stp=False, forward_delay_s=0)
    target = back_from(bridge_plan.plan_delete(host(bridge=plain, vlans=()), "br0"))
    assert all(x.vlans is None for x in target.links)
    assert not [x for x in told(host(bridge=None, vlans=()), target) if x.startswith("bridge ")]


def test_the_undo_of_an_older_journal_says_nothing_of_ports() -> None:
    target = back_from(bridge_plan.plan_delete(host(), "br0"))
    raw = msgspec.json.decode(msgspec.json.encode(target))
    for link in raw["links"]:
        del link["port"], link["vlans"]
    old = msgspec.convert(raw, Arrangement)
    lines = told(host(bridge=None, vlans=()), old)
    assert [x for x in lines if "master" in x]
    assert not [x for x in lines if x.startswith("bridge ") or "_slave" in x]


def test_taking_a_creation_back_can_itself_be_undone_to_what_was_set_since() -> None:
    """VLANs come after the bridge is made, so the step that made it knows nothing of them."""
    change = bridge_plan.plan_delete(host(), "br0")
    there = back_from(change)
    made = msgspec.structs.replace(
        there, links=tuple(msgspec.structs.replace(x, port=None, vlans=None) for x in there.links)
    )
    gone = Arrangement(links=(), absent=("br0",))
    kept = Plan(
        title="make bridge br0",
        steps=(PlannedStep(step=Arrange(what="make", target=made),
                           undo=Arrange(what="back", target=gone)),),
    )  # fmt: skip
    back = ports_back.of_now(host(), unchanged.reversed_plan(kept))
    (step,) = back.steps
    assert isinstance(step.step, Arrange) and step.step.target == gone
    assert isinstance(step.undo, Arrange) and step.undo.target == there
    nowhere = ports_back.of_now(host(bridge=None), unchanged.reversed_plan(kept))
    assert nowhere == unchanged.reversed_plan(kept)


def test_what_no_undo_brings_back_is_said() -> None:
    static = ForwardingEntry(mac=MAC, port="eth1", bridge="br0", kind="static")
    tunnels = msgspec.structs.replace(NEW, options=("vlan_tunnel", "on"))
    state = msgspec.structs.replace(
        host(tunnels), forwarding=(static, msgspec.structs.replace(static, port="eth0"))
    )
    (note,) = bridge_plan.plan_delete(state, "br0").notes
    assert note.startswith("eth1 loses 1 static forwarding entry and which VLAN is which tunnel's:")
    assert "does not bring it back" in note
    assert bridge_plan.plan_remove_port(state, "br0", "eth1").notes == (note,)


def test_what_is_set_is_set_again_after_the_manager_was_told() -> None:
    """NetworkManager plugs the port in anew when its profile comes up."""
    before = back_from(bridge_plan.plan_delete(host(), "br0"))
    (first,) = ports_back.steps(before)
    assert isinstance(first.step, SetPorts) and first.undo == first.step
    assert [x.name for x in first.step.links] == ["br0", "eth1"]
    again = Arrangement(links=first.step.links)
    assert not port_commands(host(), again)
    lost = host(NEW, vlans=(PortVlans(port="eth1", ranges=(ONE,), pvid=1), SELF))
    assert [x.text for x in port_commands(lost, again) if isinstance(x, Line)] == [
        "link set dev eth1 type bridge_slave learning off isolated on priority 7 mcast_flood off",
        "vlan add dev br0 vid 21 self",
        "vlan add dev eth1 vid 20-29",
    ]
    assert not port_commands(host(None), Arrangement(links=first.step.links[1:]))
    assert not port_commands(host(bridge=None), again)


def test_where_nobody_has_set_anything_there_is_nothing_to_set_again() -> None:
    state = host(NEW, vlans=(PortVlans(port="eth1", ranges=(ONE,), pvid=1), SELF))
    assert ports_back.steps(back_from(bridge_plan.plan_delete(state, "br0"))) == ()
    costly = host(msgspec.structs.replace(NEW, cost=55), vlans=state.port_vlans)
    (step,) = ports_back.steps(back_from(bridge_plan.plan_delete(costly, "br0")))
    assert isinstance(step.step, SetPorts) and [x.name for x in step.step.links] == ["eth1"]


def test_an_undo_of_an_undo_sets_what_is_there_by_then() -> None:
    """Of ports that are to leave; of those that are to come, what was noted."""
    before = back_from(bridge_plan.plan_delete(host(), "br0"))
    told = PlannedStep(step=HandOver(manager="x", files=()), undo=None)
    back = Plan(title="undo", steps=(told, PlannedStep(
        step=Arrange(what="away", target=Arrangement(links=(), absent=("br0",))),
        undo=Arrange(what="make", target=before),
    )))  # fmt: skip
    there = ports_back.of_now(host(), back)
    assert [type(x.step).__name__ for x in there.steps] == ["SetPorts", "HandOver", "Arrange"]
    later = host(msgspec.structs.replace(SET, isolated=False))
    (first, *_) = ports_back.of_now(later, there).steps
    assert isinstance(first.step, SetPorts) and first.undo == first.step
    assert first.step.links[1].port is not None and not first.step.links[1].port.isolated
    assert ports_back.of_now(host(bridge=None), there).steps[0] == there.steps[0]
