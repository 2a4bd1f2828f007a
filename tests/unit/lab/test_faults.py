"""The table of faults, without a lab."""

from pathlib import Path

import pytest

from kvmnet.errors import NotFound, Unavailable
from kvmnet.lab.faults import breaking
from kvmnet.lab.faults.fault import Fault
from kvmnet.lab.faults.table import FAULTS, NOT_MADE

DOCS = Path(__file__).parents[3] / "docs" / "lab.md"


def test_names_are_unique_and_words_of_the_command_line() -> None:
    names = [x.name for x in FAULTS]
    assert len(set(names)) == len(names)
    assert not set(names) & set(NOT_MADE)
    assert all(x.replace("-", "").isalnum() and x == x.lower() for x in names)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda x: x.name)
def test_it_is_told_in_plain_sentences(fault: Fault) -> None:
    assert fault.name.startswith(fault.problem), "it bears the name of its finding"
    for sentence in (fault.seen, fault.how):
        assert 20 < len(sentence) < 200 and not sentence.endswith(".")
    if fault.trial is None:
        assert fault.seen.startswith(("once ", "after ")), "it is told when it is to be seen"
    else:
        assert bool(fault.trial.probe) != bool(fault.trial.command)
        assert bool(fault.trial.probe) == bool(fault.trial.step)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda x: x.name)
def test_the_documentation_lists_it(fault: Fault) -> None:
    assert f"| `{fault.name}` | {fault.seen} |" in DOCS.read_text().splitlines()


def test_near_names_are_offered() -> None:
    for text, meant in (("stp", "stp-delay"), ("docker", "docker-forward-drop"),
                        ("dns-port-takn", "dns-port-taken")):  # fmt: skip
        with pytest.raises(NotFound) as caught:
            breaking.find(text)
        assert meant in caught.value.why
    with pytest.raises(NotFound) as caught:
        breaking.find("\x1b[31m" + "x" * 500)
    assert len(str(caught.value)) < 150 and "--list" in caught.value.hint
    with pytest.raises(Unavailable, match="wireless"):
        breaking.find("wireless-uplink")
