"""Machines of the second tier: Debian under QEMU, with Debian's kernel and udev.

TCG, since KVM can not be counted on. A machine boots once for each manager and configuration; what
it is then (disk and memory) is kept, and every test begins there. Tests ask for things over a
virtio port, so that a broken network breaks nothing else and no NIC is added. kvmnet comes on a
disk of its own, which is mounted after the memory was loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvmnet.adapters.run import run as run_here
from kvmnet.errors import TimedOut
from kvmnet.lab import cpio
from kvmnet.lab import kernel as kernels
from machines import images, lan
from machines.machine import RUN_S, Done, Machine, configuration

BOOT_S = 240.0
STOP_S = 120.0
ANSWER_S = 15.0
TRIES = 2
"""Boots that stall (TCG on a busy machine) are tried again; a failed assertion never is."""
KERNEL_OPTIONS = (
    "console=ttyS0 root=/dev/vda rw quiet loglevel=3 mitigations=off nokaslr random.trust_cpu=on "
    "no_timer_check tsc=reliable cryptomgr.notests panic=-1 net.ifnames=1 norandmaps"
)
"""norandmaps: TCG keeps what it has translated by its address. With libraries somewhere else in
each process it translates them anew for each: `ip link` took 0.09 s, and takes 0.02."""
BOOT_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
OWN_DISK_SIZE = "96M"
FSTAB = b"/dev/vdb /opt/kvmnet ext4 ro,nofail 0 0\n"
_ids = itertools.count(1)


class Qemu:
    """One QEMU process: from power on to power off. Runs in the LAN's namespaces."""

    def __init__(self, where: lan.Lan, folder: Path, argv: Sequence[str]) -> None:
        self._folder = folder
        self._log = folder / "qemu.log"
        self._answers: dict[int, dict[str, Any]] = {}
        self._came = threading.Condition()
        self._process = subprocess.Popen(
            where.argv(argv), stdin=subprocess.DEVNULL, stdout=self._log.open("ab"),
            stderr=subprocess.STDOUT, cwd="/",
        )  # fmt: skip
        self._control = self._connect("ctl.sock")
        self._qmp = self._connect("qmp.sock").makefile("rwb")
        self._qmp.readline()
        self.command("qmp_capabilities")
        threading.Thread(target=self._listen, daemon=True).start()

    def _connect(self, name: str) -> socket.socket:
        wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

        def there() -> bool:
            assert self._process.poll() is None, self._last_words()
            with contextlib.suppress(OSError):
                wire.connect(str(self._folder / name))
                return True
            return False

        lan.wait_for(f"QEMU's {name}", there, STOP_S)
        return wire

    def _last_words(self) -> str:
        serial = self._folder / "serial.log"
        console = serial.read_text(errors="replace") if serial.exists() else ""
        return f"QEMU ended: {self._log.read_text()[-1000:]}{console[-2000:]}"

    def command(self, execute: str, **arguments: str) -> Any:
        """One QMP command and its answer (QEMU's own reference: qemu-qmp-ref)."""
        request = {"execute": execute, "arguments": arguments}
        self._qmp.write(json.dumps(request).encode() + b"\n")
        self._qmp.flush()
        while line := self._qmp.readline():
            answer = json.loads(line)
            assert "error" not in answer, answer
            if "return" in answer:
                return answer["return"]
        raise AssertionError("QEMU closed its monitor")

    def monitor(self, line: str) -> str:
        """A command of the human monitor: savevm has no QMP command that is as short."""
        return str(self.command("human-monitor-command", **{"command-line": line}))

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request to the agent and wait for its answer."""
        number = next(_ids)
        data = json.dumps({**request, "id": number, "timeout": timeout}).encode() + b"\n"
        self._control.sendall(data)
        end = time.monotonic() + timeout + ANSWER_S
        with self._came:
            while number not in self._answers:
                left = end - time.monotonic()
                if left <= 0 or not self._came.wait(left):
                    raise TimedOut(f"the machine did not answer to {request['argv']}")
            return self._answers.pop(number)

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._control.makefile("rb") as lines:
            for line in lines:
                with contextlib.suppress(ValueError):
                    answer = json.loads(line)
                    with self._came:
                        self._answers[answer["id"]] = answer
                        self._came.notify_all()

    def wait_for_agent(self, timeout: float) -> None:
        """Ask until it answers: what is sent before the agent listens may be lost."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            assert self._process.poll() is None, self._last_words()
            with contextlib.suppress(TimedOut):
                self.ask_quickly()
                return
        raise TimedOut("the machine did not boot", why=f"it was given {timeout:g} seconds")

    def ask_quickly(self) -> None:
        number = next(_ids)
        request = {"id": number, "argv": ["true"]}
        self._control.sendall(json.dumps(request).encode() + b"\n")
        with self._came:
            if not self._came.wait_for(lambda: bool(self._answers), 1.0):
                raise TimedOut("no answer yet")
            self._answers.clear()

    def wait(self, timeout: float) -> None:
        self._process.wait(timeout)
        self._control.close()

    def kill(self) -> None:
        """As if the plug were pulled: what the guest had not written is gone."""
        for pid in lan.children(self._process.pid):  # QEMU; nsenter ends after it
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait(STOP_S)


class Vm(Machine):
    """A virtual machine, running and settled when it is made."""

    def __init__(
        self, manager: str, config: str = "static", *, kernel: str = "cloud", nics: int = 1
    ) -> None:
        super().__init__(manager, config)
        self.nics = nics
        self._qemu: Qemu | None = None
        self._kernel = images.cloud_kernel() if kernel == "cloud" else images.generic_kernel()
        self._base = images.disk(manager)
        self._initrd = _initrd(self._kernel, manager, config)
        self.folder = images.scratch()
        self.lan = lan.Lan(ipv6=config == "dual")
        try:
            booted = self._booted(kernel)
            for name in ("disk.qcow2", "initrd"):
                _copy(booted / name, self.folder / name)
            self.lan.restart_dhcp((booted / "leases").read_text())
            self._own_disk()
            self._power_on("-loadvm", "ready")
            self._resume()
        except BaseException:
            self.close()
            raise

    def _booted(self, kernel: str) -> Path:
        """A folder with this machine as it was when it had settled: disk, memory, leases."""
        version = run_here(["qemu-system-x86_64", "--version"]).stdout
        # The disk is a layer over the base, and fits that very one alone: one that is built anew
        # of the same recipe is another file system.
        base = f"{self._base.name} {self._base.stat().st_mtime_ns}"
        parts = (
            version, self._kernel.version, base, *self._argv(),
            hashlib.sha256(self._initrd).hexdigest(), _recipe_of_booting(), lan.recipe(),
        )  # fmt: skip
        parts = tuple(x.replace(str(self.folder), "FOLDER") for x in parts)
        name = f"booted-{kernel}-{self.manager}-{self.config}-{self.nics}"
        return images.kept(name, parts, self._boot_and_keep)

    def _boot_and_keep(self, target: Path) -> None:
        for tries_left in reversed(range(TRIES)):
            try:
                self._boot_first()
                break
            except TimedOut:
                self._cut()
                if not tries_left:
                    raise
        assert self._qemu is not None
        self.script("umount /opt/kvmnet; sync")
        said = self._qemu.monitor("savevm ready")
        assert not said, said
        leases = self.lan.leases()
        self._cut()
        target.mkdir()
        (target / "leases").write_text(leases)
        for name in ("disk.qcow2", "initrd"):
            os.rename(self.folder / name, target / name)

    def _boot_first(self) -> None:
        disk = self.folder / "disk.qcow2"
        disk.unlink(missing_ok=True)
        run_here(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(self._base),
                  str(disk)])  # fmt: skip
        (self.folder / "initrd").write_bytes(self._initrd)
        self._own_disk()
        self._power_on()
        self.settle(BOOT_S)

    def _own_disk(self) -> None:
        """kvmnet and its libraries as a file system, as they are now."""
        own = self.folder / "own"
        shutil.rmtree(own, ignore_errors=True)
        images.stage(own)
        run_here(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d", str(own),
                  str(self.folder / "own.ext4"), OWN_DISK_SIZE], timeout=300)  # fmt: skip
        shutil.rmtree(own)

    def _argv(self) -> list[str]:
        """QEMU's options; PCI addresses are fixed, so that NICs keep their names."""
        folder = self.folder
        argv = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
            "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-smp", "2",
            "-m", "512", "-no-reboot", "-kernel", self._kernel.image,
            "-initrd", f"{folder}/initrd", "-append", KERNEL_OPTIONS,
            "-drive", f"if=none,id=d0,file={folder}/disk.qcow2,format=qcow2,cache=unsafe",
            "-device", "virtio-blk-pci,drive=d0,addr=0x11",
            "-drive", f"if=none,id=d1,file={folder}/own.ext4,format=raw,readonly=on",
            "-device", "virtio-blk-pci,drive=d1,addr=0x14",
            "-device", "virtio-serial-pci,addr=0x12",
            "-chardev", f"socket,id=c0,path={folder}/ctl.sock,server=on,wait=off",
            "-device", "virtserialport,chardev=c0,name=ctl",
            "-object", "rng-random,id=r0,filename=/dev/urandom",
            "-device", "virtio-rng-pci,rng=r0,addr=0x13",
            "-serial", f"file:{folder}/serial.log",
            "-qmp", f"unix:{folder}/qmp.sock,server=on,wait=off",
        ]  # fmt: skip
        for number in range(self.nics):
            mac = (lan.MAC, lan.MAC2)[number]
            argv += [
                "-netdev", f"tap,id=n{number},ifname=cable{number},script=no,downscript=no",
                "-device", f"virtio-net-pci,netdev=n{number},mac={mac},addr={3 + number:#x}",
            ]  # fmt: skip
        return argv

    def _power_on(self, *options: str) -> None:
        for number in range(self.nics):
            self.lan.ip(f"tuntap add cable{number} mode tap")
            self.lan.ip(f"link set cable{number} {'master lan' if number == 0 else ''} up")
        for name in ("ctl.sock", "qmp.sock"):
            (self.folder / name).unlink(missing_ok=True)
        self._qemu = Qemu(self.lan, self.folder, [*self._argv(), *options])
        self._qemu.wait_for_agent(BOOT_S)

    def _power_off(self) -> None:
        for number in range(self.nics):
            self.lan.ip(f"tuntap del cable{number} mode tap")
        self._qemu = None

    def _resume(self) -> None:
        """What a loaded machine can't know: the time, and what lies on kvmnet's disk now."""
        self.script(
            f"date -s @{time.time():.3f} >/run/date; blockdev --flushbufs /dev/vdb; "
            "mount /opt/kvmnet"
        )
        self.wait_for_address(self.uplink)

    def run(
        self,
        words: Sequence[str],
        *,
        stdin: str = "",
        check: bool = True,
        timeout: float = RUN_S,
    ) -> Done:
        assert self._qemu is not None
        answer = self._qemu.ask({"argv": list(words), "stdin": stdin}, timeout)
        assert not check or answer["status"] == 0, (
            f"{words} in {self.manager}: {answer['status']}\n{answer['stdout']}{answer['stderr']}"
        )
        return Done(status=answer["status"], stdout=answer["stdout"], stderr=answer["stderr"])

    def reboot(self) -> None:
        assert self._qemu is not None
        self.run(["systemctl", "--no-block", "reboot"])
        self._qemu.wait(STOP_S)
        self._power_off()
        self._power_on()
        self.settle(BOOT_S)

    def power_cut(self) -> None:
        self._cut()
        self._power_on()
        self.settle(BOOT_S)

    def _cut(self) -> None:
        if self._qemu is not None:
            self._qemu.kill()
            self._power_off()

    def close(self) -> None:
        with contextlib.suppress(Exception):  # the LAN's end ends QEMU in any case
            if self._qemu is not None:
                self._qemu.kill()
        self.lan.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _recipe_of_booting() -> str:
    functions = (Vm._boot_and_keep, Vm._boot_first, Machine.settle)
    return "".join(map(inspect.getsource, functions))


def _copy(source: Path, target: Path) -> None:
    run_here(["cp", "--sparse=always", str(source), str(target)], timeout=300)


def _initrd(kernel: kernels.Kernel, manager: str, config: str) -> bytes:
    """Mounts the disk; the machine's configuration is in it and is put there the first time."""
    busybox = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
    modules = kernels.load_order(kernel, BOOT_MODULES)
    files = [("etc/fstab", FSTAB, 0o644), *configuration(manager, config)]
    entries = [
        cpio.file("init", (images.FILES / "vm-init.sh").read_bytes(), 0o755),
        cpio.file("bin/busybox", busybox, 0o755),
        cpio.device("dev/console", 5, 1),
        cpio.device("dev/null", 1, 3),
        *(cpio.file(f"modules/{name}.ko", data) for name, data in modules),
        cpio.file("modules/order", "".join(f"{name}.ko\n" for name, _ in modules).encode()),
        *(cpio.file(f"config/{name}", data, mode) for name, data, mode in files),
    ]
    return cpio.archive(entries)
