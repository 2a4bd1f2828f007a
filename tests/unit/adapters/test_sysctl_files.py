"""Files of sysctl.d(5) in the order in which they are read at boot."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmnet.adapters.sysctl_files import read_sysctl_files

FORWARD = "net.ipv4.ip_forward"


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def last_word(root: Path, name: str = FORWARD) -> tuple[str, str]:
    (found,) = [x for x in read_sysctl_files(root) if x.name == name]
    return found.path, found.value


@pytest.mark.parametrize("systemd", [True, False])
def test_files_by_name_whatever_their_folder(tmp_path: Path, systemd: bool) -> None:
    if systemd:
        (tmp_path / "run/systemd/system").mkdir(parents=True)
    write(tmp_path, "usr/lib/sysctl.d/90-x.conf", f"{FORWARD} = 0\n")
    write(tmp_path, "etc/sysctl.d/10-y.conf", f"{FORWARD} = 1\n")
    assert last_word(tmp_path) == ("/usr/lib/sysctl.d/90-x.conf", "0")
    write(tmp_path, "etc/sysctl.d/90-x.conf", "")  # hides the other of its name
    assert last_word(tmp_path) == ("/etc/sysctl.d/10-y.conf", "1")


def test_systemd_reads_sysctl_conf_where_a_link_leads_to_it(tmp_path: Path) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    write(tmp_path, "etc/sysctl.conf", f"{FORWARD} = 0\n")
    write(tmp_path, "etc/sysctl.d/95-kvmnet-x.conf", f"{FORWARD} = 1\n")
    assert last_word(tmp_path) == ("/etc/sysctl.d/95-kvmnet-x.conf", "1")
    (tmp_path / "etc/sysctl.d/99-sysctl.conf").symlink_to("../sysctl.conf")
    assert last_word(tmp_path) == ("/etc/sysctl.d/99-sysctl.conf", "0")
    write(tmp_path, "etc/sysctl.d/zz-last.conf", f"{FORWARD} = 1\n")
    assert last_word(tmp_path) == ("/etc/sysctl.d/zz-last.conf", "1")


def test_procps_reads_sysctl_conf_last(tmp_path: Path) -> None:
    write(tmp_path, "etc/sysctl.conf", f"{FORWARD} = 0\n")
    write(tmp_path, "etc/sysctl.d/zz-last.conf", f"{FORWARD} = 1\n")
    assert last_word(tmp_path) == ("/etc/sysctl.conf", "0")


def test_what_is_set_last_comes_last(tmp_path: Path) -> None:
    """Two names of one setting: the later file decides."""
    write(tmp_path, "etc/sysctl.d/10-a.conf", f"{FORWARD} = 1\n")
    write(tmp_path, "etc/sysctl.d/99-b.conf", "net.ipv4.conf.all.forwarding = 0\n")
    assert read_sysctl_files(tmp_path)[-1].value == "0"
    write(tmp_path, "etc/sysctl.d/99-c.conf", f"{FORWARD} = 1\n")
    assert read_sysctl_files(tmp_path)[-1].name == FORWARD
