"""Sends echo requests in a steady beat until standard input ends: `prober.py ADDRESS MS`.

Prints `ready`, then at the end one line of JSON: see `Silence` in lan.py.
"""

import contextlib
import itertools
import json
import select
import socket
import struct
import sys
import time

STRAGGLERS_S = 1.5
IDENT = 0x4B4E


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def request(number: int) -> bytes:
    body = struct.pack("!I", number) + b"kvmnet-probe"
    head = struct.pack("!BBHHH", 8, 0, 0, IDENT, number & 0xFFFF)
    head = struct.pack("!BBHHH", 8, 0, checksum(head + body), IDENT, number & 0xFFFF)
    return head + body


def longest(times: list[float]) -> tuple[float, float]:
    """The longest pause, and when it began."""
    pauses = [(after - before, before) for before, after in itertools.pairwise(times)]
    return max(pauses, default=(0.0, 0.0))


def main() -> None:
    address, beat = sys.argv[1], float(sys.argv[2]) / 1000
    wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    wire.setblocking(False)
    sent: list[float] = []
    answers: dict[int, float] = {}
    arrivals: list[float] = []
    doubled = 0

    def take() -> None:
        nonlocal doubled
        while True:
            try:
                packet, (source, _) = wire.recvfrom(2048)
            except (BlockingIOError, OSError):
                return
            now = time.monotonic()
            if source != address or packet[20] != 0 or packet[24:26] != IDENT.to_bytes(2, "big"):
                continue
            number = int.from_bytes(packet[28:32], "big")
            if number in answers:
                doubled += 1
                continue
            answers[number] = now
            arrivals.append(now)

    print("ready", flush=True)
    due = time.monotonic()
    going = True
    while going:
        wait = due - time.monotonic()
        if wait > 0:
            readable, _, _ = select.select([wire, sys.stdin], [], [], wait)
            if wire in readable:
                take()
            if sys.stdin in readable:
                going = False
            continue
        sent.append(time.monotonic())
        with contextlib.suppress(OSError):  # no way there now: as lost as a packet can be
            wire.sendto(request(len(sent) - 1), (address, 0))
        due = max(due + beat, time.monotonic() - 0.1)
        if beat < 0.005:
            take()
            going = not select.select([sys.stdin], [], [], 0)[0]
    end = time.monotonic()
    while len(answers) < len(sent) and time.monotonic() - end < STRAGGLERS_S:
        if select.select([wire], [], [], 0.05)[0]:
            take()
    begin = sent[0] if sent else end
    in_time = [x for x in arrivals if x <= end]
    silence, at = longest([begin, *in_time, end])
    late = max((answers[n] - sent[n] for n in answers), default=0.0)
    report = {
        "sent": len(sent), "lost": len(sent) - len(answers), "doubled": doubled,
        "silence_ms": silence * 1000, "silence_at_ms": (at - begin) * 1000 if at else 0.0,
        "late_ms": late * 1000, "own_ms": longest(sent)[0] * 1000,
    }  # fmt: skip
    print(json.dumps(report))


main()
