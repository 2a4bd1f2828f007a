import ipaddress
import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmnet.core.accept_ra import ACCEPT_RA_FILE
from kvmnet.core.network_create import dynamic_range, plan_create
from kvmnet.core.network_plan import Saved, plan_delete, plan_start, plan_stop
from kvmnet.errors import InvalidInput, KvmnetError, NotFound, Refused
from kvmnet.model.desired import NetworkRequest
from kvmnet.model.host import Link, Route, Sysctl
from kvmnet.model.plan import (
    DefineNetwork,
    Plan,
    RemoveFile,
    SetSysctl,
    StopNetwork,
    UndefineNetwork,
    WriteFile,
)
from kvmnet.model.state import State
from kvmnet.model.values import Cidr, Ip
from kvmnet.model.virt import DhcpRange, Guest, GuestNic, Network, NetworkConfig, NetworkIp

CONFIG = NetworkConfig(
    mode="nat",
    bridge="virbr0",
    ips=(NetworkIp(family=4, address=Ip("192.168.122.1"), prefix_len=24),),
)


def network(*, active: bool = True, autostart: bool = True, name: str = "default") -> Network:
    return Network(
        connection="qemu:///system", name=name, uuid="u", active=active, persistent=True,
        autostart=autostart, live=CONFIG if active else None, saved=CONFIG,
    )  # fmt: skip


def guest(name: str, *, running: bool) -> Guest:
    nics = (GuestNic(mac=None, type="network", source="default"),)
    return Guest(
        connection="qemu:///system", name=name, uuid=name,
        state="running" if running else "shut off", id=1 if running else None,
        live_nics=nics if running else (), saved_nics=nics,
    )  # fmt: skip


LINKS = (
    Link(index=1, name="lo", kind="loopback"),
    Link(index=2, name="eth0", kind="ethernet"),
    Link(index=3, name="wlan0", kind="wireless"),
    Link(index=4, name="br0", kind="bridge"),
)
EMPTY = State(taken_at=0, hostname="h", links=LINKS)
BUSY = msgspec.structs.replace(
    EMPTY,
    links=(*LINKS, Link(index=5, name="virbr0", kind="bridge")),
    networks=(network(),),
    guests=(guest("web", running=True), guest("db", running=False)),
)


def create(state: State = EMPTY, saved: Saved = Saved(), **wanted: object) -> Plan:  # noqa: B008
    request = msgspec.convert({"name": "lab1", **wanted}, NetworkRequest)
    return plan_create(state, request, saved, os.urandom)


def config_of(plan: Plan) -> NetworkConfig:
    return next(p.step.config for p in plan.steps if isinstance(p.step, DefineNetwork))


def test_a_network_gives_leases_at_once_and_leaves_room_for_hand_set_addresses() -> None:
    config = config_of(create())
    assert (config.stp, config.forward_delay_s) == (False, 0)
    assert config.dnsmasq_options == ("no-ping",)
    (ip,) = config.ips
    assert ip.ranges == (DhcpRange(start=Ip("192.168.122.100"), end=Ip("192.168.122.254")),)
    assert config.bridge == "virbr0"
    assert config.bridge_mac is not None
    assert config.bridge_mac.startswith("52:54:00:")


def test_dhcp_ping_keeps_dnsmasqs_check() -> None:
    assert config_of(create(dhcp_ping=True)).dnsmasq_options == ()


def test_every_step_of_a_creation_has_an_undo_for_this_very_network() -> None:
    define, start, autostart = create().steps
    assert isinstance(define.step, DefineNetwork)
    assert define.undo == UndefineNetwork(name="lab1", uuid=define.step.uuid)
    assert start.undo == StopNetwork(name="lab1", uuid=define.step.uuid)
    assert autostart.undo is not None
    assert len(create(autostart=False).steps) == 2


def test_a_plan_survives_json() -> None:
    plan = create(ipv6="auto")
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


@given(st.integers(8, 30))
def test_dynamic_ranges_are_inside_and_not_too_long(prefix_len: int) -> None:
    subnet = ipaddress.ip_network(f"10.0.0.0/{prefix_len}")
    dynamic = dynamic_range(Cidr(str(subnet)))
    start, end = ipaddress.IPv4Address(dynamic.start), ipaddress.IPv4Address(dynamic.end)
    assert start <= end
    assert subnet.network_address + 2 <= start
    assert end < subnet.broadcast_address
    assert int(end) - int(start) < 65535


def test_names_taken_by_links_and_by_networks_are_passed_over() -> None:
    assert config_of(create(BUSY)).bridge == "virbr1"
    inactive = msgspec.structs.replace(EMPTY, networks=(network(active=False),))
    assert config_of(create(inactive)).bridge == "virbr1"


REFUSED: list[tuple[State, dict[str, object], type[KvmnetError], str]] = [
    (BUSY, {"name": "default"}, Refused, "a network default already"),
    (BUSY, {"subnet": "192.168.122.0/25"}, Refused, "libvirt network default"),
    (BUSY, {"bridge": "virbr0"}, Refused, "bridge of network default"),
    (EMPTY, {"bridge": "eth0"}, Refused, "NIC of that name"),
    (EMPTY, {"uplink": "eth9"}, NotFound, "no NIC eth9"),
    (EMPTY, {"mode": "isolated", "uplink": "eth0"}, InvalidInput, "--uplink"),
    (EMPTY, {"mode": "open", "uplink": "eth0"}, InvalidInput, "--uplink"),
    (EMPTY, {"mtu": 67}, InvalidInput, "MTU of 67"),
    (EMPTY, {"mtu": 1279, "ipv6": "auto"}, InvalidInput, "1280"),
    (EMPTY, {"mtu": 65536}, InvalidInput, "65536"),
    (EMPTY, {"mode": "bridge"}, InvalidInput, "needs the host's bridge"),
    (EMPTY, {"mode": "bridge", "bridge": "br9"}, NotFound, "no bridge br9"),
    (EMPTY, {"mode": "bridge", "bridge": "eth0"}, Refused, "not a bridge"),
    (EMPTY, {"mode": "bridge", "bridge": "wlan0"}, Refused, "wireless"),
    (BUSY, {"mode": "bridge", "bridge": "virbr0"}, Refused, "belongs to the network default"),
    (EMPTY, {"mode": "bridge", "bridge": "br0", "subnet": "10.0.0.0/24"}, InvalidInput, "--subnet"),
]


@pytest.mark.parametrize(("state", "wanted", "kind", "text"), REFUSED)
def test_refusals(
    state: State, wanted: dict[str, object], kind: type[KvmnetError], text: str
) -> None:
    with pytest.raises(kind) as caught:
        create(state, **wanted)
    assert text in f"{caught.value} {caught.value.hint}"


def test_a_refused_subnet_comes_with_a_free_one() -> None:
    with pytest.raises(Refused) as caught:
        create(BUSY, subnet="192.168.122.0/24")
    assert "--subnet 192.168.123.0/24" in caught.value.hint


@pytest.mark.parametrize(
    ("subnet", "public"),
    [
        ("8.8.8.0/24", True), ("192.0.0.0/9", True), ("10.0.0.0/24", False),
        ("172.31.0.0/16", False), ("172.32.0.0/16", True), ("100.64.0.0/10", False),
    ],
)  # fmt: skip
def test_a_subnet_of_others_is_told(subnet: str, public: bool) -> None:
    notes = [x for x in create(subnet=subnet).notes if "no private subnet" in x]
    assert [x.partition(" is ")[0] for x in notes] == ([subnet] if public else [])
    assert not any("no private" in x for x in create(ipv6="auto").notes)
    assert any(x.startswith("2a00:") for x in create(ipv6="2a00:1450:0:1::/64").notes)


@pytest.mark.parametrize(
    ("start", "end", "why"),
    [
        ("10.9.0.5", "10.9.0.9", "not inside"),
        ("10.0.0.9", "10.0.0.5", "end comes before"),
        ("10.0.0.1", "10.0.0.9", "host's own"),
        ("10.0.0.9", "10.0.0.255", "broadcast"),
        ("fd00::1", "fd00::2", "not inside"),
    ],
)
def test_dhcp_ranges_that_do_not_fit(start: str, end: str, why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        create(subnet="10.0.0.0/24", dhcp_range={"start": start, "end": end})
    assert why in caught.value.why


AUTOCONFIGURED = msgspec.structs.replace(
    EMPTY,
    routes=(Route(family=6, destination=Cidr("::/0"), link="eth0", protocol="ra"),),
    sysctls=(Sysctl(name="net.ipv6.conf.eth0.accept_ra", value="1"),),
)


def test_ipv6_forwarding_keeps_the_hosts_own_autoconfigured_address() -> None:
    setting, file, *_rest = create(AUTOCONFIGURED, ipv6="auto").steps
    assert isinstance(setting.step, SetSysctl)
    assert isinstance(setting.undo, SetSysctl)
    assert (setting.step.path, setting.step.value) == ("net/ipv6/conf/eth0/accept_ra", "2")
    assert setting.undo.value == "1"
    assert isinstance(file.step, WriteFile)
    assert "net/ipv6/conf/eth0/accept_ra = 2" in file.step.text.splitlines()
    assert file.undo == RemoveFile(path=ACCEPT_RA_FILE)


def test_an_older_accept_ra_file_is_kept_and_restored() -> None:
    old = "# mine\nnet/ipv6/conf/eth7/accept_ra = 2\n"
    file = create(AUTOCONFIGURED, Saved(accept_ra_file=old), ipv6="auto").steps[1]
    assert isinstance(file.step, WriteFile)
    assert file.step.text.startswith(old)
    assert file.undo == WriteFile(path=ACCEPT_RA_FILE, text=old)


def test_the_route_that_a_router_needs_is_named_as_a_router_takes_it() -> None:
    plan = create(EMPTY, mode="route", subnet=Cidr("10.9.8.0/24"))
    assert any("needs a route to 10.9.8.0/24 " in note for note in plan.notes)


def test_an_accept_ra_file_without_a_last_newline_is_continued_on_a_new_line() -> None:
    old = "net/ipv6/conf/eth7/accept_ra = 2"
    file = create(AUTOCONFIGURED, Saved(accept_ra_file=old), ipv6="auto").steps[1]
    assert isinstance(file.step, WriteFile)
    assert file.step.text.splitlines() == [old, "net/ipv6/conf/eth0/accept_ra = 2"]
    assert file.undo == WriteFile(path=ACCEPT_RA_FILE, text=old)


@pytest.mark.parametrize("wanted", [{}, {"mode": "isolated", "ipv6": "auto"}])
def test_no_accept_ra_where_nothing_forwards_ipv6(wanted: dict[str, object]) -> None:
    assert not any(isinstance(p.step, SetSysctl) for p in create(AUTOCONFIGURED, **wanted).steps)


def test_stopping_a_used_network_is_refused_and_names_running_guests_only() -> None:
    with pytest.raises(Refused) as caught:
        plan_stop(BUSY, "default", even_in_use=False)
    assert "web" in caught.value.why
    assert "db" not in caught.value.why
    forced = plan_stop(BUSY, "default", even_in_use=True)
    assert "web" in forced.steps[0].disturbs
    assert "orphaned tap" in forced.notes[0]


def test_deleting_a_used_network_is_refused_and_names_saved_guests_too() -> None:
    with pytest.raises(Refused) as caught:
        plan_delete(BUSY, "default", Saved(network_xml="<network/>"), even_in_use=False)
    assert "web" in caught.value.why
    assert "db" in caught.value.why
    assert caught.value.hint == (
        "move them: kvmnet guest move --all --from network:default --to network:OTHER; or cut them "
        "off: kvmnet network delete default --force"
    )


def test_guests_that_are_in_the_way_are_sent_to_a_network_that_is_there() -> None:
    lan = msgspec.structs.replace(CONFIG, bridge="virbr1")
    other = msgspec.structs.replace(network(name="other"), live=lan, saved=lan)
    off = msgspec.structs.replace(network(name="off", active=False), saved=lan)
    state = msgspec.structs.replace(BUSY, networks=(off, network(), other))
    with pytest.raises(Refused) as caught:
        plan_stop(state, "default", even_in_use=False)
    assert caught.value.hint == (
        "shut them down, or move them: kvmnet guest move --all --from network:default --to "
        "network:other; or cut them off: kvmnet network stop default --force"
    )


def test_nothing_to_do_has_no_steps() -> None:
    assert plan_start(BUSY, "default", Saved()).steps == ()
    idle = msgspec.structs.replace(EMPTY, networks=(network(active=False),))
    assert plan_stop(idle, "default", even_in_use=False).steps == ()


def test_a_stale_bridge_is_named_before_libvirt_stumbles_over_it() -> None:
    stale = msgspec.structs.replace(BUSY, networks=(network(active=False),))
    with pytest.raises(Refused) as caught:
        plan_start(stale, "default", Saved())
    assert "ip link delete virbr0" in caught.value.hint


def test_an_absent_network() -> None:
    with pytest.raises(NotFound) as caught:
        plan_start(BUSY, "nope", Saved())
    assert "default" in caught.value.why


def test_a_hint_can_be_pasted_into_a_shell_whatever_the_name() -> None:
    odd = msgspec.structs.replace(BUSY.networks[0], name="mac vtap; reboot", active=True)
    guest = Guest(
        connection="qemu:///system", name="web", uuid="1", state="running", id=1,
        live_nics=(GuestNic(mac=None, type="network", source=odd.name),),
    )  # fmt: skip
    state = msgspec.structs.replace(BUSY, networks=(odd,), guests=(guest,))
    with pytest.raises(Refused) as caught:
        plan_stop(state, odd.name, even_in_use=False)
    assert "kvmnet network stop 'mac vtap; reboot' --force" in caught.value.hint
