"""The lock between two processes, in a folder of the test's own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmnet.adapters import lock
from kvmnet.errors import Unavailable

HOLD = (
    "import sys\n"
    "from kvmnet.adapters import lock\n"
    "with lock.hold(sys.argv[1], print):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@contextlib.contextmanager
def held_elsewhere(command: str | bytes) -> Iterator[None]:
    holder = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield
    finally:
        holder.communicate(timeout=10)
    assert holder.returncode == 0


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KVMNET_STATE_DIR", str(tmp_path))


def test_who_waits_is_told_who_holds_it() -> None:
    told: list[str] = []
    with (
        held_elsewhere("kvmnet up"),
        pytest.raises(Unavailable, match="another kvmnet") as error,
        lock.hold("kvmnet up", told.append, wait_s=0.3),
    ):
        pass
    assert len(told) == 1
    assert "(kvmnet up)" in told[0]
    assert "(kvmnet up)" in error.value.why


def test_command_that_is_no_text_is_noted_all_the_same() -> None:
    told: list[str] = []
    with (
        held_elsewhere(b"kvmnet network start \xff"),
        pytest.raises(Unavailable),
        lock.hold("kvmnet up", told.append, wait_s=0.1),
    ):
        pass
    assert "network start ?" in told[0]


def test_file_of_a_held_lock_may_vanish() -> None:
    told: list[str] = []
    with held_elsewhere("kvmnet up"):
        handle = os.open(lock.lock_path(), os.O_RDWR)
        try:
            lock.lock_path().unlink()
            with pytest.raises(Unavailable):
                lock._wait_for(handle, told.append, 0.1)
        finally:
            os.close(handle)
    assert "(kvmnet up)" in told[0]


@pytest.mark.parametrize("name", ["HOME", "XDG_RUNTIME_DIR", "KVMNET_STATE_DIR"])
def test_a_user_without_a_place_for_it_is_told_to_be_root(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    ours = {x: y for x, y in os.environ.items() if x not in {"KVMNET_STATE_DIR", "XDG_RUNTIME_DIR"}}
    program = (
        "import os, sys\n"
        "from kvmnet.adapters import lock\n"
        "from kvmnet.errors import PermissionDenied\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try:\n"
        "    with lock.hold('kvmnet up', print): pass\n"
        "except PermissionDenied as error:\n"
        "    print(error.what, error.why, error.hint, sep='; ')\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], env=ours | {name: str(folder)},
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "can not be written" in done.stdout and "run it again with sudo" in done.stdout
