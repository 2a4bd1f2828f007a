"""Which settings an undo of forwarding has to write back, from a State alone."""

from __future__ import annotations

import msgspec
import pytest

from kvmnet.core import mending
from kvmnet.core.forwarding_back import forwarding_back
from kvmnet.model.host import Sysctl
from kvmnet.model.plan import SetSysctl
from kvmnet.model.state import State

HOST = State(
    taken_at=0,
    hostname="h",
    sysctls=tuple(
        Sysctl(name=name, value=value)
        for name, value in (
            ("net.ipv4.ip_forward", "0"),
            ("net.ipv4.conf.all.forwarding", "0"),
            ("net.ipv4.conf.all.accept_redirects", "0"),
            ("net.ipv4.conf.default.forwarding", "0"),
            ("net.ipv4.conf.eth0.7.forwarding", "1"),
            ("net.ipv4.conf.eth0.7.accept_redirects", "0"),
            ("net.ipv6.conf.all.forwarding", "0"),
            ("net.ipv6.conf.all.accept_redirects", "0"),
            ("net.ipv6.conf.default.forwarding", "2"),
            ("net.ipv6.conf.eth0.7.forwarding", "0"),
        )
    ),
)


def back(path: str, state: State = HOST) -> list[tuple[str, str, str]]:
    found = forwarding_back(state, (mending.set_sysctl(path, "1", "0"),))
    said = []
    for one in found:
        assert isinstance(one.step, SetSysctl) and isinstance(one.undo, SetSysctl)
        assert (one.step.path, one.step.name) == (one.undo.path, one.undo.name)
        said.append((one.step.path, one.step.value, one.undo.value))
    return said


@pytest.mark.parametrize("path", ["net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding"])
def test_of_ipv4_links_and_redirects(path: str) -> None:
    assert back(path) == [
        ("net/ipv4/conf/eth0.7/forwarding", "1", "1"),
        ("net/ipv4/conf/all/accept_redirects", "0", "0"),
    ]


def test_of_ipv6_links_alone() -> None:
    assert back("net/ipv6/conf/all/forwarding") == [("net/ipv6/conf/default/forwarding", "1", "2")]


def test_one_link_changes_no_other() -> None:
    assert back("net/ipv4/conf/eth0.7/forwarding") == []


def test_nothing_where_the_kernel_leaves_what_was() -> None:
    plain = tuple(
        msgspec.structs.replace(x, value="1" if x.name.endswith("all.accept_redirects") else "0")
        for x in HOST.sysctls
    )
    assert back("net/ipv4/ip_forward", msgspec.structs.replace(HOST, sysctls=plain)) == []
