"""The kernel's short waits are on for a block, and never stay on by kvmnet."""

import os
import signal
from pathlib import Path

import pytest

from kvmnet.adapters.rcu import switched_on


@pytest.fixture
def switch(tmp_path: Path) -> Path:
    path = tmp_path / "rcu_expedited"
    path.write_text("0\n")
    return path


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "run/kvmnet/mark"


def test_it_is_on_for_the_block_alone(switch: Path, mark: Path) -> None:
    with switched_on(switch, mark):
        assert switch.read_text() == "1\n"
    assert switch.read_text() == "0\n"
    assert not mark.exists()


def test_it_is_off_after_an_error(switch: Path, mark: Path) -> None:
    with pytest.raises(KeyError), switched_on(switch, mark):
        raise KeyError
    assert switch.read_text() == "0\n"


def test_what_somebody_else_turned_on_stays_on(switch: Path, mark: Path) -> None:
    switch.write_text("1\n")
    with switched_on(switch, mark):
        assert not mark.exists()
    assert switch.read_text() == "1\n"


def test_the_next_one_turns_off_what_a_killed_one_left(switch: Path, mark: Path) -> None:
    child = os.fork()
    if not child:
        with switched_on(switch, mark):
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    os.waitpid(child, 0)
    assert switch.read_text() == "1\n"
    with switched_on(switch, mark):
        assert switch.read_text() == "1\n"
    assert switch.read_text() == "0\n"
    assert not mark.exists()


def test_a_kernel_without_it_takes_its_time(tmp_path: Path, mark: Path) -> None:
    with switched_on(tmp_path / "nothing", mark):
        pass
    assert not (tmp_path / "nothing").exists()
    assert not mark.exists()
