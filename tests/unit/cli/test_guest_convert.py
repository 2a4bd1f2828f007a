"""`kvmnet guest convert`: files, what is printed where, what is never touched."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import sys
from pathlib import Path

import jsonschema
import pytest

from kvmnet.adapters import domain_files
from kvmnet.adapters.libvirt import knows_passt
from kvmnet.cli.main import main

ROOT = Path(__file__).parents[3]
DOMAINS = ROOT / "tests/unit/formats/domains"
STOCK = (DOMAINS / "stock/domain.xml").read_bytes()
ON_BRIDGE = STOCK.replace(b"type='network'", b"type='bridge'").replace(
    b"network='default'", b"bridge='br0'"
)
SECRET = "geheim"


@pytest.fixture
def web(tmp_path: Path) -> Path:
    path = tmp_path / "web.xml"
    path.write_bytes(STOCK)
    path.chmod(0o640)
    return path


def convert(*words: str | Path) -> int:
    return main(["guest", "convert", *map(str, words)])


def test_the_definition_is_printed_and_what_changed_is_said(
    web: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert convert(web, "--to", "bridge:br0") == 0
    told = capfdbinary.readouterr()
    assert told.out == ON_BRIDGE
    assert told.err == b"kvmnet: NIC 1 (52:54:00:6c:3c:01): network:default becomes bridge:br0\n"
    assert web.read_bytes() == STOCK


@pytest.mark.parametrize("name", ["utf-16", "latin-1", "crlf", "utf-8-bom", "one-line"])
def test_bytes_come_out_as_they_went_in(
    name: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = DOMAINS / name / "domain.xml"
    assert convert(path, "--to", "network:lan", "--nic", "1") == 0
    once = capfdbinary.readouterr().out
    assert once != path.read_bytes()
    assert convert(path, "--to", "user", "--from", "user", "--nic", "all") in {0, 1}


def test_a_pipe(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(STOCK)))
    assert convert("-", "--to", "bridge:br0", "-o", "-", "--quiet") == 0
    assert capfdbinary.readouterr() == (ON_BRIDGE, b"")


def test_in_place_keeps_mode_and_a_backup_each_time(
    web: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (web.parent / "web.xml.bak").write_text("older")
    assert convert(web, "--to", "bridge:br0", "--in-place") == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert f"{web} is changed; the old one is {web}.bak.1" in told.err
    assert web.read_bytes() == ON_BRIDGE
    assert stat.S_IMODE(web.stat().st_mode) == 0o640
    assert (web.parent / "web.xml.bak").read_text() == "older"
    backup = web.parent / "web.xml.bak.1"
    assert backup.read_bytes() == STOCK and stat.S_IMODE(backup.stat().st_mode) == 0o640
    assert not backup.samefile(web)


def test_nothing_to_do_writes_nothing(web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = web.stat()
    assert convert(web, "--to", "network:default", "--in-place") == 0
    assert "is on network:default already" in capsys.readouterr().err
    after = web.stat()  # it was read: its st_atime may be another
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino, before.st_mtime_ns, before.st_ctime_ns,
    )  # fmt: skip
    assert [x.name for x in web.parent.iterdir()] == ["web.xml"]


def test_in_place_keeps_the_owner(web: Path) -> None:
    # Only root can give files away; others at least keep what is theirs.
    owner = (1234, 2345) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    os.chown(web, *owner)
    assert convert(web, "--to", "bridge:br0", "--in-place", "--quiet") == 0
    for path in (web, web.parent / "web.xml.bak"):
        assert (path.stat().st_uid, path.stat().st_gid) == owner


def test_in_place_through_a_link_changes_the_file_and_keeps_the_link(web: Path) -> None:
    link = web.parent / "autostart.xml"
    link.symlink_to("web.xml")
    assert convert(link, "--to", "bridge:br0", "--in-place", "--quiet") == 0
    assert link.is_symlink() and web.read_bytes() == ON_BRIDGE


def test_a_full_disk_leaves_all_as_it_was(
    web: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert convert(web, "--to", "bridge:br0", "--in-place") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert web.read_bytes() == STOCK
    assert [x.name for x in web.parent.iterdir()] == ["web.xml"]


def test_a_file_that_somebody_else_changed_is_left_alone(web: Path) -> None:
    file = domain_files.read_file(web)
    web.write_bytes(STOCK + b"\n")
    with pytest.raises(domain_files.Refused, match="changed by somebody else"):
        domain_files.replace(file, ON_BRIDGE)
    assert web.read_bytes() == STOCK + b"\n"


def test_where_there_are_no_links_the_backup_is_a_copy(
    web: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", none)
    assert convert(web, "--to", "bridge:br0", "--in-place", "--quiet") == 0
    backup = web.parent / "web.xml.bak"
    assert backup.read_bytes() == STOCK and stat.S_IMODE(backup.stat().st_mode) == 0o640


def test_out_makes_a_file_as_private_as_the_one_read(web: Path) -> None:
    out = web.parent / "out.xml"
    for _ in range(2):  # the second time there is nothing to do
        assert convert(web, "--to", "bridge:br0", "-o", out, "--quiet") == 0
        assert out.read_bytes() == ON_BRIDGE and stat.S_IMODE(out.stat().st_mode) == 0o640
    assert sorted(x.name for x in web.parent.iterdir()) == ["out.xml", "web.xml"]
    assert convert(web, "--to", "bridge:br1", "-o", out, "--quiet") == 0
    assert (web.parent / "out.xml.bak").read_bytes() == ON_BRIDGE


def test_out_goes_to_ordinary_files_only(web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link, fifo = web.parent / "link", web.parent / "fifo"
    link.symlink_to("elsewhere")
    os.mkfifo(fifo)
    for out, said in (
        (link, "is a symbolic link"), (fifo, "is not an ordinary file"),
        (web.parent, "is not an ordinary file"), ("/dev/null", "is not an ordinary file"),
        (web, "is the file that is read"), ("", "an empty name"),
    ):  # fmt: skip
        assert convert(web, "--to", "bridge:br0", "-o", out) == 2
        assert said in capsys.readouterr().err
    assert convert(web, "--to", "bridge:br0", "-o", web.parent / "none/x.xml") == 1
    assert web.read_bytes() == STOCK and not (web.parent / "elsewhere").exists()


def test_what_can_not_be_read(web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(web.parent / "fifo")
    (web.parent / "loop").symlink_to("loop")
    for name, status in (
        (web.parent / "none", 1), (web.parent, 2), (web.parent / "fifo", 2), ("/dev/zero", 2),
        (web.parent / "loop", 1), ("", 2), ("a\0b", 1),
    ):  # fmt: skip
        assert convert(name, "--to", "bridge:br0") == status, name
        assert capsys.readouterr().err.startswith("kvmnet: ")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--to", "bridge:"], 2),
        (["--to", "bridge:br0", "--nic", "eth0"], 2),
        (["--to", "bridge:br0", "--nic", "2"], 1),
        (["--to", "bridge:br0", "--from", "bridge:br9"], 1),
        (["--to", "bridge:br0", "--mac", "no"], 2),
    ],
)
def test_wrong_words_change_nothing(words: list[str], status: int, web: Path) -> None:
    assert convert(web, *words, "--in-place") == status
    assert [x.name for x in web.parent.iterdir()] == ["web.xml"]


@pytest.mark.parametrize("name", ["stock", "one-line", "every-option", "crlf", "decoys", "tabs"])
def test_patch_makes_of_the_diff_what_convert_makes(
    name: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = tmp_path / "g.xml"
    path.write_bytes((DOMAINS / name / "domain.xml").read_bytes())
    words = [path, "--to", "direct:eth1", "--nic", "all", "--quiet"]
    assert convert(*words, "--diff") == 0
    diff = capfdbinary.readouterr().out
    assert SECRET.encode() not in diff
    assert convert(*words) == 0
    wanted = capfdbinary.readouterr().out
    if "…".encode() in diff:
        assert name == "one-line"
        return
    assert patched(path.read_bytes(), diff) == wanted


def patched(old: bytes, diff: bytes) -> bytes:
    """What patch(1) makes of it: each hunk at its very line, each line of it as it is there."""
    lines, out, place = old.split(b"\n"), [], 0
    for line in diff.split(b"\n")[2:-1]:
        if line.startswith(b"@@"):
            begin, new_begin = re.findall(rb"[-+](\d+)", line)
            out += lines[place : int(begin) - 1]
            place = int(begin) - 1
            assert len(out) == int(new_begin) - 1
        elif line.startswith(b"+"):
            out.append(line[1:])
        elif not line.startswith(b"\\"):
            assert lines[place] == line[1:]
            place += 1
            out += [line[1:]] if line.startswith(b" ") else []
    return b"\n".join([*out, *lines[place:]])


def test_the_diff_shows_no_other_part(web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret_beside = STOCK.replace(b"    <interface ", b"<graphics passwd='geheim'/> <interface ")
    web.write_bytes(secret_beside)
    assert convert(web, "--to", "user:slirp", "--diff", "--mac", "new") == 0
    diff = capsys.readouterr().out
    assert SECRET not in diff and "graphics" not in diff
    assert "-      <source network='default'/>" in diff
    assert "-…<interface type='network'>" in diff


def test_the_diff_is_safe_on_a_terminal(web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    web.write_bytes(STOCK.replace(b"<source", "<!-- \x9b31m\u202e -->\n\t<source".encode()))
    assert convert(web, "--to", "bridge:br0", "--diff", "--color", "always") == 0
    diff = capsys.readouterr().out
    assert "\x9b" not in diff and "\u202e" not in diff and "\\x9b31m\\u202e" in diff
    assert "\x1b[31m-\t<source" in diff


def test_json_says_the_same(web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads((ROOT / "docs/schema/kvmnet.guest-convert.json").read_text())
    assert convert(web, "--to", "bridge:br0", "--mac", "52:54:00:00:00:01", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, schema)
    assert (document["guest"], document["changed"]) == ("web", True)
    assert document["xml"].encode() == ON_BRIDGE.replace(b"52:54:00:6c:3c:01", b"52:54:00:00:00:01")
    [nic] = document["nics"]
    assert (nic["mac"], nic["new_mac"]) == ("52:54:00:6c:3c:01", "52:54:00:00:00:01")
    assert convert(web, "--to", "direct:eth0", "--json", "--diff", "--in-place") == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, schema)
    assert document["xml"] is None and "+++" in document["diff"]
    assert (document["written"], document["backup"]) == (str(web), f"{web}.bak")


def test_new_addresses_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = DOMAINS / "sockets/domain.xml"
    assert convert(path, "--to", "network:lan", "--nic", "all", "--mac", "new", "--json") == 0
    nics = json.loads(capsys.readouterr().out)["nics"]
    macs = {x["new_mac"] for x in nics}
    assert len(macs) == len(nics) and all(x.startswith("52:54:00:") for x in macs)


def test_libvirts_own_files_are_told_apart(
    web: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = web.parent / "home"
    own = home / ".config/libvirt/qemu/web.xml"
    own.parent.mkdir(parents=True)
    own.write_bytes(STOCK)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert convert(own, "--to", "bridge:br0", "--in-place") == 0
    told = capsys.readouterr().err
    assert f"libvirtd does not see this edit of {own}" in told
    assert "kvmnet guest move web --to bridge:br0, or virsh edit web" in told
    assert convert(web, "--to", "bridge:br0", "--in-place") == 0
    assert "libvirtd" not in capsys.readouterr().err
    for name, kind in (
        ("/etc/libvirt/qemu/web.xml", "definition"), ("/run/libvirt/qemu/web.xml", "running"),
        ("/var/lib/libvirt/qemu/save/x", "running"), ("/etc/libvirtish/web.xml", None),
    ):  # fmt: skip
        assert domain_files.owner(Path(name)) == kind


def test_a_users_network_is_passt_where_libvirt_has_it(
    web: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(web, "--to", "user", "--json") == 0
    [nic] = json.loads(capsys.readouterr().out)["nics"]
    assert nic["after"] == ("user:slirp" if knows_passt() is False else "user:passt")
