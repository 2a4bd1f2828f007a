"""The command line as a program: its streams, where its options may stand, what it never shows."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvmnet.cli.main import main, named_command

LIMIT_S = 30


def kvmnet(
    *words: str | bytes, cwd: Path | None = None, env: dict[str, str] | None = None,
    shell_redirect: str = "",
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run it; `shell_redirect` is put behind it, as `>&-` is."""
    command = ["sh", "-c", f'exec "$@" {shell_redirect}', "sh",
               sys.executable, "-P", "-m", "kvmnet", *words]  # fmt: skip
    return subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=cwd,
        env={**os.environ, **(env or {})},
    )  # fmt: skip


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["mac", "--help"], ["lab", "status"]])
def test_full_disk_under_the_output_is_told(words: list[str], unbuffered: str) -> None:
    done = kvmnet(*words, shell_redirect=">/dev/full", env={"PYTHONUNBUFFERED": unbuffered})
    assert done.returncode == 1
    assert done.stderr == (
        "kvmnet: the output could not be written\n  why: No space left on device\n"
    )


@pytest.mark.parametrize("redirect", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_do_not_crash_it(redirect: str) -> None:
    done = kvmnet("mac", "--prefix", "nonsense", shell_redirect=redirect)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_error_that_nobody_can_read_keeps_its_exit_status(unbuffered: str) -> None:
    done = kvmnet("mac", "--prefix", "01:00", shell_redirect="2>/dev/full",
                  env={"PYTHONUNBUFFERED": unbuffered})  # fmt: skip
    assert done.returncode == 2


def test_bytes_that_are_no_text_in_the_connection_are_wrong_usage() -> None:
    done = kvmnet("--connect", b"qemu:///system?\xff", "network", "start", "default")
    assert done.returncode == 2
    assert "is not a libvirt URI" in done.stderr


def test_module_in_the_current_folder_is_not_run_in_a_lab(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kvmnet.lab import enter

    seen: list[list[str]] = []

    def note(_name: str, _where: str, argv: list[str]) -> int:
        seen.append(argv)
        return 0

    monkeypatch.setattr(enter, "execute", note)
    assert enter.run_inside("any", ["status"]) == 0
    assert seen == [[sys.executable, "-P", "-m", "kvmnet", "status"]]


def test_words_after_the_command_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from kvmnet.cli import main
    from kvmnet.lab import enter

    seen: list[list[str]] = []

    def note(_name: str, _where: str, argv: list[str]) -> int:
        seen.append(argv)
        return 0

    monkeypatch.setattr(enter, "execute", note)
    assert main.main(["lab", "exec", "host", "echo", "--lab", "--lab=x"]) == 0
    assert seen == [["echo", "--lab", "--lab=x"]]


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        ([], None),
        (["--json"], None),
        (["status", "mac"], "status"),
        (["--connect", "up", "status"], "status"),
        (["--color", "never", "--quiet", "mac"], "mac"),
    ],
)
def test_command_is_found_between_options(argv: list[str], command: str | None) -> None:
    assert named_command(argv) == command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["doctor", "web", "db"],
            "doctor can not do anything with 'db'\n  why: it takes one guest",
        ),
        (["doctor", "web", "--frob"], "'--frob'"),
        (
            ["bridge", "show", "br0", "br1"],
            "bridge can not do anything with 'br1'\n  try: kvmnet b",
        ),
    ],
)
def test_words_too_many_are_told_in_the_commands_own(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    told = capsys.readouterr().err
    assert said in told and "usage:" not in told


def test_terminal_that_went_away_does_not_stop_an_undo(monkeypatch: pytest.MonkeyPatch) -> None:
    from argparse import Namespace

    from kvmnet.cli import output

    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    output.say(Namespace(), "undoing: stop network default ...")


def test_text_that_the_locale_has_no_letters_for_is_escaped() -> None:
    code = "from kvmnet.cli import main; main._have_streams(); print('n\\u00e4chster Gast')"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=LIMIT_S,
        check=True, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.stdout == "n\\xe4chster Gast\n"


@pytest.mark.parametrize("ignored", ["", "trap '' INT;"])  # as in a shell's background job
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("place", ["callback", "__del__"])
def test_a_signal_where_nothing_can_be_raised_is_not_lost(
    place: str, number: str, ignored: str
) -> None:
    script = (
        "import signal, sys, threading, weakref\n"
        "from kvmnet.cli import main\n"
        "place, number = sys.argv[1], signal.Signals[sys.argv[2]]\n"
        "if sys.argv[3] == '': signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Met:\n"
        "    def __del__(self):\n"
        "        if place == '__del__': signal.raise_signal(number)\n"
        "def callback(_):\n"
        "    if place == 'callback': signal.raise_signal(number)\n"
        "def command(words):\n"
        "    met = Met()\n"
        "    watched = weakref.ref(met, callback)\n"
        "    del met\n"
        "    if signal.getsignal(number) is signal.SIG_IGN: return 0\n"
        "    threading.Event().wait()  # a wait that only a signal to the process ends\n"
        "main._run = command\n"
        "main.run()\n"
    )
    done = subprocess.run(
        ["sh", "-c", f'{ignored} exec "$@"', "sh", sys.executable, "-P", "-c", script,
         place, number, ignored], capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    if ignored and number == "SIGINT":
        assert (done.returncode, done.stderr) == (0, "")
        return
    assert done.returncode == 130
    assert done.stderr.startswith("kvmnet: stopped by the user") and "Trace" not in done.stderr


def test_another_failure_where_nothing_can_be_raised_is_still_told() -> None:
    script = (
        "from kvmnet.cli import main\n"
        "class Met:\n"
        "    def __del__(self): raise ValueError('a fault of ours')\n"
        "main._run = lambda words: Met() and 0\n"
        "main.run()\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True,
                          timeout=LIMIT_S, check=False)  # fmt: skip
    assert done.returncode == 0
    assert "a fault of ours" in done.stderr
