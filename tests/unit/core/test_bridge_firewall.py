from typing import Any

import pytest

from kvmnet.core.bridge_firewall import prepare
from kvmnet.core.firewall import Packet, passage
from kvmnet.core.openings import with_opening
from kvmnet.errors import Refused
from kvmnet.model.host import Firewall, FirewallChain, FirewallRule, Sysctl
from kvmnet.model.plan import CloseOpening, MakeOpening
from kvmnet.model.state import State

DOCKER = Firewall(
    chains=(
        FirewallChain(
            backend="iptables-nft", family="ip", table="filter", name="FORWARD", hook="forward",
            priority=0, policy="drop", type="filter",
            rules=(FirewallRule(text="-A FORWARD -j DOCKER-USER", verdict="jump",
                                target="DOCKER-USER"),),
        ),
        FirewallChain(backend="iptables-nft", family="ip", table="filter", name="DOCKER-USER",
                      rules=(FirewallRule(text="-A DOCKER-USER -j RETURN", verdict="return"),)),
    ),
    front_ends=("docker",),
)  # fmt: skip
FRAME = Packet(hook="forward", what="a frame", iif="br0", oif="br0", protocol="tcp", dport=80)
NF_CALL = (Sysctl(name="net.bridge.bridge-nf-call-iptables", value="1"),)


EMPTY = Firewall()


def state(firewall: Firewall = EMPTY, **more: Any) -> State:
    return State(taken_at=0, hostname="h", firewall=firewall, **more)


def input_chain(*rules: FirewallRule) -> Firewall:
    return Firewall(
        chains=(
            FirewallChain(backend="nft", family="inet", table="filter", name="input", hook="input",
                          priority=0, policy="drop", type="filter", rules=rules),
        )
    )  # fmt: skip


def test_without_br_netfilter_frames_pass_no_firewall() -> None:
    assert prepare(state(DOCKER), "eth0", "br0").steps == ()


def test_dockers_policy_is_opened_for_frames_of_this_bridge_only() -> None:
    found = prepare(state(DOCKER, sysctls=NF_CALL), "eth0", "br0")
    (planned,) = found.steps
    assert isinstance(planned.step, MakeOpening)
    opening = planned.step.opening
    assert (opening.chain, opening.iif, opening.oif) == ("DOCKER-USER", "br0", "br0")
    assert planned.undo == CloseOpening(opening=opening)
    assert passage(DOCKER, FRAME).outcome == "blocked"
    assert passage(with_opening(DOCKER, opening), FRAME).outcome == "passes"
    assert "policy drop" in found.notes[0]


def test_a_rule_that_names_the_nic_would_lock_the_host_out() -> None:
    ssh = FirewallRule(
        text='iifname "eth0" tcp dport 2222 accept', verdict="accept", iif="eth0",
        protocol="tcp", dports=("2222",),
    )  # fmt: skip
    with pytest.raises(Refused) as refusal:
        prepare(state(input_chain(ssh)), "eth0", "br0")
    assert ssh.text in refusal.value.why
    both = FirewallRule(text="the same for br0", verdict="accept", iif="br0", protocol="tcp",
                        dports=("2222",))  # fmt: skip
    assert prepare(state(input_chain(ssh, both)), "eth0", "br0").steps == ()


def test_rules_that_name_no_nic_or_another_one_do_no_harm() -> None:
    rules = (
        FirewallRule(text="tcp dport 22 accept", verdict="accept", protocol="tcp", dports=("22",)),
        FirewallRule(text='iifname "eth1" accept', verdict="accept", iif="eth1"),
    )
    assert prepare(state(input_chain(*rules)), "eth0", "br0").steps == ()
