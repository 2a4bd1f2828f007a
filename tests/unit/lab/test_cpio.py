"""Initramfs archives, byte by byte; that cpio(1) reads them is in tests/lab/test_image.py."""

import pytest

from kvmnet.lab import cpio

ENTRIES = (
    cpio.folder("root", 0o700),
    cpio.file("etc/hosts", b"127.0.0.1 localhost\n"),
    cpio.file("bin/odd", b"abc", 0o755),
    cpio.link("bin/sh", "odd"),
    cpio.file("empty", b""),
)


def test_every_part_is_aligned_and_the_end_is_marked() -> None:
    raw = cpio.archive(ENTRIES)
    assert len(raw) % 4 == 0
    assert raw.startswith(b"070701")
    assert b"TRAILER!!!\0" in raw[-128:]


def test_missing_folders_come_before_their_files_and_only_once() -> None:
    raw = cpio.archive((cpio.file("a/b/c", b""), cpio.file("a/b/d", b""), cpio.folder("a/b")))
    names = [x.split(b"\0")[0][104:] for x in raw.split(b"070701")[1:]]
    assert names == [b"a", b"a/b", b"a/b/c", b"a/b/d", b"TRAILER!!!"]


@pytest.mark.parametrize("major,minor", [(5, 1), (1, 3)])
def test_devices(major: int, minor: int) -> None:
    raw = cpio.archive((cpio.device("console", major, minor),))
    assert raw[6 + 9 * 8 : 6 + 11 * 8] == b"%08X%08X" % (major, minor)
