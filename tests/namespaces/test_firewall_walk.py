"""The walk over firewall chains against the real kernel: random rulesets, one real packet each.

The packet is counted before the first random chain and after the last; the walk has to say what
the counters say. It may be unclear only where a ruleset holds a condition it does not understand.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kvmnet.core.firewall import Packet, Ruleset
from kvmnet.formats import iptables, nft, nft_values
from kvmnet.model.firewall import FirewallSet
from kvmnet.model.host import Firewall

from .conftest import Machine, World

SENDER = """
import socket, sys
for line in sys.stdin:
    kind, target, sport, dport = line.split()
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    if kind == "icmp":
        number = socket.IPPROTO_ICMPV6 if ":" in target else socket.IPPROTO_ICMP
        with socket.socket(family, socket.SOCK_RAW, number) as s:
            # An identifier of its own, or it is part of an echo that was answered before.
            ident, check = int(sport).to_bytes(2, "big"), (0xF7FF - int(sport)) % 0xFFFF
            echo = b"\\x80\\0\\0\\0" if ":" in target else b"\\x08\\0" + check.to_bytes(2, "big")
            s.sendto(echo + ident + bytes(2), (target, 0))
    else:
        with socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as s:
            s.setblocking(False)
            s.bind(("", int(sport)))
            if kind == "udp":
                s.sendto(b"x", (target, int(dport)))
            else:
                s.connect_ex((target, int(dport)))
    print("sent", flush=True)
"""
SPORTS = itertools.cycle(range(20_000, 60_000))
HOST, BEYOND = {"ip": "10.7.0.1", "ip6": "fd07::1"}, {"ip": "10.8.0.2", "ip6": "fd08::2"}
GUEST = {"ip": "10.7.0.2", "ip6": "fd07::2"}
SETS = """
 set few { type ipv4_addr; flags interval; elements = { 10.7.0.0/30, 10.9.0.1-10.9.0.7 } }
 set ports { type inet_service; flags interval; elements = { 53, 60-70 } }
 set pairs { type ipv4_addr . inet_service; elements = { 10.7.0.2 . 53, 10.7.0.3 . 80 } }
 map ways { type ifname : verdict; elements = { "virbr0" : jump one, "up0" : drop } }
"""
CONDITIONS = [
    [*[""] * 6, 'iifname "virbr0"', 'iifname "virbr*"', 'iifname != "virbr0"', 'iifname { "up0" }',
     'iif "virbr0"', "ct state new", "ct state { established, related }", "ct state != invalid",
     "ct status dnat", "meta pkttype multicast", "fib daddr type local",
     "fib daddr type != { local, multicast }"],
    [*[""] * 5, "ip saddr 10.7.0.0/24", "ip saddr != 10.7.0.2",
     "ip daddr { 10.7.0.1, 10.8.0.0/16 }",
     "ip saddr @few", "ip6 saddr fd07::/64", "ip6 daddr != fd07::1", "meta nfproto ipv4",
     "meta nfproto ipv6", "ip saddr . th dport { 10.7.0.2 . 80, 10.7.0.9 . 53 }"],
    [*[""] * 6, "meta l4proto udp", "meta l4proto { tcp, udp }", "meta l4proto != tcp",
     "udp dport 53", "udp dport { 53, 80 }", "tcp dport 60-90", "tcp dport != 80",
     "th dport 53", "udp dport @ports", "udp sport 1-1023", "ip protocol tcp",
     "icmp type echo-request", "icmpv6 type { nd-neighbor-solicit, echo-request }",
     "ip saddr . udp dport @pairs"],
]  # fmt: skip
"""Of each list a rule has one; nft refuses some pairs, of which no packet could fit both."""
UNKNOWN = ["meta mark 1", "meta length < 10", "meta priority 7", "limit rate 1/hour"]
MAPS = [
    "udp dport vmap { 53 : drop, 67 : jump one, 80 : accept }", "iifname vmap @ways",
    "ct state vmap { established : accept, invalid : drop, new : jump one }",
    'iifname . meta l4proto vmap { "virbr0" . udp : goto two, "up0" . tcp : accept }',
    "ip saddr vmap { 10.7.0.0/24 : jump two, 10.0.0.0/30 : drop }",
]  # fmt: skip
ENDS = ["accept", "drop", "return", "jump one", "goto one", "goto two", "continue", "counter"]


class Ruleset_(NamedTuple):
    text: str
    understood: bool


def _rules(ends: list[str], maps: list[str], least: int = 0) -> st.SearchStrategy[list[str]]:
    conditions = st.tuples(*map(st.sampled_from, CONDITIONS))
    odd = st.sampled_from([*[""] * 9, *UNKNOWN])
    plain = st.builds(lambda c, u, e: " ".join([*c, u, e]), conditions, odd, st.sampled_from(ends))
    links = st.sampled_from(CONDITIONS[0])
    mapped = st.builds(lambda c, m: f"{c} {m}", links, st.sampled_from(maps)) if maps else plain
    return st.lists(st.one_of(plain, plain, mapped), min_size=least, max_size=5)


@st.composite
def nft_rulesets(draw: st.DrawFn, hooks: tuple[str, ...]) -> Ruleset_:
    """One to three base chains, each in a table of its own with two chains to jump to."""
    tables = []
    for number in range(draw(st.integers(1, 3))):
        hook = draw(st.sampled_from(hooks))
        priority = draw(st.sampled_from([-150, -10, 0, 10, 50]))
        policy = draw(st.sampled_from(["accept", "drop"]))
        base = "\n  ".join(draw(_rules(ENDS, MAPS, 1)))
        one = "\n  ".join(draw(_rules(["accept", "drop", "return", "jump two", "goto two"], [])))
        two = "\n  ".join(draw(_rules(["accept", "drop", "return", "continue"], [])))
        tables.append(
            f"table inet t{number} {{\n chain two {{\n  {two}\n }}\n chain one {{\n  {one}\n }}\n"
            f"{SETS} chain base {{\n  type filter hook {hook} priority {priority}; "
            f"policy {policy};\n  {base}\n }}\n}}\n"
        )
    text = "".join(tables)
    return Ruleset_(text, not any(x in text for x in UNKNOWN))


class Place:
    """A host with a guest behind its bridge and a machine beyond its uplink."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.guest, self.beyond = world.machine(), world.machine()
        world.bridge("virbr0", "10.7.0.1/24", "stp_state", "0", "forward_delay", "0")
        world.plug(self.guest, "virbr0", "vnet0", "52:54:00:00:00:02")
        world.ip(f"link add up0 type veth peer name eth0 netns {self.beyond.pid}")
        world.ip("address add 10.8.0.1/24 dev up0")
        world.ip("link set up0 up")
        world.ip("address add fd07::1/64 dev virbr0 nodad")
        world.ip("address add fd08::1/64 dev up0 nodad")
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            world.run("sh", "-c", f"echo 1 > /proc/sys/net/{name}")
        for machine, net in ((self.guest, 7), (self.beyond, 8)):
            machine.ip(f"address add 10.{net}.0.2/24 dev eth0")
            machine.ip(f"address add fd0{net}::2/64 dev eth0 nodad")
            machine.ip("link set eth0 up")
            self._know(machine, net)
            machine.ip(f"route add default via 10.{net}.0.1")
            machine.ip(f"-6 route add default via fd0{net}::1")
        words = ["nsenter", "-t", str(self.guest.pid), "-n", sys.executable, "-uc", SENDER]
        self.sender = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _know(self, machine: Machine, net: int) -> None:
        """Neighbours are known on both sides, so that no rule can stop their being found."""
        own = "virbr0" if net == 7 else "up0"
        macs = [
            json.loads(x.ip(f"-j link show {link}"))[0]["address"]
            for x, link in ((self.world, own), (machine, "eth0"))
        ]
        for address in (f"10.{net}.0.1", f"fd0{net}::1"):
            machine.ip(f"neigh replace {address} lladdr {macs[0]} dev eth0")
        for address in (f"10.{net}.0.2", f"fd0{net}::2"):
            self.world.ip(f"neigh replace {address} lladdr {macs[1]} dev {own}")

    def nft(self, *words: str, text: str = "") -> str:
        argv = ["nsenter", "-t", str(self.world.pid), "-n", *words]
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stderr}\n{text}"
        return done.stdout

    def passed(self, kind: str, target: str, dport: int, last_hook: str) -> bool:
        """Send one packet and see at which of the two counters it was."""
        sport = next(SPORTS)
        if kind == "icmp":
            what = "icmpv6 type echo-request" if ":" in target else "icmp type echo-request"
        else:
            what = f"{kind} sport {sport}"
        self.nft("nft", "-f", "-", text=(
            "table inet watch { counter first { } \n counter last { }\n"
            f"chain first {{ type filter hook prerouting priority -500; {what} counter name first;"
            f" }}\n chain last {{ type filter hook {last_hook} priority 500; {what} counter name "
            "last; }\n}\n"
        ))  # fmt: skip
        assert self.sender.stdin is not None and self.sender.stdout is not None
        self.sender.stdin.write(f"{kind} {target} {sport} {dport}\n")
        self.sender.stdin.flush()
        assert self.sender.stdout.readline() == "sent\n"
        end = time.monotonic() + 30
        while not self._counted()["first"]:
            assert time.monotonic() < end, "the packet did not arrive"
        return self._counted()["last"] > 0  # looked at again: it may have been between the two

    def _counted(self) -> dict[str, int]:
        listed = json.loads(self.nft("nft", "-j", "list", "counters", "table", "inet", "watch"))
        return {
            x["counter"]["name"]: x["counter"]["packets"]
            for x in listed["nftables"]
            if "counter" in x
        }

    def end(self) -> None:
        self.sender.kill()
        self.sender.communicate(timeout=10)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        made = Place(World(stack))
        stack.callback(made.end)
        yield made


class Sent(NamedTuple):
    family: str
    kind: str
    dport: int
    forwarded: bool


PACKETS = st.builds(
    Sent, st.sampled_from(["ip", "ip", "ip6"]), st.sampled_from(["udp", "udp", "tcp", "icmp"]),
    st.sampled_from([53, 67, 80]), st.booleans(),
)  # fmt: skip


def predicted(firewall: Firewall, sent: Sent) -> str:
    """The walk's answer for all hooks on the way."""
    v6, plain = sent.family == "ip6", sent.kind != "icmp"
    protocol = sent.kind if plain else "ipv6-icmp" if v6 else "icmp"
    hooks = [("prerouting", "virbr0", None), ("input", "virbr0", None)]
    if sent.forwarded:
        hooks[1:] = [("forward", "virbr0", "up0"), ("postrouting", "virbr0", "up0")]
    ruleset, answers = Ruleset(firewall), []
    for hook, iif, oif in hooks:
        packet = Packet(
            hook=hook, what="a packet", family=sent.family, iif=iif, oif=oif, protocol=protocol,
            sport=30_000 if plain else 0, dport=sent.dport if plain else 0,
            icmp_type=None if plain else 128 if v6 else 8, source=GUEST[sent.family],
            destination=(BEYOND if sent.forwarded else HOST)[sent.family],
            destination_type="unicast" if sent.forwarded else "local",
        )  # fmt: skip
        answers.append(ruleset.passage(packet).outcome)
    return next((x for x in ("blocked", "unclear") if x in answers), "passes")


def check(place: Place, firewall: Firewall, sent: Sent, understood: bool) -> None:
    target = (BEYOND if sent.forwarded else HOST)[sent.family]
    last = "postrouting" if sent.forwarded else "input"
    seen = "passes" if place.passed(sent.kind, target, sent.dport, last) else "blocked"
    said = predicted(firewall, sent)
    assert said == seen or (said == "unclear" and not understood)


QUICK = settings(
    max_examples=150, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                           HealthCheck.filter_too_much],
)  # fmt: skip


@QUICK
@given(nft_rulesets(("prerouting", "input", "forward", "forward", "input", "postrouting")), PACKETS)
def test_nft(place: Place, ruleset: Ruleset_, sent: Sent) -> None:
    text = f"flush ruleset\n{ruleset.text}"
    argv = ["nsenter", "-t", str(place.world.pid), "-n", "nft", "-f", "-"]
    loaded = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=20)
    assume("conflicting" not in loaded.stderr)
    assert loaded.returncode == 0, loaded.stderr
    listed = place.nft("nft", "--json", "--terse", "list", "ruleset")
    sets = tuple(_sets(place, listed))
    firewall = Firewall(chains=nft.parse(listed, {}), sets=sets)
    check(place, firewall, sent, ruleset.understood)


def _sets(place: Place, listed: str) -> Iterator[FirewallSet]:
    for item in json.loads(listed)["nftables"]:
        for kind in {"set", "map"} & item.keys():
            raw = item[kind]
            words = ("nft", "-j", "list", kind, raw["family"], raw["table"], raw["name"])
            found = nft_values.parse_set(place.nft(*words))
            assert found is not None
            yield found


TABLES_CONDITIONS = [
    "-i virbr0", "-i virbr+", "! -i virbr0", "-p udp", "! -p tcp", "-p udp --dport 53",
    "-p tcp --dport 60:90", "-p udp -m multiport --dports 53,60:70", "-p tcp ! --dport 80",
    "-p udp --sport 1:1023", "-p tcp --syn", "-p icmp --icmp-type 8", "-s 10.7.0.0/24",
    "! -s 10.7.0.2", "-d 10.8.0.0/16", "-m conntrack --ctstate NEW", "-m conntrack --ctstate DNAT",
    "-m conntrack ! --ctstate RELATED,ESTABLISHED", "-m addrtype --dst-type LOCAL",
    "-m addrtype ! --dst-type LOCAL", "-m pkttype --pkt-type multicast",
    "-m iprange --src-range 10.7.0.1-10.7.0.9", "-m comment --comment x",
]  # fmt: skip
TABLES_UNKNOWN = ["-m mark --mark 1", "-m length --length 1:20", "-m limit --limit 1/hour"]


@st.composite
def saved_rulesets(draw: st.DrawFn) -> Ruleset_:
    """What iptables-restore takes: the tables filter and mangle with two chains to jump to."""
    lines = []
    for table, hooks in (("mangle", ["PREROUTING", "FORWARD"]), ("filter", ["INPUT", "FORWARD"])):
        lines.append(f"*{table}")
        for hook in hooks:
            policy = draw(st.sampled_from(["ACCEPT", "DROP"])) if table == "filter" else "ACCEPT"
            lines.append(f":{hook} {policy} [0:0]")
        lines += [":ONE - [0:0]", ":TWO - [0:0]"]
        for chain in (*hooks, "ONE", "TWO"):
            ends = ["-j ACCEPT", "-j DROP", "-j RETURN", "-j MARK --set-mark 0", "-g TWO"]
            ends += [] if chain in {"ONE", "TWO"} else ["-j ONE", "-g ONE"]
            ends = ends[:4] if chain == "TWO" else ends
            for _ in range(draw(st.integers(0, 4))):
                words = draw(st.lists(st.sampled_from(TABLES_CONDITIONS), max_size=1))
                words.append(draw(st.sampled_from([*[""] * 9, *TABLES_UNKNOWN])))
                lines.append(f"-A {chain} {' '.join(words)} {draw(st.sampled_from(ends))}")
        lines.append("COMMIT")
    text = "\n".join(lines) + "\n"
    return Ruleset_(text, not any(x in text for x in TABLES_UNKNOWN))


@pytest.mark.parametrize("variant", ["nft", "legacy"])
@settings(QUICK, max_examples=80)
@given(saved_rulesets(), PACKETS.filter(lambda x: x.family == "ip"))
def test_iptables(place: Place, variant: str, ruleset: Ruleset_, sent: Sent) -> None:
    place.nft("nft", "flush", "ruleset")
    place.nft(f"iptables-{variant}-restore", text=ruleset.text)
    try:
        saved = place.nft(f"iptables-{variant}-save", "-c")
        backend = "iptables-nft" if variant == "nft" else "iptables-legacy"
        chains = iptables.parse(saved, backend=backend, family="ip")
        check(place, Firewall(chains=chains), sent, ruleset.understood)
    finally:
        empty = "*mangle\nCOMMIT\n*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\nCOMMIT\n"
        place.nft(f"iptables-{variant}-restore", text=empty)
