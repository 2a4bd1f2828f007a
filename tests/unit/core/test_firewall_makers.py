"""Who made a chain or rule, by the names that the programs use."""

import pytest

from kvmnet.core.firewall_makers import maker, maker_of
from kvmnet.model.host import FirewallChain, FirewallRule


@pytest.mark.parametrize(
    ("table", "chain", "text", "who"),
    [
        ("filter", "DOCKER-USER", "", "Docker"),
        ("filter", "FORWARD", "-A FORWARD -j DOCKER-ISOLATION-STAGE-1", "Docker"),
        ("filter", "FORWARD", "-A FORWARD -o docker0 -j DOCKER", "Docker"),
        ("filter", "FORWARD", "-A FORWARD -i br-0123456789ab -j ACCEPT", "Docker"),
        ("docker-bridges", "filter-FORWARD", "", "Docker"),
        ("filter", "INPUT", "-A INPUT -j ufw-before-input", "ufw"),
        ("filter", "ufw6-user-input", "", "ufw"),
        ("firewalld", "filter_INPUT", "reject with icmpx admin-prohibited", "firewalld"),
        ("filter", "FWDI_public", "", "firewalld"),
        ("filter", "INPUT_ZONES", "", "firewalld"),
        ("libvirt_network", "guest_input", "", "libvirt"),
        ("filter", "LIBVIRT_FWI", "", "libvirt"),
        ("filter", "FORWARD", "-A FORWARD -j LIBVIRT_FWX", "libvirt"),
        ("filter", "FORWARD", "-A FORWARD -o virbr0 -j REJECT", "libvirt"),
        ("nat", "libvirt-J-vnet0", "", "libvirt's nwfilter"),
        ("filter", "FI-vnet3", "", "libvirt's nwfilter"),
        ("filter", "INPUT", '-A INPUT -i virbr0 -m comment --comment "kvmnet:default"', "kvmnet"),
        ("filter", "f2b-sshd", "", "fail2ban"),
        ("f2b-table", "f2b-chain", "", "fail2ban"),
        ("filter", "KUBE-FIREWALL", "", "Kubernetes"),
        ("filter", "cali-FORWARD", "", "Calico"),
        ("filter", "INPUT", "-A INPUT -p tcp -j DROP", "iptables"),
        ("mine", "input", "tcp dport 22 drop", "nft"),
        ("filter", "FORWARD", "-A FORWARD -i br-lan -j DROP", "iptables"),
        ("filter", "FORWARD", "-A FORWARD -s 10.0.0.0/8 -j ACCEPT", "iptables"),
    ],
)
def test_a_maker_is_told_by_its_names(table: str, chain: str, text: str, who: str) -> None:
    assert maker_of("ip", table, chain, text) == who


def chain(name: str, *targets: str) -> FirewallChain:
    rules = tuple(FirewallRule(text=f"-A {name} -j {x}", verdict="jump", target=x) for x in targets)
    return FirewallChain(
        backend="iptables-nft", family="ip", table="filter", name=name, hook=name.lower(),
        priority=0, policy="drop", type="filter", rules=rules,
    )  # fmt: skip


def test_a_policy_was_set_by_the_program_whose_chains_the_base_chain_jumps_to() -> None:
    assert maker(chain("FORWARD", "DOCKER-USER", "DOCKER-FORWARD")) == "Docker"
    assert maker(chain("FORWARD", "DOCKER-USER", "ufw-before-forward")) == "Docker"
    assert maker(chain("FORWARD", "ufw-before-forward")) == "ufw"
    assert maker(chain("INPUT", "DOCKER-USER")) == "iptables"
    assert maker(chain("FORWARD", "LIBVIRT_FWX")) == "iptables"


def test_a_rule_tells_more_than_its_chain() -> None:
    shared = chain("FORWARD", "DOCKER-USER", "LIBVIRT_FWX")
    assert [maker(shared, rule) for rule in shared.rules] == ["Docker", "libvirt"]
