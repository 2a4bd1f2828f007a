"""What a host's NIC becoming a bridge's port costs: kvmnet, the manager's own way, nothing changed.

Each measurement begins in the same virtual machine in the same state (see tests/machines), with an
echo request every 10 ms from the router and a TCP connection through the NIC. The three are taken
in turn, so that a machine whose speed drifts treats them alike.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from machines import images
from machines.machine import Machine
from machines.vm import Vm

ROUNDS = 3
AFTER_S = 6.0
"""What a manager does a moment after its command belongs to it."""
SETTLE_S = 4.0
ALLOWED_MS = 20.0
"""How much longer than with nothing changed the longest silence may be."""

STATIC_YAML = """network:
  version: 2
  renderer: networkd
  ethernets:
    enp0s3: {}
  bridges:
    br0:
      interfaces: [enp0s3]
      parameters: {stp: false, forward-delay: 0}
"""
OWN_WAY: dict[tuple[str, str], tuple[dict[str, str], tuple[str, ...]]] = {
    ("netplan", "static"): (
        {
            "/etc/netplan/01-lan.yaml": STATIC_YAML
            + "      addresses: [10.77.0.20/24, 10.77.0.21/24]\n"
            "      routes: [{to: default, via: 10.77.0.1}]\n"
            "      nameservers: {addresses: [10.77.0.1]}\n"
        },
        ("netplan apply",),
    ),
    ("netplan", "dhcp"): (
        {"/etc/netplan/01-lan.yaml": STATIC_YAML + "      dhcp4: true\n"},
        ("netplan apply",),
    ),
    ("networkd", "static"): (
        {
            "/etc/systemd/network/05-br0.netdev": "[NetDev]\nName=br0\nKind=bridge\n",
            "/etc/systemd/network/10-lan.network": "[Match]\nName=enp0s3\n[Network]\nBridge=br0\n",
            "/etc/systemd/network/20-br0.network": "[Match]\nName=br0\n[Network]\n"
            "Address=10.77.0.20/24\nAddress=10.77.0.21/24\nGateway=10.77.0.1\nDNS=10.77.0.1\n",
        },
        ("networkctl reload",),
    ),
    ("networkd", "dhcp"): (
        {
            "/etc/systemd/network/05-br0.netdev": "[NetDev]\nName=br0\nKind=bridge\n",
            "/etc/systemd/network/10-lan.network": "[Match]\nName=en*\n[Network]\nBridge=br0\n",
            "/etc/systemd/network/20-br0.network": "[Match]\nName=br0\n[Network]\nDHCP=ipv4\n",
        },
        ("networkctl reload",),
    ),
    ("networkmanager", "static"): (
        {},
        (
            "nmcli con add type bridge ifname br0 con-name br0 bridge.stp no ipv4.method manual "
            "ipv4.addresses 10.77.0.20/24,10.77.0.21/24 ipv4.gateway 10.77.0.1 "
            "ipv4.dns 10.77.0.1 ipv6.method link-local",
            "nmcli con add type ethernet ifname enp0s3 con-name br0-port master br0",
            "nmcli con up br0-port",
        ),
    ),
    ("networkmanager", "dhcp"): (
        {},
        (
            "nmcli con add type bridge ifname br0 con-name br0 bridge.stp no ipv4.method auto "
            "ipv6.method link-local",
            "nmcli con add type ethernet ifname enp0s3 con-name br0-port master br0",
            "nmcli con up br0-port",
        ),
    ),
    ("ifupdown", "static"): (
        {
            "/etc/network/interfaces.d/lan": "iface enp0s3 inet manual\n"
            "auto br0\niface br0 inet static\n    address 10.77.0.20/24\n    gateway 10.77.0.1\n"
            "    bridge_ports enp0s3\n    bridge_stp off\n    bridge_fd 0\n"
            "    up ip address add 10.77.0.21/24 dev $IFACE\n"
        },
        ("ifup br0",),
    ),
    ("ifupdown", "dhcp"): (
        {
            "/etc/network/interfaces": "auto lo\niface lo inet loopback\n"
            "iface enp0s3 inet manual\nauto br0\niface br0 inet dhcp\n"
            "    bridge_ports enp0s3\n    bridge_stp off\n    bridge_fd 0\n"
        },
        ("ifup br0",),
    ),
}
"""As the managers' own documentation tells it, STP off: files, then commands. ifupdown's NIC is
taken down first, by the file that it was brought up with."""


class Cost(NamedTuple):
    """One measurement."""

    silence_ms: float
    lost: int
    whole: bool
    """The TCP connection had every byte in the end."""
    took_s: float


def nothing(_machine: Machine) -> None:
    time.sleep(2)


def ours(machine: Machine) -> None:
    machine.kvmnet("bridge", "create", "br0", "--port", "enp0s3", "--yes")


def own_way(machine: Machine) -> None:
    files, commands = OWN_WAY[machine.manager, machine.config]
    if machine.manager == "ifupdown":
        machine.run(["ifdown", "enp0s3"])
    for path, text in files.items():
        machine.write(path, text, 0o600)
    if machine.manager == "networkd":
        machine.script("chmod 644 /etc/systemd/network/*")
    for command in commands:
        machine.run(command.split(), check=False)


WAYS = {"nothing changed": nothing, "kvmnet": ours, "the manager's own way": own_way}


def measure(manager: str, config: str, way: str) -> Cost:
    with Vm(manager, config) as machine:
        # The bridge is made and taken back before, whatever is measured: what all of them run is in
        # memory then, and an emulator has translated it. A real machine translates nothing.
        machine.kvmnet("bridge", "create", "br0", "--port", "enp0s3", "--yes")
        machine.kvmnet("undo", "--yes")
        time.sleep(SETTLE_S)
        with machine.watched() as watch:
            began = time.monotonic()
            WAYS[way](machine)
            took = time.monotonic() - began
            time.sleep(AFTER_S)
        seen = watch.seen
        return Cost(seen.silence.silence_ms, seen.silence.lost, seen.talk.intact, took)


def row(manager: str, config: str, costs: dict[str, list[Cost]]) -> tuple[str, bool]:
    """A line of the table, and whether kvmnet keeps what the project promises."""

    def silence(way: str) -> float:
        return statistics.median(x.silence_ms for x in costs[way])

    def cell(way: str) -> str:
        lost = statistics.median(x.lost for x in costs[way])
        broken = "" if all(x.whole for x in costs[way]) else ", TCP broken"
        return f"{silence(way):,.0f} ms, {lost:g} lost{broken}"

    def took(way: str) -> str:
        return f"{statistics.median(x.took_s for x in costs[way]):.1f} s"

    bare, mine, peer = WAYS
    lost_more = statistics.median(x.lost for x in costs[mine]) - statistics.median(
        x.lost for x in costs[bare]
    )
    holds = (
        silence(mine) <= silence(bare) + ALLOWED_MS
        and lost_more <= 0
        and all(x.whole for x in costs[mine])
    )
    cells = (f"{manager}, {config}", cell(bare), cell(mine), cell(peer), took(mine), took(peer))
    return f"| {' | '.join(cells)} | {'yes' if holds else 'NO'} |", holds


def table(managers: tuple[str, ...], configs: tuple[str, ...]) -> bool:
    """Measure and print; whether all promises hold."""
    images.check()
    lines = []
    for manager in managers:
        for config in configs:
            print(f"measuring {manager}, {config} ...", file=sys.stderr, flush=True)
            costs: dict[str, list[Cost]] = {way: [] for way in WAYS}
            for _ in range(ROUNDS):
                for way in WAYS:
                    costs[way].append(measure(manager, config, way))
            lines.append(row(manager, config, costs))
    print("| longest silence, packets lost | nothing changed | kvmnet | the manager's own way "
          "| kvmnet took | own way took | holds |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for line, _ in lines:
        print(line)
    return all(holds for _, holds in lines)


def main() -> int:
    """`bench/run bridge [MANAGER [CONFIG]]`."""
    managers = tuple(sys.argv[1:2]) or tuple(images.MANAGERS)
    configs = tuple(sys.argv[2:3]) or ("static", "dhcp")
    return 0 if table(managers, configs) else 1


if __name__ == "__main__":
    sys.exit(main())
