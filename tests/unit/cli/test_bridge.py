"""`kvmnet bridge` of one that is not there: the same exit status, whatever was to be done to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmnet.cli import bridge_change
from kvmnet.cli.main import main
from kvmnet.flow.bridges import Planner
from kvmnet.formats import state_json
from kvmnet.model.host import BridgeAttributes, Link
from kvmnet.model.state import State

BR1 = Link(
    index=1, name="br1", kind="bridge", bridge=BridgeAttributes(stp=False, forward_delay_s=0)
)
STATE = State(taken_at=0, hostname="h", links=(BR1,))

EACH = pytest.mark.parametrize(
    "words",
    [["show", "br9"], ["delete", "br9"], ["delete", "br9", "--force"], ["add-port", "br9", "eth0"],
     ["remove-port", "br9", "eth0"]],
)  # fmt: skip


@pytest.fixture(autouse=True)
def saved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The host as the changing commands see it, and as a file for the one that only looks."""

    def plan(_args: object, planner: Planner, *_words: str) -> int:
        planner(STATE)
        return 0

    monkeypatch.setattr(bridge_change, "_run", plan)
    path = tmp_path / "state.json"
    path.write_text(state_json.render(STATE))
    return path


def run(words: list[str], saved: Path) -> int:
    return main(["bridge", *words, *(["--state", str(saved)] if words[0] == "show" else [])])


@EACH
def test_a_bridge_that_is_not_there(
    words: list[str], saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words, saved) == 1
    told = capsys.readouterr().err
    assert "there is no bridge br9" in told and "there are: br1" in told


@EACH
@pytest.mark.parametrize("name", ["a/b", "a-name-too-long-for-one"])
def test_a_name_that_no_bridge_can_have(
    words: list[str], name: str, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([words[0], name, *words[2:]], saved) == 2
    assert "can not be the name of a bridge" in capsys.readouterr().err
