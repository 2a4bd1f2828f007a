"""Parts of guests' images, read by the programs that they are made for."""

import stat
import subprocess
from pathlib import Path

from kvmnet.lab import cpio
from kvmnet.lab.kernel import Kernel, load_order

ENTRIES = (
    cpio.folder("root", 0o700),
    cpio.file("etc/hosts", b"127.0.0.1 localhost\n"),
    cpio.file("bin/odd", b"abc", 0o755),
    cpio.link("bin/sh", "odd"),
    cpio.file("empty", b""),
)


def test_round_trip_through_cpio(tmp_path: Path) -> None:
    subprocess.run(
        ["busybox", "cpio", "-idm"],
        input=cpio.archive(ENTRIES), cwd=tmp_path, check=True, timeout=10,
    )  # fmt: skip
    assert (tmp_path / "etc/hosts").read_bytes() == b"127.0.0.1 localhost\n"
    assert stat.S_IMODE((tmp_path / "root").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "bin/odd").stat().st_mode) == 0o755
    assert (tmp_path / "bin/sh").readlink() == Path("odd")
    assert (tmp_path / "empty").read_bytes() == b""


def test_a_module_packed_by_zstd(tmp_path: Path) -> None:
    content = b"\x7fELF...\0license=GPL\0depends=\0retpoline=Y\0"
    plain = tmp_path / "failover.ko"
    plain.write_bytes(content)
    subprocess.run(["zstd", "-q", "--rm", str(plain)], check=True, timeout=10)
    assert not plain.exists()
    kernel = Kernel(version="6.1", image="/boot/vmlinuz", modules=str(tmp_path))
    assert dict(load_order(kernel, ("failover",))) == {"failover": content}
