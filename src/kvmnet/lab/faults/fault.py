"""What a fault is: a problem of the field as it can be made in a lab, and undone exactly."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct

from kvmnet.adapters.run import Completed
from kvmnet.errors import Failed
from kvmnet.lab import topology as t
from kvmnet.lab.lab import Lab

_ADDRESS6_S = 30.0


class Command(Struct, frozen=True, kw_only=True):
    """A program that is run at a place of the lab."""

    argv: tuple[str, ...]
    where: str = t.HOST
    stdin: str = ""
    accept: tuple[int, ...] = (0,)
    """The exit statuses that are no error."""
    patience_s: float = 0.0
    """For so long it is tried again until it ends with such a status."""
    unless: tuple[str, ...] = ()
    """A program; where it ends with 0 there is nothing to do."""


class Breakage(Struct, frozen=True, kw_only=True):
    """A fault as it is made in one lab: its commands and those that undo them.

    `mend` is known before the first command of `make` is run. It does its work whether `make` was
    done, half done, or mended by somebody else in the meantime.
    """

    make: tuple[Command, ...]
    mend: tuple[Command, ...]


class Need(Struct, frozen=True, kw_only=True):
    """What a fault needs of the machine beyond the lab itself."""

    what: str
    """For people: `the program ufw`."""
    check: Command
    """Ends with 0 where it is there."""
    hint: str = ""
    """The command that brings it."""


class Unpacked(Struct, frozen=True, kw_only=True):
    """Debian packages whose files are laid out in one folder of the lab's host."""

    name: str
    packages: tuple[str, ...]


class Stage(Struct, frozen=True, kw_only=True):
    """What has to stand in a lab before it can break: healthy, and kept when that is mended."""

    what: str
    """For people: `the network default`."""
    check: Command
    """Ends with 0 where it is there."""
    make: tuple[Command, ...] = ()
    """The commands that make it, one after the other; `kvmnet` is the one that runs now."""
    guest: str = ""
    """The name of a guest that is started for it, if one is."""
    on: str = "network:default"
    """Where that guest is plugged in."""


class Trial(Struct, frozen=True, kw_only=True):
    """What a user would try: it goes well in a healthy lab and does not while the fault is in."""

    probe: tuple[str, ...] = ()
    """Words for `kvmnet probe` in the lab's host."""
    gone: bool = False
    """What is tried is part of the fault: once mended there is nothing to try."""
    later: bool = False
    """When the doctor has mended it, it goes well only some time later."""
    step: str = ""
    """The first of its steps that does not end well."""
    command: Callable[[Look], Command] | None = None
    """Instead of a probe: a program that ends with 0 only in a healthy lab."""


class Fault(Struct, frozen=True, kw_only=True):
    """One row of the table of faults."""

    name: str
    problem: str
    """The name of the finding that `kvmnet doctor` has to come to."""
    also: tuple[str, ...] = ()
    """Findings that are true besides, since what made it makes more than one problem."""
    blind: str = ""
    """Why the doctor does not come to it by itself; empty: it does."""
    stubborn: bool = False
    """What helps against the problem elsewhere does not help here: --fix is undone."""
    kept: bool = False
    """What --fix does stays when it is undone: libvirt's own rules, which it writes itself."""
    seen: str
    """What a user sees, one sentence."""
    how: str
    """What is done to the lab, one sentence: the answer to the riddle."""
    trial: Trial | None
    """None: nothing is to be seen until what `seen` begins with."""
    stages: tuple[Stage, ...] = ()
    needs: tuple[Need, ...] = ()
    packages: tuple[Unpacked, ...] = ()
    """Programs that are not installed for it: only unpacked, inside the lab."""
    touches: tuple[str, ...] = ()
    """What it changes as a whole: two faults that share one of these can't be in together."""
    prepare: Callable[[Look], Breakage]
    """Looks at the lab, changes nothing."""


class Look:
    """The eyes of `Fault.prepare`: what it reads of a lab before anything is changed."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def out(self, *argv: str, where: str = t.HOST) -> str:
        """What a program prints there. Raises `CommandFailed`, `TimedOut`."""
        return self._lab.run(where, argv).stdout

    def done(self, *argv: str, where: str = t.HOST) -> Completed:
        """The same for a program that may fail."""
        return self._lab.run(where, argv, accept=range(256))

    def uplink(self) -> str:
        """The link of the host that has its address on the LAN: `br0` or `eth1`."""
        words = self.out("ip", "-o", "route", "get", t.ROUTER_IP).split()
        return words[words.index("dev") + 1]

    def sysctl(self, key: str, where: str = t.HOST) -> str:
        """A value below /proc/sys; slashes separate the parts of `key`."""
        return self.out("cat", f"/proc/sys/{key}", where=where).strip()

    def address(self, guest: str) -> str:
        """A guest's IPv4 address, by its lease."""
        words = self.out("virsh", "domifaddr", guest).split()
        found = next((x for x in words if x.count(".") == 3), "")
        if not found:
            raise Failed(f"the guest {guest} has no address")
        return found.partition("/")[0]

    def address6(self, guest: str) -> str:
        """The IPv6 address that a guest made of the router's prefix, as its agent tells it.

        A guest that has just started is waited for. Raises `Failed` (it makes none).
        """
        prefix = t.ROUTER_IP6.removesuffix(":1")
        deadline = time.monotonic() + _ADDRESS6_S
        while True:
            words = self.out("virsh", "domifaddr", guest, "--source", "agent").split()
            found = next((x for x in words if x.startswith(prefix)), "")
            if found:
                return found.partition("/")[0]
            if time.monotonic() > deadline:
                raise Failed(f"the guest {guest} has no IPv6 address of the LAN")
            time.sleep(0.3)

    def tap(self, guest: str) -> str:
        """The tap of a running guest's first NIC."""
        listing = self.out("virsh", "domiflist", guest).splitlines()
        names = [line.split()[0] for line in listing[2:] if line.strip()]
        if not names or names[0] == "-":
            raise Failed(f"the guest {guest} has no tap", why="it does not run")
        return names[0]


def command(*argv: str, stdin: str = "", where: str = t.HOST) -> Command:
    """A command that has to work."""
    return Command(argv=argv, stdin=stdin, where=where)


def tolerant(*argv: str, stdin: str = "", where: str = t.HOST) -> Command:
    """A command of a mend: what it removes may be gone already."""
    return Command(argv=argv, stdin=stdin, where=where, accept=tuple(range(256)))


def probe(target: str, step: str, *, to: str = t.WEB_IP + ":80") -> Trial:
    """A trial: what a stand-in guest goes through, and the step that fails."""
    return Trial(probe=(target, "--to", to), step=step)


def attempt(*argv: str, where: str = t.HOST) -> Trial:
    """A trial: a program that ends with 0 only in a healthy lab."""
    return Trial(command=lambda look: command(*argv, where=where))


def ping(address: str, where: str = t.HOST) -> Command:
    """One ping from a place of the lab."""
    return command("busybox", "ping", "-c", "1", "-W", "2", address, where=where)


def reach(address: str, where: str = t.HOST) -> Trial:
    """A trial: a ping from a place of the lab that is answered in a healthy one."""
    return Trial(command=lambda look: ping(address, where))


def always(*, make: tuple[Command, ...], mend: tuple[Command, ...]) -> Callable[[Look], Breakage]:
    """A `prepare` for faults that are the same in every lab."""
    breakage = Breakage(make=make, mend=mend)

    def prepare(look: Look) -> Breakage:
        del look
        return breakage

    return prepare


def set_sysctl(key: str, value: str, where: str = t.HOST) -> Command:
    """Write a value below /proc/sys; slashes separate the parts of `key`."""
    return command("tee", f"/proc/sys/{key}", stdin=f"{value}\n", where=where)


def back(look: Look, *keys: str, where: str = t.HOST) -> tuple[Command, ...]:
    """The commands that give settings below /proc/sys the values that they have now."""
    return tuple(
        tolerant("tee", f"/proc/sys/{key}", stdin=look.sysctl(key, where) + "\n", where=where)
        for key in keys
    )
