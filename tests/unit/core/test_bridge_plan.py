"""Plans for host bridges: what is refused and why, what is planned, the diff that does it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmnet.core import bridge_plan
from kvmnet.errors import InvalidInput, NotFound, Refused
from kvmnet.formats import ip_batch
from kvmnet.formats.arrange import commands
from kvmnet.formats.arrange_commands import Line
from kvmnet.model.arrangement import Arrangement
from kvmnet.model.desired import BridgeRequest
from kvmnet.model.host import (
    Address,
    BridgeAttributes,
    Link,
    Neighbour,
    NicOwner,
    Route,
    Rule,
    Sysctl,
)
from kvmnet.model.plan import Arrange
from kvmnet.model.state import State
from kvmnet.model.values import Cidr, Ip, Mac
from kvmnet.model.virt import Guest, GuestNic, Network, NetworkConfig, NetworkIp

MAC = Mac("52:54:00:00:00:01")
OTHER = Mac("52:54:00:00:00:02")


def nic(name: str = "eth0", **facts: Any) -> Link:
    given = {"index": 2, "kind": "ethernet", "mac": MAC, "up": True, "carrier": True, **facts}
    return Link(name=name, **given)


def host(*links: Link, **parts: Any) -> State:
    address = Address(link="eth0", ip=Ip("192.0.2.5"), prefix_len=24, family=4)
    found = {
        "links": links or (nic(),),
        "addresses": (address,),
        "routes": (
            Route(family=4, destination=Cidr("192.0.2.0/24"), link="eth0", protocol="kernel"),
            Route(family=4, destination=Cidr("0.0.0.0/0"), link="eth0", gateway=Ip("192.0.2.1")),
        ),
        **parts,
    }
    return State(taken_at=0, hostname="h", **found)


def create(state: State, *ports: str, **wish: Any) -> bridge_plan.BridgeChange:
    request = BridgeRequest(name="br0", ports=ports or ("eth0",), **wish)
    return bridge_plan.plan_create(state, request)


def refusal(state: State, *ports: str, **wish: Any) -> str:
    with pytest.raises(Refused) as caught:
        create(state, *ports, **wish)
    assert caught.value.why
    return f"{caught.value} {caught.value.hint}"


ODD = Route(family=4, destination=Cidr("10.0.0.0/8"), link="eth0", opaque=True)
BR = BridgeAttributes(stp=False, forward_delay_s=0)
TAP = nic("vnet0", index=9, kind="tap", mac=OTHER)
GUEST = Guest(
    connection="qemu:///system", name="web", uuid="u", state="running", id=1,
    live_nics=(GuestNic(mac=MAC, type="bridge", source="br0", target="vnet0"),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (host(nic(kind="wireless")), "package iw"),
        (host(nic(kind="wireless", mode="managed", four_address=False)), "set 4addr on"),
        (host(nic(kind="wireless", mode="IBSS", four_address=True)), "kvmnet up"),
        (
            host(nic(kind="wireless", mode="AP", master="br1"), nic("br1", kind="bridge")),
            "remove-port br1 eth0",
        ),
        (host(nic(kind="loopback")), "no Ethernet link"),
        (host(nic(kind="bridge", bridge=BR)), "bridges can't be nested"),
        (host(nic(master="br1"), nic("br1", kind="bridge", bridge=BR)), "remove-port br1 eth0"),
        (host(nic(master="bond0"), nic("bond0", kind="bond")), "name bond0 as the port"),
        (host(nic(master="ovs-system")), "Open vSwitch"),
        (host(nic(), nic("mv0", kind="macvtap", parent="eth0")), "gets its frames"),
        (host(nic(), nic("vx0", kind="vxlan", parent="eth0")), "sends by it"),
        (host(nic(), nic("br0", kind="veth")), "a link of that name"),
        (host(nic(), nic("br0", kind="bridge", bridge=BR)), "add-port br0"),
        (
            host(owners=(NicOwner(link="eth0", manager="netplan", rivals=("ifupdown (x)",)),)),
            "more than one host network manager",
        ),
        (
            host(routes=(ODD,)),
            "can not move yet",
        ),
    ],
)  # fmt: skip
def test_what_would_harm_is_refused(state: State, words: str) -> None:
    assert words in refusal(state)


def test_a_station_in_four_address_mode_and_an_access_point_are_taken() -> None:
    for facts in (
        {"mode": "managed", "four_address": True},
        {"mode": "AP"},
        {"mode": "mesh point"},
    ):
        assert create(host(nic(kind="wireless", **facts))).arrange is not None


def test_what_changes_for_the_port_is_told() -> None:
    vlan = nic("eth0.7", index=3, kind="vlan", parent="eth0", vlan_id=7)
    notes = "\n".join(create(host(nic(lro=True), vlan), vlan_filtering=True).notes)
    assert "ethtool -K eth0 lro on" in notes
    assert "VLAN 7 of eth0 stays with eth0.7" in notes
    assert "bridge vlan add dev eth0 vid" in notes
    assert not create(host()).notes


def test_rules_that_refuse_a_gateway_are_away_while_its_routes_are_made() -> None:
    rule = Rule(family=4, priority=99, oif="eth0", action="prohibit", table="")
    state = host(rules=(rule,))
    change = create(state)
    assert change.arrange is not None and isinstance(change.arrange.undo, Arrange)
    away = msgspec.structs.replace(
        state,
        links=(*state.links, nic("br0", index=3, kind="bridge", bridge=BR)),
        routes=tuple(msgspec.structs.replace(x, link="br0") for x in state.routes),
    )
    lines = [x.text for x in commands(away, change.arrange.undo.target) if isinstance(x, Line)]
    first = next(n for n, x in enumerate(lines) if x.startswith("rule delete"))
    route = next(n for n, x in enumerate(lines) if "via 192.0.2.1" in x)
    again = next(n for n, x in enumerate(lines) if x.startswith("rule add"))
    assert first < route < again


def test_a_nic_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(NotFound, match="eth7") as caught:
        create(host(), "eth7")
    assert "eth0" in caught.value.why


def test_two_nics_in_one_lan_are_a_loop_unless_stp_finds_it() -> None:
    both = tuple(
        Neighbour(link=x, ip=Ip("192.0.2.1"), family=4, mac=OTHER, state="REACHABLE")
        for x in ("eth0", "eth1")
    )
    state = host(nic(), nic("eth1", mac=Mac("52:54:00:00:00:03")), neighbours=both)
    assert "--stp on" in refusal(state, "eth0", "eth1")
    assert create(state, "eth0", "eth1", stp=True).arrange is not None


def test_addresses_that_nobody_would_take_over_are_not_lost() -> None:
    more = Address(link="eth1", ip=Ip("198.51.100.5"), prefix_len=24, family=4)
    state = host(nic(), nic("eth1"))
    state = msgspec.structs.replace(state, addresses=(*state.addresses, more))
    assert "198.51.100.5/24" in refusal(state, "eth0", "eth1")


def test_none_is_refused_where_it_would_cut_the_host_off() -> None:
    assert "default route" in refusal(host(), address="none")
    assert "only address" in refusal(host(routes=()), address="none")


def test_a_given_address_keeps_the_way_out_or_is_refused() -> None:
    assert "192.0.2.1 is not in that prefix" in refusal(host(), address="198.51.100.9/24")
    change = create(host(), address="192.0.2.9/24")
    assert change.arrange is not None and isinstance(change.arrange.step, Arrange)
    bridge = change.arrange.step.target.links[0]
    assert [x.ip for x in bridge.addresses] == ["192.0.2.9"]
    assert any("takes the place of 192.0.2.5/24" in x for x in change.notes)


def test_dhcp_that_nobody_would_ask_for_is_refused() -> None:
    assert "nobody would ask" in refusal(host(), address="dhcp")
    owner = NicOwner(link="eth0", manager="ifupdown")
    assert "nothing is persisted" in refusal(host(owners=(owner,)), address="dhcp", persist=False)
    assert "no link" in refusal(host(nic(carrier=False), owners=(owner,)), address="dhcp")
    assert "until ifupdown asks" in create(host(owners=(owner,)), address="dhcp").notes[0]


def test_a_forward_delay_that_the_kernel_refuses() -> None:
    with pytest.raises(InvalidInput):
        create(host(), stp=True, forward_delay_s=1)


def test_what_is_so_already_takes_no_step() -> None:
    bridge = nic("br0", index=3, kind="bridge", bridge=BR)
    change = create(host(nic(master="br0"), bridge))
    assert change.arrange is None and change.notes


def test_a_bridge_without_ports_has_the_same_mac_each_time() -> None:
    request = BridgeRequest(name="br0")
    one, two = (bridge_plan.plan_create(host(), request) for _ in range(2))
    assert one == two and one.takeover is not None and one.takeover.mac[1] == "2"
    given = bridge_plan.plan_create(host(), request, OTHER)
    assert given.takeover is not None and given.takeover.mac == OTHER


def bridged(*more: Link, bridge: BridgeAttributes = BR) -> State:
    """The host with br0 in eth0's place and a guest on it."""
    state = host(nic(master="br0"), nic("br0", index=3, kind="bridge", bridge=bridge), TAP)
    moved = tuple(msgspec.structs.replace(x, link="br0") for x in state.addresses)
    routes = tuple(msgspec.structs.replace(x, link="br0") for x in state.routes)
    tap = msgspec.structs.replace(TAP, master="br0")
    return msgspec.structs.replace(
        state, addresses=moved, routes=routes, links=(*state.links[:2], tap, *more), guests=(GUEST,)
    )


def test_deleting_is_refused_while_guests_are_on_it_unless_forced() -> None:
    with pytest.raises(Refused, match="web"):
        bridge_plan.plan_delete(bridged(), "br0")
    change = bridge_plan.plan_forced_delete(bridged(), "br0")
    assert change.arrange is not None and change.arrange.disturbs == "guest web: cut off"
    assert change.takeover is None and change.before is not None
    assert change.before.heir_of == change.heir == "eth0"


def test_a_filtering_bridge_with_another_default_vlan_is_made_again_as_it_was() -> None:
    """The kernel changes the default VLAN only while nothing is filtered."""
    odd = BridgeAttributes(stp=False, forward_delay_s=0, vlan_filtering=True, default_pvid=10)
    change = bridge_plan.plan_forced_delete(bridged(bridge=odd), "br0")
    assert change.arrange is not None and isinstance(change.arrange.undo, Arrange)
    lines = [x.text for x in commands(host(), change.arrange.undo.target) if isinstance(x, Line)]
    about = [x.split(" type bridge ")[1] for x in lines if " type bridge " in x]
    assert about[-2:] == ["vlan_default_pvid 10", "vlan_filtering 1"]
    assert about[0].endswith("vlan_default_pvid 0")


def test_the_only_way_out_is_not_taken_from_a_bridge() -> None:
    with pytest.raises(Refused, match="only way out"):
        bridge_plan.plan_remove_port(bridged(), "br0", "eth0")
    with pytest.raises(Refused, match="NIC of guest web") as caught:
        bridge_plan.plan_remove_port(bridged(), "br0", "vnet0")
    assert caught.value.hint == "kvmnet guest move web --to TARGET"


def test_docker_and_nobody_are_told() -> None:
    with pytest.raises(NotFound):
        bridge_plan.plan_delete(host(), "br0")
    docker = host(nic(), nic("docker0", kind="bridge", bridge=BR))
    with pytest.raises(Refused, match="Docker"):
        bridge_plan.plan_delete(docker, "docker0")


def test_the_order_of_the_switch() -> None:
    change = create(host(sysctls=(Sysctl(name="net.ipv6.conf.eth0.accept_ra", value="2"),)))
    assert change.arrange is not None and isinstance(change.arrange.step, Arrange)
    todo = commands(host(), change.arrange.step.target)
    text = [x.text if isinstance(x, Line) else type(x).__name__ for x in todo]
    assert text == [
        f"link add name br0 address {MAC} mtu 1500 type bridge stp_state 0 forward_delay 0 "
        "vlan_default_pvid 0",
        "link set dev br0 addrgenmode none",
        "Setting",
        "link set dev br0 up",
        "address add 192.0.2.5/24 dev br0 scope global",
        "link set dev eth0 promisc on allmulticast on",
        "link set dev eth0 master br0",
        "Settle",
        "route replace 0.0.0.0/0 table main via 192.0.2.1 dev br0",
        "route delete 192.0.2.0/24 table main proto kernel dev eth0",
        "address delete 192.0.2.5/24 dev eth0",
        "link set dev br0 type bridge vlan_default_pvid 1",
        "link set dev eth0 promisc off allmulticast off",
    ]


def test_a_prefix_that_the_kernel_makes_no_route_for_comes_before_the_gateway_in_it() -> None:
    """NetworkManager's addresses are so, and `ip` lists the default route first."""
    address = Address(link="eth0", ip=Ip("192.0.2.5"), prefix_len=24, family=4,
                      flags=("noprefixroute",))  # fmt: skip
    plain = host().routes
    routes = tuple(msgspec.structs.replace(x, metric=100) for x in reversed(plain))
    state = host(addresses=(address,), routes=routes)
    change = create(state)
    assert change.arrange is not None and isinstance(change.arrange.step, Arrange)
    todo = commands(state, change.arrange.step.target)
    lines = [x.text for x in todo if isinstance(x, Line) and x.text.startswith("route ")]
    assert lines[:2] == [
        "route replace 192.0.2.0/24 table main proto kernel metric 100 dev br0",
        "route replace 0.0.0.0/0 table main metric 100 via 192.0.2.1 dev br0",
    ]


def test_a_bridge_that_goes_gives_its_port_no_vlan_and_gets_it_back_where_it_stays() -> None:
    pvid = "link set dev br0 type bridge vlan_default_pvid"

    def lines(bridge: BridgeAttributes, target: Arrangement) -> list[str]:
        return [x.text for x in commands(bridged(bridge=bridge), target) if isinstance(x, Line)]

    change = bridge_plan.plan_forced_delete(bridged(), "br0")
    assert change.arrange is not None and isinstance(change.arrange.step, Arrange)
    text = lines(BR, change.arrange.step.target)
    assert text.index(f"{pvid} 0") < text.index("link set dev eth0 nomaster")
    assert isinstance(change.arrange.undo, Arrange)
    killed = msgspec.structs.replace(BR, default_pvid=0)
    assert lines(killed, change.arrange.undo.target) == [f"{pvid} 1"]
    filtering = msgspec.structs.replace(BR, vlan_filtering=True)
    assert f"{pvid} 0" not in lines(filtering, change.arrange.step.target)


def test_a_nic_that_somebody_listens_to_stays_so() -> None:
    change = create(host(nic(promisc=True)))
    assert change.arrange is not None and isinstance(change.arrange.step, Arrange)
    todo = commands(host(nic(promisc=True)), change.arrange.step.target)
    text = [x.text for x in todo if isinstance(x, Line) and "multicast" in x.text]
    assert text == ["link set dev eth0 allmulticast on", "link set dev eth0 allmulticast off"]
    killed = host(nic(promisc=True, allmulti=True))
    assert isinstance(change.arrange.undo, Arrange)
    back = [x.text for x in commands(killed, change.arrange.undo.target) if isinstance(x, Line)]
    assert back == ["link set dev eth0 allmulticast off"]


@given(st.text(min_size=1, max_size=15))
def test_no_name_can_smuggle_a_second_command_into_a_batch(name: str) -> None:
    try:
        line = ip_batch.line("link", "delete", "dev", name)
    except InvalidInput:
        return
    assert line.split() == ["link", "delete", "dev", name]
    assert not set(line) & set("\"'\\#\n")


def network(config: NetworkConfig, **more: object) -> Network:
    return msgspec.convert(
        {"connection": "qemu:///system", "name": "lab1", "uuid": "x", "active": True,
         "persistent": True, "autostart": True, "saved": config, **more},
        Network,
    )  # fmt: skip


NAT = NetworkConfig(mode="nat", bridge="virbr1", uplinks=("eth0",))
ON_LAN = NetworkConfig(
    mode="route", bridge="virbr1", uplinks=("eth0",),
    ips=(NetworkIp(family=4, address=Ip("192.0.2.201"), prefix_len=29),),
)  # fmt: skip
RUNNING = pytest.mark.parametrize(
    "running", [{}, {"autostart": False}, {"active": False}], ids=["on", "only now", "only at boot"]
)


@RUNNING
def test_a_network_that_goes_out_by_the_nic_only_would_be_cut_off(running: Any) -> None:
    one = network(NAT, **running)
    for wish in ({}, {"persist": False}, {"address": "none"}):
        said = refusal(host(networks=(one,)), **wish)
        assert "lab1" in said
        assert "virsh net-edit lab1" in said


@RUNNING
def test_a_nic_that_the_host_answers_on_for_guests_stays_as_it_is(running: Any) -> None:
    one = network(ON_LAN, **running)
    for wish in ({}, {"persist": False}, {"address": "none"}):
        said = refusal(host(networks=(one,)), **wish)
        assert "answers for them on eth0" in said
        assert "kvmnet network delete lab1" in said


def test_a_network_that_is_off_for_good_or_goes_out_elsewhere_is_no_hindrance() -> None:
    off = network(ON_LAN, active=False, autostart=False)
    assert create(host(networks=(off,))).arrange is not None
    elsewhere = network(msgspec.structs.replace(NAT, uplinks=("eth7",)))
    assert create(host(networks=(elsewhere,))).arrange is not None


def test_a_subnet_that_another_nic_leads_to_is_refused() -> None:
    second = nic("eth1", index=3, mac=OTHER)
    assert "eth0 has 192.0.2.5/24" in refusal(host(nic(), second), "eth1", address="192.0.2.9/24")
    assert create(host(nic(), second), "eth1", address="198.51.100.9/24").arrange is not None
    assert create(host(nic(), second), "eth0", address="192.0.2.9/24").arrange is not None
