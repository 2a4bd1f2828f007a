"""Golden folders: a State and what is found in it.

A new case is a new folder `cases/NAME` with `state.json` (what `kvmnet state save` writes, or less)
and `expected.json`.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec
import pytest

from kvmnet.core import findings
from kvmnet.formats import state_json

CASES = Path(__file__).parent / "cases"
FOLDERS = sorted(x.parent for x in CASES.glob("*/state.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda x: x.name)
def test_case(folder: Path) -> None:
    state = state_json.parse((folder / "state.json").read_text())
    found = msgspec.json.decode(msgspec.json.encode(findings.find(state)))
    assert found == msgspec.json.decode((folder / "expected.json").read_bytes())


def test_every_check_has_a_case() -> None:
    named = {
        finding["name"]
        for folder in FOLDERS
        for finding in msgspec.json.decode((folder / "expected.json").read_bytes())
    }
    assert len(named) >= len(findings.CHECKS)


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
