"""Probes of a world's bridge `br7`, and what is checked after each."""

from __future__ import annotations

import json
from typing import Any

from .conftest import KVMNET, World, wait_for


def probe(world: World, *words: str, status: int | None = 0) -> dict[str, Any]:
    """The report of `kvmnet probe bridge:br7`, its steps also by their names."""
    done = world.run(*KVMNET, "probe", "bridge:br7", "--json", *words, check=False)
    assert status is None or done.returncode == status, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert document["format"] == "kvmnet.probe"
    report: dict[str, Any] = document["report"]
    report["by_name"] = {step["name"]: step for step in report["steps"]}
    return report


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {name: step["verdict"] for name, step in report["by_name"].items()}


def nothing_is_left(world: World) -> bool:
    return not any(name.startswith("kvmnet-") for name in world.links())


def given_back(world: World) -> None:
    """Wait until the DHCP server has read that no lease is wanted any more: nobody answers that."""
    wait_for("the lease to be given back", lambda: not world.leases("br7"))


def far_host(world: World, *, mtu: int, black_hole: bool) -> None:
    """10.99.0.2 and fd99::2 behind a router (the world itself) with a narrower link.

    As a black hole it says nothing about packets that are too big.
    """
    far = world.machine()
    world.ip(f"link add far type veth peer name eth0 netns {far.pid}")
    world.ip("address add 10.99.0.1/24 dev far")
    world.ip(f"link set far mtu {1500 if black_hole else mtu} up")
    far.ip("address add 10.99.0.2/24 dev eth0")
    far.ip("address add fd99::2/64 dev eth0 nodad")
    world.ip("address add fd99::1/64 dev far nodad")
    far.ip("link set eth0 up")
    far.ip("-6 route add default via fd99::1")
    far.ip("route add default via 10.99.0.1")
    world.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    if black_hole:
        world.run("nft", "add table inet t")
        world.run("nft", "add chain inet t f { type filter hook forward priority 0 ; }")
        world.run("nft", f"add rule inet t f meta length > {mtu} drop")
