"""Counts packets: an echo server, and a sender that asks it at a steady pace.

    udp_probe.py echo                             answers on UDP port 7 of both families, for ever
    udp_probe.py send ADDRESS INTERVAL_MS         sends until standard input is closed

The sender numbers its packets, and uses a socket that is not connected, so that the kernel looks
for the way of every one. At its end it prints JSON: how many were sent and answered, and the
longest time in milliseconds between two answers.
"""

import itertools
import json
import select
import socket
import sys
import threading
import time

PORT = 7
SO_RCVBUFFORCE = 33
MOST_LATE_S = 0.005
"""What a stall kept back is not sent at once: queues have an end."""
GRACE_S = 1.5
"""How long the last answers may take: ARP tries again after one second."""


def echo() -> None:
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
    server.bind(("::", PORT))
    print("ready", flush=True)
    while True:
        data, sender = server.recvfrom(64)
        server.sendto(data, sender)


def send(address: str, interval_s: float) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    client = socket.socket(family, socket.SOCK_DGRAM)
    client.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
    answers: dict[int, float] = {}
    done = threading.Event()
    listener = threading.Thread(target=listen, args=(client, answers, done), daemon=True)
    listener.start()
    failed, number = 0, 0
    due = time.perf_counter()
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            client.sendto(number.to_bytes(4, "big"), (address, PORT))
        except OSError:  # no route, no carrier: lost as well
            failed += 1
        if number == 20:
            print("ready", flush=True)
        number += 1
        due = max(due + interval_s, time.perf_counter() - MOST_LATE_S)
        time.sleep(max(0.0, due - time.perf_counter()))
    end = time.perf_counter()
    time.sleep(GRACE_S)
    done.set()
    listener.join()
    times = sorted([*answers.values(), end])
    silence = max((b - a for a, b in itertools.pairwise(times)), default=0.0)
    report = {"sent": number, "answered": len(answers), "failed": failed,
              "silence_ms": round(silence * 1000, 1)}  # fmt: skip
    print(json.dumps(report), flush=True)


def listen(client: socket.socket, answers: dict[int, float], done: threading.Event) -> None:
    while not done.is_set():
        if select.select([client], [], [], 0.1)[0]:
            data = client.recv(64)
            answers.setdefault(int.from_bytes(data, "big"), time.perf_counter())


if sys.argv[1] == "echo":
    echo()
else:
    send(sys.argv[2], float(sys.argv[3]) / 1000)
