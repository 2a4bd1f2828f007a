import json
from pathlib import Path

import pytest

from kvmnet.cli.main import main
from kvmnet.formats import state_json
from kvmnet.model.host import Neighbour
from kvmnet.model.state import State, Unread
from kvmnet.model.values import Ip, Mac

USED = Mac("52:54:00:00:00:07")


@pytest.fixture
def saved(tmp_path: Path) -> str:
    """A State, saved on some other host."""
    state = State(
        taken_at=1,
        hostname="elsewhere",
        neighbours=(Neighbour(link="eth0", ip=Ip("192.0.2.7"), family=4, mac=USED),),
        unread=(Unread(what="libvirt", why="it was asleep"),),
    )
    path = tmp_path / "state.json"
    path.write_text(state_json.render(state))
    return str(path)


def test_an_address_is_looked_up_in_a_saved_state(
    saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mac", "--state", saved, "--check", USED.upper()]) == 1
    told = capsys.readouterr()
    assert "neighbour 192.0.2.7 on eth0" in told.out
    assert "not looked at: libvirt (it was asleep)" in told.err
    assert main(["mac", "--state", saved, "--check", "52:54:00:00:00:08"]) == 0


def test_new_addresses_avoid_what_a_saved_state_shows(
    saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mac", "--state", saved, "-n", "255", "--prefix", "52:54:00:00:00", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(set(document["macs"])) == 255 and USED not in document["macs"]
    assert (document["known_in_use"], document["unread"][0]["what"]) == (1, "libvirt")
    assert main(["mac", "--state", saved, "-n", "256", "--prefix", "52:54:00:00:00"]) == 3
    assert "has no room" in capsys.readouterr().err


def test_the_odds_are_told_in_the_words_of_the_textbook(
    saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mac", "--state", saved, "--explain", "--among", "40"]) == 0
    assert "40 in 16.8 million" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--prefix", "01:00:5e"], ["--prefix", "x"], ["-n", "0"], ["-n", "-5"], ["-n", "many"],
     ["--check", "nonsense"], ["--check", "ff:ff:ff:ff:ff:ff"], ["--wait", "0"], ["--wait", "nan"],
     ["--among", "-1"], ["--among", "1" + "0" * 200], ["-n", "1e3"], ["-n", "\u0663"],
     ["--check", USED, "-n", "2"], ["--check", USED, "--prefix", "52:54:00"],
     ["--check", USED, "--explain"], ["--wait", "3"], ["--probe", "a/b"]],
)  # fmt: skip
def test_wrong_input_is_wrong_usage(
    saved: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["mac", "--state", saved, *words])
    except SystemExit as exit_:  # argparse's own way
        status = int(str(exit_.code))
    assert status == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err != "" and "Traceback" not in told.err
    assert "invalid int value" not in told.err


def test_one_address_is_told_of_as_one(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mac", "--state", saved, "--explain"]) == 0
    assert "the new one equals one of them" in capsys.readouterr().err
