"""Sends the packets of a trace, from the network namespace of this process."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from kvmnet.adapters.packets import ALL_PROTOCOLS, PacketSocket
from kvmnet.errors import Failed, PermissionDenied
from kvmnet.model.standin import Sent

_IPV4_HEADER = 20


def packets(raw: Iterable[bytes], gaps_s: Sequence[float]) -> Sent:
    """Whole IP packets, handed to the kernel as a program's: it finds the way.

    What the kernel says to one is in the answer. Raises `PermissionDenied`, `Failed`.
    """
    every = list(raw)
    family = socket.AF_INET6 if every and every[0][0] >> 4 == 6 else socket.AF_INET
    at: list[float] = []
    errors: list[str] = []
    with contextlib.closing(_raw_socket(family)) as sock:
        for packet, gap in zip(every, gaps_s, strict=True):
            time.sleep(gap)
            at.append(time.monotonic())
            try:
                sock.sendto(packet, _destination(packet))
            except OSError as error:
                # A firewall's drop on the way out is EPERM here, which is found by other means.
                if error.errno != errno.EPERM:
                    errors.append(error.strerror or str(error))
    return Sent(at=tuple(at), errors=tuple(errors))


def frames(nic: str, raw: Iterable[bytes], gaps_s: Sequence[float]) -> Sent:
    """Whole frames out of a NIC. Raises `Failed`."""
    at: list[float] = []
    with PacketSocket(nic, ALL_PROTOCOLS) as sock:
        for frame, gap in zip(list(raw), gaps_s, strict=True):
            time.sleep(gap)
            at.append(time.monotonic())
            sock.send(frame)
    return Sent(at=tuple(at))


def _raw_socket(family: socket.AddressFamily) -> socket.socket:
    try:
        return socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    except PermissionError:
        raise PermissionDenied(
            "packets can not be sent", why="only root may", hint="run it again with sudo"
        ) from None
    except OSError as error:
        raise Failed("packets can not be sent", why=error.strerror or "") from None


def _destination(packet: bytes) -> tuple[str, int]:
    raw = packet[24:40] if packet[0] >> 4 == 6 else packet[16:20]
    return (str(ip_address(raw)), 0)
