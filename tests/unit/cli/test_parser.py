"""Help is as wide as argparse itself would have it."""

import argparse
import os
import pty
import sys
import termios
from typing import Any

import pytest

from kvmnet.cli import parser

WORDS = "words " * 60


def helped(kind: type[argparse.ArgumentParser], **options: Any) -> str:
    one = kind(prog="p", description=WORDS, **options)
    one.add_argument("--option", help=WORDS)
    return one.format_help()


@pytest.fixture(autouse=True)
def fresh() -> None:
    parser._columns.cache_clear()


@pytest.mark.parametrize("columns", ["40", "80", "200", "0", "-3", "wide", ""])
def test_columns_decides(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert helped(parser.Parser) == helped(argparse.ArgumentParser)
    raw = helped(parser.Parser, formatter_class=parser.RawFormatter)
    assert raw == helped(argparse.ArgumentParser,
                         formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip


def test_the_terminal_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (25, 57))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "__stdout__", terminal)
        text = helped(parser.Parser)
        assert text == helped(argparse.ArgumentParser)
        assert 50 < max(map(len, text.splitlines())) <= 55
    os.close(ours)


@pytest.mark.parametrize("stream", [None, "closed"])
def test_without_a_terminal_it_is_eighty(
    stream: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    gone = open(os.devnull)  # noqa: SIM115 (it is to be closed)
    gone.close()
    monkeypatch.setattr(sys, "__stdout__", gone if stream else None)
    assert helped(parser.Parser) == helped(argparse.ArgumentParser)
    assert parser._columns() == 80
