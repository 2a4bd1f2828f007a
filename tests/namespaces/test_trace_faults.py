"""Traces on busy hosts, on hosts that lack something, and traces that are killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from .conftest import KVMNET, children, wait_for
from .test_trace import SERVER, Road, docker, road, served

__all__ = ["road"]

FLOOD = """
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("ready", flush=True)
while True:
    sock.sendto(b"noise", (sys.argv[1], 9))
    time.sleep(0.001)
"""


def without_btf(road: Road) -> None:
    """As on a kernel without type information: BPF programs can not be made for it."""
    road.host.run("mount", "-t", "tmpfs", "tmpfs", "/sys/kernel/btf")


def flooded(road: Road) -> None:
    """The guest sends a thousand datagrams a second, which the host's firewall drops."""
    road.host.run("iptables-legacy", "-A", "FORWARD", "-p", "udp", "--dport", "9", "-j", "DROP")
    noise = road.guest.spawn("python3", "-c", FLOOD, SERVER)
    assert noise.stdout is not None and noise.stdout.readline() == "ready\n"


def instances(road: Road) -> list[str]:
    road.host.run("mount", "-t", "tracefs", "tracefs", "/mnt")
    return road.host.run("sh", "-c", "ls /mnt/instances; umount /mnt").stdout.split()


def test_drops_of_others_are_not_blamed(road: Road) -> None:
    flooded(road)
    road.router.run("iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "-j", "DROP")
    report = road.trace("bridge:br7", f"{SERVER}:80")
    assert report["last_seen"] == "eth1" and report["verdict"].startswith("left the host")
    assert report["drop"] is None or not report["drop"]["here"]


def test_our_own_drop_is_found_among_those_of_others(road: Road) -> None:
    flooded(road)
    road.host.run("iptables-legacy", "-A", "FORWARD", "-p", "tcp", "-j", "DROP")
    report = road.trace("bridge:br7", f"{SERVER}:80")
    assert report["drop"]["reason"] == "NETFILTER_DROP" and report["drop"]["tied_by"] == "bpf"
    assert report["drop"]["packet"]["protocol"] == "tcp"


def test_without_bpf_a_pattern_ties_the_drops(road: Road) -> None:
    without_btf(road)
    road.host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    for _ in range(3):  # a packet that was sent late does not fit the pattern
        report = road.trace("bridge:br7", f"{SERVER}:80")
        if report["drop"] is not None:
            break
    assert report["drop"]["tied_by"] == "pattern" and report["drop"]["reason"] == "IP_INADDRERRORS"
    assert "does not forward" in report["verdict"]
    assert any("BPF" in x["what"] for x in report["missing"])
    assert not instances(road)


def test_without_bpf_nobody_is_blamed_on_a_busy_host(road: Road) -> None:
    without_btf(road)
    flooded(road)
    road.host.run("iptables-legacy", "-A", "FORWARD", "-p", "tcp", "-j", "DROP")
    report = road.trace("bridge:br7", f"{SERVER}:80")
    assert report["drop"] is None and report["ending"] == "lost"
    assert report["last_seen"] == "br7" and report["expected_next"] == "eth1"
    assert not instances(road)


def test_without_bpf_an_answer_is_an_answer(road: Road) -> None:
    without_btf(road)
    served(road)
    assert road.trace("bridge:br7", f"{SERVER}:80", status=0)["ending"] == "answered"


def test_what_a_killed_helper_left_is_removed(road: Road) -> None:
    without_btf(road)
    road.host.run("mount", "-t", "tracefs", "tracefs", "/mnt")
    road.host.run("mkdir", "/mnt/instances/kvmnet-999999-abcdef")
    road.host.run("umount", "/mnt")
    assert instances(road) == ["kvmnet-999999-abcdef"]
    road.trace("host", SERVER, status=0)
    assert not instances(road)


IN_A_CONTAINER = """
mount -t sysfs sysfs /sys && mount -t tmpfs tmpfs /run && ip link set lo up &&
ip link add br7 type bridge && ip address add 10.7.0.1/24 dev br7 && ip link set br7 up &&
nft add table inet m && nft add chain inet m i '{ type filter hook input priority 0; }' &&
nft add rule inet m i tcp dport 99 drop || exit 9
exec "$@"
"""


def test_root_of_a_container_has_neither_bpf_nor_tracefs(road: Road) -> None:
    words = ["unshare", "-Urmn", "sh", "-c", IN_A_CONTAINER, "sh", *KVMNET, "trace"]
    done = road.host.run(*words, "bridge:br7", "10.7.0.1:99", check=False)
    assert done.returncode == 1 and "died at: rule `tcp dport 99 drop`" in done.stdout
    assert "(BPF)" in done.stderr and "by tracefs" in done.stderr
    done = road.host.run(*words, "bridge:br7", "10.7.0.1:98", check=False)
    assert done.returncode == 0 and "RST" in done.stdout


def test_without_nft(road: Road) -> None:
    docker(road)
    road.host.run("mount", "--bind", "/bin/false", "/usr/sbin/nft")
    done = road.host.run(*KVMNET, "trace", "bridge:br7", f"{SERVER}:80", check=False)
    assert done.returncode == 1 and "not watched: firewall rules" in done.stderr
    assert "NETFILTER_DROP" in done.stdout
    road.host.run("umount", "/usr/sbin/nft")


@pytest.mark.parametrize("btf", [True, False])
def test_killed_at_any_moment_it_leaves_nothing(road: Road, *, btf: bool) -> None:
    if not btf:
        without_btf(road)
    road.host.run("ip", "route", "replace", "default", "via", "192.0.2.77")  # nobody: it takes long
    for blindly in (0.1, 0.2, 0.3):
        assert kill_one(road, lambda: True, blindly)
    cut = [
        kill_one(road, lambda: "kvmnet_trace" in road.host.run("nft", "list", "tables").stdout,
                 later)
        for later in (0.0, 0.1, 0.2, 0.35, 0.5, 0.7)
    ]  # fmt: skip
    # On a slow machine the moment is seen late, and the last ones may find the trace over.
    assert cut.count(True) >= 3, cut


def kill_one(road: Road, is_time: Callable[[], bool], later: float) -> bool:
    """Start a trace, kill it at that time, and see that nothing is left. False: it was over."""
    running = road.host.spawn(*KVMNET, "trace", "bridge:br7", SERVER)
    wait_for("kvmnet", lambda: children(running.pid))
    (pid,) = children(running.pid)  # nsenter's
    wait_for("the moment", lambda: is_time() or running.poll() is not None)
    time.sleep(later)
    was_running = True
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        was_running = False
    running.communicate(timeout=30)
    assert running.returncode != 0
    wait_for("the clean-up", road.nothing_is_left)
    wait_for("tracefs to be clean", lambda: not instances(road))
    return was_running
