"""What a transaction does about signals while it puts things back."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from kvmnet.errors import NotUndone
from kvmnet.flow.rollback import signals_held


@pytest.fixture
def thread_that_takes_signals() -> Iterator[None]:
    """As a call to libvirt that was left behind is: it does not have signals blocked."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait, daemon=True)
    thread.start()
    yield
    end.set()
    thread.join(5)


@pytest.mark.usefixtures("thread_that_takes_signals")
def test_signal_waits_until_everything_is_put_back() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), signals_held():
        for step in ("third", "second", "first"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.02)  # Python looks for signals when it comes back
            done.append(step)
    assert done == ["third", "second", "first"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("helper", [False, True])
def test_failed_undo_is_told_rather_than_the_signal(
    helper: bool, request: pytest.FixtureRequest
) -> None:
    if helper:
        request.getfixturevalue("thread_that_takes_signals")
    with pytest.raises(NotUndone), signals_held():
        os.kill(os.getpid(), signal.SIGINT)
        raise NotUndone("something is left")
    assert signal.sigpending() == set()
