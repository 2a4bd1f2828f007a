"""How long a running guest is silent while it moves; run in the lab's host.

    silence.py OLD NEW COMMAND…      pings both addresses every millisecond, from the beginning of
                                     the command until the guest answers at NEW and the command is
                                     over

OLD is the guest's address where it is, NEW the one it has there only where it goes. Prints JSON:
the longest time without any answer and the time from the command to the first answer at NEW, in
milliseconds; how many rounds of pings were sent, and how many of them nobody answered.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time

LIMIT_S = 60.0
EVERY_S = 0.001


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


class Watch:
    """What was sent, and what the guest has answered since the command began."""

    def __init__(self, pinger: socket.socket, old: str, new: str) -> None:
        self.pinger = pinger
        self.addresses = (old, new)
        self.ident = os.getpid() & 0xFFFF
        self.sent = 0
        self.answered: set[int] = set()
        self.begin = self.last = time.monotonic()
        self.longest = 0.0
        self.arrived: float | None = None

    def send(self) -> None:
        """One round: a ping to each address."""
        head = struct.pack("!BBHHH", 8, 0, 0, self.ident, self.sent)
        packet = struct.pack("!BBHHH", 8, 0, checksum(head), self.ident, self.sent)
        self.sent += 1
        for address in self.addresses:
            with contextlib.suppress(OSError):  # the host's own ARP has given up for a moment
                self.pinger.sendto(packet, (address, 0))

    def receive(self, within_s: float) -> None:
        """Take what has come, and wait a moment for it."""
        end = time.monotonic() + within_s
        while select.select([self.pinger], [], [], max(0.0, end - time.monotonic()))[0]:
            raw, (sender, _) = self.pinger.recvfrom(2048)
            kind, _, _, ident, number = struct.unpack("!BBHHH", raw[(raw[0] & 15) * 4 :][:8])
            if (kind, ident) == (0, self.ident) and sender in self.addresses:
                self._answer(sender, number)

    def _answer(self, sender: str, number: int) -> None:
        now = time.monotonic()
        self.answered.add(number)
        self.longest = max(self.longest, now - self.last)
        self.last = now
        if sender == self.addresses[1] and self.arrived is None:
            self.arrived = now


def main() -> int:
    old, new, *command = sys.argv[1:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as pinger:
        moving = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        watch = Watch(pinger, old, new)
        while watch.arrived is None or moving.poll() is None:
            if time.monotonic() - watch.begin > LIMIT_S:
                moving.kill()
                print(f"no answer at {new} within {LIMIT_S:g} seconds", file=sys.stderr)
                return 1
            watch.send()
            watch.receive(EVERY_S)
        watch.receive(0.2)  # what is still under way
    took = watch.arrived - watch.begin
    print(json.dumps({
        "silence": round(watch.longest * 1000, 1), "arrived": round(took * 1000, 1),
        "sent": watch.sent, "lost": watch.sent - len(watch.answered),
    }))  # fmt: skip
    return moving.wait(LIMIT_S)


sys.exit(main())
