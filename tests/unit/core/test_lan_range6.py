"""The IPv6 half of a LAN range: which block, who is in the way, what is listed and kept."""

import ipaddress
import os
import shlex
import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmnet.core.lan_range import InUse, LanFacts
from kvmnet.core.lan_range6 import answered, block_of, hook_file, render_hook
from kvmnet.core.network_create import plan_create
from kvmnet.core.network_plan import Saved, plan_delete, plan_start, plan_stop
from kvmnet.errors import InvalidInput, Refused
from kvmnet.formats import network_xml
from kvmnet.model.desired import NetworkRequest
from kvmnet.model.host import Address, Link, Neighbour, Route, Sysctl
from kvmnet.model.plan import (
    AnswerNeighbours,
    DefineNetwork,
    IgnoreNeighbours,
    Plan,
    RemoveFile,
    SetSysctl,
    StartNetwork,
    Step,
    WriteFile,
)
from kvmnet.model.state import State
from kvmnet.model.values import Cidr, Ip, Mac
from kvmnet.model.virt import DhcpRange, Network, NetworkConfig

OTHER = Mac("02:00:00:00:00:99")
HOST = State(
    taken_at=0,
    hostname="h",
    links=(Link(index=2, name="eth0", kind="ethernet", up=True, carrier=True),),
    addresses=(
        Address(link="eth0", ip=Ip("192.0.2.10"), prefix_len=24, family=4),
        Address(link="eth0", ip=Ip("2001:db8::10"), prefix_len=64, family=6),
    ),
    routes=(
        Route(family=4, destination=Cidr("192.0.2.0/24"), link="eth0", protocol="kernel"),
        Route(family=6, destination=Cidr("2001:db8::/64"), link="eth0", protocol="kernel"),
        Route(family=6, destination=Cidr("::/0"), link="eth0", gateway=Ip("fe80::1"),
              protocol="ra"),
        Route(family=6, destination=Cidr("2001:db8:1::/64"), link="eth0",
              gateway=Ip("2001:db8::f1")),
    ),
    sysctls=(
        Sysctl(name="net.ipv6.conf.eth0.accept_ra", value="1"),
        Sysctl(name="net.ipv4.conf.eth0.proxy_arp", value="0"),
        Sysctl(name="net.ipv6.conf.eth0.proxy_ndp", value="0"),
    ),
)  # fmt: skip
GUESTS = tuple(Ip(f"2001:db8::{x:x}") for x in range(0xC2, 0xC8))


def lan(text: str) -> DhcpRange:
    start, _, end = text.partition("-")
    return DhcpRange(start=Ip(start), end=Ip(end))


def create(
    wanted: str = "2001:db8::c0-2001:db8::c7", state: State = HOST, facts: LanFacts | None = None
) -> Plan:
    request = NetworkRequest(
        name="lan", mode="route", uplink="eth0", lan_range=lan("192.0.2.200-192.0.2.207"),
        lan_range6=lan(wanted),
    )  # fmt: skip
    return plan_create(state, request, Saved(lan=facts or LanFacts()), os.urandom)


def steps(plan: Plan) -> list[Step]:
    return [x.step for x in plan.steps]


def config_of(plan: Plan) -> NetworkConfig:
    return next(x.config for x in steps(plan) if isinstance(x, DefineNetwork))


def made(plan: Plan) -> State:
    """The host after the plan."""
    config = config_of(plan)
    network = Network(
        connection="c", name="lan", uuid="u", active=True, persistent=True, autostart=True,
        live=config, saved=config,
    )  # fmt: skip
    proxies = tuple(
        Neighbour(link=x.nic, ip=ip, family=6, proxy=True)
        for x in steps(plan) if isinstance(x, AnswerNeighbours)
        for ip in x.addresses
    )  # fmt: skip
    settings = tuple(
        Sysctl(name=x.name, value=x.value) for x in steps(plan) if isinstance(x, SetSysctl)
    )
    return msgspec.structs.replace(HOST, networks=(network,), neighbours=proxies, sysctls=settings)


@given(st.integers(0, 2000), st.integers(0, 255))
def test_the_block_is_the_largest_that_fits(first: int, length: int) -> None:
    start = ipaddress.IPv6Address("2001:db8::") + first
    try:
        block = block_of(lan(f"{start}-{start + length}"))
    except InvalidInput:
        assert length < 6  # any seven addresses hold four that begin at a multiple of four
        return
    assert start <= block[0] and block[-1] <= start + length
    assert block.num_addresses >= 4 and block.num_addresses * 4 > length + 1


@pytest.mark.parametrize(
    "wanted",
    ["2001:db8::c7-2001:db8::c0", "2001:db8::c1-2001:db8::c2", "2001:db8::-2001:db8::ffff",
     "2001:db8::c0-192.0.2.7"],
)  # fmt: skip
def test_a_range_without_sense_is_wrong_usage(wanted: str) -> None:
    with pytest.raises(InvalidInput):
        create(wanted)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ("2001:db8::10-2001:db8::17", "this host's own"),
        ("2001:db8::f0-2001:db8::f7", "is a router"),
        ("2001:db8:7::c0-2001:db8:7::c7", "not inside the IPv6 prefixes of eth0"),
        ("2001:db8:1::c0-2001:db8:1::c7", "not inside the IPv6 prefixes of eth0"),
        ("fe80::c0-fe80::c7", "not inside the IPv6 prefixes of eth0"),
    ],
)
def test_what_is_somebody_elses_is_refused(wanted: str, why: str) -> None:
    with pytest.raises(Refused) as refusal:
        create(wanted)
    assert why in refusal.value.why


def test_addresses_that_somebody_answers_for_or_that_were_seen_are_refused() -> None:
    facts = LanFacts(in_use6=(InUse(ip=Ip("2001:db8::c4"), mac=OTHER),))
    with pytest.raises(Refused, match="can not have") as refusal:
        create(facts=facts)
    assert OTHER in refusal.value.why
    seen = Neighbour(link="eth0", ip=Ip("2001:db8::c4"), family=6, mac=OTHER, state="STALE")
    with pytest.raises(Refused) as refusal:
        create(state=msgspec.structs.replace(HOST, neighbours=(seen,)))
    assert OTHER in refusal.value.why


def test_the_plan_sets_lists_keeps_and_saves_the_hosts_own_ipv6() -> None:
    plan = create()
    taken = steps(plan)
    set_to = {x.name: x.value for x in taken if isinstance(x, SetSysctl)}
    assert set_to == {
        "net.ipv6.conf.eth0.accept_ra": "2",
        "net.ipv4.conf.eth0.proxy_arp": "1",
        "net.ipv4.neigh.eth0.proxy_delay": "0",
        "net.ipv6.conf.eth0.proxy_ndp": "1",
        "net.ipv6.neigh.eth0.proxy_delay": "0",
    }
    assert taken[-1] == AnswerNeighbours(nic="eth0", addresses=GUESTS)
    assert any(isinstance(x, StartNetwork) for x in taken[:-1])
    hook = next(x for x in taken if isinstance(x, WriteFile) and x.path == hook_file("lan"))
    assert hook.mode == 0o755
    six = config_of(plan).ips[-1]
    assert (six.address, six.prefix_len) == ("2001:db8::c1", 125)
    assert six.ranges == (lan("2001:db8::c2-2001:db8::c7"),)
    text = network_xml.render("lan", config_of(plan))
    assert network_xml.parse(text).config == config_of(plan)
    undone = [x.undo for x in plan.steps]
    assert IgnoreNeighbours(nic="eth0", addresses=GUESTS) in undone
    assert RemoveFile(path=hook_file("lan")) in undone


def test_without_ipv6_nothing_is_said_or_done_about_it() -> None:
    request = NetworkRequest(
        name="lan", mode="route", uplink="eth0", lan_range=lan("192.0.2.200-192.0.2.207")
    )
    plan = plan_create(HOST, request, Saved(), os.urandom)
    assert not any("ipv6" in str(x) or isinstance(x, AnswerNeighbours) for x in steps(plan))
    assert not any("IPv6" in x for x in plan.notes)


def saved(plan: Plan) -> Saved:
    files = {x.path: x.text for x in steps(plan) if isinstance(x, WriteFile)}
    return Saved(
        network_xml="<network/>", lan_hook=files[hook_file("lan")],
        lan_file=files["/etc/sysctl.d/60-kvmnet-lan-lan.conf"],
    )  # fmt: skip


def test_start_lists_again_what_a_nic_that_was_down_has_lost() -> None:
    plan = create()
    there = made(plan)
    assert steps(plan_start(there, "lan", saved(plan))) == []
    lost = msgspec.structs.replace(there, neighbours=there.neighbours[:2])
    assert steps(plan_start(lost, "lan", saved(plan))) == [
        AnswerNeighbours(nic="eth0", addresses=GUESTS)
    ]


def test_start_writes_the_hook_anew_where_somebody_has_removed_it() -> None:
    plan = create()
    without = msgspec.structs.replace(saved(plan), lan_hook=None)
    lost = msgspec.structs.replace(made(plan), neighbours=())
    hook, answer = steps(plan_start(lost, "lan", without))
    assert isinstance(hook, WriteFile)
    assert (hook.path, hook.text) == (hook_file("lan"), saved(plan).lan_hook)
    assert answer == AnswerNeighbours(nic="eth0", addresses=GUESTS)


def test_start_does_not_answer_for_a_prefix_that_a_router_has_a_route_to() -> None:
    lost = msgspec.structs.replace(made(create()), neighbours=(), routes=HOST.routes[:1])
    assert steps(plan_start(lost, "lan", Saved())) == []


def test_stop_and_delete_take_the_list_back_and_delete_all_files() -> None:
    plan = create()
    gone = IgnoreNeighbours(nic="eth0", addresses=GUESTS)
    stop = plan_stop(made(plan), "lan", even_in_use=False)
    assert steps(stop)[-1] == gone
    assert stop.steps[-1].undo == AnswerNeighbours(nic="eth0", addresses=GUESTS)
    taken = steps(plan_delete(made(plan), "lan", saved(plan), even_in_use=False))
    assert gone in taken
    assert RemoveFile(path=hook_file("lan")) in taken
    off = {x.name: x.value for x in taken if isinstance(x, SetSysctl)}
    assert off["net.ipv6.conf.eth0.proxy_ndp"] == "0"
    assert off["net.ipv6.neigh.eth0.proxy_delay"] == "80"


def run_hook(tmp_path: Path, *words: str, name: str = "lan", nic: str = "eth0") -> list[str]:
    """What the hook gives to `ip -batch`."""
    config = msgspec.structs.replace(config_of(create()), uplinks=(nic,))
    hook = tmp_path / "hook"
    hook.write_text(render_hook(name, config))
    (tmp_path / "ip").write_text('#!/bin/sh\ncat > "$0.said"; exit 2\n')
    for path in (hook, tmp_path / "ip"):
        path.chmod(0o755)
    said = tmp_path / "ip.said"
    said.unlink(missing_ok=True)
    done = subprocess.run(
        ["/bin/sh", str(hook), *words], env={"PATH": f"{tmp_path}:/bin:/usr/bin"}, timeout=20,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return said.read_text().splitlines() if said.exists() else []


def test_the_hook_lists_at_start_and_takes_back_at_stop_and_never_fails(tmp_path: Path) -> None:
    listed = [f"neighbour replace proxy {x} dev eth0" for x in GUESTS]
    assert run_hook(tmp_path, "lan", "started", "begin", "-") == listed
    assert run_hook(tmp_path, "lan", "port-created", "begin", "-") == listed
    assert run_hook(tmp_path, "lan", "stopped", "end", "-") == [
        x.replace("replace", "delete") for x in listed
    ]


def test_the_hook_minds_its_own_network_only(tmp_path: Path) -> None:
    assert run_hook(tmp_path, "lan2", "started", "begin", "-") == []
    assert run_hook(tmp_path, "lan", "start", "begin", "-") == []


def test_odd_names_stay_words_in_the_hook(tmp_path: Path) -> None:
    nic = "e$(id)`'x"
    assert run_hook(tmp_path, "a b;c", "started", "begin", "-", name="a b;c", nic=nic) == [
        f"neighbour replace proxy {x} dev {nic}" for x in GUESTS
    ]
    assert shlex.quote(nic) in render_hook("lan", msgspec.structs.replace(
        config_of(create()), uplinks=(nic,)))  # fmt: skip


def test_a_routed_prefix_of_its_own_is_nothing_to_answer_for() -> None:
    assert answered(NetworkConfig(mode="route", uplinks=("eth0",))) == ()
    assert answered(msgspec.structs.replace(config_of(create()), mode="nat")) == ()
