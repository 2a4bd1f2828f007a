"""Golden folders: a State and what is found in it.

A new case is a new folder `cases/NAME` with `state.json` (what `kvmnet state save` writes, or less)
and `expected.json`: the findings with their steps of mending, where they differ from the defaults.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kvmnet.core import findings
from kvmnet.core.finding import Finding
from kvmnet.formats import state_json
from kvmnet.model.host import NicOwner
from kvmnet.model.state import State

CASES = Path(__file__).parent / "cases"
FOLDERS = sorted(x.parent for x in CASES.glob("*/state.json"))
ASKED = sorted(x.parent for x in (CASES.parent / "asked").glob("*/state.json"))
"""Cases of what only somebody who asks is told: `findings.explain`."""


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda x: x.name)
def test_case(folder: Path) -> None:
    state = state_json.parse((folder / "state.json").read_text())
    expected = (folder / "expected.json").read_bytes()
    assert findings.find(state) == msgspec.json.decode(expected, type=tuple[Finding, ...])


@pytest.mark.parametrize("folder", ASKED, ids=lambda x: x.name)
def test_asked(folder: Path) -> None:
    state = state_json.parse((folder / "state.json").read_text())
    expected = (folder / "expected.json").read_bytes()
    assert findings.explain(state) == msgspec.json.decode(expected, type=tuple[Finding, ...])


def test_every_check_has_a_case() -> None:
    named = {
        finding["name"]
        for folder in FOLDERS
        for finding in msgspec.json.decode((folder / "expected.json").read_bytes())
    }
    assert len(named) >= len(findings.CHECKS)


HOSTILE = "x;$(y)'\""
"""The kernel takes it as a link's name, libvirt as a guest's and a network's."""


def _renamed(value: Any, old: str) -> Any:
    if isinstance(value, dict):
        return {k: _renamed(v, old) for k, v in value.items()}
    if isinstance(value, list):
        return [_renamed(v, old) for v in value]
    return HOSTILE if value == old else value


@pytest.mark.parametrize("name", ["a", "b", "default", "br0", "virbr0", "eth1", "wlan0", "vnet1",
                                  "named.service", "enp4s0"])  # fmt: skip
def test_a_hostile_name_stays_a_part_of_one_word(name: str) -> None:
    for folder in [*FOLDERS, *ASKED]:
        state = state_json.parse((folder / "state.json").read_text())
        hostile = msgspec.convert(_renamed(msgspec.to_builtins(state), name), State)
        for finding in (*findings.find(hostile), *findings.explain(hostile)):
            for line in finding.fix:
                inside = "$(y)" in line
                assert inside == any(HOSTILE in word for word in shlex.split(line)), line


def test_a_hostile_name_is_one_word_of_a_command() -> None:
    state = state_json.parse((CASES / "hostile_names" / "state.json").read_text())
    guest = state.guests[0]
    nic = msgspec.structs.replace(guest.saved_nics[0], type="network", source=guest.name)
    guest = msgspec.structs.replace(guest, saved_nics=(nic,))
    network = msgspec.json.decode(
        msgspec.json.encode({"connection": guest.connection, "name": guest.name, "uuid": "u",
                             "active": False, "persistent": True, "autostart": False})
    )  # fmt: skip
    hostile = msgspec.convert(
        {**msgspec.to_builtins(state), "guests": [msgspec.to_builtins(guest)],
         "networks": [network]},
        type(state),
    )  # fmt: skip
    (finding,) = findings.find(hostile)
    assert shlex.split(finding.fix[0]) == ["kvmnet", "network", "start", guest.name]


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        (NicOwner(link="eth1", manager="netplan", evidence=("/etc/netplan/01-lan.yaml",)),
         "in the files of netplan (/etc/netplan/01-lan.yaml)"),
        (NicOwner(link="eth1", manager="NetworkManager", evidence=("nmcli: connected (lan)",),
                  rivals=("ifupdown (/etc/network/interfaces: iface eth1 inet dhcp)",)),
         "NetworkManager (nmcli: connected (lan)) and ifupdown (/etc/network/interfaces"),
        (NicOwner(link="eth1", manager="none"), "no host network manager is known to have eth1"),
    ],
)  # fmt: skip
def test_a_moved_address_is_told_to_come_back_and_by_whose_files(
    owner: NicOwner, said: str
) -> None:
    state = state_json.parse((CASES / "lab_ip_left" / "state.json").read_text())
    state = msgspec.structs.replace(state, owners=(owner,))
    (finding,) = [x for x in findings.find(state) if x.name == "ip-left-on-port"]
    assert finding.lasts.startswith("until the next boot") and said in finding.lasts
