"""Kernel settings from a tree like /proc/sys."""

from __future__ import annotations

from pathlib import Path

from kvmnet.adapters.sysctls import read_sysctls


def test_names_with_dots_and_absent_parts(tmp_path: Path) -> None:
    conf = tmp_path / "net/ipv4/conf"
    for nic in ("all", "eth0.42", "vnet0"):
        (conf / nic).mkdir(parents=True)
        (conf / nic / "forwarding").write_text("1\n")
    (tmp_path / "net/ipv4/ip_forward").write_text("0\n")
    found = {x.name: x.value for x in read_sysctls(tmp_path, skip=frozenset({"vnet0"}))}
    assert found == {
        "net.ipv4.ip_forward": "0",
        "net.ipv4.conf.all.forwarding": "1",
        "net.ipv4.conf.eth0.42.forwarding": "1",
    }


def test_nothing_there(tmp_path: Path) -> None:
    assert read_sysctls(tmp_path) == ()
