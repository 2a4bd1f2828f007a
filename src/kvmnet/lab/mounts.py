"""The lab's own file systems: called by the lab's init in its fresh mount namespace.

Everything that libvirt, the daemons and kvmnet write lands on tmpfs and vanishes with the lab.
The machine's /etc shows through an overlay, without what belongs to the machine's own network.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from kvmnet.adapters.run import run
from kvmnet.errors import CommandFailed
from kvmnet.lab import topology

_LIBVIRT_DIRS = ("/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt")

_MACHINES_OWN = (
    "libvirt", "network", "netplan", "NetworkManager", "systemd/network", "sysctl.d", "dnsmasq.d",
    "docker", "ufw", "firewalld", "dropbear",
)  # fmt: skip
"""Folders of /etc that describe the machine's network and guests: empty in the lab."""

_QEMU_CONF = """\
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
user = "root"
group = "root"
stdio_handler = "file"
"""

_LIBVIRTD_CONF = """\
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""


def make_private() -> None:
    """Give this mount namespace its own /proc, /sys, /run, /etc and state folders."""
    run(["mount", "--make-rprivate", "/"])
    run(["mount", "-t", "proc", "proc", "/proc"])
    run(["mount", "-t", "sysfs", "sysfs", "/sys"])
    run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"])
    for path in ("/run/lab", "/run/lock", topology.HOME):
        Path(path).mkdir(parents=True, exist_ok=True)
    Path("/run/lock").chmod(0o1777)
    for path in ("/etc", "/var/lib", "/var/log", "/var/cache"):
        _overlay(Path(path))
    for path in _LIBVIRT_DIRS:
        Path(path).mkdir(parents=True, exist_ok=True)
        run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path])
    _clean_etc()
    _libvirt_folders()


def _overlay(path: Path) -> None:
    """Make `path` writable without touching the machine's; copied where overlay can't be had."""
    base = Path("/run/lab/overlay") / path.name
    upper, work = base / "upper", base / "work"
    upper.mkdir(parents=True)
    work.mkdir()
    options = f"lowerdir={path},upperdir={upper},workdir={work}"
    try:
        run(["mount", "-t", "overlay", "overlay", "-o", options, str(path)])
    except CommandFailed:
        if path.name == "etc":  # small, and the only one that the lab reads
            run(["cp", "-a", f"{path}/.", str(upper)], timeout=30)
        run(["mount", "--bind", str(upper), str(path)])


def _clean_etc() -> None:
    etc = Path("/etc")
    for name in _MACHINES_OWN:
        folder = etc / name
        if folder.is_dir():
            shutil.rmtree(folder)
            folder.mkdir()
    for name in ("resolv.conf", "hosts", "hostname", "sysctl.conf"):
        with contextlib.suppress(FileNotFoundError):
            (etc / name).unlink()
        (etc / name).touch()
    _add_user(etc, topology.USER, topology.USER_ID, topology.USER_HOME, "/bin/sh")
    # libvirt's QEMU driver does not start without the user and group that its package was built
    # for; Debian adds them only together with libvirt's services.
    _add_user(etc, "libvirt-qemu", 64055, "/var/lib/libvirt", "/usr/sbin/nologin")
    _add_group(etc, "kvm", 64054)


def _add_user(etc: Path, name: str, number: int, home: str, shell: str) -> None:
    """Add a user with a group of its own, unless the machine has one of that name."""
    if not _has(etc / "passwd", name):
        _append(etc / "passwd", f"{name}:x:{number}:{number}::{home}:{shell}")
        _append(etc / "shadow", f"{name}:*:19000:0:99999:7:::")
    _add_group(etc, name, number)


def _add_group(etc: Path, name: str, number: int) -> None:
    if not _has(etc / "group", name):
        _append(etc / "group", f"{name}:x:{number}:")


def _has(file: Path, name: str) -> bool:
    return any(line.startswith(f"{name}:") for line in file.read_text().splitlines())


def _append(file: Path, line: str) -> None:
    with file.open("a") as stream:
        stream.write(line + "\n")


def _libvirt_folders() -> None:
    etc = Path("/etc/libvirt")
    etc.mkdir(exist_ok=True)
    (etc / "qemu.conf").write_text(_QEMU_CONF)
    (etc / "libvirtd.conf").write_text(_LIBVIRTD_CONF)
    for folder in ("images", "dnsmasq", "qemu", "network", "boot"):
        Path("/var/lib/libvirt", folder).mkdir()
    Path("/var/log/libvirt/qemu").mkdir()
