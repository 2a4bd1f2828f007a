"""Every fault of the table: seen by a user as told, named by the doctor, mended without a trace.

A fault is tested by being a row of the table.
"""

from __future__ import annotations

import pytest
from lab.fault_world import Diagnosis, diagnosis, fails, goes_well, is_again, snapshot, told, users

from kvmnet.errors import NotFound, Refused
from kvmnet.lab.faults import breaking, broken
from kvmnet.lab.faults.fault import Fault
from kvmnet.lab.faults.table import FAULTS
from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("fault", FAULTS, ids=lambda x: x.name)
def test_it_is_seen_named_and_mended(lab: Lab, fault: Fault) -> None:
    breaking.set_up(lab, fault)
    users(lab)
    before = snapshot(lab)
    breaking.break_(lab, fault.name)
    try:
        found = diagnosis(lab)
        seen(lab, fault, found)
        broke = snapshot(lab)
        named = set() if fault.blind else {fault.problem, *fault.also}
        assert found.names == named, found.text
        if found.fixable and fault.stubborn:
            not_fixed_and_undone(lab)
        elif found.fixable:
            fixed_and_undone(lab, fault, broke)
        if fault.trial is None:
            assert broke != before
    finally:
        breaking.mend(lab, fault.name)
    assert is_again(lab, before) == ([], [])
    assert well(lab, fault) == ""
    assert diagnosis(lab).names == set()  # its stand-in guests have it well


def seen(lab: Lab, fault: Fault, found: Diagnosis) -> None:
    """A user sees it, at the step that is told: as the doctor's own stand-in guests do, or where
    that went well, one who tries what the fault names.
    """
    if fault.trial is not None:
        report = found.reports.get(fault.trial.probe[0]) if fault.trial.probe else None
        result = (told(fault, report) if report else "") or fails(lab, fault)
        assert result, "a user sees nothing of it"
        step = fault.trial.step
        assert result.startswith(f"{step} " if step else "status"), result


def well(lab: Lab, fault: Fault) -> str:
    """How a user's own try still fails. The doctor probes every place itself."""
    by_hand = fault.trial is not None and fault.trial.command is not None
    return goes_well(lab, fault) if by_hand else ""


def fixed_and_undone(lab: Lab, fault: Fault, broke: list[str]) -> None:
    """--fix mends it and the user has it well; undo brings the fault back as it was."""
    done = lab.kvmnet("doctor", "--fix", "--yes", accept=range(256), timeout=120)
    assert done.status == 0, done.stdout + done.stderr
    if fault.trial is not None and not fault.trial.later:
        assert well(lab, fault) == ""
    lab.kvmnet("undo", "--yes", timeout=120)
    if not fault.kept:
        assert is_again(lab, broke) == ([], [])


def not_fixed_and_undone(lab: Lab) -> None:
    """--fix tries, sees that it did not help, and puts everything back."""
    before = snapshot(lab)
    done = lab.kvmnet("doctor", "--fix", "--yes", accept=range(256), timeout=120)
    assert done.status == 4 and "put back" in done.stderr, done.stdout + done.stderr
    assert is_again(lab, before) == ([], [])


def test_two_at_once_are_both_named_and_mended_in_any_order(lab: Lab) -> None:
    names = ("mac-locked-uplink", "ip-forward-off", "duplicate-identity")
    for name in names:
        breaking.set_up(lab, breaking.find(name))
    users(lab)
    before = snapshot(lab)
    for name in names:
        breaking.break_(lab, name)
    try:
        assert [x.name for x in broken.active(lab.name)] == [*names]
        found = diagnosis(lab)
        assert found.names == {*names}, found.text
    finally:
        for name in names:
            breaking.mend(lab, name)
    assert is_again(lab, before) == ([], [])
    assert broken.active(lab.name) == ()


def test_what_makes_no_sense_is_refused(lab: Lab) -> None:
    breaking.break_(lab, "docker-forward-drop")
    try:
        with pytest.raises(Refused, match="has the fault docker-forward-drop already"):
            breaking.break_(lab, "docker-forward-drop")
        with pytest.raises(Refused, match=r"both change Docker's rules"):
            breaking.break_(lab, "docker-forward-drop-ipv6")
    finally:
        breaking.mend(lab, "docker-forward-drop")
    with pytest.raises(Refused, match="nothing is broken in it"):
        breaking.mend(lab, "docker-forward-drop")
    with pytest.raises(Refused, match="in no bridge"):
        breaking.break_(lab, "accept-ra")
    with pytest.raises(NotFound, match="names like it: stp-delay"):
        breaking.break_(lab, "stp-dely")


def test_a_lab_says_what_is_broken_and_goes_down_with_it(lab: Lab) -> None:
    breaking.break_(lab, "ip-forward-off")
    assert [x.name for x in broken.active(lab.name)] == ["ip-forward-off"]
    lab.down()
    assert broken.active(lab.name) == ()
