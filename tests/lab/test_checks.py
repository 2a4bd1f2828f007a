"""What checks of the State say of a real host that was really broken: that, and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from msgspec import Struct

from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab


class Break(Struct, frozen=True, kw_only=True):
    """A fault made by commands of the host; `{web}` and `{srv}` are the guests' taps."""

    make: tuple[str, ...]
    mend: tuple[str, ...]
    name: str
    subject: str
    fixed: bool = True
    """Whether `doctor --fix` mends it."""


BREAKS = {
    "bridge": Break(
        make=("ip link set virbr0 down",), mend=("ip link set virbr0 up",),
        name="bridge-down", subject="bridge virbr0",
    ),
    "tap": Break(
        make=("ip link set {web} down",), mend=("ip link set {web} up",),
        name="tap-down", subject="guest web",
    ),
    "port": Break(
        make=("bridge link set dev {srv} state 0",), mend=("bridge link set dev {srv} state 3",),
        name="port-blocked", subject="guest srv", fixed=False,
    ),
    "uplink port": Break(
        make=("bridge link set dev eth1 state 0",), mend=("bridge link set dev eth1 state 3",),
        name="port-blocked", subject="bridge br0", fixed=False,
    ),
    "isolated": Break(
        make=("bridge link set dev {srv} isolated on", "bridge link set dev eth1 isolated on"),
        mend=("bridge link set dev eth1 isolated off", "bridge link set dev {srv} isolated off"),
        name="port-isolated", subject="guest srv", fixed=False,
    ),
    "mtu": Break(
        make=("ip link set eth1 mtu 1400",),
        mend=("ip link set eth1 mtu 1500", "ip link set br0 mtu 1500"),
        name="mtu-mismatch", subject="bridge br0", fixed=False,
    ),
    "cable": Break(
        make=("virsh -q domif-setlink web {web} down",),
        mend=("virsh -q domif-setlink web {web} up",),
        name="guest-link-down", subject="guest web", fixed=False,
    ),
    "second way": Break(
        make=("ip link add two type veth peer name twop",
              "ip address add 192.168.77.200/24 dev two",
              "ip link set two up", "ip link set twop up",
              "tee /proc/sys/net/ipv4/conf/two/rp_filter"),
        mend=("ip link delete two",),
        name="rp-filter", subject="NIC two",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def taps(lab: Lab) -> dict[str, str]:
    """The taps of a guest on network default and of one on the bridge br0."""
    lab.kvmnet("up", "--yes")
    lab.kvmnet("bridge", "create", "br0", "--port", "eth1", "--yes")
    guests = {"web": "network:default", "srv": "bridge:br0"}
    for name, on in guests.items():
        lab.add_guest(name, on=on).wait_ready(90)
    for name in guests:
        lab.guest(name).wait_address(30)
    found = {}
    for name in guests:
        listing = lab.run("host", ["virsh", "domiflist", name]).stdout.splitlines()
        found[name] = listing[2].split()[0]
    return found


def told(lab: Lab, *words: str, accept: tuple[int, ...] = (0, 1)) -> list[tuple[str, str]]:
    done = lab.kvmnet("doctor", "--no-probes", "--json", *words, accept=accept, timeout=60)
    return [(x["name"], x["subject"]) for x in json.loads(done.stdout)["findings"]]


def run(lab: Lab, commands: tuple[str, ...], taps: dict[str, str]) -> None:
    for text in commands:
        lab.run("host", text.format(**taps).split(), stdin="1\n")


@pytest.fixture
def whole(lab: Lab, taps: dict[str, str]) -> Iterator[None]:
    """A host in good order before and after."""
    assert told(lab) == []
    yield
    end = time.monotonic() + 15
    while (found := told(lab)) and time.monotonic() < end:
        time.sleep(0.5)
    assert found == []


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("what", BREAKS)
def test_what_is_broken_is_named(lab: Lab, taps: dict[str, str], what: str) -> None:
    fault = BREAKS[what]
    run(lab, fault.make, taps)
    try:
        assert told(lab) == [(fault.name, fault.subject)]
        if fault.fixed:
            assert told(lab, "--fix", "--yes", accept=(0,)) == []
            lab.kvmnet("undo", "--yes")
            assert told(lab) == [(fault.name, fault.subject)]
    finally:
        run(lab, fault.mend, taps)


def _address6(lab: Lab, guest: str) -> str:
    """The address that a guest made of the router's prefix, as its agent tells it."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        listing = lab.run("host", ["virsh", "domifaddr", guest, "--source", "agent"]).stdout
        for word in listing.split():
            if word.startswith("2001:db8:77:"):
                return word.partition("/")[0]
        time.sleep(0.5)
    raise AssertionError(f"the guest {guest} has no IPv6 address")


def _neighbour_state(lab: Lab, address: str) -> str:
    """What the router knows of an address after it has asked for it."""
    lab.run("router", ["ip", "-6", "neigh", "flush", "to", address])
    send = ("import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); "
            f"s.sendto(b'x', ('{address}', 9))")  # fmt: skip
    lab.run("router", ["/usr/bin/python3", "-c", send])
    end, state = time.monotonic() + 8, ""
    while time.monotonic() < end and state not in {"REACHABLE", "FAILED", "DELAY"}:
        time.sleep(0.2)
        words = lab.run("router", ["ip", "-6", "neigh", "show", address]).stdout.split()
        state = words[-1] if words else ""
    return state


def test_multicast_snooping_is_named_where_it_keeps_solicitations(
    lab: Lab, taps: dict[str, str]
) -> None:
    """A querier that was there and is gone: the bridge forgot listeners, and floods nothing yet."""
    address = _address6(lab, "srv")
    assert told(lab) == [] and _neighbour_state(lab, address) == "REACHABLE"
    querier = ["ip", "link", "set", "lan0", "type", "bridge", "mcast_querier"]
    lab.run("router", [*querier, "1"])
    try:
        time.sleep(12)  # until then bridges flood: RFC 2710's query response interval is 10 s
        assert told(lab) == []  # it is asked, the guest answers
        lab.run("router", [*querier, "0"])
        for value in ("0", "1"):
            lab.run("host", ["ip", "link", "set", "br0", "type", "bridge", "mcast_snooping", value])
        assert told(lab) == [("multicast-snooping", "guest srv")]
        assert _neighbour_state(lab, address) == "FAILED"
        assert told(lab, "--fix", "--yes", accept=(0,)) == []
        assert _neighbour_state(lab, address) == "REACHABLE"
    finally:
        lab.run("router", [*querier, "0"])
        lab.run("host", ["ip", "link", "set", "br0", "type", "bridge", "mcast_snooping", "0"])
