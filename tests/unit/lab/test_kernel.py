"""Modules are ordered by what they depend on, whatever way they are packed."""

import lzma
from pathlib import Path

import pytest

from kvmnet.errors import Unavailable
from kvmnet.lab.kernel import Kernel, load_order


def module(depends: str) -> bytes:
    return b"\x7fELF...\0license=GPL\0depends=" + depends.encode() + b"\0retpoline=Y\0"


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    folder = tmp_path / "kernel/drivers"
    folder.mkdir(parents=True)
    (folder / "virtio_net.ko").write_bytes(module("net_failover,virtio"))
    (folder / "net_failover.ko.xz").write_bytes(lzma.compress(module("failover")))
    (folder / "failover.ko").write_bytes(module(""))
    (folder / "virtio-pci.ko").write_bytes(module("virtio"))
    (tmp_path / "modules.builtin").write_text("kernel/drivers/virtio/virtio.ko\n")
    return Kernel(version="6.1", image="/boot/vmlinuz", modules=str(tmp_path))


def test_dependencies_first_and_each_once(kernel: Kernel) -> None:
    names = [name for name, _ in load_order(kernel, ("virtio_pci", "virtio_net", "virtio_pci"))]
    assert names == ["virtio_pci", "failover", "net_failover", "virtio_net"]


def test_content_is_unpacked(kernel: Kernel) -> None:
    assert dict(load_order(kernel, ("net_failover",)))["net_failover"] == module("failover")


def test_a_module_that_is_not_there_is_named(kernel: Kernel) -> None:
    with pytest.raises(Unavailable, match="no module virtio_console"):
        load_order(kernel, ("virtio_console",))
