import os

import msgspec
import pytest

from kvmnet.core.network_plan import Saved
from kvmnet.core.up_plan import UpPlan, plan_up
from kvmnet.errors import Refused
from kvmnet.model.host import Address, Firewall, FirewallChain, FirewallRule, Link, Route, Sysctl
from kvmnet.model.plan import EditNetwork, MakeOpening, RestoreNetwork
from kvmnet.model.state import Connection, State, Unread
from kvmnet.model.values import Cidr, Ip
from kvmnet.model.virt import DhcpRange, Guest, GuestNic, Network, NetworkConfig, NetworkIp

XML = "<network><name>default</name></network>"
IP = NetworkIp(
    family=4, address=Ip("192.168.122.1"), prefix_len=24,
    ranges=(DhcpRange(start=Ip("192.168.122.2"), end=Ip("192.168.122.254")),),
)  # fmt: skip
NAT = NetworkConfig(mode="nat", bridge="virbr0", ips=(IP,))
LIBVIRT_RULE = FirewallRule(
    text="-A LIBVIRT_FWO -i virbr0 -j ACCEPT", verdict="accept", iif="virbr0"
)
LIBVIRT_CHAIN = FirewallChain(
    backend="iptables-nft", family="ip", table="filter", name="LIBVIRT_FWO", rules=(LIBVIRT_RULE,)
)
DROPPING = FirewallChain(
    backend="nft", family="inet", table="filter", name="input", hook="input", priority=0,
    policy="drop", type="filter",
)  # fmt: skip
DROPPING_IPTABLES = FirewallChain(
    backend="iptables-nft", family="ip", table="filter", name="INPUT", hook="input", priority=0,
    policy="drop", type="filter",
)  # fmt: skip


def host(network: Network | None = None, *, version: str = "9.0.0", **changes: object) -> State:
    state = State(
        taken_at=0,
        hostname="h",
        connections=(Connection(uri="qemu:///system", libvirt_version=version, hypervisor="QEMU"),),
        links=(Link(index=2, name="eth0", kind="ethernet", up=True),),
        addresses=(Address(link="eth0", ip=Ip("192.168.1.5"), prefix_len=24, family=4),),
        routes=(Route(family=4, destination=Cidr("0.0.0.0/0"), link="eth0"),),
        networks=() if network is None else (network,),
    )
    return msgspec.structs.replace(state, **changes)


def network(config: NetworkConfig = NAT, *, active: bool, autostart: bool = True) -> Network:
    return Network(
        connection="qemu:///system", name="default", uuid="u", active=active, persistent=True,
        autostart=autostart, live=config if active else None, saved=config,
    )  # fmt: skip


def running(**changes: object) -> State:
    """A host whose network default is as it should be."""
    base = host(network(active=True))
    return msgspec.structs.replace(
        base,
        links=(*base.links, Link(index=3, name="virbr0", kind="bridge", up=True)),
        addresses=(
            *base.addresses,
            Address(link="virbr0", ip=Ip("192.168.122.1"), prefix_len=24, family=4),
        ),
        sysctls=(Sysctl(name="net.ipv4.ip_forward", value="1"),),
        firewall=Firewall(chains=(LIBVIRT_CHAIN,)),
        **changes,
    )


def plan(state: State) -> UpPlan:
    return plan_up(state, "default", Saved(network_xml=XML), os.urandom)


def kinds(up: UpPlan) -> list[str]:
    return [type(planned.step).__name__ for planned in up.plan.steps]


def test_nothing_to_do_where_all_is_well() -> None:
    up = plan(running())
    assert (up.findings, up.plan.steps, up.needs_consent) == ((), (), False)


def test_a_host_without_the_network_gets_one_without_a_question() -> None:
    up = plan(host())
    assert kinds(up) == ["DefineNetwork", "StartNetwork", "SetAutostart"]
    assert not up.needs_consent


def test_starting_and_autostarting_need_no_question() -> None:
    up = plan(host(network(active=False, autostart=False)))
    assert kinds(up) == ["StartNetwork", "SetAutostart"]
    assert not up.needs_consent


def test_a_network_that_only_runs_is_saved_with_consent() -> None:
    transient = msgspec.structs.replace(
        network(active=True, autostart=False), persistent=False, saved=None
    )
    state = msgspec.structs.replace(running(), networks=(transient,))
    up = plan_up(state, "default", Saved(transient_xml=XML), os.urandom)
    assert [finding.name for finding in up.findings] == ["network-transient"]
    assert kinds(up) == ["RestoreNetwork", "SetAutostart"] and up.needs_consent
    assert type(up.plan.steps[0].undo).__name__ == "UndefineNetwork"


def test_a_definition_that_nobody_understood_is_not_replaced() -> None:
    gap = Unread(what="network default", why="libvirt does not know it", hint="mend the file")
    for state in (host(unread=(gap,)), running(unread=(gap,))):
        with pytest.raises(Refused, match="there is a definition of network default"):
            plan(state)


def test_a_subnet_in_use_is_moved_with_consent_and_undone_to_the_letter() -> None:
    taken = Address(link="eth0", ip=Ip("192.168.122.50"), prefix_len=24, family=4)
    up = plan(host(network(active=False), addresses=(taken,)))
    assert [finding.name for finding in up.findings] == ["subnet-overlap"]
    assert up.needs_consent
    first = up.plan.steps[0]
    assert isinstance(first.step, EditNetwork) and first.step.edit.subnet == "192.168.123.0/24"
    assert first.undo == RestoreNetwork(name="default", xml=XML)


def test_a_subnet_of_another_size_in_use_is_named_but_not_moved() -> None:
    wide = msgspec.structs.replace(NAT, ips=(msgspec.structs.replace(IP, prefix_len=20),))
    taken = Address(link="eth0", ip=Ip("192.168.122.50"), prefix_len=24, family=4)
    up = plan(host(network(wide, active=False), addresses=(taken,)))
    assert [finding.name for finding in up.blocked] == ["subnet-overlap"]
    assert "EditNetwork" not in kinds(up)


def test_a_network_that_gives_out_nothing_gets_a_range() -> None:
    mute = msgspec.structs.replace(NAT, ips=(msgspec.structs.replace(IP, ranges=()),))
    up = plan(host(network(mute, active=False)))
    assert [finding.name for finding in up.findings] == ["no-dhcp"]
    step = up.plan.steps[0].step
    assert isinstance(step, EditNetwork) and step.edit.dhcp_range is not None
    assert step.edit.dhcp_range.start == "192.168.122.100"
    assert step.edit.subnet is None


def test_restarting_names_the_guests_that_are_cut_off() -> None:
    guest = Guest(
        connection="qemu:///system", name="web", uuid="w", state="running", id=1,
        live_nics=(GuestNic(mac=None, type="network", source="default"),),
    )  # fmt: skip
    state = running(guests=(guest,))
    state = msgspec.structs.replace(state, links=state.links[:1])
    up = plan(state)
    assert [finding.name for finding in up.findings] == ["bridge-missing"]
    assert "web" in up.plan.steps[0].disturbs
    assert up.needs_consent


def test_rules_of_libvirt_that_are_gone_are_noticed() -> None:
    state = msgspec.structs.replace(running(), firewall=Firewall())
    assert [finding.name for finding in plan(state).findings] == ["firewall-flushed"]


def test_rules_of_another_bridge_with_a_longer_name_do_not_count() -> None:
    other = msgspec.structs.replace(LIBVIRT_RULE, text='iifname "virbr01" accept', iif="virbr01")
    chain = msgspec.structs.replace(LIBVIRT_CHAIN, rules=(other,))
    state = msgspec.structs.replace(running(), firewall=Firewall(chains=(chain,)))
    assert [finding.name for finding in plan(state).findings] == ["firewall-flushed"]


def test_a_dropping_table_is_opened_and_people_learn_how_to_keep_it() -> None:
    walls = Firewall(chains=(LIBVIRT_CHAIN, DROPPING), front_ends=("ufw",))
    up = plan(msgspec.structs.replace(running(), firewall=walls))
    assert {finding.name for finding in up.findings} == {"input-drop-dhcp"}
    assert all(isinstance(planned.step, MakeOpening) for planned in up.plan.steps)
    assert "ufw allow in on virbr0" in up.plan.notes[0]


@pytest.mark.parametrize(
    ("version", "configured", "opened"),
    [("9.0.0", None, False), ("11.3.0", None, True), ("11.3.0", "iptables", False),
     ("10.3.0", None, False), ("10.4.0", None, True), ("9.0.0", "nftables", True)],
)  # fmt: skip
def test_chains_that_libvirt_opens_itself_when_it_starts_are_left_to_it(
    version: str, configured: str | None, opened: bool
) -> None:
    walls = Firewall(chains=(DROPPING_IPTABLES,), libvirt_backend=configured)
    up = plan(host(network(active=False), version=version, firewall=walls))
    assert ("MakeOpening" in kinds(up)) == opened


def test_only_nat_networks_are_brought_up() -> None:
    quiet = msgspec.structs.replace(NAT, mode="isolated")
    with pytest.raises(Refused, match="not a NAT network"):
        plan(host(network(quiet, active=True)))


def test_turning_forwarding_on_is_undone_with_all_that_the_kernel_changes_with_it() -> None:
    values = (
        ("ip_forward", "0"),
        ("conf.all.accept_redirects", "0"),
        ("conf.eth0.forwarding", "1"),
    )
    settings = tuple(Sysctl(name=f"net.ipv4.{name}", value=value) for name, value in values)
    up = plan(msgspec.structs.replace(running(), sysctls=settings))
    assert [str(x.undo) for x in reversed(up.plan.steps)] == [
        "set net.ipv4.ip_forward = 0",
        "set net.ipv4.conf.all.accept_redirects = 0",
        "set net.ipv4.conf.eth0.forwarding = 1",
    ]
