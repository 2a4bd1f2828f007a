"""How long a running guest is not to be reached while it moves to the LAN; run in the lab's host.

    silence.py ADDRESS COMMAND…      runs the command, and pings ADDRESS every millisecond from its
                                     beginning; prints the milliseconds until the first answer

The guest has ADDRESS on the LAN only, so its first answer tells that it has arrived.
"""

import os
import select
import socket
import struct
import subprocess
import sys
import time

LIMIT_S = 60.0


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def main() -> int:
    address, command = sys.argv[1], sys.argv[2:]
    ident = os.getpid() & 0xFFFF
    head = struct.pack("!BBHHH", 8, 0, 0, ident, 1)
    packet = struct.pack("!BBHHH", 8, 0, checksum(head), ident, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as pinger:
        begin = time.monotonic()
        moving = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while time.monotonic() - begin < LIMIT_S:
            try:
                pinger.sendto(packet, (address, 0))
            except OSError:  # the host's own ARP has given up for a moment
                time.sleep(0.001)
            if select.select([pinger], [], [], 0.001)[0]:
                raw, sender = pinger.recvfrom(2048)
                body = raw[(raw[0] & 15) * 4 :]
                if sender[0] == address and body[0] == 0 and body[4:6] == packet[4:6]:
                    print(f"{(time.monotonic() - begin) * 1000:.1f}")
                    return moving.wait(LIMIT_S)
    moving.kill()
    return 1


sys.exit(main())
