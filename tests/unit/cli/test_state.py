"""Where a State may be saved to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kvmnet.cli.main import main


def test_device_is_never_replaced_by_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to(pipe)
    to_file = tmp_path / "stdout"  # as /dev/stdout is where the output goes to a file
    (tmp_path / "file").touch()
    to_file.symlink_to(tmp_path / "file")
    for place in (pipe, link, to_file):
        assert main(["state", "save", str(place)]) == 2
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink() and to_file.is_symlink()
    assert "not an ordinary file" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["state", "save", ""], ["status", "--state", ""]])
def test_empty_file_name_is_wrong_usage(words: list[str]) -> None:
    assert main(words) == 2


def test_folder_is_wrong_usage(tmp_path: Path) -> None:
    assert main(["state", "save", str(tmp_path)]) == 2
    assert main(["status", "--state", str(tmp_path)]) == 2
