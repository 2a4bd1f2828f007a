"""Forwarding that is turned on and taken back leaves no kernel setting otherwise than it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import World

DRIVER = str(Path(__file__).with_name("forwarding_driver.py"))
PATHS = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")

_HARDENED = """
cd /proc/sys/net
echo 0 > ipv4/ip_forward; echo 0 > ipv6/conf/all/forwarding
echo 0 > ipv4/conf/all/accept_redirects; echo 0 > ipv6/conf/all/accept_redirects
echo 1 > ipv4/conf/v0.7/forwarding; echo 1 > ipv6/conf/v0.7/forwarding
echo 1 > ipv4/conf/default/forwarding; echo 2 > ipv6/conf/default/forwarding
"""
_PLAIN = """
cd /proc/sys/net
echo 1 > ipv4/ip_forward; echo 0 > ipv4/ip_forward; echo 0 > ipv6/conf/all/forwarding
"""
_LOOK = "grep -r . /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf /proc/sys/net/ipv4/ip_forward " \
        "2>/dev/null | grep -v stable_secret"  # fmt: skip


def prepared(world: World, settings: str) -> None:
    world.ip("link add v0.7 type veth peer name v1")
    world.ip("link set v0.7 up")
    world.run("sh", "-c", settings)


def look(world: World) -> list[str]:
    return sorted(world.run("sh", "-c", _LOOK).stdout.splitlines())


def python(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    return world.run(
        "env", "KVMNET_STATE_DIR=/run/state", sys.executable, "-P", *words, check=False
    )


@pytest.mark.parametrize("settings", [_HARDENED, _PLAIN], ids=["hardened", "plain"])
@pytest.mark.parametrize("path", PATHS)
def test_what_failed_is_undone_exactly(world: World, path: str, settings: str) -> None:
    prepared(world, settings)
    before = look(world)
    done = python(world, DRIVER, path, "fail")
    assert done.returncode == 4, done.stdout + done.stderr
    assert look(world) == before


@pytest.mark.parametrize("path", PATHS)
def test_what_was_kept_is_taken_back_exactly_and_that_again(world: World, path: str) -> None:
    prepared(world, _HARDENED)
    before = look(world)
    done = python(world, DRIVER, path, "keep")
    assert done.returncode == 0, done.stdout + done.stderr
    after = look(world)
    assert f"/proc/sys/{path}:1" in "\n".join(after) and after != before
    for expected in (before, after):
        done = python(world, "-m", "kvmnet", "undo", "--yes")
        if done.returncode:
            done = python(world, "-m", "kvmnet", "undo", _last(world), "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
        assert look(world) == expected


def _last(world: World) -> str:
    names = world.run("ls", "/run/state/transactions").stdout.split()
    return sorted(x for x in names if x.endswith(".json"))[-1].removesuffix(".json")
