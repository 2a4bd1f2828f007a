import ipaddress
import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmnet.core.lan_range import (
    InUse,
    LanFacts,
    blocks_of,
    guests_of,
    is_lan_range,
)
from kvmnet.core.lan_settings import again_steps, parse_settings, settings_file
from kvmnet.core.network_create import plan_create
from kvmnet.core.network_plan import Saved, plan_delete, plan_start
from kvmnet.core.subnets import clashes
from kvmnet.errors import InvalidInput, KvmnetError, NotFound, Refused
from kvmnet.model.desired import NetworkRequest
from kvmnet.model.host import (
    Address,
    Firewall,
    FirewallChain,
    FirewallRule,
    Link,
    Neighbour,
    Route,
    Sysctl,
)
from kvmnet.model.plan import (
    CloseOpening,
    DefineNetwork,
    MakeOpening,
    Plan,
    RemoveFile,
    SetSysctl,
    Step,
    WriteFile,
)
from kvmnet.model.state import State
from kvmnet.model.values import Cidr, Ip, Mac
from kvmnet.model.virt import DhcpRange, Network, NetworkConfig

ARP = "net/ipv4/conf/wlan0/proxy_arp"
DELAY = "net/ipv4/neigh/wlan0/proxy_delay"
OTHER = Mac("02:00:00:00:00:99")

HOST = State(
    taken_at=0,
    hostname="h",
    links=(
        Link(index=1, name="lo", kind="loopback"),
        Link(index=2, name="wlan0", kind="wireless", up=True, carrier=True),
        Link(index=3, name="eth9", kind="ethernet", up=True, carrier=True),
        Link(index=4, name="eth8", kind="ethernet", up=True, carrier=True, master="br0"),
        Link(index=5, name="br0", kind="bridge", up=True, carrier=True),
        Link(index=6, name="eth7", kind="ethernet", up=False),
    ),
    addresses=(Address(link="wlan0", ip=Ip("192.0.2.10"), prefix_len=24, family=4),),
    routes=(
        Route(family=4, destination=Cidr("0.0.0.0/0"), link="wlan0", gateway=Ip("192.0.2.1")),
        Route(family=4, destination=Cidr("192.0.2.0/24"), link="wlan0", protocol="kernel"),
    ),
    sysctls=(Sysctl(name="net.ipv4.conf.wlan0.proxy_arp", value="0"),),
)


def lan(text: str) -> DhcpRange:
    start, _, end = text.partition("-")
    return DhcpRange(start=Ip(start), end=Ip(end))


def create(
    wanted: str = "192.0.2.200-192.0.2.230",
    state: State = HOST,
    facts: LanFacts | None = None,
    **more: object,
) -> Plan:
    request = msgspec.convert(
        {"name": "lan", "mode": "route", "uplink": "wlan0", "lan_range": lan(wanted), **more},
        NetworkRequest,
    )
    saved = Saved(lan=facts or LanFacts())
    return plan_create(state, request, saved, os.urandom)


def steps(plan: Plan) -> list[Step]:
    return [x.step for x in plan.steps]


def config_of(plan: Plan) -> NetworkConfig:
    return next(x.config for x in steps(plan) if isinstance(x, DefineNetwork))


def made(state: State, plan: Plan, name: str = "lan") -> State:
    """The host after the plan."""
    config = config_of(plan)
    network = Network(
        connection="c", name=name, uuid="u", active=True, persistent=True, autostart=True,
        live=config, saved=config,
    )  # fmt: skip
    return msgspec.structs.replace(
        state,
        networks=(*state.networks, network),
        sysctls=(Sysctl(name="net.ipv4.conf.wlan0.proxy_arp", value="1"),),
    )


def file_of(plan: Plan) -> str:
    return next(x.text for x in steps(plan) if isinstance(x, WriteFile))


@given(st.integers(1, 250), st.integers(0, 250))
def test_blocks_stay_inside_the_range_and_apart(first: int, length: int) -> None:
    start = ipaddress.IPv4Address("192.0.2.0") + first
    end = min(start + length, ipaddress.IPv4Address("192.0.2.254"))
    try:
        blocks = blocks_of(lan(f"{start}-{end}"))
    except InvalidInput:
        assert int(end) - int(start) < 6
        return
    taken = [address for block in blocks for address in block]
    assert len(set(taken)) == len(taken)
    assert all(start <= address <= end for address in taken)
    for block in blocks:
        guests = guests_of(block)
        inside = [block[1], ipaddress.ip_address(guests.start), ipaddress.ip_address(guests.end)]
        assert inside[0] < inside[1] <= inside[2] < block[-1]


def test_the_host_answers_at_once_and_after_a_reboot() -> None:
    plan = create()
    settings = [(x.path, x.value) for x in steps(plan) if isinstance(x, SetSysctl)]
    assert settings == [(ARP, "1"), (DELAY, "0")]
    assert {f"{ARP} = 1", f"{DELAY} = 0"} <= set(file_of(plan).splitlines())
    undo = [x.undo for x in plan.steps[:3]]
    assert undo[2] == RemoveFile(path=settings_file("lan"))
    assert [x.value for x in undo[:2] if isinstance(x, SetSysctl)] == ["0", "80"]


def test_the_network_is_one_that_libvirt_keeps_routed_by_itself() -> None:
    config = config_of(create())
    assert (config.mode, config.uplinks) == ("route", ("wlan0",))
    assert [(x.address, x.prefix_len) for x in config.ips] == [
        ("192.0.2.209", 28), ("192.0.2.201", 29), ("192.0.2.225", 30),
    ]  # fmt: skip
    assert "dhcp-lease-max=19" in config.dnsmasq_options


def test_an_aligned_range_is_one_subnet_with_libvirts_own_dhcp() -> None:
    config = config_of(create("192.0.2.208-192.0.2.223"))
    assert [(x.address, x.prefix_len) for x in config.ips] == [("192.0.2.209", 28)]
    assert config.dnsmasq_options == ("no-ping",)


def test_the_part_of_the_lan_is_no_overlap_that_is_told_or_keeps_it_from_starting() -> None:
    plan = create()
    after = made(HOST, plan)
    assert clashes(after) == ()
    assert is_lan_range(after, config_of(plan))
    stopped = msgspec.structs.replace(
        after, networks=tuple(msgspec.structs.replace(x, active=False, live=None)
                              for x in after.networks)
    )  # fmt: skip
    assert len(plan_start(stopped, "lan", Saved(lan_file=file_of(plan))).steps) == 1


def test_delete_takes_back_all_that_create_set() -> None:
    plan = create()
    gone = plan_delete(
        made(HOST, plan), "lan", Saved(network_xml="<network/>", lan_file=file_of(plan)),
        even_in_use=False,
    )  # fmt: skip
    back = [(x.path, x.value) for x in steps(gone) if isinstance(x, SetSysctl)]
    assert back == [(ARP, "0"), (DELAY, "80")]
    assert RemoveFile(path=settings_file("lan")) in steps(gone)
    again = [x.undo for x in gone.steps]
    assert WriteFile(path=settings_file("lan"), text=file_of(plan)) in again


def test_two_networks_share_the_uplinks_settings_and_the_last_one_takes_them_back() -> None:
    first = create("192.0.2.208-192.0.2.223")
    one = made(HOST, first)
    second = create("192.0.2.240-192.0.2.247", one, LanFacts(proxy_delay="0"), name="lan2")
    both = made(one, second, "lan2")
    settings = parse_settings(file_of(second))
    assert [(x.path, x.value, x.before) for x in settings] == [(ARP, "1", "0"), (DELAY, "0", "80")]
    assert all(x.undo is None for x in second.steps if isinstance(x.step, SetSysctl))
    saved = Saved(network_xml="<network/>", lan_file=file_of(first))
    kept = plan_delete(both, "lan", saved, even_in_use=False)
    assert not [x for x in steps(kept) if isinstance(x, SetSysctl)]
    alone = msgspec.structs.replace(both, networks=both.networks[1:])
    saved = Saved(network_xml="<network/>", lan_file=file_of(second))
    last = plan_delete(alone, "lan2", saved, even_in_use=False)
    assert [x.value for x in steps(last) if isinstance(x, SetSysctl)] == ["0", "80"]


def test_a_setting_that_the_host_had_already_stays_the_hosts() -> None:
    own = msgspec.structs.replace(
        HOST, sysctls=(Sysctl(name="net.ipv4.conf.wlan0.proxy_arp", value="1"),)
    )
    plan = create(state=own, facts=LanFacts(proxy_delay="0"))
    assert not [x for x in steps(plan) if isinstance(x, SetSysctl | WriteFile)]


def test_start_sets_again_what_was_unset() -> None:
    text = file_of(create())
    set_again = [
        SetSysctl(name="net.ipv4.conf.wlan0.proxy_arp", value="1", path=ARP),
        SetSysctl(name="net.ipv4.neigh.wlan0.proxy_delay", value="0", path=DELAY),
    ]
    running = made(HOST, create())
    unset = msgspec.structs.replace(running, sysctls=HOST.sysctls)
    (network,) = unset.networks
    assert [x.step for x in again_steps(unset, network, text)] == set_again
    assert again_steps(running, network, text) == ()
    assert steps(plan_start(unset, "lan", Saved(lan_file=text))) == set_again
    assert steps(plan_start(running, "lan", Saved(lan_file=text))) == []


def test_start_writes_the_file_anew_where_somebody_has_removed_it() -> None:
    running = made(HOST, create())
    unset = msgspec.structs.replace(running, sysctls=HOST.sysctls)
    written = [x for x in steps(plan_start(unset, "lan", Saved())) if isinstance(x, WriteFile)]
    assert [x.text for x in written] == [file_of(create())]
    assert steps(plan_start(running, "lan", Saved())) == []


def test_start_leaves_the_uplink_of_other_networks_alone() -> None:
    config = NetworkConfig(mode="nat", bridge="virbr9", uplinks=("wlan0",))
    network = Network(
        connection="c", name="nat", uuid="u", active=True, persistent=True, autostart=True,
        live=config, saved=config,
    )  # fmt: skip
    state = msgspec.structs.replace(HOST, networks=(network,))
    assert steps(plan_start(state, "nat", Saved())) == []


@pytest.mark.parametrize(
    "line",
    ["net/ipv4/../../kernel/core_pattern = x", "kernel/core_pattern = x", "nonsense", "# before: "],
)
def test_a_file_that_somebody_has_changed_sets_nothing_else(line: str) -> None:
    before = f"# before: {line}"
    assert parse_settings(f"{before}\n{line}\n") == ()


def test_a_firewall_that_drops_gets_openings_that_delete_closes() -> None:
    chain = FirewallChain(
        backend="nft", family="inet", table="filter", name="forward", hook="forward", priority=0,
        policy="drop", type="filter",
    )  # fmt: skip
    host = msgspec.structs.replace(HOST, firewall=Firewall(chains=(chain,)))
    plan = create(state=host)
    openings = [x.opening for x in steps(plan) if isinstance(x, MakeOpening)]
    assert openings
    assert {x.comment for x in openings} == {"kvmnet:lan"}
    rules = tuple(
        FirewallRule(
            text="", verdict="accept", iif=x.iif, oif=x.oif, comment=x.comment,
            ct_states=("established", "related") if x.established else (),
        )
        for x in openings
    )  # fmt: skip
    chains = (msgspec.structs.replace(chain, rules=rules),)
    after = msgspec.structs.replace(made(host, plan), firewall=Firewall(chains=chains))
    saved = Saved(network_xml="<network/>", lan_file=file_of(plan))
    gone = plan_delete(after, "lan", saved, even_in_use=False)
    closed = [x.opening for x in steps(gone) if isinstance(x, CloseOpening)]
    assert set(closed) == set(openings)


def with_route(destination: str, link: str) -> State:
    route = Route(family=4, destination=Cidr(destination), link=link)
    return msgspec.structs.replace(HOST, routes=(*HOST.routes, route))


SEEN = msgspec.structs.replace(
    HOST,
    neighbours=(Neighbour(link="wlan0", ip=Ip("192.0.2.210"), family=4, mac=OTHER, state="STALE"),),
)
REFUSED = {
    "own address": (HOST, "192.0.2.8-192.0.2.15", {}, "this host's own"),
    "gateway": (HOST, "192.0.2.1-192.0.2.7", {}, "a router"),
    "network address": (HOST, "192.0.2.0-192.0.2.7", {}, "first and last"),
    "broadcast address": (HOST, "192.0.2.248-192.0.2.255", {}, "first and last"),
    "another subnet": (HOST, "198.51.100.0-198.51.100.15", {}, "not inside the subnet"),
    "known neighbour": (SEEN, "192.0.2.208-192.0.2.223", {}, "192.0.2.210"),
    "another NIC into the LAN": (
        with_route("192.0.2.0/24", "eth9"), "192.0.2.208-192.0.2.223", {}, "through eth9",
    ),
    "a route inside": (
        with_route("192.0.2.216/29", "wlan0"), "192.0.2.208-192.0.2.223", {}, "overlaps",
    ),
    "a port": (HOST, "192.0.2.208-192.0.2.223", {"uplink": "eth8"}, "br0"),
    "no address": (HOST, "192.0.2.208-192.0.2.223", {"uplink": "eth9"}, "no IPv4 address"),
    "down": (HOST, "192.0.2.208-192.0.2.223", {"uplink": "eth7"}, "is down"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_harm_somebody_is_refused(case: str) -> None:
    state, wanted, more, why = REFUSED[case]
    with pytest.raises(Refused) as raised:
        create(wanted, state, **more)
    error: KvmnetError = raised.value
    assert why in f"{error} {error.why}"


def test_an_address_that_somebody_answers_for_is_refused() -> None:
    facts = LanFacts(in_use=(InUse(ip=Ip("192.0.2.211"), mac=OTHER),))
    with pytest.raises(Refused) as raised:
        create(facts=facts)
    assert f"192.0.2.211 ({OTHER})" in raised.value.why


def test_an_unknown_uplink_is_not_found() -> None:
    with pytest.raises(NotFound):
        create(uplink="wlan7")


def test_a_providers_further_addresses_need_not_be_in_the_uplinks_subnet() -> None:
    plan = create("8.8.4.0-8.8.4.7")
    assert any("not in a subnet of wlan0" in note for note in plan.notes)
    assert not any("not in a subnet" in note for note in create().notes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "nat"}, {"mode": "open"}, {"mode": "isolated"}, {"uplink": None},
        {"subnet": "10.0.0.0/24"}, {"ipv6": "auto"}, {"dhcp_range": lan("192.0.2.4-192.0.2.5")},
        {"mode": "bridge", "bridge": "br0", "uplink": None}, {"mtu": 12},
        {"lan_range": lan("192.0.2.9-192.0.2.3")}, {"lan_range": lan("192.0.2.205-192.0.2.207")},
        {"lan_range": lan("10.0.0.0-10.9.0.0")}, {"lan_range": lan("2001:db8::1-2001:db8::9")},
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_wrong_usage(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        create(**wrong)


def test_the_plan_survives_json() -> None:
    plan = create()
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
