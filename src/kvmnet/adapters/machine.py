"""Reads what the host runs on, and what QEMU's bridge helper lets ordinary users do."""

from __future__ import annotations

import os
from pathlib import Path

from kvmnet.adapters.files import read_optional, read_text
from kvmnet.errors import KvmnetError, NotFound
from kvmnet.formats import helper_acl
from kvmnet.model.setup import AclRule, BridgeHelper, Machine

_HELPERS = (
    "usr/lib/qemu/qemu-bridge-helper",
    "usr/libexec/qemu-bridge-helper",
    "usr/lib/qemu-bridge-helper",
    "run/wrappers/bin/qemu-bridge-helper",
)
"""Where libvirt looks (its default) and where distributions put it."""
_ACL = "etc/qemu/bridge.conf"
_MAX_FILES = 32
_CAPABILITY = "security.capability"


def read_machine(root: Path = Path("/")) -> Machine:
    """The firmware's words and the CPU's; empty where it has none."""
    folder = root / "sys/class/dmi/id"
    flags = (read_optional(root / "proc/cpuinfo") or "").partition("\n\n")[0]
    return Machine(
        vendor=(read_optional(folder / "sys_vendor") or "").strip(),
        product=(read_optional(folder / "product_name") or "").strip(),
        hypervisor=" hypervisor" in flags,
    )


def read_bridge_helper(root: Path = Path("/")) -> BridgeHelper:
    """The helper and its access list, with all files that it includes."""
    path = next((x for x in _HELPERS if (root / x).exists()), None)
    unreadable: list[str] = []
    rules: list[AclRule] = []
    there = _follow(root, f"/{_ACL}", rules, unreadable, set())
    return BridgeHelper(
        path=f"/{path}" if path is not None else None,
        privileged=path is not None and _is_privileged(root / path),
        acl=f"/{_ACL}",
        rules=tuple(rules) if there else None,
        unreadable=tuple(unreadable),
    )


def _is_privileged(path: Path) -> bool:
    try:
        if path.stat().st_mode & 0o4000:
            return True
        return _CAPABILITY in os.listxattr(path)
    except OSError:
        return False  # a file system without attributes keeps no capability


def _follow(
    root: Path, path: str, rules: list[AclRule], unreadable: list[str], seen: set[str]
) -> bool:
    """Whether the file is there; its rules and those of what it includes are added."""
    if path in seen or len(seen) >= _MAX_FILES:
        return True
    seen.add(path)
    try:
        text = read_text(root / path.lstrip("/"))
    except NotFound:
        return False
    except KvmnetError:
        unreadable.append(path)
        return True
    for line in helper_acl.parse(text):
        if line.verb == "include":
            _follow(root, line.word, rules, unreadable, seen)
        else:
            rules.append(AclRule(path=path, allowed=line.verb == "allow", bridge=line.word))
    return True


def read_rp_filter_drops(root: Path = Path("/")) -> int | None:
    """Packets that reverse path filtering has dropped (IPReversePathFilter of TcpExt)."""
    lines = (read_optional(root / "proc/net/netstat") or "").splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        found = dict(zip(names.split(), values.split(), strict=False))
        number = found.get("IPReversePathFilter", "")
        if number.isdecimal():
            return int(number)
    return None
