"""Sends a number every 20 ms over a TCP connection and wants each back: `session.py ADDRESS PORT`.

Prints `ready` when the connection is there; at the end of standard input it waits for what is
still due and prints one line of JSON: see `Talk` in lan.py.
"""

import json
import select
import socket
import struct
import sys
import time

BEAT_S = 0.02
LAST_S = 45.0
"""TCP tries again after 0.2, 0.6, 1.4, 3, 6.2, 12.6 and 25.4 s of silence."""


def main() -> None:
    wire = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print("ready", flush=True)
    wire.setblocking(False)
    sent: list[float] = []
    echoed, intact, longest, error, left = 0, True, 0.0, "", b""
    going, due, end = True, time.monotonic(), 0.0
    while going or (echoed < len(sent) and time.monotonic() - end < LAST_S):
        wait = max(0.0, due - time.monotonic()) if going else 0.1
        readable, _, _ = select.select([wire, sys.stdin] if going else [wire], [], [], wait)
        try:
            if wire in readable:
                data = wire.recv(65536)
                if not data:
                    error = "closed by the machine"
                    break
                left += data
                while len(left) >= 8:
                    intact = intact and struct.unpack("!Q", left[:8])[0] == echoed
                    longest = max(longest, time.monotonic() - sent[echoed]) if intact else longest
                    echoed, left = echoed + 1, left[8:]
            if sys.stdin in readable:
                going, end = False, time.monotonic()
            if going and time.monotonic() >= due:
                if wire.send(struct.pack("!Q", len(sent))) != 8:
                    error = "the connection takes no more"
                    break
                sent.append(time.monotonic())
                due = time.monotonic() + BEAT_S
        except BlockingIOError:
            error = "the connection takes no more"
            break
        except OSError as problem:
            error = str(problem)
            break
    if going:
        sys.stdin.read()
    whole = intact and echoed == len(sent) and not error
    print(json.dumps({"sent": len(sent), "echoed": echoed, "intact": whole,
                      "longest_ms": longest * 1000, "error": error}))  # fmt: skip


main()
