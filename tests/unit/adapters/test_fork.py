"""A copy of this program that goes its own way: what it has, and what it lets go."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from pathlib import Path

from kvmnet.adapters import process
from kvmnet.adapters.run import run

PROGRAM = """
import fcntl, os, signal, sys, time
from kvmnet.adapters import process

lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)

def body(says):
    kept = sorted({os.readlink(f"/proc/self/fd/{x}") for x in map(str, range(10))
                   if os.path.exists(f"/proc/self/fd/{x}") and int(x) != says})
    with open(sys.argv[2], "w") as out:
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        print(os.getsid(0) == os.getpid(), open("/proc/self/cmdline").read().rstrip(chr(0)), kept,
              ignored, signal.pthread_sigmask(signal.SIG_BLOCK, ()), os.getpid(), file=out)
    os.write(says, b"here\\n")
    time.sleep(60)
    return 0

copy = process.fork("the.guard 7", body)
assert copy is not None and copy.says("here", 10)
print("told", flush=True)
if sys.argv[3] == "end":
    copy.end(10)
else:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _run(tmp_path: Path, how: str) -> list[str]:
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "lock"), str(tmp_path / "out"), how]
    done = run(words, timeout=30, accept=(0, -9))
    assert done.stdout == "told\n", done
    return (tmp_path / "out").read_text().rsplit(" ", 1)


def test_it_has_a_session_and_a_name_of_its_own_and_none_of_our_files(tmp_path: Path) -> None:
    said, pid = _run(tmp_path, "end")
    assert said == "True the.guard 7 ['/dev/null'] True set()"
    assert process.started(int(pid)) is None


def test_it_outlives_us_and_does_not_hold_our_lock(tmp_path: Path) -> None:
    _, pid = _run(tmp_path, "kill")
    assert process.started(int(pid)) is not None
    with open(tmp_path / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.kill(int(pid), signal.SIGTERM)
    end = time.monotonic() + 10
    while process.started(int(pid)) is not None:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_beside_another_thread_there_is_none() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        assert process.fork("x", lambda _says: 0) is None
    finally:
        over.set()
        thread.join()
