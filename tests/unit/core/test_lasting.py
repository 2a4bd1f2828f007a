"""Golden folders of what makes a mending last: a State, what is kept, and the plan of --fix.

A case is a folder below lasting/: `state.json`, `kept.json` (files and definitions as they are) and
`expected.json`, which this file writes if it is run with KVMNET_RECORD=1: read it then.
"""

import os
from pathlib import Path

import msgspec
import pytest

from kvmnet.core import findings
from kvmnet.core.lasting import Kept, lasting, wanted_files, wanted_networks
from kvmnet.core.mending_plan import mending_plan
from kvmnet.formats import state_json
from kvmnet.model.host import Sysctl
from kvmnet.model.plan import Plan, RemoveFile, WriteFile

CASES = sorted((Path(__file__).parent / "lasting").iterdir())


def planned(case: Path) -> Plan:
    state = state_json.parse((case / "state.json").read_text())
    kept = msgspec.json.decode((case / "kept.json").read_bytes(), type=Kept)
    found = findings.find(state)
    assert {x.path for x in kept.files} <= set(wanted_files(found))
    assert {x.name for x in kept.networks} <= set(wanted_networks(state, found))
    return lasting(state, found, mending_plan(found, "the host"), kept)


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_case(case: Path) -> None:
    plan, expected = planned(case), case / "expected.json"
    if os.environ.get("KVMNET_RECORD"):
        expected.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n")
    assert plan == msgspec.json.decode(expected.read_bytes(), type=Plan)


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_undo_of_a_file_is_the_file_as_it_was(case: Path) -> None:
    kept = msgspec.json.decode((case / "kept.json").read_bytes(), type=Kept)
    for one in planned(case).steps:
        if isinstance(one.step, WriteFile):
            before = kept.text(one.step.path)
            path = one.step.path
            undo = RemoveFile(path=path) if before is None else WriteFile(path=path, text=before)
            assert one.undo == undo


def test_what_comes_back_with_forwarding_is_in_the_plan_and_in_no_file() -> None:
    case = Path(__file__).parent / "lasting" / "sysctl_gets_a_file_that_is_read_after_the_other"
    state = state_json.parse((case / "state.json").read_text())
    more = Sysctl(name="net.ipv4.conf.all.accept_redirects", value="0")
    others = tuple(x for x in state.sysctls if x.name != more.name)
    state = msgspec.structs.replace(state, sysctls=(*others, more))
    kept = msgspec.json.decode((case / "kept.json").read_bytes(), type=Kept)
    found = findings.find(state)
    plan = lasting(state, found, mending_plan(found, "the host"), kept)
    said = [str(x.undo) for x in plan.steps]
    first, last = (f"set {more.name} = 0", "set net.ipv4.ip_forward = 0")
    assert said.index(first) < said.index(last)
    texts = [x.step.text for x in plan.steps if isinstance(x.step, WriteFile)]
    assert texts and not any("accept_redirects" in x for x in texts)
