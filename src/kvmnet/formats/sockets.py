"""What `ss` prints: listeners, connections. It has no JSON; facts: iproute2's `misc/ss.c`."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

from msgspec import Struct

from kvmnet.model.host import Listener
from kvmnet.model.values import Ip

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


class Established(Struct, frozen=True, kw_only=True):
    """An established TCP connection as `ss -tinHOp` shows it."""

    local: Ip
    """An IPv4 connection of a socket for both families is shown as IPv4."""
    local_port: int
    remote: Ip
    remote_port: int
    bound_to: str | None = None
    """The link that the socket is bound to, by SO_BINDTODEVICE or a link-local address."""
    process: str | None = None
    owners: tuple[tuple[int, int], ...] = ()
    """Pid and file descriptor of each process that has it open, as far as this user sees them."""
    acknowledged_ms: int | None = None
    """How long ago the far end last acknowledged something; None: ss does not say."""


_OWNER = re.compile(r'\("((?:[^"\\]|\\.)*)",pid=(\d+),fd=(\d+)\)')
_LAST_ACK = re.compile(r" lastack:(\d+)")


def parse_established(text: str) -> tuple[Established, ...]:
    """Each connection of a list of established ones; lines that are none are passed over."""
    found = (_established(line) for line in text.splitlines())
    return tuple(x for x in found if x is not None)


def _established(line: str) -> Established | None:
    words = line.split(maxsplit=4)
    if len(words) < 4 or not words[0].isdecimal():
        return None
    local, remote = _endpoint(words[2]), _endpoint(words[3])
    if local is None or remote is None:
        return None
    rest = words[4] if len(words) > 4 else ""
    owners = _OWNER.findall(rest)
    # Where no timer has run yet ss leaves a 0 out.
    last = _LAST_ACK.search(rest)
    return Established(
        local=local[0],
        local_port=local[2],
        remote=remote[0],
        remote_port=remote[2],
        bound_to=local[1],
        process=owners[0][0] if owners else None,
        owners=tuple((int(pid), int(fd)) for _, pid, fd in owners),
        acknowledged_ms=int(last[1]) if last else 0 if " rto:" in f" {rest}" else None,
    )


def _endpoint(word: str) -> tuple[Ip, str | None, int] | None:
    """Address, link and port of `10.0.0.1%eth0:22` or `[::ffff:10.0.0.1]:22`."""
    address, _, port = word.rpartition(":")
    host, _, link = address.strip("[]").partition("%")
    try:
        ip = ip_address(host)
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    if not port.isdecimal():
        return None
    return Ip(str(mapped or ip)), link or None, int(port)
