"""Packets lost while a host's only NIC becomes a bridge's port: ours and what pages recommend.

Each way is tried in network namespaces of its own: a host with one NIC, and a router that echoes
UDP. The host asks every 0.5 ms, four seconds long, and the switch happens in the middle.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parents[1] / "tests" / "namespaces" / "files"
PROBE, DRIVER = str(TESTS / "udp_probe.py"), str(TESTS / "bridge_driver.py")
STEPS = (
    "link add br0 type bridge stp_state 0 forward_delay 0",
    "link set br0 up",
    "link set eth0 master br0",
    "address delete 10.9.0.2/24 dev eth0",
    "address add 10.9.0.2/24 dev br0",
    "route add default via 10.9.0.1",
)
NAIVE = (
    "link add br0 address {mac} type bridge stp_state 0 forward_delay 0",
    "link set br0 up",
    "address delete 10.9.0.2/24 dev eth0",
    "address add 10.9.0.2/24 dev br0",
    "route add default via 10.9.0.1",
    "link set eth0 master br0",
)
"""In one batch: the address is up on the bridge before the NIC is its port."""
RUNS = 3


class Seen(NamedTuple):
    """Medians of one way."""

    what: str
    sent: int
    lost: int
    silence_ms: float


def ip(space: str, line: str) -> str:
    words = ["ip", "-n", space, *line.split()]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def inside(space: str, *words: str) -> list[str]:
    return ["ip", "netns", "exec", space, *words]


def switch(way: str, host: str) -> None:
    if way == "kvmnet":
        words = inside(host, sys.executable, "-P", DRIVER, "create")
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    elif way == "`ip`, one by one":
        mac = json.loads(ip(host, "-json link show dev eth0"))[0]["address"]
        ip(host, STEPS[0].replace("br0 ", f"br0 address {mac} ", 1))
        for line in STEPS[1:]:
            ip(host, line)
    else:
        mac = json.loads(ip(host, "-json link show dev eth0"))[0]["address"]
        text = "".join(f"{x.format(mac=mac)}\n" for x in NAIVE)
        words = ["ip", "-n", host, "-batch", "-"]
        subprocess.run(words, input=text, text=True, check=True)


def measure(way: str, tag: str) -> Seen:
    host, router = f"{tag}h", f"{tag}r"
    try:
        ip_all(host, router)
        echo = subprocess.Popen(
            inside(router, sys.executable, "-P", PROBE, "echo"), stdout=subprocess.PIPE
        )
        try:
            return probe(way, host, echo)
        finally:
            echo.kill()
            echo.communicate()
    finally:
        for space in (host, router):
            subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True)


def ip_all(host: str, router: str) -> None:
    for space in (host, router):
        subprocess.run(["ip", "netns", "add", space], check=True)
    ip(host, f"link add eth0 type veth peer name lan0 netns {router}")
    ip(router, "address add 10.9.0.1/24 dev lan0")
    ip(router, "link set lan0 up")
    ip(host, "address add 10.9.0.2/24 dev eth0")
    ip(host, "link set eth0 up")
    ip(host, "route add default via 10.9.0.1")


def probe(way: str, host: str, echo: subprocess.Popen[bytes]) -> Seen:
    assert echo.stdout is not None and echo.stdout.readline()
    words = inside(host, sys.executable, "-P", PROBE, "send", "10.9.0.1", "0.5")
    sender = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert sender.stdout is not None and sender.stdout.readline()
    time.sleep(2)
    switch(way, host)
    time.sleep(2)
    report = json.loads(sender.communicate(timeout=30)[0])
    return Seen(way, report["sent"], report["sent"] - report["answered"], report["silence_ms"])


def rows() -> list[Seen]:
    """The ways in turn, several times; of each the run with the median loss."""
    found: dict[str, list[Seen]] = {}
    for number in range(RUNS):
        for way in ("kvmnet", "`ip`, one by one", "naive `ip -batch`"):
            found.setdefault(way, []).append(measure(way, f"kb{os.getpid()}{number}"))
    return [sorted(x, key=lambda seen: seen.lost)[len(x) // 2] for x in found.values()]


def main() -> int:
    seen = rows()
    print("| the only NIC becomes a port, a packet every 0.5 ms | sent | lost | longest silence |")
    print("| --- | --- | --- | --- |")
    for row in seen:
        print(f"| {row.what} | {row.sent:,} | {row.lost} | {row.silence_ms:,.0f} ms |")
    return 0 if seen[0].lost == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
