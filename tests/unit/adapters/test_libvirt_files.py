"""libvirt's files as they are on a disk, good ones and what users may put in their place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvmnet.adapters import libvirt_files
from kvmnet.adapters.libvirt_files import Folders, system_folders
from kvmnet.adapters.virt_read import Kind, VirtRead
from kvmnet.model.state import Connection, Unread
from kvmnet.model.virt import Guest

GUEST = """<!-- WARNING: THIS IS AN AUTO-GENERATED FILE. -->
<domain type='kvm'><name>{name}</name><devices>
<interface type='network'><mac address='{mac}'/><source network='default'/></interface>
</devices></domain>"""
NETWORK = """<network><name>lan</name><bridge name='virbr3'/><mac address='{mac}'/></network>"""


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    found = system_folders(tmp_path)
    assert found.running_networks is not None
    for folder in (found.config / "networks", found.running_guests, found.running_networks):
        folder.mkdir(parents=True)
    return found


def macs(folders: Folders) -> list[str | None]:
    return [nic.mac for guest in libvirt_files.read(folders).guests for nic in guest.saved_nics]


def test_all_four_kinds_of_files_count(folders: Folders) -> None:
    (folders.config / "web.xml").write_text(GUEST.format(name="web", mac="52:54:00:00:00:01"))
    running = GUEST.format(name="db", mac="52:54:00:00:00:02").partition("-->")[2]
    (folders.running_guests / "db.xml").write_text(
        f"<domstatus state='running'>{running}</domstatus>"
    )
    (folders.config / "networks/lan.xml").write_text(NETWORK.format(mac="52:54:00:00:00:03"))
    assert folders.running_networks is not None
    network = NETWORK.format(mac="52:54:00:00:00:04")
    (folders.running_networks / "lan.xml").write_text(f"<networkstatus>{network}</networkstatus>")
    found = libvirt_files.read(folders)
    assert [x.name for x in found.guests] == ["web", "db"]
    assert macs(folders) == ["52:54:00:00:00:01", "52:54:00:00:00:02"]
    saved = [x.saved.bridge_mac for x in found.networks if x.saved]
    assert saved == ["52:54:00:00:00:03", "52:54:00:00:00:04"]
    assert found.unread == []
    assert str(folders.config / "web.xml") in found.guests[0].state


def test_nothing_there_is_no_gap(tmp_path: Path) -> None:
    found = libvirt_files.read(system_folders(tmp_path / "none"))
    assert (found.guests, found.networks, found.unread) == ([], [], [])


@pytest.mark.parametrize("text", ["", "nonsense", "<domain", "<network/>", "\x00\xff", "<a/>" * 9])
def test_a_file_of_nonsense_is_named_and_spoils_no_other(folders: Folders, text: str) -> None:
    (folders.config / "bad.xml").write_text(text, encoding="latin-1")
    (folders.config / "web.xml").write_text(GUEST.format(name="web", mac="52:54:00:00:00:01"))
    found = libvirt_files.read(folders)
    assert [x.what for x in found.unread] == [str(folders.config / "bad.xml")]
    assert macs(folders) == ["52:54:00:00:00:01"]


@pytest.mark.parametrize("kind", ["pipe", "device", "large", "folder", "loop"])
def test_what_is_no_plain_file_is_neither_waited_for_nor_read(folders: Folders, kind: str) -> None:
    bad = folders.config / "bad.xml"
    if kind == "pipe":
        os.mkfifo(bad)
    elif kind == "device":
        bad.symlink_to("/dev/zero")
    elif kind == "large":
        with bad.open("wb") as stream:
            stream.truncate(libvirt_files.LARGEST_FILE + 1)
    elif kind == "folder":
        bad.mkdir()
    else:
        bad.symlink_to(bad)
    found = libvirt_files.read(folders)
    assert [x.what for x in found.unread] == [str(bad)]


def test_a_file_of_another_kind_of_status_is_named(folders: Folders) -> None:
    (folders.running_guests / "x.xml").write_text("<domstatus/>")
    assert "has no <domain>" in libvirt_files.read(folders).unread[0].why


def test_a_session_is_known_by_its_own_socket_only() -> None:
    others = libvirt_files.other_session_folders()
    nobody = next(x for x in others if x.uri == "qemu:///session of nobody")
    assert nobody.is_of("qemu:///session?socket=/run/user/65534/libvirt/libvirt-sock")
    assert not nobody.is_of("qemu:///session?socket=/run/user/655345/libvirt/libvirt-sock")
    assert not nobody.is_of("qemu:///session")
    assert libvirt_files.own_session_folders().is_of("qemu:///session")


def test_a_definition_that_libvirt_does_not_know_is_named(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libvirt_files, "system_folders", lambda: folders)
    for name in ("known", "bad", "gone", "told"):
        (folders.config / f"{name}.xml").touch()
    (folders.config / "networks/bad.xml").touch()
    before = libvirt_files.listed()
    (folders.config / "gone.xml").unlink()
    (folders.config / "new.xml").touch()
    found = VirtRead(
        connections=[Connection(uri="qemu:///system", libvirt_version="9", hypervisor="QEMU")],
        guests=[Guest(connection="qemu:///system", name="known", uuid="u", state="shut off")],
        unread=[Unread(what="guest told", why="its XML is strange")],
    )
    lost = libvirt_files.not_taken(before, found, frozenset({Kind.GUESTS}))
    assert [x.what for x in lost] == ["guest bad"]
    assert str(folders.config / "bad.xml") in lost[0].why
    lost = libvirt_files.not_taken(before, found, frozenset({Kind.NETWORKS}))
    assert [x.what for x in lost] == ["network bad"]
    found.unread.append(Unread(what="libvirt guests", why="fell silent"))
    assert libvirt_files.not_taken(before, found, frozenset(Kind)) == []
    assert libvirt_files.not_taken(before, VirtRead(), frozenset(Kind)) == []
