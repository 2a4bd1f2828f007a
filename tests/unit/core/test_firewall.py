import pytest

from kvmnet.core.firewall import Packet, passage
from kvmnet.core.firewall_ways import guest_packets
from kvmnet.model.host import Firewall, FirewallChain, FirewallRule

DHCP = Packet(hook="input", what="a guest's DHCP request", iif="virbr0", dport=67)


def rule(verdict: str, **conditions: object) -> FirewallRule:
    return FirewallRule(text=f"{conditions} {verdict}", verdict=verdict, **conditions)


def chain(
    name: str, *rules: FirewallRule, policy: str | None = None, priority: int = 0,
    hook: str | None = "input", table: str = "filter", family: str = "inet",
) -> FirewallChain:  # fmt: skip
    return FirewallChain(
        backend="nft", family=family, table=table, name=name, rules=rules, type="filter",
        hook=hook, policy=policy, priority=priority,
    )  # fmt: skip


def outcome(*chains: FirewallChain, packet: Packet = DHCP) -> str:
    return passage(Firewall(chains=chains), packet).outcome


def test_without_chains_everything_passes() -> None:
    assert outcome() == "passes"


def test_a_drop_policy_blocks_unless_a_rule_accepts() -> None:
    assert outcome(chain("input", policy="drop")) == "blocked"
    assert outcome(chain("input", rule("accept", iif="virbr*"), policy="drop")) == "passes"
    assert outcome(chain("input", rule("accept", iif="lo"), policy="drop")) == "blocked"
    assert outcome(chain("input", rule("accept", dports=("53",)), policy="drop")) == "blocked"
    assert outcome(chain("input", rule("accept", dports=("60-70",)), policy="drop")) == "passes"


def test_an_accept_in_one_table_does_not_help_against_a_drop_in_another() -> None:
    libvirt = chain("guest_input", rule("accept", iif="virbr0"), table="libvirt_network")
    assert outcome(libvirt, chain("input", policy="drop", priority=10)) == "blocked"
    assert outcome(chain("input", policy="drop", priority=-10), libvirt) == "blocked"


def test_the_deciding_rule_is_the_evidence() -> None:
    found = passage(
        Firewall(chains=(chain("input", rule("reject", protocol="udp"), policy="accept"),)), DHCP
    )
    assert found.rule is not None and found.rule.verdict == "reject"
    assert "chain inet filter input: " in found.evidence
    by_policy = passage(Firewall(chains=(chain("input", policy="drop"),)), DHCP)
    assert by_policy.evidence == "chain inet filter input: policy drop"


def test_jumps_returns_and_gotos() -> None:
    allow = chain("allow", rule("accept", iif="virbr0"), hook=None)
    deny = chain("deny", rule("return", iif="virbr0"), rule("drop"), hook=None)
    jump = rule("jump", target="allow")
    assert outcome(chain("input", jump, policy="drop"), allow) == "passes"
    past = (rule("jump", target="deny"), rule("accept"))
    assert outcome(chain("input", *past, policy="drop"), deny) == "passes"
    gone = (rule("goto", target="deny"), rule("accept"))
    assert outcome(chain("input", *gone, policy="drop"), deny) == "blocked"


def test_chains_that_jump_in_circles_end() -> None:
    circle = chain("circle", rule("jump", target="circle"), hook=None)
    assert outcome(chain("input", rule("jump", target="circle"), policy="drop"), circle) == (
        "unclear"
    )


@pytest.mark.parametrize(
    ("opaque_verdict", "policy", "expected"),
    [
        ("accept", "drop", "unclear"),
        ("drop", "accept", "unclear"),
        ("accept", "accept", "passes"),
        ("drop", "drop", "blocked"),
        ("log", "accept", "passes"),
        ("log", "drop", "blocked"),
    ],
)
def test_a_rule_not_understood_makes_unclear_only_what_it_could_change(
    opaque_verdict: str, policy: str, expected: str
) -> None:
    unknown = rule(opaque_verdict, opaque=True)
    assert outcome(chain("input", unknown, policy=policy)) == expected


def test_only_the_hook_and_family_of_the_packet_count() -> None:
    assert outcome(chain("forward", policy="drop", hook="forward")) == "passes"
    assert outcome(chain("input", policy="drop", family="ip6")) == "passes"
    assert outcome(chain("input", policy="drop", family="ip")) == "blocked"
    assert outcome(chain("input", policy="drop", family="bridge")) == "passes"


def test_negations_addresses_and_connection_states() -> None:
    assert outcome(chain("input", rule("drop", iif="!eth0"))) == "blocked"
    assert outcome(chain("input", rule("drop", iif="!virbr0"))) == "passes"
    assert outcome(chain("input", rule("drop", protocol="!udp"))) == "passes"
    states = chain("input", rule("accept", ct_states=("established", "related")), policy="drop")
    assert outcome(states) == "blocked"
    out, back = guest_packets("virbr0", "eth0", "192.168.122.9")[-2:]
    subnet = rule("drop", source="192.168.122.0/24")
    assert outcome(chain("fw", subnet, hook="forward"), packet=out) == "blocked"
    assert outcome(chain("fw", subnet, hook="forward"), packet=back) == "passes"
    other = rule("drop", source="!192.168.122.0/24")
    assert outcome(chain("fw", other, hook="forward"), packet=out) == "passes"


def test_chains_where_libvirt_puts_its_rules_first_can_be_passed_over() -> None:
    blocking = chain("input", policy="drop")
    assert passage(Firewall(chains=(blocking,)), DHCP, passed_over=[blocking]).outcome == "passes"


def test_a_guest_without_a_way_out_needs_nothing_forwarded() -> None:
    assert {p.hook for p in guest_packets("virbr0", None, None)} == {
        "prerouting", "input", "output",
    }  # fmt: skip
