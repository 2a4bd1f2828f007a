"""What watching for a trace costs other traffic: one TCP connection, with and without, in turn.

Runs in a network namespace of its own (`unshare -n`), with a second one at the other end of a
cable. Both ends of the connection are on this machine, so the throughput is told for each second
of processor time that they took: on a machine with other work the plain one says nothing.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from kvmnet.adapters.bpf import DropWatch
from kvmnet.adapters.capture import Capture
from kvmnet.adapters.nft_trace import RuleWatch
from kvmnet.formats.trace_packet import patterns
from kvmnet.model.trace import Flow

ROUNDS, SPAN_S = 9, 0.7
TICKS = os.sysconf("SC_CLK_TCK")
SEND = """
import socket
sock = socket.create_connection(("192.0.2.2", 5999))
while True: sock.sendall(bytes(1 << 18))
"""
WATCHED = patterns(Flow(protocol="tcp", source="10.7.0.7", destination="203.0.113.80",
                        sport=40000, dport=80, token=0xFEEDBEEF))  # fmt: skip
WATCHES: dict[str, tuple[Callable[[], AbstractContextManager[object]], ...]] = {
    "nothing": (),
    "captures": (lambda: Capture(WATCHED),),
    "firewall rules": (lambda: RuleWatch(WATCHED),),
    "drops": (lambda: DropWatch(WATCHED),),
    "all three": (
        lambda: Capture(WATCHED), lambda: RuleWatch(WATCHED), lambda: DropWatch(WATCHED),
    ),
}  # fmt: skip


def main() -> int:
    words = ["unshare", "-n", "sh", "-c", "ip link set lo up; echo; read x; exec python3 -c \"$1\"",
             "sh", SEND]  # fmt: skip
    sender = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert sender.stdout is not None and sender.stdin is not None
    try:
        sender.stdout.readline()
        for line in (f"link add w0 type veth peer name w1 netns {sender.pid}", "link set w0 up",
                     "address add 192.0.2.2/24 dev w0"):  # fmt: skip
            subprocess.run(["ip", *line.split()], check=True)
        for line in ("link set w1 up", "address add 192.0.2.1/24 dev w1"):
            subprocess.run(
                ["nsenter", "-t", str(sender.pid), "-n", "ip", *line.split()], check=True
            )
        with socket.create_server(("192.0.2.2", 5999)) as server:
            sender.stdin.write(b"\n")
            sender.stdin.flush()
            connection, _ = server.accept()
            print(json.dumps(measured(connection, sender.pid)))
    finally:
        sender.kill()
        sender.wait()
    return 0


def measured(connection: socket.socket, pid: int) -> dict[str, float]:
    """Medians of Gbit for each second of processor time."""
    rates: dict[str, list[float]] = {name: [] for name in WATCHES}
    one(connection, pid)
    for _ in range(ROUNDS):
        for name, watches in WATCHES.items():
            with ExitStack() as stack:
                for watch in watches:
                    stack.enter_context(watch())
                rates[name].append(one(connection, pid))
    return {name: statistics.median(every) for name, every in rates.items()}


def one(connection: socket.socket, pid: int) -> float:
    before, count, end = cpu_s(pid), 0, time.monotonic() + SPAN_S
    while time.monotonic() < end:
        count += len(connection.recv(1 << 18))
    return count * 8 / 1e9 / (cpu_s(pid) - before)


def cpu_s(pid: int) -> float:
    """Processor time of both ends."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS + time.process_time()


if __name__ == "__main__":
    sys.exit(main())
