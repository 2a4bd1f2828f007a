"""A throw-away machine: a process in a network namespace without a name, plugged into a bridge."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import select
import sys
import time
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from kvmnet.adapters.run import PIPE, Running, run, spawn, wait
from kvmnet.errors import CommandFailed, Failed, PermissionDenied, TimedOut, Unavailable
from kvmnet.formats.iproute import parse_links
from kvmnet.model.standin import AnyAnswer, AnyCall, Fault, Ready
from kvmnet.model.values import Mac

_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_START_S = 10.0
_END_S = 2.0
_SLACK_S = 5.0

T = TypeVar("T")


def leave_network() -> None:
    """Put this process into a new, empty network namespace. Raises `PermissionDenied`, `Failed`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) == 0:
        return
    code = ctypes.get_errno()
    what = "no network namespace could be made"
    if code == 1:
        raise PermissionDenied(what, why="only root may", hint="run it as root")
    raise Failed(what, why=os.strerror(code))


def die_with_parent(signum: int) -> None:
    """Have the kernel send `signum` to this process when its parent dies (prctl(2))."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:  # it died in between
        os.kill(os.getpid(), signum)


class StandIn:
    """The parent's end of a stand-in guest."""

    def __init__(self, process: Running, nic: str) -> None:
        self._process = process
        self._rest = b""
        self._decoder = msgspec.json.Decoder(AnyAnswer)
        self._parent: str | None = None
        self.nic = nic
        """The host's end of its cable."""

    def call(self, order: AnyCall, kind: type[T], wait_s: float = 0.0) -> T:
        """Give an order and wait for its answer, `wait_s` and some slack at most.

        Raises `Failed` if the stand-in could not do it or died, `TimedOut`.
        """
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then reading finds out why
            stdin.write(msgspec.json.encode(order) + b"\n")
            stdin.flush()
        return self.expect(kind, wait_s + _SLACK_S)

    def expect(self, kind: type[T], wait_s: float) -> T:
        """The next answer, which has to be of that kind."""
        answer = self._decoder.decode(self._line(time.monotonic() + wait_s))
        if isinstance(answer, Fault):
            raise Failed(answer.what, why=answer.why)
        if not isinstance(answer, kind):
            raise Failed("the stand-in guest answered something else", why=type(answer).__name__)
        return answer

    def _line(self, deadline: float) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stdout], [], [], left)[0]:
                raise TimedOut("the stand-in guest does not answer")
            piece = os.read(stdout.fileno(), 65536)
            if not piece:
                raise self._death()
            self._rest += piece
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def _death(self) -> Failed:
        self._process.wait(_END_S)
        stderr = self._process.stderr
        words = stderr.read().decode("utf-8", "replace").strip().splitlines() if stderr else []
        reason = words[-1] if words else f"its exit status is {self._process.returncode}"
        return Failed("the stand-in guest died", why=reason)

    def plug_in(self, bridge: str, mac: Mac, mtu: int, *, commands: tuple[str, ...] = ()) -> None:
        """Make the cable and plug it into the bridge, up. `commands` are for the bridge's
        port: `{nic}` and `{mac}` stand for its name and the guest's address.

        The host's end gets an address like libvirt's taps: the highest that can be made of the
        guest's, so that a bridge which takes its lowest port's address keeps its own.
        """
        self.expect(Ready, _START_S)
        size = ["mtu", str(mtu)]
        peer = ["peer", "name", "eth0", "address", mac, *size, "netns", str(self._process.pid)]
        mine = ["address", f"fe{mac[2:]}", *size]
        run(["ip", "link", "add", self.nic, *mine, "type", "veth", *peer])
        run(["ip", "link", "set", self.nic, "addrgenmode", "none", "master", bridge, "up"])
        for command in commands:
            run(command.format(nic=self.nic, mac=mac).split())

    def aim_at(self, link: str, mac: Mac, *, own: Mac | None = None) -> None:
        """Make the cable so that what the stand-in sends to `mac` comes in through `link`.

        The kernel takes it there before any other part of it sees the frame (tc-mirred(8)). It
        decides at the cable's end whether a frame is for this host: that has the same address.
        `own` is the stand-in's address, where it matters.

        Raises `CommandFailed` where the kernel can't do so.
        """
        self.expect(Ready, _START_S)
        peer = ["peer", "name", "eth0", *(["address", own] if own is not None else [])]
        where = ["netns", str(self._process.pid)]
        run(["ip", "link", "add", self.nic, "address", mac, "type", "veth", *peer, *where])
        run(["ip", "link", "set", self.nic, "addrgenmode", "none", "arp", "off", "up"])
        run(["tc", "qdisc", "add", "dev", self.nic, "clsact"])
        every = ["protocol", "all", "u32", "match", "u32", "0", "0"]
        redirect = ["action", "mirred", "ingress", "redirect", "dev", link]
        run(["tc", "filter", "add", "dev", self.nic, "ingress", *every, *redirect])

    def plug_in_beside(self, parent: str, mac: Mac, mtu: int, mode: str) -> None:
        """Put the guest on the LAN of the host's NIC `parent` by a macvlan of that mode.

        It and the host do not see each other (the kernel keeps them apart), all others do.
        """
        self.expect(Ready, _START_S)
        self._parent = parent
        where = ["netns", str(self._process.pid), "address", mac, "mtu", str(mtu)]
        kind = ["type", "macvlan", "mode", mode]
        run(["ip", "link", "add", "link", parent, "name", "eth0", *where, *kind])

    def port_state(self) -> str:
        """The state of the bridge's port, in the kernel's words; empty if it is no port.

        Beside the host it is that of the NIC: forwarding if it has a carrier.
        """
        nic = self._parent or self.nic
        text = run(["ip", "-json", "-details", "link", "show", "dev", nic]).stdout
        links = parse_links(text)
        if self._parent is not None:
            return "forwarding" if links and links[0].carrier else "disabled"
        return links[0].port.state if links and links[0].port is not None else ""

    def end(self) -> None:
        """Close the lifeline and wait: the guest gives its lease back and ends. Never raises."""
        process = self._process
        if process.stdin is not None:
            with contextlib.suppress(OSError):  # it died with an order still in the pipe
                process.stdin.close()
        try:
            wait(process, _END_S)
        except TimedOut:
            process.kill()
            process.wait()
        except CommandFailed:
            pass  # whoever talked to it last has said why
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        # The kernel removes the cable with the namespace, but some time later: not left to it.
        with contextlib.suppress(CommandFailed, Unavailable):
            run(["ip", "link", "delete", self.nic], accept=(0, 1))


@contextlib.contextmanager
def stand_in() -> Iterator[StandIn]:
    """A stand-in guest without a cable yet; it is gone when the block is left, however that is.

    Raises `PermissionDenied` without root, `Failed`, `TimedOut`.
    """
    if os.geteuid() != 0:
        raise PermissionDenied(
            "a stand-in guest can not be made",
            why="plugging into a bridge needs root",
            hint="run it again with sudo",
        )
    process = spawn([sys.executable, "-P", "-m", "kvmnet.adapters.standin"],
                    stdin=PIPE, stdout=PIPE, stderr=PIPE, new_session=True)  # fmt: skip
    guest = StandIn(process, f"kvmnet-{secrets.token_hex(4)}")
    try:
        yield guest
    finally:
        guest.end()
