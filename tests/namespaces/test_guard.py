"""Whatever happens to a kvmnet that changes the host's network: the old state, or the new one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kvmnet.model.transaction import Transaction

from .conftest import World, wait_for

DRIVER = str(Path(__file__).with_name("guard_driver.py"))
STATE = "/run/state"
STEPS = 6
PLACES = [(moment, step) for step in range(1, STEPS + 1) for moment in ("began", "done")]

_LOOK = r"""
ls -l --time-style=+ /run/files | sed 1d
head -n 99 /run/files/*
cat /proc/sys/net/ipv4/conf/up0/accept_local
ip -4 -o addr show dev up0 | sed 's/valid_lft.*//'
ip -4 route show table all | sort
"""


class Host(World):
    """A world with an uplink, a gateway behind it, and a journal on a tiny disk."""

    def look(self) -> str:
        return self.run("sh", "-c", _LOOK).stdout

    def drive(self, *words: str) -> subprocess.Popen[str]:
        return self.spawn("env", f"KVMNET_STATE_DIR={STATE}", sys.executable, "-P", DRIVER, *words)

    def finish(self, driver: subprocess.Popen[str]) -> tuple[int, str]:
        out, err = driver.communicate(timeout=60)
        return driver.returncode, out + err

    def kvmnet(self, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = self.run(
            "env", f"KVMNET_STATE_DIR={STATE}", sys.executable, "-P", "-m", "kvmnet", *words,
            check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def history(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kvmnet("history", "--json").stdout)[
            "transactions"
        ]
        return found

    def last(self) -> dict[str, Any]:
        return self.history()[-1]

    def guards(self) -> list[int]:
        """Guards that live, by their pids inside."""
        script = (
            "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | "
            "grep -q 'kvmnet[.]flow[.]guard' && echo ${p#/proc/}; done; true"
        )
        return [int(x) for x in self.run("sh", "-c", script).stdout.split()]

    def leftovers(self) -> str:
        files = self.run("ls", f"{STATE}/transactions").stdout.split()
        return " ".join(
            [x for x in files if not x.endswith(".json")] + list(map(str, self.guards()))
        )


@pytest.fixture
def host(world: World) -> Iterator[Host]:
    made = world
    made.__class__ = Host
    assert isinstance(made, Host)
    other = made.machine()
    made.ip(f"link add up0 type veth peer name eth0 netns {other.pid}")
    other.ip("address add 10.1.1.1/24 dev eth0")
    other.ip("link set eth0 up")
    made.ip("address add 10.1.1.2/24 dev up0")
    made.ip("link set up0 up")
    made.ip("route add default via 10.1.1.1")
    made.run("sh", "-c", f"mkdir -p {STATE} /run/files; mount -t tmpfs -o size=128k tmpfs {STATE}; "
             "umask 027; echo old words > /run/files/manager")  # fmt: skip
    yield made


def test_a_change_that_works_is_kept_and_nothing_is_left_over(host: Host) -> None:
    before = host.look()
    status, said = host.finish(host.drive("none", "done", "0"))
    assert status == 0, said
    after = host.look()
    assert after != before
    assert "10.1.1.9/24" in after and "new words" in after
    assert host.last()["outcome"] == "kept"
    assert host.leftovers() == ""


@pytest.mark.parametrize(("moment", "step"), PLACES)
def test_killed_at_any_step_the_guard_puts_everything_back(
    host: Host, moment: str, step: int
) -> None:
    before = host.look()
    driver = host.drive("SIGKILL", moment, str(step))
    driver.wait(30)
    wait_for("the guard", lambda: host.last()["outcome"] != "open")
    last = host.last()
    assert last["outcome"] == "undone", last
    assert "was gone at step" in last["why"] and f"at step {step} of 6" in last["why"]
    assert host.look() == before
    wait_for("the guard's end", lambda: host.leftovers() == "")


@pytest.mark.parametrize("step", [3, 5])
def test_a_kvmnet_that_hangs_is_killed_at_its_deadline(host: Host, step: int) -> None:
    before = host.look()
    begin = time.monotonic()
    driver = host.drive("SIGSTOP", "began", str(step), "auto", "2")
    wait_for("the guard", lambda: host.history() and host.last()["outcome"] != "open")
    assert time.monotonic() - begin < 25  # a step's usual time is 30 s
    assert "hung at step" in host.last()["why"]
    assert host.last()["outcome"] == "undone"
    assert host.look() == before
    _end(driver)
    wait_for("the guard's end", lambda: host.leftovers() == "")


def test_a_verification_longer_than_a_step_is_let_work_as_long_as_it_may(host: Host) -> None:
    status, said = host.finish(host.drive("none", "done", "0", "auto", "5", "10", "15"))
    assert status == 0, said
    assert host.last()["outcome"] == "kept"
    assert "10.1.1.9/24" in host.look()


def test_a_verification_that_hangs_is_killed_and_undone(host: Host) -> None:
    before = host.look()
    host.finish(host.drive("none", "done", "0", "auto", "2", "50", "1"))
    wait_for("the guard", lambda: host.last()["outcome"] != "open")
    assert host.last()["outcome"] == "undone"
    assert "hung" in host.last()["why"]
    assert host.look() == before


def test_with_the_guard_killed_too_the_next_kvmnet_puts_it_back(host: Host) -> None:
    before = host.look()
    driver = host.drive("SIGSTOP", "done", "3")
    wait_for("the driver", lambda: host.look() != before and _is_stopped(host))
    for pid in host.guards():
        host.run("kill", "-9", str(pid))
    _kill_inside(host, driver)
    assert host.last()["outcome"] == "open"
    assert "cut off" in host.kvmnet("undo", "--yes").stderr
    assert host.last()["outcome"] == "undone"
    assert host.last()["why"] == "kvmnet was cut off"
    assert host.look() == before


@pytest.mark.parametrize(("step", "confirm"), [("2", "auto"), ("5", "auto"), ("0", "manual=300")])
def test_a_second_signal_before_the_undo_leaves_it_to_the_guard(
    host: Host, step: str, confirm: str
) -> None:
    before = host.look()
    status, said = host.finish(host.drive("two-signals", "done", step, confirm))
    assert status == 130 and "its guard is putting everything back" in said, said
    wait_for("the guard", lambda: host.last()["outcome"] != "open")
    assert host.last()["outcome"] == "undone"
    assert host.look() == before
    wait_for("the guard's end", lambda: host.leftovers() == "")


def _driver_pid(host: Host) -> int:
    script = (
        "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | "
        "grep -q 'bin.python.*guard_drive[r]' && echo ${p#/proc/}; done; true"
    )
    found = host.run("sh", "-c", script).stdout.split()
    return int(found[0]) if found else 0


def _is_stopped(host: Host) -> bool:
    pid = _driver_pid(host)
    return pid != 0 and "T" in host.run("ps", "-o", "stat=", "-p", str(pid)).stdout


def _kill_inside(host: Host, driver: subprocess.Popen[str]) -> None:
    pid = _driver_pid(host)
    assert pid != 0  # which would be everybody
    host.run("kill", "-9", str(pid))
    _end(driver)


def _end(driver: subprocess.Popen[str]) -> None:
    """nsenter stops when what it started is stopped."""
    driver.kill()
    driver.wait(10)


def test_a_second_kvmnet_waits_and_says_for_whom(host: Host) -> None:
    first = host.drive("none", "done", "0", "manual=12")
    wait_for("the first", lambda: host.history())
    second = host.drive("none", "done", "0")
    status, said = host.finish(second)
    assert "waiting for another kvmnet to finish" in said
    assert "the driver" in said
    assert status == 0, said
    assert host.finish(first)[0] == 4
    assert [x["outcome"] for x in host.history()] == ["undone", "kept"]


@pytest.mark.parametrize(("moment", "step"), PLACES)
def test_a_disk_that_fills_up_and_a_kvmnet_that_goes_on(host: Host, moment: str, step: int) -> None:
    before = host.look()
    status, said = host.finish(host.drive("disk-full", moment, str(step)))
    assert status == 4, said
    assert host.look() == before
    wait_for("the guard's end", lambda: not host.guards())


def test_a_full_disk_refuses_the_change(host: Host) -> None:
    before = host.look()
    host.run("sh", "-c", f"dd if=/dev/zero of={STATE}/ballast bs=4k 2>/dev/null || true")
    status, said = host.finish(host.drive("none", "done", "0"))
    assert status == 3, said
    assert host.look() == before
    assert host.guards() == []


def _waiting(host: Host) -> bool:
    done = host.run("sh", "-c", f"cat {STATE}/transactions/*.json 2>/dev/null; true").stdout
    return bool(done) and '"waits_until":null' not in done


def test_confirmed_in_time_by_another_process_it_is_kept(host: Host) -> None:
    before = host.look()
    driver = host.drive("none", "done", "0", "manual=30")
    wait_for("the question", lambda: _waiting(host))
    assert "kept" in host.kvmnet("confirm").stdout
    status, said = host.finish(driver)
    assert status == 0, said
    assert "kvmnet confirm" in said
    assert host.look() != before
    assert host.last()["why"] == "confirmed by a person"
    assert host.leftovers() == ""
    told = host.kvmnet("confirm", status=1).stderr
    assert "nothing waits" in told


def test_not_confirmed_in_time_it_is_undone(host: Host) -> None:
    before = host.look()
    status, said = host.finish(host.drive("none", "done", "0", "manual=1"))
    assert status == 4, said
    assert "not confirmed" in host.last()["why"]
    assert host.look() == before
    assert host.leftovers() == ""


def test_a_hangup_does_not_end_the_waiting(host: Host) -> None:
    driver = host.drive("none", "done", "0", "manual=30")
    wait_for("the question", lambda: _waiting(host))
    pid = _driver_pid(host)
    assert pid != 0  # which would be everybody
    host.run("kill", "-HUP", str(pid))
    time.sleep(0.5)
    assert host.last()["outcome"] == "open"
    host.kvmnet("confirm")
    assert host.finish(driver)[0] == 0


def test_killed_while_it_waits_it_can_still_be_confirmed(host: Host) -> None:
    driver = host.drive("none", "done", "0", "manual=30")
    wait_for("the question", lambda: _waiting(host))
    _kill_inside(host, driver)
    host.kvmnet("confirm")
    assert host.last()["outcome"] == "kept"
    assert "was gone" in host.last()["why"]
    wait_for("the guard's end", lambda: host.leftovers() == "")


def test_killed_while_it_waits_and_never_confirmed_it_is_undone(host: Host) -> None:
    before = host.look()
    driver = host.drive("none", "done", "0", "manual=3")
    wait_for("the question", lambda: _waiting(host))
    _kill_inside(host, driver)
    wait_for("the guard", lambda: host.last()["outcome"] == "undone", 10)
    assert host.look() == before


def test_confirm_none_takes_no_proof(host: Host) -> None:
    status, said = host.finish(host.drive("none", "done", "0", "none"))
    assert status == 0, said
    assert "nothing will be proven" in said
    assert host.last()["steps"] == 4


def test_a_kept_change_is_taken_back_and_that_again(host: Host) -> None:
    before = host.look()
    assert host.finish(host.drive("none", "done", "0"))[0] == 0
    after = host.look()
    shown = host.kvmnet("undo", "--dry-run").stdout
    assert "+old words" in shown and "undo change the world" in shown
    assert host.look() == after
    host.kvmnet("undo", "--yes")
    assert host.look() == before
    first, second = host.history()
    assert (second["undoes"], first["taken_back_by"]) == (first["id"], second["id"])
    told = host.kvmnet("undo", "--yes", status=1).stderr
    assert "nothing to undo" in told
    host.kvmnet("undo", second["id"], "--yes")
    assert host.look() == after
    assert host.leftovers() == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("echo mine > /run/files/manager", "/run/files/manager has another text"),
        ("chmod 644 /run/files/manager", "another mode or owner"),
        ("rm /run/files/new", "/run/files/new"),
        ("echo 0 > /proc/sys/net/ipv4/conf/up0/accept_local", "accept_local is 0"),
        ("ip addr add 10.1.1.10/24 dev up0", "up0 has got the address 10.1.1.10/24"),
        ("ip route del default", "the route to 0.0.0.0/0 by 10.1.1.1"),
    ],
)
def test_what_something_else_has_changed_since_is_not_taken_back(
    host: Host, change: str, said: str
) -> None:
    assert host.finish(host.drive("none", "done", "0"))[0] == 0
    host.run("sh", "-c", change)
    after = host.look()
    told = host.kvmnet("undo", "--yes", status=3).stderr
    assert said in told
    assert host.look() == after


def _rewrite(host: Host, **changes: Any) -> None:
    """Change the last transaction in the journal."""
    name = host.run("sh", "-c", f"ls {STATE}/transactions/*.json | tail -1").stdout.strip()
    found = msgspec.json.decode(host.run("cat", name).stdout, type=Transaction)
    text = msgspec.json.encode(msgspec.structs.replace(found, **changes)).decode()
    host.run("sh", "-c", 'printf %s "$1" > "$2"', "sh", text, name)


def test_after_a_reboot_only_files_are_put_back(host: Host) -> None:
    """A reboot would have taken setting and address; here they stay, which shows who did not."""
    before = host.look()
    driver = host.drive("SIGSTOP", "done", "5")
    wait_for("the driver", lambda: "new words" in host.look() and _is_stopped(host))
    for pid in host.guards():
        host.run("kill", "-9", str(pid))
    _kill_inside(host, driver)
    _rewrite(host, boot_id="another boot")
    host.run(
        "env", f"KVMNET_STATE_DIR={STATE}", sys.executable, "-P", "-m", "kvmnet.flow.guard",
        "--boot",
    )  # fmt: skip
    after = host.look()
    assert "old words" in after and "/run/files/new" not in after
    assert "10.1.1.9/24" in after and "10.1.1.9/24" not in before
    assert host.last()["outcome"] == "undone"
    assert "went down" in host.last()["why"]


def test_what_can_not_be_undone_is_told_tried_again_and_given_up(host: Host) -> None:
    driver = host.drive("SIGSTOP", "done", "5")
    wait_for("the driver", lambda: "new words" in host.look() and _is_stopped(host))
    host.run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/run/files")
    _kill_inside(host, driver)
    wait_for("the guard's three tries", lambda: not host.guards(), 30)
    stuck = host.last()
    assert stuck["outcome"] == "stuck"
    assert "/run/files/manager" in stuck["why"]
    told = host.kvmnet("undo", stuck["id"], "--yes", status=1).stderr
    assert "--give-up" in told
    host.kvmnet("undo", stuck["id"], "--give-up")
    assert host.last()["outcome"] == "given-up"
    assert "cut off" not in host.kvmnet("undo", "--yes", status=1).stderr


def test_the_guard_outlives_the_session_that_kvmnet_was_started_in(host: Host) -> None:
    driver = host.drive("none", "done", "0", "manual=30")
    wait_for("the question", lambda: _waiting(host))
    (pid,) = host.guards()
    for number in (signal.SIGHUP, signal.SIGINT):
        host.run("kill", f"-{number.value}", str(pid))
    session = host.run("ps", "-o", "sid=", "-p", str(pid)).stdout.strip()
    assert session == str(pid)
    host.kvmnet("confirm")
    assert host.finish(driver)[0] == 0
