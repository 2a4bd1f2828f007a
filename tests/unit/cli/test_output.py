"""Tables on a terminal and in a pipe."""

from __future__ import annotations

import re
from argparse import Namespace

import pytest

from kvmnet.cli.output import fitted_widths, print_table, width

HEADERS = ("guest", "state", "mac", "on", "addresses")
ROWS = [
    ("web", "running", "52:54:00:a7:6e:2e", "network:default",
     "192.168.122.140 (agent, lease 9 min, neighbour 9 min), 2001:db8:77:0:5054:ff:fea7:6e2e"),
    ("a-guest-with-a-long-name", "shut off", "52:54:00:00:01:01", "bridge:virbr0", "-"),
]  # fmt: skip
VALUES = ("52:54:00:a7:6e:2e", "192.168.122.140", "2001:db8:77:0:5054:ff:fea7:6e2e",
          "network:default", "a-guest-with-a-long-name")  # fmt: skip


@pytest.mark.parametrize("columns", ["40", "60", "80", "200"])
def test_no_address_is_cut_off_on_a_narrow_terminal(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_table(Namespace(color="always"), HEADERS, ROWS)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "…" not in shown
    for value in VALUES:
        assert value in shown


def test_table_fits_the_terminal_where_wrapping_can_make_it() -> None:
    lines = [("name", "remark"), ("web", "one two three four five six")]
    assert fitted_widths(lines, 100) == [4, 27]
    assert fitted_widths(lines, 14) == [4, 10]
    assert fitted_widths(lines, 5) == [4, 6]


def test_columns_stay_aligned_beside_wide_letters(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(Namespace(color="never"), ("guest", "state"), [("日本", "on"), ("abcd", "on")])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["GUEST  STATE", "日本   on", "abcd   on"]
    assert width("e\u0301") == 1
