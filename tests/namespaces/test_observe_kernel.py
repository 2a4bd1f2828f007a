"""The kernel's part of the State, read from a real kernel in a namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvmnet.formats import state_json
from kvmnet.model.state import State

pytestmark = pytest.mark.namespaces
SOURCES = Path(__file__).parents[2] / "src"
OBSERVE = """
import sys
from kvmnet.flow.observe import ALL_PARTS, Part, observe
from kvmnet.formats import state_json
virt = {Part.NETWORKS, Part.GUESTS, Part.LEASES, Part.AGENTS}
sys.stdout.write(state_json.render(observe(None, ALL_PARTS - virt)))
"""
BOTH_WAYS = """
import sys
from kvmnet.adapters import kernel
from kvmnet.formats import state_json
from kvmnet.model.state import State
for _ in range(100):  # times that go by are among it
    found, one_by_one = kernel.read_network(), kernel._one_by_one()
    if found == one_by_one:
        break
assert found == one_by_one, f"{found}\\n{one_by_one}"
sys.stdout.write(state_json.render(State(taken_at=0, hostname="", routes=found.routes,
    rules=found.rules, neighbours=found.neighbours, links=found.links)))
"""
WAYS = """
import sys
from kvmnet.adapters.kernel import read_links
from kvmnet.adapters.ways import look, way_to
from kvmnet.formats import state_json
from kvmnet.model.state import State
asked = ("192.0.2.1", "10.10.0.1", "2001:db8::1", "fe80::1%eth0", "no address",
    "192.168.122.9", "10.0.0.9", "::1", "10.0.0.9")
seen = look(asked)
plain = [x for x in asked if x[0] in "12:"]
assert {x: seen.ways[x] for x in plain} == {x: way_to(x) for x in plain}, seen
assert set(seen.ways) == set(asked)
assert {x for x in asked if seen.ways[x] is None} == {"10.10.0.1", "fe80::1%eth0", "no address"}
assert seen.ways["192.168.122.9"].link == "virbr0" and seen.ways["::1"].is_local
for _ in range(100):  # lifetimes run out
    addresses = read_links()[1]
    if seen.addresses == addresses:
        break
    seen = look(())
assert seen.addresses == addresses
sys.stdout.write(state_json.render(State(taken_at=0, hostname="")))
"""
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
SETUP = """
set -e
mount -t sysfs sys /sys; mount -t tmpfs tmp /run
ip link set lo up
ip link add br0 type bridge stp_state 0 forward_delay 0
ip link add virbr0 type bridge stp_state 1 forward_delay 1500
ip link add eth0 type veth peer name lan0
ip link set eth0 master br0
for x in eth0 lan0 br0 virbr0; do ip link set $x up; done
ip link property add dev lan0 altname the-lan
ip addr add 192.168.122.1/24 dev virbr0
ip addr add 10.0.0.2/24 dev br0 valid_lft 3600 preferred_lft 1800
ip addr add fd00::2/64 dev br0 nodad
ip route add default via 10.0.0.1 dev br0 proto dhcp metric 100
ip route add blackhole 10.10.0.0/16 table 100
ip -6 route add default via fd00::1 dev br0 proto ra
ip rule add from 10.1.0.0/16 fwmark 0x5 lookup 100 prio 1000
ip link add mv0 link lan0 type macvlan mode private
ip link add mvt0 link lan0 type macvtap mode bridge
ip link add vx0 type vxlan id 42 dev br0 dstport 4789
ip tuntap add tap0 mode tap; ip link set tap0 master virbr0; ip link set tap0 up
ip link add a.b type veth peer name b.a
sysctl -qw net/ipv4/conf/a.b/forwarding=1
ip neigh add 10.0.0.50 lladdr 52:54:00:00:00:50 dev br0 nud reachable
ip neigh add 10.0.0.52 dev br0 nud failed
ip -6 neigh add fd00::50 lladdr 52:54:00:00:00:51 dev br0 nud permanent router
ip neigh add proxy 10.0.0.53 dev br0
bridge fdb add 52:54:00:00:00:50 dev eth0 master static
bridge fdb add 52:54:00:00:00:51 dev eth0 master dynamic
nft -f - <<N
table inet mine {
 chain forward {
  type filter hook forward priority 10; policy drop;
  iifname "br0" accept
 }
}
N
iptables-nft -P FORWARD DROP
iptables-nft -A FORWARD -i br0 -m conntrack --ctstate ESTABLISHED -j ACCEPT
iptables-legacy -A INPUT -i lo -j ACCEPT
"""
LISTEN = """
import socket
dhcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
dhcp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"virbr0")
dhcp.bind(("0.0.0.0", 67))
dns = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
dns.bind(("::", 53))
dns.listen()
"""


def inside(script: str, python: str, prefix: tuple[str, ...] = ()) -> State:
    """The State that `python` prints in fresh namespaces, after the shell `script`."""
    words = [*prefix, sys.executable, "-c", python]
    done = subprocess.run(
        ["unshare", "-mnp", "--fork", "--kill-child", "--mount-proc",
         "sh", "-c", f'{script}\nexec "$@"', "sh", *words],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCES), "PATH": os.environ["PATH"] + ":/usr/sbin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return state_json.parse(done.stdout)


@pytest.fixture(scope="module")
def state() -> State:
    return inside(SETUP, LISTEN + OBSERVE)


def test_links(state: State) -> None:
    kinds = {x.name: x.kind for x in state.links}
    assert kinds == {
        "lo": "loopback", "br0": "bridge", "virbr0": "bridge", "eth0": "veth", "lan0": "veth",
        "mv0": "macvlan", "mvt0": "macvtap", "vx0": "vxlan", "tap0": "tap", "a.b": "veth",
        "b.a": "veth",
    }  # fmt: skip
    links = {x.name: x for x in state.links}
    assert (links["mv0"].parent, links["mv0"].mode) == ("lan0", "private")
    assert (links["vx0"].parent, links["vx0"].vxlan_id) == ("br0", 42)
    assert (links["eth0"].master, links["lan0"].altnames) == ("br0", ("the-lan",))
    assert state.link("the-lan") == links["lan0"]
    assert links["br0"].mac_assigned in {"random", "stolen", "set"}
    assert (links["eth0"].carrier, links["tap0"].carrier, links["mv0"].carrier) == (
        True, False, None,
    )  # fmt: skip


def test_bridges_and_ports(state: State) -> None:
    links = {x.name: x for x in state.links}
    br0, virbr0 = links["br0"].bridge, links["virbr0"].bridge
    assert br0 is not None and virbr0 is not None
    assert (br0.stp, br0.forward_delay_s) == (False, 0)
    assert (virbr0.stp, virbr0.forward_delay_s) == (True, 15)
    assert links["eth0"].port is not None and links["eth0"].port.state == "forwarding"
    assert links["tap0"].port is not None and links["tap0"].port.state == "disabled"
    assert links["lan0"].port is None


def test_addresses_and_routes(state: State) -> None:
    addresses = {str(x.ip): x for x in state.addresses}
    leased = addresses["10.0.0.2"]
    assert leased.dynamic and leased.valid_s is not None and 3500 < leased.valid_s <= 3600
    fixed = addresses["192.168.122.1"]
    assert (fixed.link, fixed.prefix_len, fixed.dynamic, fixed.valid_s) == (
        "virbr0", 24, False, None,
    )  # fmt: skip
    defaults = {x.family: x for x in state.routes if x.destination.endswith("/0")}
    assert (defaults[4].gateway, defaults[4].protocol, defaults[4].metric) == (
        "10.0.0.1", "dhcp", 100,
    )  # fmt: skip
    assert (defaults[6].gateway, defaults[6].protocol) == ("fd00::1", "ra")
    hole = next(x for x in state.routes if x.destination == "10.10.0.0/16")
    assert (hole.type, hole.table, hole.link) == ("blackhole", "100", None)
    rule = next(x for x in state.rules if x.priority == 1000)
    assert (rule.source, rule.fwmark, rule.table) == ("10.1.0.0/16", "0x5", "100")


def test_neighbours_with_ages(state: State) -> None:
    found = {x.ip: x for x in state.neighbours}
    fresh, failed = found["10.0.0.50"], found["10.0.0.52"]
    assert fresh.mac == "52:54:00:00:00:50" and fresh.age_s is not None and fresh.age_s < 60
    assert (failed.mac, failed.state, failed.age_s) == (None, "FAILED", None)
    router = found["fd00::50"]
    assert (router.router, router.state, router.age_s) == (True, "PERMANENT", None)
    assert found["10.0.0.53"].proxy


def test_forwarding_database(state: State) -> None:
    found = {x.mac: x for x in state.forwarding if x.bridge == "br0"}
    assert found["52:54:00:00:00:50"].kind == "static"
    learned = found["52:54:00:00:00:51"]
    assert (learned.kind, learned.port) == ("learned", "eth0")
    assert learned.age_s is not None and learned.age_s < 60
    assert not any(int(x.mac[1], 16) & 1 for x in state.forwarding), "no multicast groups"


def test_sysctls(state: State) -> None:
    assert state.sysctl("net.ipv4.ip_forward") in {"0", "1"}
    assert state.sysctl("net.ipv4.conf.a.b.forwarding") == "1"
    assert state.sysctl("net.ipv6.conf.br0.accept_ra") is not None


def test_firewall(state: State) -> None:
    chains = {(x.backend, x.family, x.table, x.name): x for x in state.firewall.chains}
    mine = chains["nft", "inet", "mine", "forward"]
    assert (mine.policy, mine.priority, mine.rules[0].text) == ("drop", 10, 'iifname "br0" accept')
    forward = chains["iptables-nft", "ip", "filter", "FORWARD"]
    assert (forward.policy, forward.rules[0].ct_states) == ("drop", ("established",))
    assert ("nft", "ip", "filter", "FORWARD") not in chains, "not listed twice"
    legacy = chains["iptables-legacy", "ip", "filter", "INPUT"]
    assert legacy.rules[0].iif == "lo"


def test_listeners(state: State) -> None:
    found = {(x.protocol, x.ip, x.port, x.link) for x in state.listeners}
    assert found == {("udp", "0.0.0.0", 67, "virbr0"), ("tcp", "::", 53, None)}
    assert all(x.process and x.pid for x in state.listeners)


def test_nothing_is_missing(state: State) -> None:
    assert state.unread == ()
    assert state.privileged


def test_an_ordinary_user_sees_the_same_but_the_firewall(state: State) -> None:
    theirs = inside(SETUP, OBSERVE, AS_NOBODY)
    assert {x.name for x in theirs.links} == {x.name for x in state.links}
    assert {x.ip for x in theirs.neighbours} == {x.ip for x in state.neighbours}
    assert not theirs.privileged
    assert [x.what for x in theirs.unread] == ["firewall (nft)"]
    assert theirs.firewall.chains == ()


BLIND = """
from kvmnet.adapters import run
run.environment = lambda extra=None: {"PATH": "/run/empty"}
"""


def test_missing_programs_are_named() -> None:
    blind = inside("mount -t tmpfs tmp /run; mkdir /run/empty", BLIND + OBSERVE)
    missing = {x.what for x in blind.unread}
    assert missing >= {"links and addresses", "routes", "neighbours", "firewall (nft)"}
    assert all(x.why and x.hint for x in blind.unread if x.what != "listening sockets")


@pytest.mark.parametrize("setup", [SETUP, "mount -t sysfs sys /sys"])
def test_read_in_one_go_it_is_the_same(setup: str) -> None:
    found = inside(setup, BOTH_WAYS)
    assert {"lo"} <= {x.name for x in found.links}
    assert {4, 6} == {x.family for x in found.rules}
    assert setup != SETUP or (len(found.neighbours) >= 4 and len(found.routes) > 10)


def test_all_ways_are_told_by_one_program_as_by_one_each() -> None:
    inside(f"{SETUP}\nip rule add to 10.10.0.0/16 lookup 100", WAYS)
