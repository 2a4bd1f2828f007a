"""Real packets followed through the real kernel: where they die is said, and by whose doing."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from .conftest import KVMNET, Machine, World, wait_for

SERVER, SERVER6 = "203.0.113.80", "2001:db8:113::80"
GUEST = "10.7.0.7"


class Road(NamedTuple):
    """A host with a bridge and a guest on it, and behind its NIC `eth1` a router with a server."""

    host: World
    guest: Machine
    router: Machine

    def trace(self, *words: str, status: int = 1) -> dict[str, Any]:
        done = self.host.run(*KVMNET, "trace", *words, "--json", check=False)
        assert done.returncode == status, done.stdout + done.stderr
        document = json.loads(done.stdout)
        assert document["format"] == "kvmnet.trace" and document["ok"] == (status == 0)
        assert self.nothing_is_left(), done.stdout
        report: dict[str, Any] = document["report"]
        return report

    def nothing_is_left(self) -> bool:
        tables = self.host.run("nft", "list", "tables").stdout
        links = [x for x in self.host.links() if x.startswith("kvmnet-")]
        return "kvmnet_trace" not in tables and not links

    def nft(self, *lines: str) -> None:
        for line in lines:
            self.host.run("nft", line)


def hops(report: dict[str, Any], kind: str, way: str = "out") -> list[str]:
    """The hops of a kind, each `where: what`."""
    chosen = [x for x in report["hops"] if x["kind"] == kind and x["way"] == way]
    return [f"{x['where']}: {x['what']}" for x in chosen]


@pytest.fixture
def road(world: World) -> Road:
    guest, router = world.machine(), world.machine()
    for machine in (world, guest, router):  # its check of addresses takes a second or two
        machine.run("sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0",
                    "net.ipv6.conf.default.accept_dad=0")  # fmt: skip
    world.bridge("br7", "10.7.0.1/24")
    world.ip("address add fd07::1/64 dev br7 nodad")
    world.plug(guest, "br7", "pg", "52:54:00:00:00:77")
    guest.ip(f"address add {GUEST}/24 dev eth0")
    guest.ip("address add fd07::7/64 dev eth0 nodad")
    guest.ip("link set eth0 up")
    guest.ip("route add default via 10.7.0.1")
    world.ip(f"link add eth1 type veth peer name eth0 netns {router.pid}")
    for machine, link, last in ((world, "eth1", 2), (router, "eth0", 1)):
        machine.ip(f"address add 192.0.2.{last}/24 dev {link}")
        machine.ip(f"address add fd02::{last}/64 dev {link} nodad")
        machine.ip(f"link set {link} up")
    router.ip("link set lo up")
    router.ip(f"address add {SERVER}/32 dev lo")
    router.ip(f"address add {SERVER6}/128 dev lo")
    router.ip("route add 10.7.0.0/24 via 192.0.2.2")
    router.ip("-6 route add fd07::/64 via fd02::2")
    world.ip("route add default via 192.0.2.1")
    world.ip("-6 route add default via fd02::1")
    world.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    return Road(world, guest, router)


def served(road: Road) -> None:
    """A web server behind the router."""
    road.router.spawn("python3", "-m", "http.server", "-b", SERVER, "80")
    wait_for("the web server", lambda: ":80 " in road.router.run("ss", "-ltn").stdout)


def test_tcp_through_nat_and_back(road: Road) -> None:
    served(road)
    road.nft(
        "add table ip mine",
        "add chain ip mine post { type nat hook postrouting priority 100; }",
        'add rule ip mine post ip saddr 10.7.0.0/24 oifname "eth1" masquerade',
    )
    report = road.trace("bridge:br7", f"{SERVER}:80", "--reply", status=0)
    assert report["ending"] == "answered" and "SYN-ACK" in report["verdict"]
    out = hops(report, "link")
    assert out[0].startswith("kvmnet-") and "port of br7" in out[0]
    assert [x.split(":")[0] for x in out[1:]] == ["br7", "eth1"]
    assert hops(report, "route") == ["routing: by eth1 via 192.0.2.1"]
    assert "becomes 192.0.2.2:" in hops(report, "nat")[0]
    assert "masquerade" in hops(report, "rule")[0]
    assert "sent to 192.0.2.1 at" in hops(report, "neighbour")[0]
    assert [x.split(":")[0].split(" ")[0] for x in hops(report, "link", "back")][:2] == [
        "eth1", "br7",
    ]  # fmt: skip
    assert "192.0.2.2" in hops(report, "nat", "back")[0]


def test_closed_port_and_udp(road: Road) -> None:
    report = road.trace("bridge:br7", f"{SERVER}:81", status=0)
    assert "RST" in report["verdict"] and "nothing listens" in report["verdict"]
    report = road.trace("bridge:br7", f"{SERVER}:81", "--proto", "udp", status=0)
    assert "port unreachable" in report["verdict"]


def test_ipv6_and_the_host_itself(road: Road) -> None:
    report = road.trace("bridge:br7", SERVER6, "--reply", status=0)
    assert report["flow"]["source"].startswith("fd07::")
    assert hops(report, "route") == ["routing: by eth1 via fd02::1"]
    assert road.trace("host", SERVER, status=0)["ending"] == "answered"
    assert road.trace("host", SERVER6, status=0)["ending"] == "answered"


def test_rule_in_a_chain_of_its_own_and_in_one_jumped_to(road: Road) -> None:
    road.nft(
        "add table inet mine",
        "add chain inet mine through { type filter hook forward priority 5; }",
        "add chain inet mine checks",
        "add rule inet mine through counter jump checks",
        "add rule inet mine checks tcp dport 80 counter drop",
    )
    report = road.trace("bridge:br7", f"{SERVER}:80")
    assert report["ending"] == "died" and report["last_seen"] == "br7"
    assert "rule `tcp dport 80 counter drop`" in report["verdict"]
    assert "chain inet mine checks" in report["verdict"]
    assert report["rule"]["handle"] and report["drop"] is None
    assert [x.split(":")[0] for x in hops(report, "rule")] == [
        "inet mine through",
        "inet mine checks",
    ]
    assert road.trace("bridge:br7", f"{SERVER}:81", status=0)["ending"] == "answered"


def test_policy_in_ipv6(road: Road) -> None:
    road.nft(
        "add table ip6 mine",
        "add chain ip6 mine through { type filter hook forward priority 0; policy drop; }",
    )
    report = road.trace("bridge:br7", f"[{SERVER6}]:80")
    assert "policy drop of chain ip6 mine through" in report["verdict"]
    assert report["rule"]["kind"] == "policy"


def test_reject_and_a_drop_of_the_answer(road: Road) -> None:
    served(road)
    road.nft(
        "add table inet mine",
        "add chain inet mine through { type filter hook forward priority 5; }",
        "add rule inet mine through tcp dport 80 reject",
    )
    report = road.trace("bridge:br7", f"{SERVER}:80")
    assert report["ending"] == "died" and "reject" in report["verdict"]
    road.nft("flush chain inet mine through", "add rule inet mine through tcp sport 80 drop")
    report = road.trace("bridge:br7", f"{SERVER}:80", "--reply")
    assert "tcp sport 80 drop" in report["verdict"] and "the answer" in report["verdict"]


def docker(road: Road) -> None:
    """What Docker leaves behind, as it writes it."""
    for line in ("-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -j RETURN",
                 "-P FORWARD DROP"):  # fmt: skip
        road.host.run("iptables-nft", *line.split())


def test_dockers_policy_drops_what_is_routed(road: Road) -> None:
    docker(road)
    report = road.trace("bridge:br7", f"{SERVER}:80")
    assert "policy drop of chain ip filter FORWARD, made by Docker" in report["verdict"]
    assert "DOCKER-USER" in report["hint"]
    assert any("jump DOCKER-USER" in x for x in hops(report, "rule"))


def test_dockers_policy_drops_what_is_only_bridged(road: Road) -> None:
    peer = road.host.machine()
    road.host.plug(peer, "br7", "pp", "52:54:00:00:00:88")
    peer.ip("address add 10.7.0.8/24 dev eth0")
    peer.ip("link set eth0 up")
    assert road.trace("lan:pg", "10.7.0.8", "--source", GUEST, status=0)["ending"] == "answered"
    docker(road)
    road.host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
    report = road.trace("lan:pg", "10.7.0.8", "--source", GUEST)
    assert "policy drop of chain ip filter FORWARD, made by Docker" in report["verdict"]
    assert report["last_seen"] == "pg"


def test_iptables_legacy_is_told_apart(road: Road) -> None:
    road.host.run("iptables-legacy", "-A", "FORWARD", "-j", "DROP")
    report = road.trace("bridge:br7", f"{SERVER}:80")
    assert "iptables-legacy" in report["verdict"] and "NETFILTER_DROP" in report["verdict"]
    assert any("iptables-legacy" in x["what"] for x in report["missing"])


def test_forwarding_switched_off(road: Road) -> None:
    road.host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    report = road.trace("bridge:br7", f"{SERVER}:80")
    assert "does not forward what comes in through br7" in report["verdict"]
    assert "net.ipv4.ip_forward=1" in report["hint"]


def test_reverse_path_filter(road: Road) -> None:
    road.host.run("sysctl", "-qw", "net.ipv4.conf.eth1.rp_filter=1")
    report = road.trace("lan:eth1", GUEST, "--source", "10.7.0.99")
    assert report["drop"]["reason"] == "IP_RPFILTER" and "eth1" in report["verdict"]


def test_port_that_spanning_tree_holds(road: Road) -> None:
    road.host.ip("link set br7 type bridge stp_state 1 forward_delay 1500")
    road.host.ip("link set pg nomaster")
    road.host.ip("link set pg master br7")
    report = road.trace("lan:pg", SERVER, "--source", GUEST)
    assert report["drop"]["reason"] == "BRIDGE_INGRESS_STP_STATE", report["verdict"]
    assert "pg" in report["verdict"] and report["last_seen"] == "pg"


def test_traffic_control_drops_it_at_the_door(road: Road) -> None:
    road.host.run("tc", "qdisc", "add", "dev", "pg", "clsact")
    road.host.run("tc", "filter", "add", "dev", "pg", "ingress", "bpf", "bytecode", "1,6 0 0 2",
                  "direct-action")  # fmt: skip
    report = road.trace("lan:pg", SERVER, "--source", GUEST)
    assert report["drop"]["reason"] == "TC_INGRESS"
    assert "tc filter show dev pg ingress" in report["hint"]


def test_no_route_and_no_neighbour(road: Road) -> None:
    road.host.ip("route delete default")
    report = road.trace("bridge:br7", f"{SERVER}:80")
    assert f"the host has no route to {SERVER}" in report["verdict"]
    assert "unreachable" in road.trace("host", SERVER)["verdict"]
    road.host.ip("route add default via 192.0.2.77")
    for source in ("bridge:br7", "host"):
        report = road.trace(source, SERVER)
        assert "no neighbour: 192.0.2.77 does not answer" in report["verdict"]
        assert "eth1" in report["expected_next"]


def test_lost_beyond_the_host(road: Road) -> None:
    road.router.ip("route delete 10.7.0.0/24")
    road.router.ip("route add unreachable default")
    road.router.run("nft", "add table ip quiet")
    road.router.run("nft", "add chain ip quiet i { type filter hook prerouting priority -300; }")
    road.router.run("nft", f"add rule ip quiet i ip daddr {SERVER} drop")
    report = road.trace("bridge:br7", f"{SERVER}:80")
    assert report["last_seen"] == "eth1" and "left the host through eth1" in report["verdict"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("bridge:nosuch", SERVER), 1, "there is no bridge nosuch"),
        (("bridge:eth1", SERVER), 3, "no Linux bridge"),
        (("lan:br7", SERVER), 3, "it is a bridge"),
        (("lan:nosuch", SERVER), 1, "there is no NIC nosuch"),
        (("frog:x", SERVER), 1, "frog"),
        (("guest:", SERVER), 2, "no place to send from"),
        (("", SERVER), 2, "no place to send from"),
        (("host:x", SERVER), 2, "no place to send from"),
        (("host", f"{SERVER}:0"), 2, "nothing to connect to"),
        (("host", f"{SERVER}:80", "--proto", "icmp"), 2, "ICMP has no ports"),
        (("host", SERVER, "--proto", "udp"), 2, "udp needs a port"),
        (("host", "224.0.0.1"), 2, "not one machine"),
        (("host", "127.0.0.1"), 2, "never leaves"),
        (("host", SERVER, "--source", "fd07::9"), 2, "one is IPv4, the other IPv6"),
        (("host", SERVER, "--source", "nonsense"), 2, "not an IP address"),
        (("bridge:br7", "10.7.0.1", "--source", GUEST), 1, "belongs to somebody else"),
    ],
)
def test_what_can_not_be_traced(road: Road, words: tuple[str, ...], status: int, said: str) -> None:
    done = road.host.run(*KVMNET, "trace", *words, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    assert road.nothing_is_left()
