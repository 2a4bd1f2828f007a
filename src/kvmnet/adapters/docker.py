"""Reads Docker's networks from its daemon's socket, where there is one."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from kvmnet.errors import PermissionDenied, TimedOut, Unavailable
from kvmnet.formats import docker
from kvmnet.model.host import DockerNetwork

SOCKET = Path("/run/docker.sock")
TIMEOUT_S = 2.0
_MAX_BYTES = 16 * 1024 * 1024
# With HTTP 1.0 the answer ends where the connection ends: no chunks, no library.
_REQUEST = b"GET /networks HTTP/1.0\r\nHost: docker\r\n\r\n"


def read_networks(path: Path = SOCKET) -> tuple[DockerNetwork, ...]:
    """Docker's networks with their subnets; none where Docker is not installed.

    Raises `PermissionDenied`, `TimedOut`, `Unavailable`. Their bridges, if they exist, are among
    the links in any case.
    """
    try:
        if not path.exists():
            return ()
        answer = _ask(path)
    except PermissionError:
        raise PermissionDenied(
            "Docker can not be asked", why=f"{path} is not for this user",
            hint="run it again as root, or join the group docker",
        ) from None  # fmt: skip
    except TimeoutError:
        raise TimedOut(
            "Docker can not be asked", why=f"no answer within {TIMEOUT_S:g} seconds",
            hint="look whether its daemon hangs: systemctl status docker",
        ) from None  # fmt: skip
    except OSError as error:
        raise Unavailable(
            "Docker can not be asked", why=f"{path}: {error.strerror or error}",
            hint="its daemon may be stopped: systemctl status docker",
        ) from None  # fmt: skip
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise Unavailable("Docker can not be asked", why=head[:80].decode("utf-8", "replace"))
    return docker.parse(body.decode("utf-8", "replace"))


def _ask(path: Path) -> bytes:
    ends = time.monotonic() + TIMEOUT_S
    answer = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(TIMEOUT_S)
        client.connect(str(path))
        client.sendall(_REQUEST)
        while len(answer) < _MAX_BYTES:
            left = ends - time.monotonic()
            if left <= 0:
                raise TimeoutError
            client.settimeout(left)
            piece = client.recv(65536)
            if not piece:
                break
            answer += piece
    return bytes(answer)
