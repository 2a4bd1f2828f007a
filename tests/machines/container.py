"""Machines of the first tier: Debian with systemd in systemd-nspawn, in a network namespace.

Starts in about a second. It shares this machine's kernel, and there is no udev: nothing that holds
here about MAC addresses says anything about a real host; for that there are virtual machines.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from machines import images, lan
from machines.lan import FOLDER, children
from machines.machine import RUN_S, Done, Machine, configuration

BOOT_S = 120.0
STOP_S = 60.0
CGROUPS = Path("/sys/fs/cgroup")
_IN_CGROUP = 'for g in $0; do mkdir -p "$g" && echo 0 >"$g/cgroup.procs" || exit 1; done; exec "$@"'
_PATH = "PATH=/usr/local/lib/stub:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Container(Machine):
    """A container, running when it is made."""

    def __init__(
        self, manager: str, config: str = "static", *, nics: int = 1, more: Sequence[str] = ()
    ) -> None:
        super().__init__(manager, config)
        self.nics = nics
        root = images.tree(manager, more)
        self.lan = lan.Lan(ipv6=config == "dual")
        self._cgroup = f"kvmnet-machine-{os.getpid()}-{self.lan.pid}"
        self._init = 0
        self._nspawn: subprocess.Popen[bytes] | None = None
        try:
            self._build(root)
            self._boot()
        except BaseException:
            self.close()
            raise

    def _build(self, root: Path) -> None:
        """The image's tree, kvmnet and the configuration, with a writable layer on top."""
        own = self.lan.folder / "own"
        images.stage(own / "opt/kvmnet")
        stub = own / "usr/local/lib/stub/udevadm"
        stub.parent.mkdir(parents=True)
        shutil.copy(images.FILES / "udevadm", stub)
        upper = self.lan.folder / "upper"
        for name, data, mode in configuration(self.manager, self.config):
            path = upper / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(mode)
        (self.lan.folder / "work").mkdir()
        (self.lan.folder / "tree").mkdir()
        options = f"lowerdir={FOLDER}/own:{root},upperdir={FOLDER}/upper,workdir={FOLDER}/work"
        self.lan.run(["mount", "-t", "overlay", "overlay", "-o", options, f"{FOLDER}/tree"])

    def _wire(self) -> None:
        """A network namespace whose NICs are cables into the LAN; the second one's hangs free."""
        self.lan.ip("netns add host")
        for number in range(self.nics):
            name, cable = f"enp0s{3 + number}", f"cable{number}"
            mac = (lan.MAC, lan.MAC2)[number]
            self.lan.ip(
                f"-n host link add {name} address {mac} type veth peer name {cable} netns 1"
            )
            self.lan.ip(f"link set {cable} {'master lan' if number == 0 else ''} up")

    def _boot(self) -> None:
        self._wire()
        spaces = self.lan.argv(["nsenter", "--net=/run/netns/host"])
        groups = [CGROUPS / x / self._cgroup for x in ("systemd", "unified")]
        options = ["systemd.unified_cgroup_hierarchy=0"]
        if (CGROUPS / "cgroup.controllers").exists():  # this machine has cgroups version 2 alone
            groups, options = [CGROUPS / self._cgroup], []
        places = " ".join(str(x) for x in groups if x.parent.exists())
        self._nspawn = subprocess.Popen(
            [*spaces, "sh", "-c", _IN_CGROUP, places, "systemd-nspawn", "--quiet",
             "--register=no", "--keep-unit", f"--directory={FOLDER}/tree",
             f"--machine={self.manager}", "--resolv-conf=off", "--console=read-only",
             "--capability=CAP_NET_ADMIN,CAP_NET_RAW", "--boot", *options],
            stdin=subprocess.DEVNULL, stdout=(self.lan.folder / "console").open("ab"),
            stderr=subprocess.STDOUT,
            env={**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"},
        )  # fmt: skip
        lan.wait_for("the container's systemd", self._find_init, BOOT_S)
        lan.wait_for("the container's system bus", self._has_bus, BOOT_S)
        self.settle()

    def _find_init(self) -> bool:
        """The container's process 1 is the child of nspawn, which is below the nsenters."""
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, (self.lan.folder / "console").read_text()[-2000:]
        waiting = [self._nspawn.pid]
        while waiting:
            pid = waiting.pop()
            with contextlib.suppress(OSError, IndexError):
                status = Path(f"/proc/{pid}/status").read_text()
                ids = status.split("NSpid:")[1].split("\n")[0].split()
                if ids[-1] == "1" and len(ids) >= 3:
                    self._init = pid
                    return True
            waiting += children(pid)
        return False

    def _has_bus(self) -> bool:
        return Path(f"/proc/{self._init}/root/run/systemd/private").exists()

    def run(
        self,
        words: Sequence[str],
        *,
        stdin: str = "",
        check: bool = True,
        timeout: float = RUN_S,
    ) -> Done:
        done = subprocess.run(
            ["nsenter", "-t", str(self._init), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--",
             "env", "-i", _PATH, "LANG=C.UTF-8", "HOME=/root", *words],
            input=stdin, capture_output=True, text=True, errors="surrogateescape",
            timeout=timeout, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, (
            f"{words} in {self.manager}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return Done(status=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def reboot(self) -> None:
        os.kill(self._init, signal.SIGRTMIN + 4)
        self._off()
        self._boot()

    def power_cut(self) -> None:
        os.kill(self._init, signal.SIGKILL)
        self._off()
        self._boot()

    def _off(self) -> None:
        assert self._nspawn is not None
        self._nspawn.wait(STOP_S)
        for number in range(self.nics):  # a dying TCP connection keeps the namespace for minutes
            self.lan.ip(f"link delete cable{number}")
        self.lan.ip("netns delete host")

    def close(self) -> None:
        self.lan.close()
        if self._nspawn is not None:
            self._nspawn.wait(STOP_S)
        end = time.monotonic() + 5
        while _remove_cgroups(self._cgroup) and time.monotonic() < end:
            time.sleep(0.05)


def _remove_cgroups(name: str) -> bool:
    """Remove the groups of that name with all below, and those of tests that were killed.

    Whether any of that name is left: a group stays busy until its last process is gone.
    """
    left = False
    for group in (*CGROUPS.glob("kvmnet-machine-*"), *CGROUPS.glob("*/kvmnet-machine-*")):
        if group.is_symlink():
            continue
        owner = group.name.split("-")[2]
        if group.name != name and Path("/proc", owner).exists():
            continue
        for path in (*sorted(group.rglob("*/"), reverse=True), group):
            with contextlib.suppress(OSError):
                path.rmdir()
        left = left or (group.name == name and group.exists())
    return left
