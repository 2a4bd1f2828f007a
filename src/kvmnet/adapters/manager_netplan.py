"""Netplan: reads its files, who else writes them, and what its renderer does."""

from __future__ import annotations

import re
from pathlib import Path

from kvmnet.adapters import files, manager_networkd, manager_networkmanager
from kvmnet.adapters.run import run
from kvmnet.model.handover import FileState
from kvmnet.model.netplan import CloudInit, NetplanView
from kvmnet.model.networkmanager import NmView

_FOLDERS = ("usr/lib/netplan", "lib/netplan", "etc/netplan", "run/netplan")
"""A later folder's file replaces one of the same name (netplan-generate(8))."""
_PROGRAMS = (Path("/usr/libexec/netplan"), Path("/usr/lib/netplan"), Path("/lib/netplan"))
_DISABLED = re.compile(r"(?m)^\s*network:\s*\{?\s*config:\s*[\"']?disabled")


def observe(
    root: Path = Path("/"),
    heir: str | None = None,
    ports: tuple[str, ...] = (),
    bridge: str = "",
) -> NetplanView:
    """Netplan's files that count, cloud-init's part in them, and its renderers' views.

    `root` can be given to read a tree of files. Raises `PermissionDenied` or `Unavailable` where
    a file can't be read: nothing is guessed.
    """
    own = _files(root)
    named = any("NetworkManager" in (x.text or "") for x in own)
    return NetplanView(
        files=own,
        nm=manager_networkmanager.observe(root, heir, ports, bridge) if named else NmView(),
        networkd=manager_networkd.observe(root, heir, ports, bridge),
        cloud_init=_cloud_init(root),
    )


def generate() -> None:
    """Have netplan make its renderers' files anew. Raises `CommandFailed` with its reason.

    Up to netplan 1.1 `netplan generate` is a Python program that does nothing but run the
    generator, which systemd runs at each boot too; where there is a `configure` beside it, the work
    is divided otherwise.
    """
    for folder in _PROGRAMS:
        if (folder / "generate").exists() and not (folder / "configure").exists():
            run([str(folder / "generate")], timeout=20.0)
            return
    run(["netplan", "generate"], timeout=20.0)


def _files(root: Path) -> tuple[FileState, ...]:
    found: dict[str, Path] = {}
    for folder in _FOLDERS:
        found.update({x.name: x for x in (root / folder).glob("*.yaml")})
    return tuple(manager_networkd.file_state(root, x) for _, x in sorted(found.items()))


def _cloud_init(root: Path) -> CloudInit:
    """cloud-init's own ways to be told off (cloudinit.readthedocs.io, Network configuration)."""
    if not (root / "usr/bin/cloud-init").exists():
        return "absent"
    if (root / "etc/cloud/cloud-init.disabled").exists():
        return "keeps-off"
    folder = root / "etc/cloud/cloud.cfg.d"
    texts = [files.read_optional(x) or "" for x in sorted(folder.glob("*.cfg"))]
    texts.append(files.read_optional(root / "etc/cloud/cloud.cfg") or "")
    return "keeps-off" if any(map(_DISABLED.search, texts)) else "writes"
