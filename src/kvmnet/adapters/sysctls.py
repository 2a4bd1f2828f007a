"""Reads the kernel settings that decide forwarding and bridging, from /proc/sys."""

from __future__ import annotations

import os
from pathlib import Path

from kvmnet.model.host import Sysctl

PROC_SYS = Path("/proc/sys")

_GLOBAL = (
    "net/ipv4/ip_forward",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/bridge/bridge-nf-call-arptables",
)
_PER_NIC = {
    "net/ipv4/conf": ("forwarding", "rp_filter", "proxy_arp", "arp_ignore"),
    "net/ipv6/conf": ("forwarding", "accept_ra", "autoconf", "disable_ipv6", "proxy_ndp"),
}


def read_sysctls(
    root: Path = PROC_SYS, *, skip: frozenset[str] = frozenset()
) -> tuple[Sysctl, ...]:
    """The settings that exist here; `skip` names NICs whose own settings nobody asks for.

    A setting that is absent is one of a part that the kernel has not loaded (br_netfilter, IPv6).
    """
    found = [Sysctl(name=x.replace("/", "."), value=v) for x in _GLOBAL if (v := _read(root / x))]
    for folder, keys in _PER_NIC.items():
        prefix = folder.replace("/", ".")
        for nic in _entries(root / folder):
            if nic in skip:
                continue
            for key in keys:
                value = _read(f"{root}/{folder}/{nic}/{key}")
                if value:
                    found.append(Sysctl(name=f"{prefix}.{nic}.{key}", value=value))
    return tuple(found)


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _read(path: Path | str) -> str:
    # Hundreds of NICs have thousands of such files: the plain system calls cost a third.
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.read(handle, 4096).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(handle)
