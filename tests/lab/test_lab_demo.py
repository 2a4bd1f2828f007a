"""The demo's story comes true, and leaves nothing behind, also when it is stopped or goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from kvmnet.errors import Failed, NotFound
from kvmnet.lab import demo, record
from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab


@pytest.fixture(autouse=True)
def lab_name(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name of its own, so that somebody's demo on this machine is not disturbed."""
    name = f"demo_{os.getpid()}"
    monkeypatch.setattr(demo, "LAB", name)
    return name


class Notes:
    """A stage that writes down what it is told."""

    def __init__(self) -> None:
        self.chapters: list[str] = []
        self.lines: list[str] = []

    def chapter(self, title: str) -> None:
        self.chapters.append(title)

    def tell(self, text: str) -> None:
        self.lines.append(text)

    def command(self, where: str, words: Sequence[str]) -> None:
        self.lines.append(f"{where}$ {' '.join(words)}")

    def output(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, text: str) -> None:
        self.lines.append(text)


def test_the_story_comes_true(lab_name: str) -> None:
    notes = Notes()
    demo.tell(notes)
    assert len(notes.chapters) == 12
    text = "\n".join(notes.lines)
    assert "host$ kvmnet up --yes" in text
    assert "Hello from the internet" in text
    assert "problem docker-forward-drop, network default" in text
    assert "died at: policy drop of chain ip filter FORWARD, made by Docker" in text
    assert "Network is unreachable" in text
    assert "Connection refused" in text
    assert "host$ kvmnet guest move web --to bridge:br0 --yes" in text
    assert text.count("Hello from the guest web.") == 2, "once in the host, once at the peer"
    assert not record.folder(lab_name).exists()


def test_a_story_that_goes_wrong_fails(lab_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(story: object) -> None:
        """No network is made, so no guest can start."""

    monkeypatch.setattr(demo._Story, "network", nothing)
    with pytest.raises((Failed, NotFound)):
        demo.tell(Notes())
    assert not record.folder(lab_name).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle(lab_name: str, number: signal.Signals) -> None:
    script = (
        f"import sys; from kvmnet.lab import demo; demo.LAB = {lab_name!r}; "
        "from kvmnet.cli.main import main; sys.exit(main(['lab', 'demo']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 40
    known = None
    while known is None or known.phase != "up":
        assert time.monotonic() < deadline, "the demo's lab did not come up"
        time.sleep(0.1)
        known = record.read(lab_name)
    time.sleep(2)  # somewhere in the middle of it
    process.send_signal(number)
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == 130, complaint
    assert "Traceback" not in complaint
    assert not known.init.alive()
    assert not record.folder(lab_name).exists()


def test_somebody_elses_lab_is_not_taken(lab_name: str) -> None:
    with Lab.temporary(lab_name) as mine:
        done = subprocess.run(
            [sys.executable, "-c",
             f"import sys; from kvmnet.lab import demo; demo.LAB = {lab_name!r}; "
             "from kvmnet.cli.main import main; sys.exit(main(['lab', 'demo']))"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 3
        assert "up already" in done.stderr
        assert mine.alive
