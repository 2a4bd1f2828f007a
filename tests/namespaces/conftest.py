"""Small worlds of real network namespaces for tests, invisible from outside.

A `World` is a process in mount, PID and network namespaces of its own, with a fresh /run and /sys.
Nothing that happens in it reaches the machine; when it ends, however that is, the kernel ends all
its processes and removes all its links.
"""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

START_S = 10.0
RUN_S = 40.0
KVMNET = (sys.executable, "-m", "kvmnet")

_HOLD = (
    "mount --make-rprivate / && mount -t tmpfs tmpfs /run && mount -t sysfs sysfs /sys && "
    "ip link set lo up && echo ready && exec cat"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.namespaces)


def wait_for(what: str, check: Callable[[], object], timeout: float = 30.0) -> None:
    """Wait until `check` is true, or fail naming `what`."""
    end = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < end, f"waited {timeout} s in vain for {what}"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    try:
        return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


class Machine:
    """A network namespace that commands can be run in, held by the process `pid`."""

    def __init__(self, pid: int, holder: subprocess.Popen[str], spaces: Sequence[str]) -> None:
        self.pid = pid
        """As this machine's own processes see it, which is also how `ip link … netns` needs it."""
        self._holder = holder
        self._spaces = tuple(spaces)

    def argv(self, words: Sequence[str]) -> list[str]:
        return ["nsenter", "-t", str(self.pid), *self._spaces, "--", *words]

    def run(
        self, *words: str, timeout: float = RUN_S, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.argv(words), capture_output=True, text=True, timeout=timeout, check=False
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def spawn(self, *words: str) -> subprocess.Popen[str]:
        """Something that goes on; it ends with the world."""
        return subprocess.Popen(
            self.argv(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ip(self, line: str) -> str:
        """`ip` with the words of `line`, seeing the machine's own process ids."""
        words = ["nsenter", "-t", str(self.pid), "-n", "--", "ip", *line.split()]
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
        assert done.returncode == 0, f"ip {line}: {done.stderr}"
        return done.stdout

    def links(self) -> set[str]:
        lines = self.ip("-brief link").splitlines()
        return {line.split()[0].split("@")[0] for line in lines}

    def end(self) -> None:
        self._holder.kill()
        self._holder.communicate(timeout=START_S)


class World(Machine):
    """A host of its own, with any number of other machines."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        words = ["unshare", "-mnp", "--fork", "--kill-child", "--mount-proc", "sh", "-c", _HOLD]
        holder = _started(words, stack)
        super().__init__(children(holder.pid)[0], holder, ("-m", "-n", "-p"))

    def machine(self) -> Machine:
        """One more machine, with nothing but a loopback; plug it in by `plug`."""
        words = self.argv(["unshare", "-n", "sh", "-c", "echo ready; exec cat"])
        holder = _started(words, self._stack)
        pid = holder.pid
        while below := children(pid):
            pid = below[0]
        return Machine(pid, holder, ("-m", "-n", "-p"))

    def plug(self, machine: Machine, bridge: str, name: str, mac: str) -> None:
        """A cable from the bridge to the machine's `eth0`."""
        self.ip(f"link add {name} type veth peer name eth0 address {mac} netns {machine.pid}")
        self.ip(f"link set {name} master {bridge} up")

    def bridge(self, name: str, address: str, *options: str) -> None:
        self.ip(f"link add name {name} type bridge {' '.join(options)}")
        self.ip(f"address add {address} dev {name}")
        self.ip(f"link set {name} up")

    def dnsmasq(self, bridge: str, *options: str) -> None:
        """A real DHCP and DNS server on a bridge; its leases are in /run/BRIDGE.leases."""
        self.run(
            "dnsmasq", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--bind-dynamic",
            f"--interface={bridge}", "--except-interface=lo", f"--pid-file=/run/{bridge}.pid",
            f"--dhcp-leasefile=/run/{bridge}.leases", "--user=root", *options,
        )  # fmt: skip

    def leases(self, bridge: str) -> list[str]:
        text = self.run("cat", f"/run/{bridge}.leases").stdout
        return [line for line in text.splitlines() if not line.startswith("duid")]


def _started(words: Sequence[str], stack: contextlib.ExitStack) -> subprocess.Popen[str]:
    """A process that has said it is ready, and that ends when its standard input does."""
    holder = subprocess.Popen(
        list(words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    stack.callback(_finish, holder)
    assert holder.stdout is not None
    ready = select.select([holder.stdout], [], [], START_S)[0]
    assert ready and holder.stdout.readline() == "ready\n", "the namespace could not be made"
    return holder


def _finish(holder: subprocess.Popen[str]) -> None:
    if holder.poll() is None:
        holder.kill()
    holder.communicate(timeout=START_S)


@pytest.fixture
def world() -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(stack)
