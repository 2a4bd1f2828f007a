"""Reads what a mending has to know to last beyond the next boot, and to be taken back exactly."""

from __future__ import annotations

from pathlib import Path

from kvmnet.adapters import files, libvirt_networks
from kvmnet.core import lasting
from kvmnet.core.finding import Finding
from kvmnet.core.lasting import Kept, KeptFile, KeptNetwork
from kvmnet.model.plan import Plan
from kvmnet.model.state import State


def made_lasting(state: State, findings: tuple[Finding, ...], plan: Plan, uri: str | None) -> Plan:
    """The plan with the steps that make it last. Raises `KvmnetError` where libvirt is cut off."""
    paths = lasting.wanted_files(findings)
    names = lasting.wanted_networks(state, findings)
    kept = Kept(
        files=tuple(KeptFile(path=x, text=_text(Path(x))) for x in paths),
        networks=tuple(KeptNetwork(name=x, xml=libvirt_networks.saved_xml(uri, x)) for x in names),
    )
    return lasting.lasting(state, findings, plan, kept)


def _text(path: Path) -> str | None:
    return files.read_text(path) if path.exists() else None
