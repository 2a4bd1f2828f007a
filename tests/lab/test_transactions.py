"""Every step of a change × everything that can go wrong there: what was before is there again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmnet.adapters.run import Completed
from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab

DRIVER = str(Path(__file__).with_name("transaction_driver.py"))
TINY = "/run/tiny"
"""A file system of 64 KiB inside the lab: room for a journal, and soon full."""

CREATE_STEPS = 5
"""accept_ra of eth1, its file, define, start, autostart."""
DELETE_STEPS = 3
"""stop, no autostart, undefine."""

PLACES = [
    (verb, moment, step)
    for verb, steps in (("create", CREATE_STEPS), ("delete", DELETE_STEPS))
    for step in range(1, steps + 1)
    for moment in ("began", "done")
]

_LOOK = r"""
export LIBVIRT_DEFAULT_URI=qemu:///system
virsh net-list --all | sort
for n in $(virsh net-list --all --name | sort); do virsh net-dumpxml --inactive "$n"; done
ip -o link show type bridge | cut -d: -f2 | cut -d@ -f1 | sort
cat /proc/sys/net/ipv6/conf/eth1/accept_ra
cat /etc/sysctl.d/*kvmnet* 2>/dev/null || echo no file
"""


def look(lab: Lab) -> str:
    return lab.run("host", ["sh", "-c", _LOOK]).stdout


def drive(lab: Lab, *words: str, timeout: float = 60.0) -> Completed:
    return lab.run(
        "host", [sys.executable, DRIVER, *words], accept=range(-64, 256), timeout=timeout,
        env={"KVMNET_STATE_DIR": TINY},
    )  # fmt: skip


def kvmnet(lab: Lab, *words: str, status: int = 0) -> Completed:
    done = lab.kvmnet(*words, accept=range(256), env={"KVMNET_STATE_DIR": TINY})
    assert done.status == status, done.stderr
    return done


@pytest.fixture
def before(lab: Lab) -> Iterator[str]:
    """The host with one network, `old`, and an empty journal on a tiny disk."""
    lab.run("host", ["sh", "-c", f"mkdir -p {TINY} && mount -t tmpfs -o size=64k tmpfs {TINY}"])
    lab.run("host", ["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/eth1/accept_ra"])
    if "old" not in lab.run("host", ["virsh", "net-list", "--all", "--name"]).stdout.split():
        kvmnet(lab, "network", "create", "old")
    kvmnet(lab, "network", "start", "old")
    lab.run("host", ["virsh", "net-autostart", "old"])
    yield look(lab)
    lab.run("host", ["umount", TINY])
    lab.run("host", ["sh", "-c", "rm -f /etc/sysctl.d/60-kvmnet-accept-ra.conf"])
    for name in ("new", "other"):
        lab.kvmnet("network", "delete", name, "--yes", accept=range(256))


def name_for(verb: str) -> str:
    return "new" if verb == "create" else "old"


@pytest.mark.parametrize(("verb", "moment", "step"), PLACES)
@pytest.mark.parametrize(("fault", "status"), [("exception", 4), ("sigint", 130)])
def test_a_fault_at_any_step_puts_everything_back(
    lab: Lab, before: str, verb: str, moment: str, step: int, fault: str, status: int
) -> None:
    done = drive(lab, verb, name_for(verb), fault, moment, str(step))
    assert done.status == status, done.stdout + done.stderr
    assert look(lab) == before


def test_sigterm_and_bugs_put_everything_back_too(lab: Lab, before: str) -> None:
    assert drive(lab, "create", "new", "sigterm", "done", "4").status == 130
    assert look(lab) == before
    bug = drive(lab, "create", "new", "bug", "done", "4")
    assert bug.status == 1
    assert "the test's bug" in bug.stderr
    assert look(lab) == before


@pytest.mark.parametrize(("verb", "moment", "step"), PLACES)
def test_what_a_killed_kvmnet_left_is_undone_by_the_next(
    lab: Lab, before: str, verb: str, moment: str, step: int
) -> None:
    assert drive(lab, verb, name_for(verb), "sigkill", moment, str(step)).status == -9
    told = kvmnet(lab, "network", "start", "absent", status=1).stderr
    assert f"cut off at step {step} of" in told
    assert look(lab) == before
    assert "cut off" not in kvmnet(lab, "network", "start", "absent", status=1).stderr


@pytest.mark.parametrize(("verb", "moment", "step"), PLACES)
def test_a_disk_that_fills_up(lab: Lab, before: str, verb: str, moment: str, step: int) -> None:
    """All is put back, also with no byte free for saying so."""
    done = drive(lab, verb, name_for(verb), "disk-full", moment, str(step))
    assert done.status == 4, done.stdout + done.stderr
    assert look(lab) == before
    lab.run("host", ["rm", f"{TINY}/ballast"])
    assert "cut off" not in kvmnet(lab, "network", "start", "absent", status=1).stderr


def test_a_disk_that_is_full_before_the_first_step(lab: Lab, before: str) -> None:
    lab.run("host", ["sh", "-c", f"dd if=/dev/zero of={TINY}/ballast bs=4k 2>/dev/null || true"])
    refused = kvmnet(lab, "network", "create", "new", status=3)
    assert "nothing was changed" in refused.stderr
    assert TINY in refused.stderr
    assert look(lab) == before


@pytest.mark.parametrize("step", range(1, CREATE_STEPS + 1))
def test_a_libvirtd_that_is_killed_and_restarted_is_waited_for(
    lab: Lab, before: str, step: int
) -> None:
    done = drive(lab, "create", "new", "libvirtd-restarts", "done", str(step))
    assert done.status == 0, done.stdout + done.stderr
    after = look(lab)
    assert after != before
    shown = lab.run("host", ["virsh", "-c", "qemu:///system", "net-info", "new"]).stdout
    assert [x.split()[1] for x in shown.splitlines()[2:5]] == ["yes", "yes", "yes"]
    kvmnet(lab, "network", "delete", "new", "--yes")


def test_a_libvirtd_that_stays_away_leaves_the_undo_to_the_next_kvmnet(
    lab: Lab, before: str
) -> None:
    done = drive(lab, "create", "new", "libvirtd-dies", "done", "3", timeout=120)
    assert done.status == 5, done.stdout + done.stderr
    lab.run("host", ["libvirtd", "-d"])
    told = kvmnet(lab, "network", "start", "absent", status=1).stderr
    assert "cut off" in told or "undoing" in told
    assert look(lab) == before


def test_two_at_once_take_turns_and_different_subnets(lab: Lab, before: str) -> None:
    words = ["env", f"KVMNET_STATE_DIR={TINY}", sys.executable, "-m", "kvmnet", "network", "create"]
    both = [lab.spawn("host", [*words, name]) for name in ("new", "other")]
    told = [one.communicate(timeout=60)[1].decode() for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    addresses = [
        line for line in look(lab).splitlines() if "<ip address=" in line or "<bridge name=" in line
    ]
    assert len(addresses) == len(set(addresses)) == 6


def test_who_holds_the_lock_is_named(lab: Lab, before: str) -> None:
    script = (
        "import time\nfrom kvmnet.adapters import lock\n"
        "with lock.hold('a long change', print):\n print('held', flush=True)\n time.sleep(60)\n"
    )
    holder = lab.spawn("host", ["env", f"KVMNET_STATE_DIR={TINY}", sys.executable, "-c", script])
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        waiting = lab.spawn(
            "host",
            ["env", f"KVMNET_STATE_DIR={TINY}", sys.executable, "-m", "kvmnet", "network", "start",
             "old"],
        )  # fmt: skip
        assert waiting.stderr is not None
        line = waiting.stderr.readline().decode()
        assert "waiting for another kvmnet" in line
        assert "a long change" in line
    finally:
        holder.kill()
        holder.wait(10)
    assert waiting.wait(30) == 0
