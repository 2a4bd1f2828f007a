"""Raw frames on a real NIC: what came in time counts, however late somebody reads it."""

from __future__ import annotations

import json
import sys

from .conftest import World

LATE_READER = """
import json, sys, time
from kvmnet.adapters.packets import PacketSocket
def send(word):
    sender.send(bytes.fromhex("ffffffffffff 020000000001 88b5") + word.ljust(46, b"."))
def read(deadline):
    got = reader.receive(deadline)
    return None if got is None else got.frame.payload.rstrip(b".").decode()
with PacketSocket("one", 0x88b5) as sender, PacketSocket("two", 0x88b5) as reader:
    seen = [read(time.monotonic() - 1)]
    time.sleep(0.2)  # the first who wants the times: the kernel notes them a moment later
    send(b"in time")
    time.sleep(0.05)
    deadline = time.monotonic()
    time.sleep(0.05)
    send(b"late")
    send(b"later")
    time.sleep(0.05)
    seen += [read(deadline) for _ in range(3)]
    seen += [read(time.monotonic() + 1) for _ in range(2)]
    begin = time.monotonic()
    seen.append(read(begin + 0.2))
    seen.append(time.monotonic() - begin > 0.19)
print(json.dumps(seen))
"""


def test_a_frame_counts_by_when_it_came_and_a_later_one_is_kept(world: World) -> None:
    world.ip("link add one type veth peer name two")
    for nic in ("one", "two"):
        world.run("sysctl", "-qw", f"net.ipv6.conf.{nic}.disable_ipv6=1")
        world.ip(f"link set {nic} up")
    done = world.run(sys.executable, "-P", "-c", LATE_READER)
    assert json.loads(done.stdout) == [None, "in time", None, None, "late", "later", None, True]


OWNERS = """
import json, sys
from kvmnet.adapters.guest_proof import _answers
print(json.dumps([_answers("br7", "10.9.0.7", mac) for mac in sys.argv[1:]]))
"""


def test_a_guest_with_two_nics_on_one_lan_is_there_by_either(world: World) -> None:
    """Linux answers by both for an address that one of them has."""
    macs = ("52:54:00:aa:00:01", "52:54:00:aa:00:02")
    world.bridge("br7", "10.9.0.1/24")
    guest = world.machine()
    for number, mac in enumerate(macs):
        world.ip(f"link add tap{number} type veth peer name nic{number} netns {guest.pid}")
        world.ip(f"link set tap{number} master br7 up")
        guest.ip(f"link set nic{number} address {mac} up")
    guest.ip("address add 10.9.0.7/24 dev nic0")
    done = world.run(sys.executable, "-P", "-c", OWNERS, *macs, "52:54:00:aa:00:03")
    assert json.loads(done.stdout) == [True, True, False]
