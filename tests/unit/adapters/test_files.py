import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kvmnet.adapters import files
from kvmnet.errors import Failed, NotFound, Unavailable


def test_an_existing_file_keeps_its_mode_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text("old")
    path.chmod(0o640)
    files.write_atomic(path, "new\n", mode=0o600)
    assert path.read_text() == "new\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["a.conf"]


def test_a_new_file_gets_the_mode_asked_for(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "a", "x", mode=0o600)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "a"
    with pytest.raises(Failed, match="could not be written"):
        files.write_atomic(path, "x")
    target = tmp_path / "b"
    target.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        files.write_atomic(target, "\ud800\ud800")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["b"]


def test_bytes_that_are_no_text_survive(tmp_path: Path) -> None:
    path = tmp_path / "latin1"
    path.write_bytes(b"# caf\xe9\n")
    files.write_atomic(path, files.read_text(path))
    assert path.read_bytes() == b"# caf\xe9\n"


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        files.read_text(tmp_path / "no")
    with pytest.raises(Unavailable):
        files.read_text(tmp_path)
    assert files.read_optional(tmp_path / "no") is None


def test_a_file_that_says_so_already_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a"
    files.ensure(path, "x")
    before = path.stat().st_ino
    files.ensure(path, "x")
    assert path.stat().st_ino == before
    files.ensure(path, "y")
    assert path.read_text() == "y"


def test_what_is_not_there_is_removed_without_touching_its_folder(tmp_path: Path) -> None:
    files.remove(tmp_path / "no folder" / "a")
    files.remove(tmp_path / "a")
    (tmp_path / "dangling").symlink_to("/nowhere")
    files.remove(tmp_path / "dangling")
    assert os.listdir(tmp_path) == []


def test_ends_of_line_and_foreign_bytes_come_back_as_they_were(tmp_path: Path) -> None:
    raw = b"auto eth0\r\niface eth0 inet dhcp\r\n# caf\xe9\nlast"
    source, copy = tmp_path / "interfaces", tmp_path / "copy"
    source.write_bytes(raw)
    files.put(copy, files.read_text(source), mode=0o600, owner=(os.getuid(), os.getgid()))
    assert copy.read_bytes() == raw


def test_put_writes_what_a_link_names_and_leaves_the_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    link.symlink_to("real")
    files.put(link, "new", mode=0o640, owner=(os.getuid(), os.getgid()))
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("undo", ["put", "remove"])
def test_what_a_killed_writer_left_goes_with_the_undo(tmp_path: Path, undo: str) -> None:
    path, other = tmp_path / "lan.conf", tmp_path / ".lan.conf.swp"
    path.write_text("old\n")
    other.write_text("an editor's")
    script = (
        "import os, signal, sys, pathlib\n"
        "from kvmnet.adapters import files\n"
        "os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_atomic(pathlib.Path(sys.argv[1]), 'a secret')\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(path)], timeout=20, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 3 and path.read_text() == "old\n"
    if undo == "put":
        there = path.stat()
        mode, owner = there.st_mode & 0o7777, (there.st_uid, there.st_gid)
        files.put(path, "old\n", mode=mode, owner=owner)
        assert set(tmp_path.iterdir()) == {path, other}
    else:
        files.remove(path)
        assert set(tmp_path.iterdir()) == {other}
