"""`ss -H -lnptu` as listeners. It has no JSON; facts: iproute2's `misc/ss.c`."""

from __future__ import annotations

import re

from kvmnet.model.host import Listener

_USERS = re.compile(r'users:\(\("((?:[^"\\]|\\.)*)",pid=(\d+)')


def parse(text: str) -> tuple[Listener, ...]:
    """Each bound socket; process and pid only where this user may see them."""
    found = (_listener(line) for line in text.splitlines())
    return tuple(x for x in found if x is not None)


def _listener(line: str) -> Listener | None:
    words = line.split(maxsplit=6)
    if len(words) < 6 or words[0] not in {"udp", "tcp"}:
        return None
    address, _, port = words[4].rpartition(":")
    host, _, link = address.partition("%")
    if not port.isdecimal():
        return None
    user = _USERS.search(words[6]) if len(words) > 6 else None
    return Listener(
        protocol="udp" if words[0] == "udp" else "tcp",
        # `*` is a socket for both families (IPV6_V6ONLY off).
        ip="::" if host == "*" else host.strip("[]"),
        port=int(port),
        link=link or None,
        process=user[1] if user else None,
        pid=int(user[2]) if user else None,
    )
