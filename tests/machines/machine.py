"""What a container and a virtual machine have in common: one interface for both."""

from __future__ import annotations

import abc
import contextlib
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from machines import images, lan

CONFIGS = Path(__file__).parent / "configs"
KINDS = ("static", "dhcp", "dual", "bond")
NIC = "enp0s3"
RUN_S = 180.0


class Done(Struct, frozen=True, kw_only=True):
    """A program that ended."""

    status: int
    stdout: str
    stderr: str


class Job:
    """A program that goes on in the machine while the test does something else."""

    def __init__(self, machine: Machine, words: Sequence[str], timeout: float) -> None:
        self._done: Done | BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(machine, words, timeout))
        self._thread.start()

    def _run(self, machine: Machine, words: Sequence[str], timeout: float) -> None:
        try:
            self._done = machine.run(words, check=False, timeout=timeout)
        except BaseException as error:  # told by `wait`, where the test is
            self._done = error

    def wait(self) -> Done:
        self._thread.join(300)
        assert self._done is not None, "the program did not end"
        if isinstance(self._done, BaseException):
            raise self._done
        return self._done

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()


class Seen(Struct, frozen=True, kw_only=True):
    """What a change is judged by, from outside and from inside."""

    silence: lan.Silence
    talk: lan.Talk


class Watch:
    """Filled when the `with` of `Machine.watched` ends."""

    seen: Seen


class Machine(abc.ABC):
    """A Debian host with one of the four managers; its NIC is `enp0s3`, its address `address`."""

    def __init__(self, manager: str, config: str) -> None:
        assert manager in images.MANAGERS and (CONFIGS / manager / config).is_dir()
        self.manager = manager
        self.config = config
        self.uplink = "bond0" if config == "bond" else NIC
        """The link that has the addresses as long as there is no bridge."""
        self.address = lan.HOST if config in ("static", "bond") else ""
        self.lan: lan.Lan

    @abc.abstractmethod
    def run(
        self,
        words: Sequence[str],
        *,
        stdin: str = "",
        check: bool = True,
        timeout: float = RUN_S,
    ) -> Done:
        """Run a program inside; with `check`, its failure fails the test."""

    @abc.abstractmethod
    def reboot(self) -> None:
        """Shut down in order and start again; returns when the machine has settled."""

    @abc.abstractmethod
    def power_cut(self) -> None:
        """Cut the power and start again; what was not on disk is gone."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the machine and its LAN."""

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with contextlib.suppress(Exception):  # the failure itself is what matters
                print(
                    f"--- journal of {self.manager}, {self.config}\n{self.log()}", file=sys.stderr
                )
        self.close()

    def kvmnet(self, *words: str, check: bool = True, timeout: float = 240.0) -> Done:
        return self.run(["kvmnet", *words], check=check, timeout=timeout)

    def start(self, words: Sequence[str], timeout: float = 300.0) -> Job:
        """Begin a program inside and go on."""
        return Job(self, words, timeout)

    def kill_at(self, moment: str, words: Sequence[str], timeout: float = 240.0) -> Done:
        """Run a program and kill it by SIGKILL at a moment, as `step:3` (see killer.py)."""
        script = "/usr/local/lib/machines/killer.py"
        return self.run(["python3", script, moment, *words], timeout=timeout)

    def script(self, text: str, timeout: float = RUN_S, check: bool = True) -> str:
        """Run a shell script inside; what it prints."""
        return self.run(["sh", "-euc", text], timeout=timeout, check=check).stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(words).stdout or "[]")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
        self.run(["sh", "-c", script, "write", path, f"{mode:o}"], stdin=text)

    def links(self) -> dict[str, Any]:
        """`ip -d -j link`, by name."""
        return {row["ifname"]: row for row in self.json("ip", "-d", "-j", "link", "show")}

    def addresses(self, link: str) -> set[str]:
        """The link's addresses with their prefix lengths, without link-local ones."""
        rows = self.json("ip", "-j", "address", "show", "dev", link)
        return {
            f"{x['local']}/{x['prefixlen']}"
            for row in rows
            for x in row.get("addr_info", ())
            if x["scope"] != "link" and not x.get("tentative")
        }

    def routes(self) -> set[str]:
        """The main table's routes, as `ip` prints them, of both families."""
        text = self.script("ip -4 route show; ip -6 route show")
        return {line.split(" expires ")[0].strip() for line in text.splitlines()}

    def etc(self) -> dict[str, str]:
        """Every file below /etc: mode, owner and a digest; links with their target."""
        # One program for all digests: in a virtual machine the start of one takes 0.08 s.
        text = self.script(
            "find /etc -xdev -type f -printf '%p %m %u:%g\\n'; "
            "find /etc -xdev -type l -printf '%p -> %l\\n'; "
            "find /etc -xdev -type d -printf '%p %m %u:%g\\n'; "
            "echo; find /etc -xdev -type f -exec md5sum '{}' + || true"
        )
        listed, _, digested = text.partition("\n\n")
        found = dict(line.split(" ", 1) for line in listed.splitlines())
        for line in digested.splitlines():
            digest, path = line.split("  ", 1)
            found[path] = f"{found.get(path, '')} {digest}"
        return {path: rest for path, rest in found.items() if path not in _NOT_NETWORK}

    def wait_for_address(self, link: str, timeout: float = 120.0) -> str:
        """Wait until the link has an IPv4 address; it becomes `address` if there was none yet."""
        found: list[str] = []

        def there() -> bool:
            found[:] = sorted(x for x in self.addresses(link) if ":" not in x)
            return bool(found)

        lan.wait_for(f"an address of {link}", there, timeout)
        self.address = self.address or found[0].split("/")[0]
        return found[0]

    def settle(self, timeout: float = 120.0) -> None:
        """Wait until systemd has started everything and the NIC, or its bridge, is configured."""
        self.run(["systemctl", "is-system-running", "--wait"], check=False, timeout=timeout)
        lan.wait_for("an address", lambda: self.address_holder() != "", timeout)
        # A hotplugged NIC's ifup is no part of the boot, and writes resolv.conf after the address.
        lan.wait_for("managers at rest", self._is_at_rest, timeout)
        link = self.address_holder()
        self.wait_for_address(link)
        if self.config == "dual":  # one of its own making, and one by DHCPv6 where that is asked
            wanted = 1 if self.manager == "ifupdown" else 2
            lan.wait_for(
                "IPv6 addresses",
                lambda: str(self.addresses(link)).count("fd77:") >= wanted,
                timeout,
            )
        self.run(["systemd-run", "--quiet", "--unit=echo", "python3",
                  "/usr/local/lib/machines/echo.py"])  # fmt: skip
        lan.wait_for("the echo server", lambda: ":7777" in self.script("ss -Hltn sport 7777"))

    def _is_at_rest(self) -> bool:
        jobs = self.script("systemctl list-jobs --no-legend 2>/dev/null | grep -v '^No jobs' || "
                           "pgrep -x 'ifup|dhclient-script' || true")  # fmt: skip
        return not jobs.strip()

    @contextlib.contextmanager
    def watched(self, every_ms: float = 10.0) -> Iterator[Watch]:
        """Probe the machine from the LAN, and use a TCP connection, as long as the block takes."""
        watch = Watch()
        session = self.lan.session(self.address)
        prober = self.lan.probe(self.address, every_ms)
        try:
            yield watch
        finally:
            watch.seen = Seen(silence=prober.stop(), talk=session.stop())

    def address_holder(self) -> str:
        """The link with the machine's IPv4 addresses: the uplink, or the bridge it is a port of."""
        port_of = self.links().get(self.uplink, {}).get("master", self.uplink)
        return port_of if any("." in x for x in self.addresses(port_of)) else ""

    def is_bridged(self, bridge: str = "br0") -> bool:
        """Whether the uplink is a port of the bridge."""
        return bool(self.links().get(self.uplink, {}).get("master") == bridge)

    def log(self) -> str:
        """The end of the journal, for messages."""
        return self.script("journalctl -b --no-pager -o short-monotonic | tail -n 60", check=False)


_NOT_NETWORK = {"/etc/ld.so.cache", "/etc/.pwd.lock", "/etc/mtab"}


def configuration(manager: str, config: str, nics: int = 1) -> list[tuple[str, bytes, int]]:
    """The files that make a machine this one: path (without leading slash), content, mode."""
    folder = CONFIGS / manager / config
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(folder))
            secret = name.endswith((".nmconnection", ".yaml"))
            found.append((name, path.read_bytes(), 0o600 if secret else 0o644))
    number = sorted(images.MANAGERS).index(manager) * 16 + KINDS.index(config)
    found.append(("etc/hostname", f"{manager}-{config}\n".encode(), 0o644))
    found.append(
        ("etc/machine-id", f"77{number:02x}c0de0000400080000000000000aa\n".encode(), 0o444)
    )
    return found
