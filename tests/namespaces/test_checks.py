"""Checks and the baseline against the real kernel, with a real gateway and real connections."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kvmnet.model.check import (
    AddressThere,
    Check,
    ConnectionLives,
    DnsAnswers,
    GatewayAnswers,
    PingAnswers,
    RouteLeads,
    TcpConnects,
)
from kvmnet.model.values import Cidr, Ip

from .conftest import Machine, World, wait_for

DRIVER = str(Path(__file__).with_name("check_driver.py"))

_SERVER = """
import hashlib, socket
listener = socket.create_server(("10.1.1.1", 5000))
print("listening", flush=True)
connection, _ = listener.accept()
digest = hashlib.sha256()
while piece := connection.recv(65536):
    digest.update(piece)
print(digest.hexdigest(), flush=True)
"""
_CLIENT = """
import hashlib, socket, sys
connection = socket.create_connection(("10.1.1.1", 5000), source_address=("10.1.1.2", 0))
connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
digest = hashlib.sha256()
print(connection.getsockname()[1], flush=True)
for line in sys.stdin:
    piece = line.encode() * 9000
    digest.update(piece)
    connection.sendall(piece)
    print("sent", connection.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR), flush=True)
connection.close()
print(digest.hexdigest(), flush=True)
"""


class Host:
    """A world with the uplink up0 and a gateway that answers."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.gateway: Machine = world.machine()
        world.ip(f"link add up0 type veth peer name eth0 netns {self.gateway.pid}")
        for machine, nic, last in ((world, "up0", 2), (self.gateway, "eth0", 1)):
            machine.ip(f"address add 10.1.1.{last}/24 dev {nic}")
            machine.ip(f"address add fd00::{last}/64 dev {nic} nodad")
            machine.ip(f"link set {nic} up")
        self.gateway.ip("link set lo up")
        world.ip("route add default via 10.1.1.1")
        world.ip("-6 route add default via fd00::1")
        world.run("sh", "-c", "mount --bind /dev/null /etc/resolv.conf")

    def _drive(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.world.run(sys.executable, "-P", DRIVER, *words, check=False)

    def prove(self, *checks: Check, within_s: float = 0.0) -> str:
        """Empty, or what does not hold."""
        done = self._drive("prove", msgspec.json.encode(checks).decode(), str(within_s))
        assert done.stderr == ""
        return done.stdout

    def baseline(self, *extra: Check) -> tuple[tuple[Check, ...], str]:
        """The checks, and what was said."""
        done = self._drive("baseline", "up0", msgspec.json.encode(extra).decode())
        assert done.returncode == 0, done.stdout + done.stderr
        return msgspec.json.decode(done.stdout, type=tuple[Check, ...]), done.stderr


@pytest.fixture
def host(world: World) -> Host:
    return Host(world)


class Talk:
    """A TCP connection from the host to its gateway, driven by this test."""

    def __init__(self, host: Host) -> None:
        self.server = host.gateway.spawn(sys.executable, "-c", _SERVER)
        assert self.server.stdout is not None
        assert self.server.stdout.readline() == "listening\n"
        self.client = subprocess.Popen(
            host.world.argv([sys.executable, "-c", _CLIENT]), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.client.stdout is not None
        self.check = ConnectionLives(
            local=Ip("10.1.1.2"), local_port=int(self.client.stdout.readline()),
            remote=Ip("10.1.1.1"), remote_port=5000, process="python3",
        )  # fmt: skip

    def say(self, word: str) -> str:
        assert self.client.stdin is not None and self.client.stdout is not None
        self.client.stdin.write(f"{word}\n")
        self.client.stdin.flush()
        return self.client.stdout.readline()

    def finish(self) -> tuple[str, str]:
        """What the client sent and what the server got, as digests."""
        sent, _ = self.client.communicate(timeout=20)
        got, _ = self.server.communicate(timeout=20)
        return sent.strip(), got.strip()


def test_an_idle_connection_is_proven_and_its_stream_goes_on_unharmed(host: Host) -> None:
    talk = Talk(host)
    assert talk.say("first") == "sent 1\n"
    for _ in range(3):
        assert host.prove(talk.check) == ""
    assert talk.say("second") == "sent 1\n", "SO_REUSEADDR is as it was"
    assert host.prove(talk.check) == ""
    sent, got = talk.finish()
    assert sent == got != ""


def test_a_connection_whose_far_end_is_cut_off_does_not_pass(host: Host) -> None:
    talk = Talk(host)
    assert host.prove(talk.check) == ""
    host.gateway.ip("link set eth0 down")
    told = host.prove(talk.check)
    assert "TCP 10.1.1.2:" in told and "no acknowledgement within" in told
    host.gateway.ip("link set eth0 up")
    assert host.prove(talk.check, within_s=10) == ""


def test_a_connection_that_was_closed_is_nobodys_fault(host: Host) -> None:
    talk = Talk(host)
    talk.finish()
    assert host.prove(talk.check) == ""


def test_a_gateway_is_asked_through_whatever_link_leads_to_it(host: Host) -> None:
    four, six = GatewayAnswers(ip=Ip("10.1.1.1")), GatewayAnswers(ip=Ip("fd00::1"))
    assert host.prove(four, six) == ""
    host.world.ip("link add br0 type bridge")
    host.world.ip("link set br0 up")
    host.world.ip("link set up0 master br0")
    host.world.ip("address flush dev up0")
    host.world.ip("address add 10.1.1.2/24 dev br0")
    host.world.ip("address add fd00::2/64 dev br0 nodad")
    host.world.ip("-6 route flush dev up0")
    wait_for("a forwarding port", lambda: host.prove(four, six) == "", 15)
    host.gateway.ip("link set eth0 down")
    told = host.prove(four, six)
    assert "gateway 10.1.1.1 answers: 1.5 s of ARP requests through br0, no answer" in told
    assert "gateway fd00::1 answers: 1.5 s of neighbour solicitations through br0" in told


def test_a_link_local_gateway_is_found_by_its_route(host: Host) -> None:
    host.gateway.ip("address add fe80::1/64 dev eth0 nodad")
    host.world.ip("-6 route replace default via fe80::1 dev up0")
    check = GatewayAnswers(ip=Ip("fe80::1"))
    wait_for("a link-local address", lambda: host.prove(check) == "", 15)
    host.world.ip("-6 route del default")
    assert "no route leads to it" in host.prove(check)


def test_addresses_routes_and_services(host: Host) -> None:
    host.gateway.run(
        "dnsmasq", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--user=root",
        "--pid-file=/run/gateway.pid",
    )  # fmt: skip
    good = (
        AddressThere(address=Cidr("10.1.1.2/24")),
        RouteLeads(destination=Ip("198.51.100.1"), gateway=Ip("10.1.1.1")),
        RouteLeads(destination=Ip("10.1.1.7")),
        DnsAnswers(server=Ip("10.1.1.1")),
        PingAnswers(host="10.1.1.1"),
        PingAnswers(host="fd00::1"),
        TcpConnects(host="10.1.1.1", port=53),
        TcpConnects(host="fd00::1", port=53),
    )
    assert host.prove(*good, within_s=5) == ""
    bad = (
        AddressThere(address=Cidr("10.1.1.2/25")),
        RouteLeads(destination=Ip("198.51.100.1"), gateway=Ip("10.1.1.3")),
        DnsAnswers(server=Ip("10.1.1.2")),
        PingAnswers(host="10.1.1.77"),
        TcpConnects(host="10.1.1.1", port=54),
    )
    for check in bad:
        told = host.prove(*good, check)
        assert "(1 of 9 checks)" in told, told
        assert f"{check}: " in told


def test_an_address_that_somebody_else_has_does_not_pass(host: Host) -> None:
    host.gateway.ip("address add fd00::9/64 dev eth0 nodad")
    host.world.ip("address add fd00::9/64 dev up0")
    check = AddressThere(address=Cidr("fd00::9/64"))
    wait_for("the duplicate", lambda: "dadfailed" in host.prove(check), 15)


def test_the_baseline_demands_what_works_and_says_what_does_not(host: Host) -> None:
    talk = Talk(host)
    host.world.ip("route add 10.7.0.0/16 via 10.1.1.99")
    found, said = host.baseline(TcpConnects(host="10.1.1.1", port=5000))
    # The one connection the server takes is taken: the kernel itself still accepts another.
    assert isinstance(found[0], ConnectionLives)
    assert msgspec.structs.replace(found[0], process="python3") == talk.check
    assert set(found[1:]) == {
        GatewayAnswers(ip=Ip("10.1.1.1")),
        GatewayAnswers(ip=Ip("fd00::1")),
        AddressThere(address=Cidr("10.1.1.2/24")),
        AddressThere(address=Cidr("fd00::2/64")),
        RouteLeads(destination=Ip("198.51.100.1"), gateway=Ip("10.1.1.1")),
        RouteLeads(destination=Ip("2001:db8::1"), gateway=Ip("fd00::1")),
        RouteLeads(destination=Ip("10.7.0.1"), gateway=Ip("10.1.1.99")),
        TcpConnects(host="10.1.1.1", port=5000),
    }
    assert "not demanded, for it does not hold now: gateway 10.1.1.99 answers" in said


def test_a_check_of_the_users_that_fails_before_is_refused(host: Host) -> None:
    done = host._drive(
        "baseline", "up0", msgspec.json.encode([PingAnswers(host="10.1.1.77")]).decode()
    )
    assert done.returncode == 1
    assert done.stdout.startswith("Refused: a --check fails already")
    assert "10.1.1.77 answers a ping" in done.stdout
