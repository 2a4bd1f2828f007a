"""A stand-in guest on real bridges, with real and with broken servers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import KVMNET, World, children, wait_for
from .probes import far_host, given_back, nothing_is_left, probe, verdicts

FAKE_SERVER = """
import socket, sys
from kvmnet.adapters.packets import PacketSocket
from kvmnet.formats import dhcp
from kvmnet.formats.ethernet import *
import time
sock = PacketSocket("br7", IPV4)
mode = sys.argv[1]
print("ready", flush=True)
while True:
    got = sock.receive(time.monotonic() + 60)
    if got is None: break
    packet = decode_ipv4(got.frame.payload)
    udp = packet and decode_udp(packet)
    message = udp and udp.destination_port == 67 and dhcp.decode(udp.payload)
    if not message: continue
    kind = {dhcp.DISCOVER: dhcp.OFFER}.get(message.type)
    if message.type == dhcp.REQUEST and mode == "nak": kind = dhcp.NAK
    if message.type == dhcp.REQUEST and mode == "bad-checksum": kind = dhcp.ACK
    if kind is None: continue
    options = {54: bytes([10, 7, 0, 1]), 51: (120).to_bytes(4, "big"), 1: bytes([255, 255, 255, 0])}
    if kind == dhcp.NAK: options[56] = b"wrong network"
    reply = dhcp.DhcpMessage(type=kind, xid=message.xid, client_mac=message.client_mac, reply=True,
                             yiaddr="10.7.0.50", options=options)
    raw = bytearray(udp_frame(
        Udp(source_port=67, destination_port=68, payload=dhcp.encode(reply)), source="10.7.0.1",
        destination="10.7.0.50", source_mac=mac_text(sock.mac),
        destination_mac=message.client_mac))
    if mode == "bad-checksum": raw[14 + 20 + 6] ^= 0x55
    sock.send(bytes(raw))
"""


@pytest.fixture
def lan(world: World) -> World:
    """A bridge with a machine on it and a DHCP server that does not wait."""
    world.bridge("br7", "10.7.0.1/24")
    other = world.machine()
    world.plug(other, "br7", "other", "52:54:00:00:00:77")
    other.ip("link set eth0 up")
    world.dnsmasq("br7", "--dhcp-range=10.7.0.10,10.7.0.250,300", "--no-ping",
                  "--address=/known.example/10.7.0.1")  # fmt: skip
    return world


def test_healthy_network_is_quick_and_left_as_it_was(lan: World) -> None:
    before = lan.ip("link show br7")
    report = probe(lan, "--to", "known.example")
    assert report["ms"] < 8000
    assert verdicts(report) == {
        "link": "ok", "dhcp": "ok", "address": "ok", "gateway": "ok", "host": "ok", "dns": "ok",
        "target": "ok", "path-mtu": "ok", "ipv6": "skipped", "latency": "ok",
        "dhcp-servers": "ok", "release": "ok",
    }  # fmt: skip
    lease = report["lease"]
    assert lease["server"] == lease["router"] == "10.7.0.1"
    assert lease["dns"] == ["10.7.0.1"] and lease["prefix_len"] == 24 and lease["lease_s"] == 120
    assert not lease["bad_checksum"]
    assert report["mac"].startswith("52:54:00:")
    given_back(lan)
    assert nothing_is_left(lan)
    assert lan.ip("link show br7") == before


def test_tcp_target_that_listens_and_one_that_does_not(lan: World) -> None:
    server = lan.spawn("python3", "-m", "http.server", "-b", "10.7.0.1", "8123")
    wait_for("the web server", lambda: ":8123" in lan.run("ss", "-ltn").stdout)
    good = probe(lan, "--to", "10.7.0.1:8123")
    assert "connected" in good["by_name"]["target"]["detail"]
    bad = probe(lan, "--to", "10.7.0.1:8124", status=1)["by_name"]["target"]
    assert bad["verdict"] == "failed" and "nothing listens" in bad["reason"]
    os.kill(leaf_of(server), signal.SIGKILL)
    server.communicate(timeout=5)


def test_spanning_tree_is_shown_as_what_costs_the_time(world: World) -> None:
    world.bridge("br7", "10.7.0.1/24", "stp_state", "1", "forward_delay", "200")
    world.dnsmasq("br7", "--dhcp-range=10.7.0.10,10.7.0.250,300", "--no-ping")
    report = probe(world)
    link = report["by_name"]["link"]
    assert link["verdict"] == "warn" and link["ms"] > 3500
    assert "spanning tree" in link["reason"] and "stp_state 0" in link["hint"]
    assert report["by_name"]["dhcp"]["verdict"] == "ok"


def test_dnsmasq_that_pings_before_it_offers(world: World) -> None:
    world.bridge("br7", "10.7.0.1/24")
    world.dnsmasq("br7", "--dhcp-range=10.7.0.10,10.7.0.250,300")
    dhcp = probe(world)["by_name"]["dhcp"]
    assert dhcp["verdict"] == "warn" and dhcp["ms"] > 2500
    assert "dnsmasq pings" in dhcp["reason"]


def test_ipv6_network(world: World) -> None:
    world.bridge("br7", "10.7.0.1/24")
    world.ip("address add fd07::1/64 dev br7")
    world.dnsmasq("br7", "--dhcp-range=10.7.0.10,10.7.0.250,300", "--no-ping", "--enable-ra",
                  "--dhcp-range=fd07::,ra-stateless,64")  # fmt: skip
    step = probe(world)["by_name"]["ipv6"]
    assert step["verdict"] == "ok", step
    assert "fd07::" in step["detail"]


def test_no_dhcp_server(world: World) -> None:
    world.bridge("br7", "10.7.0.1/24")
    begin = time.monotonic()
    report = probe(world, status=1)
    assert time.monotonic() - begin < 30
    dhcp = report["by_name"]["dhcp"]
    assert dhcp["verdict"] == "failed" and dhcp["detail"] == "no DHCP server answered"
    assert any("DISCOVER" in x for x in dhcp["evidence"])
    assert verdicts(report)["dns"] == "skipped"
    assert "lease" in report["by_name"]["dns"]["reason"]
    assert nothing_is_left(world)


def test_bridge_that_is_down(world: World) -> None:
    world.bridge("br7", "10.7.0.1/24")
    world.ip("link set br7 down")
    report = probe(world, status=1)
    assert report["by_name"]["link"]["verdict"] == "failed"
    assert report["by_name"]["link"]["hint"] == "ip link set br7 up"
    assert {x for n, x in verdicts(report).items() if n != "link"} == {"skipped"}


@pytest.mark.parametrize(
    ("mode", "said"), [("no-ack", "never confirmed"), ("nak", "refused it (NAK)")]
)
def test_server_that_stops_in_the_middle(world: World, mode: str, said: str) -> None:
    world.bridge("br7", "10.7.0.1/24")
    server = world.spawn(KVMNET[0], "-c", FAKE_SERVER, mode)
    assert server.stdout is not None and server.stdout.readline() == "ready\n"
    dhcp = probe(world, status=1)["by_name"]["dhcp"]
    assert dhcp["verdict"] == "failed" and said in dhcp["detail"]
    assert mode != "nak" or dhcp["reason"] == "wrong network"


def test_wrong_checksums_are_taken_but_told(world: World) -> None:
    world.bridge("br7", "10.7.0.1/24")
    server = world.spawn(KVMNET[0], "-c", FAKE_SERVER, "bad-checksum")
    assert server.stdout is not None and server.stdout.readline() == "ready\n"
    report = probe(world, status=None)
    assert report["lease"]["bad_checksum"] is True
    dhcp = report["by_name"]["dhcp"]
    assert dhcp["verdict"] == "warn" and "bad-checksum" in dhcp["reason"]


def test_address_that_somebody_else_has(world: World) -> None:
    world.bridge("br7", "10.7.0.1/24")
    thief = world.machine()
    world.plug(thief, "br7", "thief", "52:54:00:00:00:99")
    thief.ip("link set eth0 up")
    thief.ip("address add 10.7.0.10/24 dev eth0")
    world.dnsmasq("br7", "--dhcp-range=10.7.0.10,10.7.0.10,300", "--no-ping")
    report = probe(world, status=1)
    address = report["by_name"]["address"]
    assert address["verdict"] == "failed" and "52:54:00:00:00:99" in address["detail"]
    assert verdicts(report)["gateway"] == "skipped"
    given_back(world)


def test_dead_dns_server(world: World) -> None:
    world.bridge("br7", "10.7.0.1/24")
    world.dnsmasq("br7", "--dhcp-range=10.7.0.10,10.7.0.250,300", "--no-ping", "--port=0",
                  "--dhcp-option=6,10.7.0.200")  # fmt: skip
    dns = probe(world, status=1)["by_name"]["dns"]
    assert dns["verdict"] == "failed" and dns["detail"] == "10.7.0.200 does not answer"


@pytest.mark.parametrize("mtu", [1400, 1281])
def test_narrow_path_that_a_router_reports(lan: World, mtu: int) -> None:
    far_host(lan, mtu=mtu, black_hole=False)
    step = probe(lan, "--to", "10.99.0.2")["by_name"]["path-mtu"]
    assert step["verdict"] == "ok" and step["detail"].startswith(f"{mtu} bytes"), step


@pytest.mark.parametrize("mtu", [1492, 1377, 600])
def test_black_hole(lan: World, mtu: int) -> None:
    far_host(lan, mtu=mtu, black_hole=True)
    step = probe(lan, "--to", "10.99.0.2", status=1)["by_name"]["path-mtu"]
    assert step["verdict"] == "failed" and f"over {mtu} bytes" in step["detail"], step


def test_a_large_packet_that_is_lost_once_is_no_black_hole(lan: World) -> None:
    far_host(lan, mtu=1500, black_hole=False)
    for line in (
        "add table ip lossy",
        "add chain ip lossy f { type filter hook forward priority 0; }",
        "add rule ip lossy f icmp type echo-request meta length > 1000 numgen inc mod 1000 < 1 "
        "counter drop",
    ):
        lan.run("nft", line)
    step = probe(lan, "--to", "10.99.0.2")["by_name"]["path-mtu"]
    assert "packets 1 " in lan.run("nft", "list", "table", "ip", "lossy").stdout
    assert step["verdict"] == "ok" and step["detail"].startswith("1500 bytes"), step


def test_host_that_does_not_forward(lan: World) -> None:
    far_host(lan, mtu=1500, black_hole=False)
    lan.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    step = probe(lan, "--to", "10.99.0.2", status=1)["by_name"]["target"]
    assert step["verdict"] == "failed"
    assert step["evidence"] == ["host: net.ipv4.ip_forward = 0"]


def test_two_probes_at_once(lan: World) -> None:
    both = [lan.spawn(*KVMNET, "probe", "bridge:br7", "--json") for _ in range(2)]
    reports = [json.loads(x.communicate(timeout=30)[0])["report"] for x in both]
    assert all(x["lease"] for x in reports)
    assert reports[0]["mac"] != reports[1]["mac"]
    assert reports[0]["lease"]["address"] != reports[1]["lease"]["address"]
    assert nothing_is_left(lan)
    given_back(lan)


def command_line(pid: int) -> bytes:
    """Nothing for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def leaf_of(process: subprocess.Popen[str]) -> int:
    """The kvmnet behind `nsenter`."""
    wait_for("kvmnet to start", lambda: children(process.pid))
    return children(process.pid)[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after_s", [0.05, 0.15, 0.2, 0.25, 0.3, 0.35, 0.45, 0.6])
def test_killed_at_any_moment_nothing_is_left(
    lan: World, number: signal.Signals, after_s: float
) -> None:
    process = lan.spawn(*KVMNET, "probe", "bridge:br7")
    leaf = leaf_of(process)
    time.sleep(after_s)
    with contextlib.suppress(ProcessLookupError):  # it was quicker
        os.kill(leaf, number)
    process.communicate(timeout=10)
    wait_for("the cable to vanish", lambda: nothing_is_left(lan))
    given_back(lan)
    wait_for("the stand-in to end",
             lambda: "standin" not in lan.run("ps", "-eo", "args").stdout)  # fmt: skip


def test_killed_while_the_server_thinks(world: World) -> None:
    world.bridge("br7", "10.7.0.1/24")
    process = world.spawn(*KVMNET, "probe", "bridge:br7")
    leaf = leaf_of(process)
    wait_for("the cable", lambda: not nothing_is_left(world))
    os.kill(leaf, signal.SIGKILL)
    process.communicate(timeout=10)
    wait_for("the cable to vanish", lambda: nothing_is_left(world))


def test_killed_stand_in_is_told_and_leaves_no_cable(world: World) -> None:
    world.bridge("br7", "10.7.0.1/24")
    process = world.spawn(*KVMNET, "probe", "bridge:br7")
    leaf = leaf_of(process)
    wait_for("the cable", lambda: not nothing_is_left(world))
    wait_for("the stand-in", lambda: children(leaf))
    for pid in children(leaf):
        if b"standin" in command_line(pid):
            os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 1 and "Traceback" not in out + err
    assert "the stand-in guest died" in out + err
    assert nothing_is_left(world)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["bridge:nosuch"], 1, "there is no bridge nosuch"),
        (["bridge:lo"], 3, "it is no bridge"),
        (["br7"], 2, "network:NAME, bridge:NAME or guest:NAME"),
        (["bridge:"], 2, "network:NAME, bridge:NAME or guest:NAME"),
        (["bridge:\x1b[31mx"], 1, "there is no bridge"),
        (["bridge:br7", "--to", "a b"], 2, "nothing to connect to"),
        (["bridge:br7", "--to", "10.0.0.1:99999"], 2, "nothing to connect to"),
        (["bridge:br7", "--to", "10.0.0.1:"], 2, "nothing to connect to"),
        (["bridge:br7", "--to", "[::1"], 2, "nothing to connect to"),
        (["bridge:br7", "--to", "10.0.0.300"], 2, "nothing to connect to"),
    ],
)
def test_wrong_targets(world: World, words: list[str], status: int, said: str) -> None:
    done = world.run(*KVMNET, "probe", *words, check=False)
    assert done.returncode == status, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr and "\x1b" not in done.stderr


def test_without_root(world: World) -> None:
    done = world.run("setpriv", "--reuid=65534", "--clear-groups", *KVMNET, "probe", "bridge:br7",
                     check=False)  # fmt: skip
    assert done.returncode == 1 and "needs root" in done.stderr
