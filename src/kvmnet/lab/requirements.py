"""What the lab needs of the machine, and which Debian package brings it."""

from __future__ import annotations

import glob
import platform
import shutil

from msgspec import Struct

from kvmnet.adapters.run import environment, run
from kvmnet.errors import Refused, Unavailable


class Requirement(Struct, frozen=True, kw_only=True):
    """A program (a bare name) or a file (an absolute path, may be a pattern), and its package."""

    what: str
    package: str


_QEMU = {
    "x86_64": ("qemu-system-x86_64", "qemu-system-x86"),
    "aarch64": ("qemu-system-aarch64", "qemu-system-arm"),
}

_DRIVERS = "/usr/lib*/**/libvirt/connection-driver"


def requirements() -> tuple[Requirement, ...]:
    """Everything that `kvmnet lab up` and guests in it need, for this machine's architecture."""
    path = environment()["PATH"]
    # Newer distributions have split the network driver off: it is missing where libvirtd is there.
    split = shutil.which("libvirtd", path=path) is not None
    network_package = "libvirt-daemon-driver-network" if split else "libvirt-daemon"
    qemu, qemu_package = _QEMU.get(platform.machine(), ("qemu-system", "qemu-system"))
    rows = (
        ("ip", "iproute2"),
        ("unshare", "util-linux"),
        ("nsenter", "util-linux"),
        ("mount", "mount"),
        ("timeout", "coreutils"),
        ("ldd", "libc-bin"),
        ("nft", "nftables"),
        ("iptables", "iptables"),
        ("dnsmasq", "dnsmasq-base"),
        ("busybox", "busybox-static"),
        ("libvirtd", "libvirt-daemon"),
        (f"{_DRIVERS}/libvirt_driver_network.so", network_package),
        (f"{_DRIVERS}/libvirt_driver_qemu.so", "libvirt-daemon-driver-qemu"),
        ("virsh", "libvirt-clients"),
        ("/usr/lib/python3*/dist-packages/libvirt.py", "python3-libvirt"),
        (qemu, qemu_package),
        ("zstd", "zstd"),
        ("dpkg-deb", "dpkg"),
        ("ssh-keygen", "openssh-client"),
        ("dropbear", "dropbear-bin"),
        ("dropbearkey", "dropbear-bin"),
        ("ssh", "openssh-client"),
        ("/usr/lib/sftp-server", "openssh-sftp-server"),
    )
    return tuple(Requirement(what=what, package=package) for what, package in rows)


def missing() -> tuple[Requirement, ...]:
    """The requirements that this machine does not meet."""
    path = environment()["PATH"]
    return tuple(x for x in requirements() if not _is_there(x.what, path))


def _is_there(what: str, path: str) -> bool:
    if what.startswith("/"):  # libraries are below a folder of their architecture, or not
        return any(
            glob.glob(pattern)
            for pattern in (what, what.replace("**", "*"), what.replace("**/", ""))
        )
    return shutil.which(what, path=path) is not None


def check() -> None:
    """Raise `Unavailable` naming everything that is missing, with the line that installs it."""
    gaps = missing()
    if not gaps:
        return
    packages = " ".join(sorted({x.package for x in gaps}))
    raise Unavailable(
        "the lab can not start on this machine",
        why="missing: " + ", ".join(x.what for x in gaps),
        hint=f"apt-get install --no-install-recommends {packages}",
    )


def check_no_chroot() -> None:
    """Raise `Refused` inside a chroot: the lab would get out of it.

    The lab's programs are started by entering its mount namespace, and setns(2) sets the root to
    that of the namespace: in a chroot that is the machine's, whose libvirt is not to be touched.
    """
    identity = ["stat", "--dereference", "--format=%d:%i", "/"]
    outside = run(["nsenter", "--mount=/proc/self/ns/mnt", *identity]).stdout
    if outside != run(identity).stdout:
        raise Refused(
            "the lab can not start in a chroot",
            why="its programs would run on the machine outside of it",
            hint="start it on the machine itself, or in a container with a root of its own",
        )
