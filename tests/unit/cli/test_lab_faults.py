"""`kvmnet lab break` and `mend` with wrong words: told before any lab is looked for."""

from __future__ import annotations

import pytest

from kvmnet.cli.main import main
from kvmnet.lab.faults.table import FAULTS

UNKNOWN, USAGE = 1, 2


@pytest.mark.parametrize("verb", ["break", "mend"])
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("stp-dely", "names like it: stp-delay"),
        ("docker", "docker-forward-drop"),
        ("STP-DELAY", "there is no fault 'STP-DELAY'"),
        ("zzz", "see them all: kvmnet lab break --list"),
        ("", "there is no fault ''"),
        ("a\x1b[31mb\n", r"there is no fault 'a\x1b[31mb\n'"),
        ("../../etc/passwd", "there is no fault '../../etc/passwd'"),
        ("wireless-uplink", "it takes a wireless NIC"),
    ],
)
def test_a_name_that_is_none(
    capsys: pytest.CaptureFixture[str], verb: str, fault: str, told: str
) -> None:
    status = main(["lab", verb, fault, "--name", "no_such_lab"])
    out, err = capsys.readouterr()
    assert (status, out) == (UNKNOWN, "")
    assert told in err and "\x1b" not in err and "no_such_lab" not in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["break"], "no fault is named"),
        (["break", "--list", "stp-delay"], "--list takes no name"),
        (["break", "stp-delay", "--list"], "--list takes no name"),
        (["break", "stp-delay", "--name", "../x"], "'../x' is not a lab's name"),
        (["mend", "stp-delay", "--name", ""], "'' is not a lab's name"),
        (["mend"], "arguments are required: FAULT"),
        (["mend", "stp-delay", "rp-filter"], "can not do anything with 'rp-filter'"),
        (["mend", "--list"], "FAULT"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    try:
        status = main(["lab", *words])
    except SystemExit as ended:  # argparse ends by itself
        status = ended.code if isinstance(ended.code, int) else -1
    out, err = capsys.readouterr()
    assert (status, out) == (USAGE, "")
    assert told in err


def test_the_list_needs_no_lab(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "break", "--list", "--name", "no_such_lab"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert all(x.name in rows for x in FAULTS)
