import msgspec

from kvmnet.core.firewall import passage
from kvmnet.core.firewall_ways import guest_packets
from kvmnet.core.openings import blockades, with_opening
from kvmnet.model.host import Firewall, FirewallChain, FirewallRule

PACKETS = guest_packets("virbr0", "eth0", "192.168.122.9")
LOCKED_DOWN = Firewall(
    chains=(
        FirewallChain(backend="nft", family="inet", table="filter", name="input", hook="input",
                      priority=0, policy="drop", type="filter",
                      rules=(FirewallRule(text='iif "lo" accept', verdict="accept", iif="lo"),)),
        FirewallChain(backend="nft", family="inet", table="filter", name="forward", hook="forward",
                      priority=0, policy="drop", type="filter"),
    )
)  # fmt: skip


def test_an_open_firewall_needs_nothing() -> None:
    assert blockades(Firewall(), PACKETS, "kvmnet:default") == ()


def test_every_packet_gets_through_once_the_openings_are_made() -> None:
    found = blockades(LOCKED_DOWN, PACKETS, "kvmnet:default")
    firewall = LOCKED_DOWN
    for blockade in found:
        for opening in blockade.openings:
            firewall = with_opening(firewall, opening)
    assert [passage(LOCKED_DOWN, p).outcome for p in PACKETS].count("blocked") == 5
    assert [passage(firewall, p).outcome for p in PACKETS] == ["passes"] * len(PACKETS)


def test_openings_are_narrow() -> None:
    openings = [o for b in blockades(LOCKED_DOWN, PACKETS, "kvmnet:default") for o in b.openings]
    shown = [(o.chain, o.iif, o.oif, o.protocol, o.dport, o.established) for o in openings]
    assert shown == [
        ("input", "virbr0", None, "udp", 67, False),
        ("input", "virbr0", None, "udp", 53, False),
        ("input", "virbr0", None, "tcp", 53, False),
        ("forward", "virbr0", None, None, None, False),
        ("forward", None, "virbr0", None, None, True),
    ]
    assert {o.comment for o in openings} == {"kvmnet:default"}


def test_dockers_policy_is_opened_in_the_chain_docker_leaves_to_people() -> None:
    docker = Firewall(
        chains=(
            FirewallChain(
                backend="iptables-nft", family="ip", table="filter", name="FORWARD",
                hook="forward", priority=0, policy="drop", type="filter",
                rules=(FirewallRule(text="-A FORWARD -j DOCKER-USER", verdict="jump",
                                    target="DOCKER-USER"),),
            ),
            FirewallChain(backend="iptables-nft", family="ip", table="filter", name="DOCKER-USER",
                          rules=(FirewallRule(text="-A DOCKER-USER -j RETURN", verdict="return"),)),
        )
    )  # fmt: skip
    openings = [o for b in blockades(docker, PACKETS, "kvmnet:default") for o in b.openings]
    assert {o.chain for o in openings} == {"DOCKER-USER"}


def test_two_tables_that_drop_need_two_openings() -> None:
    second = FirewallChain(
        backend="iptables-nft", family="ip", table="filter", name="INPUT", hook="input",
        priority=0, policy="drop", type="filter",
    )  # fmt: skip
    both = Firewall(chains=(*LOCKED_DOWN.chains, second))
    dhcp = blockades(both, PACKETS[:2], "kvmnet:default")[0]
    assert [(o.backend, o.chain) for o in dhcp.openings] == [
        ("nft", "input"),
        ("iptables-nft", "INPUT"),
    ]


def test_a_drop_before_the_filter_is_named_and_opened_there() -> None:
    raw = FirewallChain(
        backend="nft", family="ip", table="raw", name="pre", hook="prerouting", priority=-300,
        type="filter", policy="accept", rules=(FirewallRule(text="drop", verdict="drop"),),
    )  # fmt: skip
    (first,) = blockades(Firewall(chains=(raw,)), PACKETS, "kvmnet:default")
    assert first.passage.rule is not None and first.passage.rule.text == "drop"
    assert first.openings[0].table == "raw"


def test_rules_that_ask_for_other_senders_leave_no_doubt_about_a_dhcp_request() -> None:
    own_lan = FirewallRule(text="ip saddr 10.0.0.0/8 accept", verdict="accept", source="10.0.0.0/8")
    firewall = Firewall(
        chains=tuple(
            msgspec.structs.replace(x, rules=(*x.rules, own_lan)) for x in LOCKED_DOWN.chains
        )
    )
    found = blockades(firewall, PACKETS, "kvmnet:default")
    assert next(x.passage.packet.what for x in found) == "a guest's DHCP request"
