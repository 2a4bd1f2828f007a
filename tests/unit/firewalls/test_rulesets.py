"""Golden folders: rulesets that real programs made, and what is found in them.

Each folder holds what `nft`, `iptables-save` and their variants printed in a network namespace in
which ufw, firewalld, Docker, libvirt or an administrator's own rules were in force. The host around
them is always the same: the network default with two guests, a bridge br0 with one.

A new case is a new folder with `nft.json` (`nft -j list ruleset`), `nft.txt` (`nft -a list
ruleset`), the four outputs of `iptables-save -c`, and `expected.json`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kvmnet.core import findings
from kvmnet.core.finding import Finding

from .host import CASES, load, state_with

FOLDERS = sorted(x.parent for x in CASES.glob("*/nft.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda x: x.name)
def test_ruleset(folder: Path) -> None:
    state = state_with(load(folder), bridged="bridged" in folder.name)
    expected = (folder / "expected.json").read_bytes()
    assert findings.find(state) == msgspec.json.decode(expected, type=tuple[Finding, ...])


def test_harmless_rulesets_are_silent() -> None:
    for name in ("libvirt_iptables", "libvirt_iptables_legacy", "docker28_libvirt_iptables",
                 "docker28_bridged_allowed", "ufw_libvirt_iptables", "kubernetes_libvirt_iptables",
                 "firewalld_trusted_libvirt_nftables", "own_nft_allowed", "published_allowed",
                 "fail2ban_libvirt_iptables"):  # fmt: skip
        state = state_with(load(CASES / name), bridged="bridged" in name)
        assert [x.name for x in findings.find(state) if x.severity != "note"] == [], name
