"""Addresses of names, by the host's own resolver, with a limit of time."""

from __future__ import annotations

import socket
import threading

from kvmnet.errors import NotFound, TimedOut
from kvmnet.model.values import Ip

_WAIT_S = 3.0


def addresses_of(name: str) -> tuple[Ip, ...]:
    """What the host's resolver tells. Raises `NotFound`, `TimedOut`."""
    found: list[Ip] = []
    problem: list[str] = []

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            found.extend(Ip(str(x[4][0])) for x in rows)
        except (OSError, UnicodeError) as error:
            problem.append(getattr(error, "strerror", None) or str(error))

    # The C library takes no time limit: it may go on alone.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_WAIT_S)
    if problem:
        raise NotFound(
            f"{name} could not be resolved", why=problem[0], hint=f"getent ahosts {name}"
        )
    if not found:
        raise TimedOut(f"{name} could not be resolved", why=f"no answer within {_WAIT_S:g} s",
                       hint="name its address instead")  # fmt: skip
    return tuple(dict.fromkeys(found))
