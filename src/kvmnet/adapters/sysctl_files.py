"""Reads which kernel settings the host's files set at boot: sysctl.d(5), sysctl.conf(5)."""

from __future__ import annotations

from pathlib import Path

from kvmnet.adapters.files import read_optional
from kvmnet.formats import sysctl_conf
from kvmnet.model.host import SysctlFile

FOLDERS = ("etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d")
"""A file hides those of its name in the folders behind (sysctl.d(5))."""
_WANTED = ("net.bridge.", "net.ipv4.ip_forward", "net.ipv4.conf.", "net.ipv6.conf.")


def read_sysctl_files(root: Path = Path("/")) -> tuple[SysctlFile, ...]:
    """The settings of networks, each with the file that has the last word, in that order."""
    found: dict[str, SysctlFile] = {}
    for path in _in_order(root):
        for name, value in sysctl_conf.parse(read_optional(path) or ""):
            if name.startswith(_WANTED):
                shown = f"/{path.relative_to(root)}"
                found.pop(name, None)  # what is set again is set later: systemd-sysctl does so too
                found[name] = SysctlFile(name=name, value=value, path=shown)
    return tuple(found.values())


def _in_order(root: Path) -> list[Path]:
    """Files by their names.

    systemd-sysctl(8) reads sysctl.conf only where a link of sysctl.d leads to it, in the place of
    that link's name; procps, without systemd, reads it last.
    """
    named: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).glob("*.conf")):
            named.setdefault(path.name, path)
    ordered = [named[x] for x in sorted(named)]
    booted_by_systemd = (root / "run/systemd/system").is_dir()
    return ordered if booted_by_systemd else [*ordered, root / "etc/sysctl.conf"]
