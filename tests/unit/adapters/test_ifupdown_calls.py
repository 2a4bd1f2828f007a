"""What ifupdown is told, on files and processes of the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmnet.adapters import ifupdown_calls as calls
from kvmnet.adapters.run import run
from kvmnet.model.handover import DhclientHeld, DhclientMoved, DhcpClient, IfstateSet, IfupdownDns

LINK = f"86399.{os.getpid()}"
"""A link's name that sleep(1) takes for a time, and no other test's at the same moment."""


def test_the_state_is_written_as_ifup_and_ifdown_leave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "STATE", tmp_path)
    (tmp_path / "ifstate").write_text("lo=lo\neth0=eth0\neth1=home\n")
    (tmp_path / "ifstate.eth0").write_text("eth0\n")
    there = IfstateSet(up=("br0",), down=("eth0",))
    for _ in range(2):  # a step can be taken twice
        calls.set_state(there)
        assert (tmp_path / "ifstate").read_text() == "lo=lo\neth1=home\nbr0=br0\n"
        assert (tmp_path / "ifstate.br0").read_text() == "br0\n"
        assert (tmp_path / "ifstate.eth0").read_text() == "\n"
    calls.set_state(IfstateSet(up=("eth0",), down=("br0",)))
    assert (tmp_path / "ifstate").read_text() == "lo=lo\neth1=home\neth0=eth0\n"
    assert (tmp_path / "ifstate.eth0").read_text() == "eth0\n"


def test_hooks_for_dns_see_what_ifup_would_tell_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "HOOKS", tmp_path)
    for folder in ("if-up.d", "if-down.d"):
        (tmp_path / folder).mkdir()
        for name, mode in (("000resolvconf", 0o755), ("resolved", 0o644), ("other", 0o755)):
            hook = tmp_path / folder / name
            hook.write_text(f"#!/bin/sh\nset | grep -E '^(IF_|IFACE|ADDRFAM|MODE|PHASE|METHOD)' "
                            f">{tmp_path}/{folder}.{name}\n")  # fmt: skip
            hook.chmod(mode)
    options = (("dns-nameservers", "192.0.2.1 192.0.2.2"), ("dns-search", "example.org"))
    call = IfupdownDns(link="br0", family="inet", method="static", mode="start", options=options)
    calls.tell_dns(call)
    assert sorted(x.name for x in tmp_path.glob("*.*") if x.is_file()) == ["if-up.d.000resolvconf"]
    assert (tmp_path / "if-up.d.000resolvconf").read_text().splitlines() == [
        "ADDRFAM='inet'", "IFACE='br0'", "IF_DNS_NAMESERVERS='192.0.2.1 192.0.2.2'",
        "IF_DNS_SEARCH='example.org'", "METHOD='static'", "MODE='start'", "PHASE='post-up'",
    ]  # fmt: skip


@pytest.fixture
def client(tmp_path: Path) -> Iterator[tuple[DhcpClient, subprocess.Popen[bytes]]]:
    """A process that looks like a dhclient, and its files."""
    process = subprocess.Popen(["bash", "-c", f"exec -a dhclient sleep {LINK}"])
    found = DhcpClient(
        link=LINK, family=4, argv=("dhclient", LINK), pid_file=str(tmp_path / "pid"),
        lease_file=str(tmp_path / "leases"),
    )  # fmt: skip
    end = time.monotonic() + 5
    try:
        while calls.running(found) != (process.pid,):
            assert time.monotonic() < end
            time.sleep(0.01)
        yield found, process
    finally:
        process.kill()
        process.wait()


def test_a_client_is_held_and_goes_on(client: tuple[DhcpClient, subprocess.Popen[bytes]]) -> None:
    served, process = client
    calls.hold(DhclientHeld(clients=(served,)))
    _wait_for_state(process.pid, "T")
    other = DhcpClient(link="none9", family=4, argv=(), pid_file="/nonexistent/x", lease_file="")
    calls.move(DhclientMoved(ends=other, starts=served))  # it runs: nothing is started
    _wait_for_state(process.pid, "S")
    assert calls.running(served) == (process.pid,)


def test_a_held_client_ends_without_a_word_to_its_server(
    client: tuple[DhcpClient, subprocess.Popen[bytes]],
) -> None:
    served, process = client
    Path(served.pid_file).write_text(f"{process.pid}\n")
    calls.hold(DhclientHeld(clients=(served,)))
    calls.move(DhclientMoved(ends=served, starts=None))
    assert process.wait(5) == -signal.SIGKILL
    assert not Path(served.pid_file).exists()
    calls.move(DhclientMoved(ends=served, starts=None))  # it is no error that it is gone


def test_dhcpcd_is_known_by_its_title_and_ends_with_all_that_it_started(tmp_path: Path) -> None:
    title = "exec -a 'dhcpcd: eth7 [ip4] [ip6]' bash -c 'sleep 86398 & sleep 86397; true'"
    process = subprocess.Popen(["bash", "-c", title])
    other = subprocess.Popen(["bash", "-c", "exec -a 'dhcpcd: eth70 [ip4]' sleep 86396"])
    served = DhcpClient(
        program="dhcpcd", link="eth7", family=4, argv=("dhcpcd", "eth7"),
        pid_file=str(tmp_path / "pid"), lease_file=str(tmp_path / "lease"),
    )  # fmt: skip
    try:
        end = time.monotonic() + 5
        while len(found := calls.running(served)) != 3:
            assert time.monotonic() < end, found
            time.sleep(0.01)
        assert found[0] == process.pid
        calls.move(DhclientMoved(ends=served, starts=None))
        assert not calls.running(served)
        assert process.wait(5) == -signal.SIGKILL and other.poll() is None
        assert not [x for x in found if _alive(x)]
    finally:
        process.kill()
        other.kill()
        other.wait()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def test_a_client_of_another_network_namespace_is_not_ours(
    client: tuple[DhcpClient, subprocess.Popen[bytes]],
) -> None:
    served, _ = client
    served6 = DhcpClient(
        link=LINK, family=6, argv=(), pid_file=served.pid_file, lease_file=served.lease_file
    )
    assert not calls.running(served6)
    if os.geteuid() == 0:
        inside = run(
            ["unshare", "-n", "python3", "-P", "-c",
             "import sys; sys.path[:0] = sys.argv[1:]\n"
             "from kvmnet.adapters.ifupdown_calls import processes\n"
             f"print([x for x in processes('dhclient') if x[1][-1] == '{LINK}'])",
             *(x for x in sys.path if x)],
        ).stdout  # fmt: skip
        assert inside == "[]\n"


def _wait_for_state(pid: int, wanted: str) -> None:
    """A signal takes its moment."""
    end = time.monotonic() + 10
    while (found := _state(pid)) != wanted:
        assert time.monotonic() < end, found
        time.sleep(0.01)


def _state(pid: int) -> str:
    end = time.monotonic() + 2
    state = ""
    while time.monotonic() < end:
        new = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        if new == state:
            return state
        state = new
        time.sleep(0.05)
    return state
