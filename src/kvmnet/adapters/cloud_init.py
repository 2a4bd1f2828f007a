"""Whether cloud-init writes the host network manager's files anew (cloudinit.readthedocs.io,
Network configuration)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from kvmnet.adapters import files

_DISABLED = re.compile(r"(?m)^\s*network:\s*\{?\s*config:\s*[\"']?disabled")


def read(root: Path) -> Literal["absent", "writes", "keeps-off"]:
    """keeps-off: it is installed, and was told to leave the network alone."""
    if not (root / "usr/bin/cloud-init").exists():
        return "absent"
    if (root / "etc/cloud/cloud-init.disabled").exists():
        return "keeps-off"
    parts = sorted((root / "etc/cloud/cloud.cfg.d").glob("*.cfg"))
    texts = [files.read_optional(x) or "" for x in (*parts, root / "etc/cloud/cloud.cfg")]
    return "keeps-off" if any(map(_DISABLED.search, texts)) else "writes"
