"""What the doctor says that it has not looked at."""

from __future__ import annotations

import pytest

from kvmnet.core.proof_of_health import not_looked_at, unknown
from kvmnet.model.state import Connection, State, Unread


@pytest.mark.parametrize(
    ("uri", "privileged", "told"),
    [
        ("qemu:///session", False, True),
        ("qemu:///system", False, False),
        ("qemu:///session", True, False),
    ],
)
def test_a_users_own_libvirt_does_not_know_the_systems_guests(
    uri: str, privileged: bool, told: bool
) -> None:
    read = Connection(uri=uri, libvirt_version="9.0.0", hypervisor="QEMU")
    state = State(taken_at=0, hostname="h", privileged=privileged, connections=(read,))
    lines = not_looked_at(state)
    assert any(x.startswith("the system's networks and guests") for x in lines) is told


@pytest.mark.parametrize(
    ("what", "absent", "decides"),
    [
        ("firewall (nft)", False, True),
        ("firewall (iptables-legacy)", False, True),
        ("firewall and firewall-sets", False, True),
        ("libvirt qemu:///system", False, True),
        ("links and addresses", False, True),
        ("libvirt (default connection)", True, False),
        ("firewall (sets)", False, False),
        ("firewall (set inet filter bad)", False, False),
        ("firewall (ipset)", False, False),
        ("guest web: agent", False, False),
        ("programs that listen", False, False),
    ],
)
def test_what_is_not_known_where_it_decides(what: str, absent: bool, decides: bool) -> None:
    gap = Unread(what=what, why="w", absent=absent)
    assert unknown(State(taken_at=0, hostname="h", unread=(gap,))) == ((what,) if decides else ())
