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
    "net/ipv4/conf": (
        "forwarding", "rp_filter", "proxy_arp", "arp_ignore",
        "accept_local", "accept_redirects", "accept_source_route", "arp_accept", "arp_announce",
        "arp_filter", "arp_notify", "log_martians", "promote_secondaries", "proxy_arp_pvlan",
        "route_localnet", "secure_redirects", "send_redirects", "shared_media", "src_valid_mark",
    ),
    "net/ipv6/conf": (
        "forwarding", "accept_ra", "autoconf", "disable_ipv6", "proxy_ndp",
        "accept_dad", "accept_ra_defrtr", "accept_ra_from_local", "accept_ra_min_hop_limit",
        "accept_ra_mtu", "accept_ra_pinfo", "accept_ra_rt_info_max_plen", "accept_ra_rtr_pref",
        "accept_redirects", "accept_untracked_na", "addr_gen_mode", "dad_transmits",
        "drop_unsolicited_na", "force_tllao", "hop_limit", "keep_addr_on_down", "ndisc_notify",
        "ra_defrtr_metric", "router_solicitations", "temp_prefered_lft", "temp_valid_lft",
        "use_tempaddr",
    ),
}  # fmt: skip
"""The first line of each decides forwarding and bridging; a bridge that takes a NIC's place gets
all of them (kernel: Documentation/networking/ip-sysctl.rst)."""


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
