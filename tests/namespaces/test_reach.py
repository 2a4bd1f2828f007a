"""What a probe's echo requests tell of a network that refuses them."""

from __future__ import annotations

import sys

from .conftest import World

PING = """
from kvmnet.adapters.reach import ping
from kvmnet.model.values import Ip
print(ping(Ip("10.99.0.1"), "br7", None, 1.6).error)
"""


def test_what_a_router_said_is_told_also_when_it_then_falls_silent(world: World) -> None:
    world.bridge("br7", "10.9.0.1/24")
    router = world.machine()
    world.plug(router, "br7", "router", "52:54:00:aa:bb:01")
    router.ip("address add 10.9.0.2/24 dev eth0")
    router.ip("link set eth0 up")
    router.ip("route add unreachable 10.99.0.0/16")
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=1000")
    world.ip("route add 10.99.0.0/16 via 10.9.0.2")
    assert world.run(sys.executable, "-c", PING).stdout == "No route to host\n"


ASK = """
import socket, threading, time
from kvmnet.adapters import reach
from kvmnet.model.values import Ip

real, woken = reach.wait_readable, []

def wait_readable(sock, deadline, lifeline=None):
    woken.append(1)
    return len(woken) == 1 or real(sock, deadline, lifeline)

def serve():
    query, client = server.recvfrom(512)
    time.sleep(0.2)
    server.sendto(query[:2] + bytes([0x84, 0x03]) + query[4:], client)

reach.wait_readable = wait_readable
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("10.9.0.1", 53))
threading.Thread(target=serve, daemon=True).start()
result = reach.ask_name(Ip("10.9.0.1"), "example.org", "br7", None, 3)
print(result.alive_ms is not None, repr(result.error))
"""
"""The first wait ends although there is nothing to read, as poll may."""


def test_a_question_that_is_woken_for_nothing_waits_on(world: World) -> None:
    world.bridge("br7", "10.9.0.1/24")
    world.ip("link set lo up")
    assert world.run(sys.executable, "-c", ASK).stdout == "True ''\n"
