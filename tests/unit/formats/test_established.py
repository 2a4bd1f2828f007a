"""Connections as ss prints them; lines are of iproute2 6.1 and 6.15."""

from __future__ import annotations

from kvmnet.formats.sockets import parse_established

SSH = (
    "0      0      10.9.0.1:22 10.9.0.2:50222 users:((\"sshd-session\",pid=812,fd=7),"
    "(\"sshd-session\",pid=790,fd=7)) timer:(keepalive,98min,0) cubic wscale:7,7 rto:204 "
    "rtt:0.1/0.05 lastsnd:2340 lastrcv:2344 lastack:2312 pacing_rate 5Gbps"
)  # fmt: skip


def test_owners_and_times() -> None:
    (found,) = parse_established(SSH + "\n")
    assert (found.local, found.local_port) == ("10.9.0.1", 22)
    assert (found.remote, found.remote_port) == ("10.9.0.2", 50222)
    assert found.process == "sshd-session"
    assert found.owners == ((812, 7), (790, 7))
    assert found.acknowledged_ms == 2312
    assert found.bound_to is None


def test_ipv6_and_mapped_and_bound() -> None:
    text = """\
0 0 [fd00::1]:22 [fd00::2]:4000
0 0 [::ffff:10.0.0.1]:22 [::ffff:10.0.0.2]:4001
0 0 [fe80::1%eth0]:22 [fe80::2%eth0]:4002
0 0 10.0.0.1%eth0:68 10.0.0.3:67
"""
    found = parse_established(text)
    assert [(x.local, x.remote, x.bound_to) for x in found] == [
        ("fd00::1", "fd00::2", None),
        ("10.0.0.1", "10.0.0.2", None),
        ("fe80::1", "fe80::2", "eth0"),
        ("10.0.0.1", "10.0.0.3", "eth0"),
    ]
    assert all(x.acknowledged_ms is None and x.owners == () for x in found)


def test_a_connection_of_this_moment() -> None:
    (found,) = parse_established("0 0 10.0.0.1:22 10.0.0.2:1 cubic rto:200 lastsnd:4\n")
    assert found.acknowledged_ms == 0, "ss leaves a zero out"


def test_odd_lines_are_passed_over() -> None:
    assert parse_established("\nNetid State\n0 0 a b\n0 0 10.0.0.1:x 10.0.0.2:1\n0 0\n") == ()
