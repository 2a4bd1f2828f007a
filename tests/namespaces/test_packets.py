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
