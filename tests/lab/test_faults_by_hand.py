"""Faults by the command line: wrong input, and a `lab break` that is killed half-way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lab.fault_world import is_again, snapshot

from kvmnet.lab.faults import breaking, broken
from kvmnet.lab.faults.fault import Look
from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab

DRIVER = Path(__file__).with_name("fault_driver.py")


def kvmnet(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "kvmnet", *words],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def named(lab: Lab) -> list[str]:
    """What is broken in the lab, as `kvmnet lab status` says."""
    labs = json.loads(kvmnet("lab", "status", "--json").stdout)["labs"]
    (found,) = [x["faults"] for x in labs if x["name"] == lab.name]
    return [*found]


@pytest.mark.parametrize("name", ["rp-filter", "stale-bridge"])
def test_killed_half_way_it_is_mended_without_a_trace(lab: Lab, name: str) -> None:
    """Cut off before each of its commands, and after the last."""
    fault = breaking.find(name)
    breaking.set_up(lab, fault)
    before = snapshot(lab)
    for done in range(len(fault.prepare(Look(lab)).make)):
        cut = subprocess.run(
            [sys.executable, str(DRIVER), lab.name, name, str(done)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert cut.returncode == -signal.SIGKILL, cut.stderr
        if done > 0:
            assert snapshot(lab) != before
        assert named(lab) == [name]
        again = kvmnet("lab", "break", name, "--name", lab.name)
        assert again.returncode == 3 and f"kvmnet lab mend {name}" in again.stderr, again.stderr
        mended = kvmnet("lab", "mend", name, "--name", lab.name)
        assert mended.returncode == 0, mended.stderr
        assert is_again(lab, before) == ([], []), done
        assert broken.active(lab.name) == ()


def test_broken_twice_and_mended_twice(lab: Lab) -> None:
    words = ("docker-forward-drop", "--name", lab.name)
    assert kvmnet("lab", "break", *words).returncode == 0
    twice = kvmnet("lab", "break", *words)
    assert twice.returncode == 3
    assert "has the fault docker-forward-drop already" in twice.stderr
    assert f"try: mend it: kvmnet lab mend {words[0]} --name {lab.name}" in twice.stderr
    other = kvmnet("lab", "mend", "bad-checksum", "--name", lab.name)
    assert other.returncode == 3
    assert "does not have the fault bad-checksum" in other.stderr
    assert "what is broken in it: docker-forward-drop" in other.stderr
    assert named(lab) == [words[0]]
    assert kvmnet("lab", "mend", *words).returncode == 0
    gone = kvmnet("lab", "mend", *words)
    assert gone.returncode == 3 and "nothing is broken in it" in gone.stderr


def test_a_lab_that_is_not_up(lab: Lab) -> None:
    for verb in ("break", "mend"):
        done = kvmnet("lab", verb, "ip-forward-off", "--name", f"{lab.name}_other")
        assert done.returncode == 1 and done.stdout == ""
        assert "is not up" in done.stderr and "try: start it: kvmnet lab up" in done.stderr


def test_a_guest_of_that_name_elsewhere_is_not_taken_for_it(lab: Lab) -> None:
    lab.kvmnet("up", "--yes")
    lab.add_guest("srv")
    done = kvmnet("lab", "break", "multicast-snooping", "--name", lab.name)
    assert done.returncode == 3
    assert "the guest srv is not on the bridge br0" in done.stderr
    assert named(lab) == []
