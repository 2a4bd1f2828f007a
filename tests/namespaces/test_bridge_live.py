"""The live change under packets: a host's only NIC becomes a bridge's port, and comes back."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import Machine, World, wait_for

PROBE = str(Path(__file__).parent / "files" / "udp_probe.py")
DRIVER = str(Path(__file__).parent / "files" / "bridge_driver.py")
SETUP = (
    "address add 10.9.0.2/24 broadcast + dev eth0",
    "address add 10.9.0.3/24 label eth0:1 dev eth0",
    "address add 10.8.0.3 peer 10.8.0.4/32 dev eth0 valid_lft 900 preferred_lft 800 metric 77",
    "address add fd09::2/64 dev eth0 nodad",
    "address add fd09::3/64 dev eth0 nodad noprefixroute valid_lft 900 preferred_lft 800",
    "link set eth0 up",
    "route add default via 10.9.0.1 src 10.9.0.2 mtu 1400 advmss 1300",
    "route add default via 10.9.0.7 metric 200 table 7",
    "route add 10.50.0.0/16 nexthop via 10.9.0.1 weight 2 nexthop via 10.9.0.7 dev eth0 onlink",
    "route add 10.60.0.0/16 via inet6 fd09::1 dev eth0",
    "-6 route add default via fd09::1 dev eth0 expires 900 proto ra pref high",
    "-6 route add fd77::/64 nexthop via fd09::1 nexthop via fd09::9",
    "rule add not from 10.9.0.0/24 iif eth0 ipproto tcp dport 80-90 lookup 5",
    "-6 rule add iif eth0 lookup 6",
    "rule add oif eth0 priority 99 prohibit",
    "-6 rule add oif eth0 priority 98 lookup 8",
    "-6 route add unreachable default table 8",
    "neighbour add proxy 10.9.0.99 dev eth0",
    "neighbour add 10.9.0.98 lladdr 02:00:00:00:00:98 dev eth0 nud permanent",
)
FLAGS = (
    "isolated on learning off hairpin on priority 7 cost 55 guard on mcast_flood off "
    "mcast_router 2 group_fwd_mask 8 neigh_suppress on fastleave on"
)
"""That the kernel forgets with the port."""
MAY_MISS = 1
"""Packets of one every 0.5 ms that may fall into the moment in which the kernel's own br_add_if has
taken the NIC's frames and the port does not forward yet. On a quiet machine none does; `ip` one by
one loses 4 to 17 (`bench/run switch`)."""


@pytest.fixture
def lan(world: World) -> Machine:
    """A router with an echo server at the far end of the host's `eth0`."""
    router = world.machine()
    world.ip(f"link add eth0 type veth peer name lan0 netns {router.pid}")
    for line in (
        "link set lo up", "link set lan0 up",
        "address add 10.9.0.1/24 dev lan0", "address add fd09::1/64 dev lan0 nodad",
    ):  # fmt: skip
        router.ip(line)
    for line in SETUP:
        world.ip(line)
    server = router.spawn(sys.executable, "-P", PROBE, "echo")
    assert server.stdout is not None and server.stdout.readline() == "ready\n"
    wait_for("the link-local address", lambda: "tentative" not in world.ip("-6 address"))
    return router


def drive(world: World, *words: str) -> dict[str, Any]:
    done = world.run(sys.executable, "-P", DRIVER, *words, timeout=300)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


class Probe:
    """A sender on the host; what it has counted comes at its end."""

    def __init__(self, world: World, address: str) -> None:
        words = world.argv([sys.executable, "-P", PROBE, "send", address, "0.5"])
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def end(self) -> dict[str, float]:
        out, _ = self._process.communicate(timeout=20)
        report: dict[str, float] = json.loads(out)
        return report


@pytest.mark.parametrize("address", ["10.9.0.1", "fd09::1"], ids=["IPv4", "IPv6"])
def test_no_packet_is_lost_when_the_only_nic_becomes_a_port_and_comes_back(
    world: World, lan: Machine, address: str
) -> None:
    fewest = {"create": math.inf, "delete": math.inf}
    for _ in range(3):  # who does something else at the wrong moment loses packets once
        for verb in fewest:
            probe = Probe(world, address)
            time.sleep(0.3)
            drive(world, verb)
            time.sleep(0.3)
            seen = probe.end()
            assert seen["sent"] > 500
            assert seen["failed"] == 0
            fewest[verb] = min(fewest[verb], seen["sent"] - seen["answered"])
        if max(fewest.values()) <= MAY_MISS:
            break
    assert max(fewest.values()) <= MAY_MISS, fewest


TALK = """
import socket, sys
talk = socket.create_connection((sys.argv[1], 99), 5)
talk.settimeout(5)
print("ready", flush=True)
for line in sys.stdin:
    talk.sendall(line.encode())
    print(talk.recv(100).decode(), end="", flush=True)
"""
LISTEN = """
import socket
server = socket.create_server(("::", 99), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    talk, _ = server.accept()
    while data := talk.recv(100):
        talk.sendall(data)
"""


@pytest.mark.parametrize("address", ["10.9.0.1", "fd09::1"], ids=["IPv4", "IPv6"])
def test_an_open_connection_survives(world: World, lan: Machine, address: str) -> None:
    server = lan.spawn(sys.executable, "-P", "-c", LISTEN)
    assert server.stdout is not None and server.stdout.readline() == "ready\n"
    words = world.argv([sys.executable, "-P", "-c", TALK, address])
    talk = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert talk.stdin is not None and talk.stdout is not None
    assert talk.stdout.readline() == "ready\n"
    for verb in ("create", "delete"):
        drive(world, verb)
        talk.stdin.write(f"{verb}\n")
        talk.stdin.flush()
        assert talk.stdout.readline() == f"{verb}\n"
    talk.communicate(timeout=10)


def test_the_bridge_has_all_that_the_nic_had(world: World, lan: Machine) -> None:
    before = world.ip("-brief address show dev eth0").split()[2:]
    mac = world.ip("-brief link show dev eth0").split()[2]
    drive(world, "create")
    assert world.ip("-brief address show dev br0").split()[2:] == before
    assert world.ip("-brief address show dev eth0").split()[2:] == []
    assert world.ip("-brief link show dev br0").split()[2] == mac
    assert "dev eth0" not in world.ip("-4 route show table all")
    assert "dev eth0 proto" not in world.ip("-6 route show table main")
    assert "eth0" not in world.ip("rule") + world.ip("-6 rule")
    bridge = json.loads(world.ip("-json -details link show dev br0"))[0]["linkinfo"]["info_data"]
    assert (bridge["stp_state"], bridge["forward_delay"]) == (0, 0)
    assert "nodad" not in world.ip("-6 address show dev br0 scope link")


def test_doing_it_twice_does_nothing(world: World, lan: Machine) -> None:
    assert drive(world, "create")["left"] == []
    assert drive(world, "again")["steps"] == []
    assert drive(world, "delete")["left"] == []


@pytest.mark.parametrize("verb", ["create", "delete"])
def test_killed_after_any_command_the_undo_leads_back(
    world: World, lan: Machine, verb: str
) -> None:
    if verb == "delete":
        drive(world, "create")
        world.ip(f"link set eth0 type bridge_slave {FLAGS}")
    outcome = drive(world, "kill", verb)
    assert outcome["moments"] > 30
    assert outcome["differences"] == {}


def test_a_lifetime_goes_on_where_the_address_is_and_never_for_ever(
    world: World, lan: Machine
) -> None:
    drive(world, "create")
    world.ip("address change 10.8.0.3 peer 10.8.0.4/32 dev br0 valid_lft 99 preferred_lft 98")
    drive(world, "delete")
    shown = json.loads(world.ip("-json address show dev eth0"))[0]["addr_info"]
    life = next(x["valid_life_time"] for x in shown if x["local"] == "10.8.0.3")
    assert 50 < life <= 99


def test_what_the_kernel_refuses_is_said_and_the_host_stays_reachable(
    world: World, lan: Machine
) -> None:
    world.ip("link add mv0 link eth0 type macvlan")
    refused = world.run(sys.executable, "-P", DRIVER, "force", check=False)
    assert refused.returncode == 3
    assert "eth0 could not be arranged: Device or resource busy" in refused.stdout
    assert "10.9.0.2/24" in world.ip("-brief address show dev eth0")
    probe = Probe(world, "10.9.0.1")
    seen = probe.end()
    assert seen["sent"] == seen["answered"]
