"""Tells ifupdown and its DHCP client what changed, without either touching a link.

ifupdown itself has no way to adopt a link: what it has brought up stands in files below
/run/network (ifupdown's own `ifup` writes the same), and its DHCP client serves one link for life.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kvmnet.adapters import files
from kvmnet.adapters.run import run, spawn, wait
from kvmnet.errors import CommandFailed, Failed, KvmnetError, TimedOut
from kvmnet.formats import dhclient, interfaces
from kvmnet.model.handover import DhclientHeld, DhclientMoved, DhcpClient, IfstateSet, IfupdownDns

STATE = Path("/run/network")
HOOKS = Path("/etc/network")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BIND_S = 30.0
"""An answer to INIT-REBOOT takes milliseconds; without one dhclient begins again after 10 s."""
END_S = 3.0
LINK_LOCAL_S = 5.0
_DHCPCD_STATE = re.compile(r"(-[46])?\.[a-z]+[46]?l*")
"""What dhcpcd adds to a link's name: `.dhcp`, `.dhcp6`, `.ra`, `.link`, `.ipv4ll`, `-4.pid` …"""
DNS_HOOKS = ("000resolvconf", "resolvconf", "resolved")


def set_state(call: IfstateSet) -> None:
    """Write /run/network/ifstate and ifstate.LINK as ifup and ifdown leave them.

    Raises `Failed`.
    """
    path = STATE / "ifstate"
    old = interfaces.parse_ifstate(files.read_optional(path) or "")
    new = {link: logical for link, logical in old.items() if link not in call.down}
    new.update({link: link for link in call.up})
    files.ensure(path, "".join(f"{link}={logical}\n" for link, logical in new.items()))
    for link in call.up:
        files.ensure(_own_state(link), f"{link}\n")
    for link in call.down:
        if _own_state(link).exists():  # ifdown empties it and lets it lie
            files.ensure(_own_state(link), "\n")


def _own_state(link: str) -> Path:
    """ifupdown writes a dot for each slash; a NIC's name has none."""
    return STATE / f"ifstate.{link}"


def tell_dns(call: IfupdownDns) -> None:
    """Run the hooks in ifupdown's environment (interfaces(5)). Raises `KvmnetError`."""
    start = call.mode == "start"
    folder = HOOKS / ("if-up.d" if start else "if-down.d")
    environment = {
        "IFACE": call.link, "LOGICAL": call.link, "ADDRFAM": call.family, "METHOD": call.method,
        "MODE": call.mode, "PHASE": "post-up" if start else "pre-down", "VERBOSITY": "0",
        "PATH": DEFAULT_PATH,
    }  # fmt: skip
    environment |= {f"IF_{k.upper().replace('-', '_')}": v for k, v in call.options}
    for name in DNS_HOOKS:
        hook = folder / name
        if os.access(hook, os.X_OK):
            run([str(hook)], env=environment)


def hold(call: DhclientHeld) -> None:
    """Stop the clients where they are; a client that does not run is no error."""
    for client in call.clients:
        for pid in running(client):
            _signal(pid, signal.SIGSTOP)


def move(call: DhclientMoved) -> None:
    """Have `starts` run and `ends` not. Raises `Failed` if no DHCP server answers the new one."""
    there = call.starts is not None and running(call.starts)
    if call.ends is not None:
        _end(call.ends)
        if call.starts is not None and not there:
            _carry_leases(call.ends, call.starts)
        _forget_dns(call.ends)
    if call.starts is not None:
        if there:
            for pid in running(call.starts):
                _signal(pid, signal.SIGCONT)
        else:
            _start(call.starts)


def running(client: DhcpClient) -> tuple[int, ...]:
    """The processes that serve this link in this network namespace, the first one first."""
    if client.program == "dhcpcd":
        first = [x for x, argv in processes("dhcpcd") if is_dhcpcd_of(argv, client.link)]
        return tuple(y for x in first for y in (x, *_below(x)))
    return tuple(
        pid
        for pid, argv in processes("dhclient")
        if argv[-1] == client.link and ("-6" in argv) == (client.family == 6)
    )


def is_dhcpcd_of(argv: Sequence[str], link: str) -> bool:
    """Whether the process title is `dhcpcd: eth0 [ip4] [ip6]` for this link."""
    return f"{argv[0].partition(': ')[2] or ' '.join(argv[1:])} ".startswith(f"{link} ")


def _below(pid: int) -> Iterator[int]:
    """All processes that a process started, and those that they did."""
    for folder in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            for child in map(int, (folder / "children").read_text().split()):
                yield child
                yield from _below(child)


def processes(*programs: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Processes of these programs, with arguments; in this network namespace, not containers'."""
    own = os.readlink("/proc/self/ns/net")
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                argv = file.read().decode("utf-8", "replace").split("\0")[:-1]
            if argv and name_of(argv) in programs and os.readlink(f"/proc/{pid}/ns/net") == own:
                yield int(pid), tuple(argv)


def name_of(argv: Sequence[str]) -> str:
    """The program's name; it comes first in the title (`dhcpcd: eth0 [ip4]`) too."""
    return os.path.basename(argv[0].partition(": ")[0])


def _end(client: DhcpClient) -> None:
    """End it at once: on SIGTERM it could release the lease and take the address away."""
    end = time.monotonic() + END_S
    pids = running(client)
    while alive := [x for x in pids if _cmdline(x)]:
        for pid in alive:
            _signal(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise Failed(
                f"{client.program} on {client.link} does not end", hint=f"kill -9 {alive[0]}"
            )
        time.sleep(0.01)
    files.remove(Path(client.pid_file))


def _cmdline(pid: int) -> bytes:
    """Empty for a process that has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _carry_leases(old: DhcpClient, new: DhcpClient) -> None:
    if old.program == "dhcpcd":  # packets as they came, without the link's name
        for suffix in ("", "6"):
            if Path(old.lease_file + suffix).exists():
                run(["cp", "-p", "--", old.lease_file + suffix, new.lease_file + suffix])
        return
    text = files.read_optional(Path(old.lease_file))
    if text:
        renamed = dhclient.rename_link(f"{text}\n", old.link, new.link)
        files.write_atomic(Path(new.lease_file), renamed, mode=0o644)


def _start(client: DhcpClient) -> None:
    """Run it as ifup does: it goes into the background once it has its lease."""
    argv = list(client.argv)
    if client.family == 6:
        _wait_for_link_local(client.link)
    scope = ["systemd-run", "--scope", "--collect", "--quiet", "--"]
    try:
        # Without a unit of its own it would end with ours, the guard's or a session's.
        _launch([*scope, *argv] if Path("/run/systemd/system").is_dir() else argv, client)
    except CommandFailed:
        if running(client):
            return
        _launch(argv, client)
    if client.family == 4 and client.program == "dhclient":
        _renew_lifetime(client)


def _wait_for_link_local(link: str) -> None:
    """dhclient -6 ends at once where the link has no address yet to send from."""
    end = time.monotonic() + LINK_LOCAL_S
    show = ["ip", "-6", "-o", "address", "show", "dev", link, "scope", "link", "-tentative"]
    while not run(show).stdout and time.monotonic() < end:
        time.sleep(0.1)


def _launch(argv: list[str], client: DhcpClient) -> None:
    process = spawn(argv, env={"PATH": DEFAULT_PATH}, new_session=True)
    try:
        wait(process, BIND_S)
    except TimedOut:
        process.kill()
        process.wait(END_S)
        raise Failed(
            f"{client.program} got no lease on {client.link}",
            why=f"no DHCP server answered within {BIND_S:g} seconds",
            hint=f"tcpdump -ni {client.link} port 67 or port 547 shows what is sent",
        ) from None


def _renew_lifetime(client: DhcpClient) -> None:
    """Give the address its new lifetime.

    dhclient-script adds the address on REBOOT, which fails where it is there already and leaves
    the old lease's lifetime: it could run out before the first renewal.
    """
    lease = dhclient.last_lease(files.read_optional(Path(client.lease_file)) or "")
    if lease is None or lease.seconds is None or lease.prefix_len is None:
        return
    life = str(lease.seconds)
    address = f"{lease.address}/{lease.prefix_len}"
    run(["ip", "-4", "address", "change", address, "dev", client.link,
         "valid_lft", life, "preferred_lft", life])  # fmt: skip


def _forget_dns(client: DhcpClient) -> None:
    """What the ended client told of DNS servers: its successor tells the same."""
    if client.program == "dhcpcd":
        for path in Path("/run/dhcpcd").glob("**/*"):
            own = path.name.startswith(client.link)  # and not eth0.100.dhcp, which is another's
            rest = path.name.removeprefix(client.link)
            if own and _DHCPCD_STATE.fullmatch(rest) and not path.is_dir():
                files.remove(path)
        return
    name = f"{client.link}.dhclient" if client.family == 4 else f"{client.link}.ip6.dhclient"
    if Path("/sbin/resolvconf").exists() and Path("/run/resolvconf/interface", name).exists():
        with contextlib.suppress(KvmnetError):
            run(["resolvconf", "-d", name])
