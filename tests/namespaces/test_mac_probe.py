"""Who on a LAN can be found by their MAC address alone: real Linux machines, differently set."""

from __future__ import annotations

import json

import pytest

from .conftest import KVMNET, Machine, World, wait_for

USED = "52:54:00:aa:bb:01"
FREE = "52:54:00:aa:bb:02"
ASK = """
import sys, msgspec
from kvmnet.flow.mac_probe import ask_lan
print(msgspec.json.encode(ask_lan(sys.argv[1], sys.argv[2:], 0.5)).decode())
"""
NO_IPV6 = "net.ipv6.conf.eth0.disable_ipv6=1"


def ask(world: World, *macs: str) -> list[dict[str, str]]:
    done = world.run(KVMNET[0], "-c", ASK, "br7", *macs)
    answers: list[dict[str, str]] = json.loads(done.stdout)
    return answers


def machine(world: World, address: str | None, *settings: str) -> Machine:
    """A machine that has been silent for a while, with the MAC `USED`."""
    other = world.machine()
    world.plug(other, "br7", "other", USED)
    for setting in ("net.ipv6.conf.eth0.router_solicitations=0", *settings):
        other.run("sysctl", "-qw", setting)
    other.ip("link set eth0 up")
    if address is not None:
        other.ip(f"address add {address} dev eth0")

    def settled() -> bool:
        shown = other.ip("address show dev eth0")
        return "tentative" not in shown and (NO_IPV6 in settings or "fe80::" in shown)

    wait_for("addresses to settle", settled)
    return other


@pytest.fixture
def lan(world: World) -> World:
    world.bridge("br7", "10.9.0.1/24", "mcast_snooping", "0")
    return world


def test_linux_with_ipv6_is_found(lan: World) -> None:
    machine(lan, None)
    answers = ask(lan, FREE, USED)
    assert [x["mac"] for x in answers] == [USED]
    assert answers[0]["ip"].startswith("fe80::")


def test_linux_with_ipv4_alone_is_found_in_the_same_subnet(lan: World) -> None:
    machine(lan, "10.9.0.7/24", NO_IPV6)
    answers = ask(lan, USED, FREE)
    assert answers == [{"mac": USED, "how": "answered an ARP request", "ip": "10.9.0.7"}]


def test_ipv4_in_another_subnet_is_not_found_where_broadcasts_are_ignored(lan: World) -> None:
    """What can not be known, as the docs say."""
    machine(lan, "10.8.0.7/24", NO_IPV6)
    assert ask(lan, USED) == []


def test_whoever_answers_broadcasts_is_found(lan: World) -> None:
    other = machine(lan, "10.8.0.7/24", NO_IPV6, "net.ipv4.icmp_echo_ignore_broadcasts=0")
    other.ip("route add default dev eth0")
    assert [x["mac"] for x in ask(lan, USED)] == [USED]


def test_machine_without_any_address_is_not_found(lan: World) -> None:
    """What can not be known, as the docs say."""
    machine(lan, None, NO_IPV6)
    assert ask(lan, USED) == []


def test_firewall_that_drops_echo_requests(lan: World) -> None:
    other = machine(lan, None)
    other.run("nft", "add table ip6 t")
    other.run("nft", "add chain ip6 t i { type filter hook input priority 0 ; }")
    other.run("nft", "add rule ip6 t i icmpv6 type echo-request drop")
    assert [x["mac"] for x in ask(lan, USED, FREE)] == [USED]


def test_unused_addresses_and_many_at_once(lan: World) -> None:
    machine(lan, None)
    many = [f"52:54:00:00:{n // 256:02x}:{n % 256:02x}" for n in range(1000)]
    assert [x["mac"] for x in ask(lan, *many, USED)] == [USED]


@pytest.mark.parametrize(
    ("nic", "error"), [("nosuch", "NotFound"), ("lo", "Refused"), ("down0", "Failed")]
)
def test_nics_that_lead_nowhere(lan: World, nic: str, error: str) -> None:
    lan.ip("link add name down0 type bridge")
    done = lan.run(KVMNET[0], "-c", ASK, nic, USED, check=False)
    assert f"kvmnet.errors.{error}" in done.stderr


def test_command_line(lan: World) -> None:
    machine(lan, None)
    words = (*KVMNET, "mac", "--check", USED, "--probe", "br7")
    done = lan.run(*words, check=False)
    assert done.returncode == 1 and "is in use" in done.stdout and "on br7" in done.stdout
