"""What a running lab consists of right now, read from outside of it."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from kvmnet.adapters.files import read_optional
from kvmnet.adapters.libvirt_read import read
from kvmnet.adapters.run import run
from kvmnet.adapters.virt_read import Kind
from kvmnet.errors import CommandFailed
from kvmnet.lab import topology
from kvmnet.lab.record import Record
from kvmnet.lab.status import GuestStatus, PlaceStatus


def places(record: Record) -> tuple[PlaceStatus, ...]:
    """The places of a running lab in a fixed order."""
    programs = _programs(record)
    return tuple(
        PlaceStatus(
            where=holder.where,
            meaning=topology.PLACE_MEANINGS.get(holder.where, ""),
            pid=holder.process.pid,
            addresses=_addresses(holder.process.pid),
            daemons=tuple(sorted(programs.get(holder.where, ()))),
        )
        for holder in record.holders
    )


def _addresses(pid: int) -> tuple[str, ...]:
    argv = ["nsenter", "-t", str(pid), "-n", "-m", "--", "ip", "-j", "address", "show"]
    try:
        links = json.loads(run(argv).stdout)
    except (CommandFailed, ValueError):
        return ()
    return tuple(
        f"{link['ifname']} {entry['local']}/{entry['prefixlen']}"
        for link in links
        for entry in link.get("addr_info", ())
        if entry.get("scope") == "global"
    )


def _programs(record: Record) -> dict[str, set[str]]:
    """Names of the programs in each place: processes of the lab by their network namespace."""
    inside = _namespace(record.init.pid, "pid")
    by_network = {_namespace(x.process.pid, "net"): x.where for x in record.holders}
    holders = {x.process.pid for x in record.holders}
    found: dict[str, set[str]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in holders or _namespace(int(entry), "pid") != inside:
            continue
        where = by_network.get(_namespace(int(entry), "net"))
        name = _program(int(entry))
        if where is not None and name:
            found.setdefault(where, set()).add(name)
    return found


def _namespace(pid: int, kind: str) -> int:
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    return -pid  # gone, or not ours to see: equal to nothing


def _program(pid: int) -> str:
    """`busybox httpd` is called httpd; others by the name of their file."""
    words = (read_optional(Path(f"/proc/{pid}/cmdline")) or "").split("\0")
    names = [os.path.basename(word) for word in words if word]
    if not names:
        return ""
    return names[1] if names[0] == "busybox" and len(names) > 1 else names[0]


def guests(record: Record) -> tuple[GuestStatus, ...]:
    """The guests of a running lab as its libvirtd and their agents tell; silent agents are skipped.

    Empty where the lab's libvirtd does not answer.
    """
    found = read(record.libvirt_uri, frozenset({Kind.GUESTS, Kind.AGENTS}))
    return tuple(
        GuestStatus(
            name=guest.name,
            state=guest.state,
            nics=tuple(f"{nic.type}:{nic.source or '-'}" for nic in guest.nics),
            addresses=tuple(
                x.ip for x in guest.agent_addresses if not x.ip.startswith(("fe80:", "127.", "::1"))
            ),
        )
        for guest in sorted(found.guests, key=lambda x: x.name)
    )
