"""The LAN that a machine under test stands in: a switch, a router, DHCP, DNS, and who watches.

All of it is one process tree in namespaces of its own. When this process ends, however that is, the
kernel ends everything in it (QEMU, dnsmasq, containers) and takes its links and mounts away.
"""

from __future__ import annotations

import inspect
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

ROUTER = "10.77.0.1"
ROUTER6 = "fd77::1"
HOST = "10.77.0.20"
"""The address of a machine with a static one."""
LEASED = "10.77.0.100"
"""The first address that DHCP gives."""
MAC = "52:54:00:77:00:20"
"""The machine's first NIC's."""
MAC2 = "52:54:00:77:00:21"
ECHO_PORT = 7777

FILES = Path(__file__).parent / "files"
START_S = 30.0
RUN_S = 120.0
FOLDER = Path("/run/machines")
"""In the LAN's own mount namespace."""

_HOLD = (
    "mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir /run/machines /run/netns && "
    "ip link set lo up && echo ready && exec cat"
)


class Silence(Struct, frozen=True, kw_only=True):
    """What a prober saw from the outside; times are in milliseconds."""

    sent: int
    lost: int
    """Never answered."""
    doubled: int
    silence_ms: float
    """The longest time without an answer, from the first packet to the last."""
    silence_at_ms: float
    """When that began, after the first packet."""
    late_ms: float
    """The answer that took longest."""
    own_ms: float
    """The prober's own longest pause between two packets: a silence below that says nothing."""


class Talk(Struct, frozen=True, kw_only=True):
    """How a TCP connection went that sent a number every 20 ms and wanted each back."""

    sent: int
    echoed: int
    intact: bool
    """All came back, in their order, unchanged."""
    longest_ms: float
    """The longest wait for a number."""
    error: str = ""


def wait_for(what: str, check: Callable[[], object], timeout: float = 60.0) -> None:
    """Wait until `check` is true, or fail naming `what`."""
    end = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < end, f"waited {timeout:g} s in vain for {what}"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    try:
        return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


class Watcher:
    """A program in the LAN that runs until its standard input ends, then reports in JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        ready = select.select([process.stdout], [], [], START_S)[0]
        line = process.stdout.readline() if ready else "not ready in time"
        assert line == "ready\n", f"{line}{process.stderr and process.stderr.read()}"

    def _report(self) -> bytes:
        try:
            out, err = self._process.communicate(timeout=RUN_S)
        finally:
            self._process.kill()
        assert self._process.returncode == 0, err
        return out.encode()


class Prober(Watcher):
    """Echo requests in a steady beat, from the router to the machine."""

    def stop(self) -> Silence:
        return msgspec.json.decode(self._report(), type=Silence)


class Session(Watcher):
    """A TCP connection through the machine's NIC."""

    def stop(self) -> Talk:
        return msgspec.json.decode(self._report(), type=Talk)


def recipe() -> str:
    """What a machine that was booted here depends on."""
    return inspect.getsource(Lan._wire) + inspect.getsource(Lan._serve)


class Lan:
    """One LAN, with its router's side of everything; `close` ends all that is in it."""

    def __init__(self, *, ipv6: bool = False) -> None:
        self._ipv6 = ipv6
        self._holder = subprocess.Popen(
            ["unshare", "-mnp", "--fork", "--kill-child", "--mount-proc", "sh", "-c", _HOLD],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        ready = select.select([self._holder.stdout], [], [], START_S)[0]
        assert ready and self._holder.stdout.readline() == "ready\n", "no namespaces for a LAN"
        self.pid = children(self._holder.pid)[0]
        """The first process of the LAN, as this machine sees it."""
        self.root = Path(f"/proc/{self.pid}/root")
        self.folder = self.root / str(FOLDER)[1:]
        """`FOLDER`, as it is reached from outside."""
        try:
            self._wire()
            self._serve("")
        except BaseException:
            self.close()
            raise

    def _wire(self) -> None:
        self.ip("link add lan type bridge forward_delay 0 mcast_snooping 0")
        self.ip("link set lan up")
        self.ip(f"address add {ROUTER}/24 dev lan")
        self.ip(f"address add {ROUTER6}/64 dev lan nodad")

    def restart_dhcp(self, leases: str) -> None:
        """Have the DHCP server go on with another one's memory."""
        self.run(["kill", (self.folder / "dnsmasq.pid").read_text().strip()])
        wait_for("dnsmasq to end", lambda: not self.run(["ss", "-Hlun", "sport 67"]).stdout)
        self._serve(leases)

    def _serve(self, leases: str) -> None:
        (self.folder / "leases").write_text(leases)
        options = [f"--dhcp-range={LEASED},10.77.0.150,255.255.255.0,1h"]
        if self._ipv6:
            options += ["--dhcp-range=fd77::1000,fd77::1fff,slaac,64,1h", "--enable-ra",
                        f"--dhcp-option=option6:dns-server,[{ROUTER6}],[fe80::]"]  # fmt: skip
        self.run(
            ["dnsmasq", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--bind-dynamic",
             "--interface=lan", "--except-interface=lo", f"--pid-file={FOLDER}/dnsmasq.pid",
             f"--dhcp-leasefile={FOLDER}/leases", "--user=root", "--no-ping",
             "--dhcp-authoritative", "--dhcp-option=option:domain-search,lan.test",
             "--address=/here.lan.test/10.77.0.1",
             *options],
        )  # fmt: skip

    def argv(self, words: Sequence[str], *spaces: str) -> list[str]:
        return ["nsenter", "-t", str(self.pid), *(spaces or ("-m", "-n", "-p")), "--", *words]

    def run(
        self, words: Sequence[str], timeout: float = RUN_S, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of this machine in the LAN, on its router."""
        done = subprocess.run(
            self.argv(words), capture_output=True, text=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def ip(self, line: str) -> str:
        return self.run(["ip", *line.split()]).stdout

    def leases(self) -> str:
        """The DHCP server's memory, for another LAN."""
        return (self.folder / "leases").read_text()

    def probe(self, address: str, every_ms: float = 10.0) -> Prober:
        """Send echo requests until it is stopped."""
        script = str(FILES / "prober.py")
        return Prober(self._python(script, address, str(every_ms)))

    def session(self, address: str) -> Session:
        """Open a TCP connection to the machine's echo server and use it until it is stopped."""
        return Session(self._python(str(FILES / "session.py"), address, str(ECHO_PORT)))

    def _python(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(["chrt", "-r", "10", sys.executable, "-P", "-S", *words]),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def close(self) -> None:
        self._holder.kill()
        self._holder.communicate(timeout=START_S)
