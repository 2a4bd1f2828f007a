"""Golden folders: ifupdown's files and a bridge that takes a NIC's place, and what comes of it.

A new case is a new folder `cases/NAME` with `before/` (the host's files), `takeover.json` (the
operation, the takeover and what else the host says), `after/` (the files that change) and `told`
(calls and notes); or, where it is refused, `refused` with the error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from kvmnet.adapters.manager_ifupdown import observe
from kvmnet.errors import KvmnetError, NotFound, Refused
from kvmnet.formats import interfaces_bridge
from kvmnet.formats.interfaces_view import IfupdownView
from kvmnet.model.handover import (
    DhclientMoved,
    DhcpClient,
    FileState,
    HandedOver,
    ManagerCall,
)
from kvmnet.model.takeover import Takeover

CASES = Path(__file__).parent / "cases"
FOLDERS = sorted(x.parent for x in CASES.glob("*/takeover.json"))
CREATED = [x for x in FOLDERS if (x / "after").is_dir() and '"create"' in
           (x / "takeover.json").read_text()]  # fmt: skip


def case(folder: Path) -> dict[str, Any]:
    return msgspec.json.decode((folder / "takeover.json").read_bytes(), type=dict[str, Any])


def view(folder: Path, takeover: Takeover) -> IfupdownView:
    ports = tuple(x.name for x in takeover.ports)
    seen = observe(folder / "before", takeover.heir_of, ports, takeover.bridge)
    more = {"has_bridge_utils": True, **case(folder)["view"]}
    more["clients"] = msgspec.convert(more.get("clients", []), tuple[DhcpClient, ...])
    more["other_clients"] = tuple(more.get("other_clients", ()))
    files = tuple(msgspec.structs.replace(x, mode=0o644, uid=0, gid=0) for x in seen.files)
    return msgspec.structs.replace(seen, **{**more, "files": files})


def carried_out(folder: Path) -> tuple[IfupdownView, Takeover, HandedOver]:
    said = case(folder)
    takeover = msgspec.convert(said["takeover"], Takeover)
    seen = view(folder, takeover)
    if said["operation"] == "set_ports":
        before = msgspec.convert(said["before"], Takeover)
        return seen, takeover, interfaces_bridge.set_ports(seen, before, takeover)
    do = {"create": interfaces_bridge.create, "delete": interfaces_bridge.delete}
    return seen, takeover, do[said["operation"]](seen, takeover)


def told(handed: HandedOver) -> str:
    parts = {
        "first": handed.calls_first,
        "then": handed.calls,
        "back first": handed.calls_back_first,
        "back": handed.calls_back,
        "back at boot": handed.calls_back_at_boot,
        "note": handed.notes,
    }
    return "".join(f"{name}: {line(x)}\n" for name, values in parts.items() for x in values)


def line(x: ManagerCall | str) -> str:
    """What people are told, and how a DHCP client is run."""
    starts = isinstance(x, DhclientMoved) and x.starts
    return f"{x} [{' '.join(starts.argv)}; {starts.lease_file}]" if starts else str(x)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda x: x.name)
def test_case(folder: Path) -> None:
    refused = folder / "refused"
    if refused.exists():
        with pytest.raises((Refused, NotFound)) as caught:
            carried_out(folder)
        error = caught.value
        assert f"{error}\n{error.hint}\n" == refused.read_text()
        return
    _, _, handed = carried_out(folder)
    after = {
        f"/{x.relative_to(folder / 'after')}": x.read_bytes().decode()
        for x in (folder / "after").rglob("*")
        if x.is_file()
    }
    assert {x.path: x.text for x in handed.files} == after
    assert told(handed) == (folder / "told").read_text()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda x: x.name)
def test_undo_has_each_changed_file_as_it_was(folder: Path) -> None:
    try:
        seen, _, handed = carried_out(folder)
    except KvmnetError:
        return
    known = {x.path: x for x in seen.files}
    for after, before in zip(handed.files, handed.files_before, strict=True):
        assert before == known.get(before.path, FileState(path=before.path, text=None))
        assert (after.path, after.mode) == (before.path, before.mode) and after != before


@pytest.mark.parametrize("folder", CREATED, ids=lambda x: x.name)
def test_delete_gives_back_what_create_took(folder: Path) -> None:
    seen, takeover, handed = carried_out(folder)
    new = {x.path: x for x in handed.files}
    later = msgspec.structs.replace(seen, files=tuple(new.get(x.path, x) for x in seen.files))
    back = {x.path: x.text for x in interfaces_bridge.delete(later, takeover).files}
    for file in seen.files:
        # A last line without a newline gets one.
        text = back.get(file.path, file.text) or ""
        assert text.rstrip("\n") == (file.text or "").rstrip("\n")


@pytest.mark.parametrize("folder", CREATED, ids=lambda x: x.name)
def test_no_bridge_is_made_twice(folder: Path) -> None:
    seen, takeover, handed = carried_out(folder)
    new = {x.path: x for x in handed.files}
    later = msgspec.structs.replace(seen, files=tuple(new.get(x.path, x) for x in seen.files))
    with pytest.raises(Refused):
        interfaces_bridge.create(later, takeover)
