"""What `kvmnet doctor` prints of a saved State."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvmnet.cli.main import main
from kvmnet.formats import state_json
from kvmnet.model.state import State, Unread

CASES = Path(__file__).parents[1] / "findings" / "cases"


def test_a_command_that_only_looks_is_not_called_a_fix(capsys: pytest.CaptureFixture[str]) -> None:
    state = next(
        x for x in sorted(CASES.glob("*/state.json"))
        if "resolver-blocked" in (x.parent / "expected.json").read_text()
    )  # fmt: skip
    words = ["doctor", "--state", str(state)]
    main(words)
    said = capsys.readouterr().out
    assert "  look: journalctl -u named.service -n 20\n" in said
    assert "fix: journalctl" not in said
    main([*words, "--json"])
    found = json.loads(capsys.readouterr().out)["findings"]
    told = next(x for x in found if x["name"] == "resolver-blocked")
    assert told["look"] == ["journalctl -u named.service -n 20"]
    assert told["fix"] == ["virsh net-edit default"]


@pytest.mark.parametrize(
    ("gap", "status", "healthy"),
    [
        (None, 0, True),
        (Unread(what="firewall (nft)", why="Operation not permitted"), 1, None),
        (Unread(what="libvirt (default connection)", why="not there", absent=True), 0, True),
        (Unread(what="guest web: agent", why="no answer"), 0, True),
    ],
)
def test_what_could_not_be_read_is_not_called_healthy(
    gap: Unread | None, status: int, healthy: bool | None, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    unread = () if gap is None else (gap,)
    state = State(taken_at=0, hostname="h", privileged=True, unread=unread)
    path = tmp_path / "state.json"
    path.write_text(state_json.render(state))
    words = ["doctor", "--state", str(path)]
    assert main(words) == status
    said = capsys.readouterr().out
    assert ("nothing is wrong" in said) is (healthy is True)
    if gap is not None and healthy is None:
        assert f"nothing wrong was found, but {gap.what} could not be read" in said
        assert f"not looked at: {gap.what}: {gap.why}" in said
    assert main([*words, "--json"]) == status
    assert json.loads(capsys.readouterr().out)["healthy"] is healthy
