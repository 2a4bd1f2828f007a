"""docs/doctor.md has one row for each name that a finding can have, and says what --fix mends."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

import kvmnet
from kvmnet.core.finding import Finding

CORE = Path(kvmnet.__file__).parent / "core"
DOCUMENT = Path(__file__).parents[3] / "docs" / "doctor.md"
ROW = re.compile(r"^\| `([a-z0-9-]+)` \|.*\| (yes|some|no) \|$", re.MULTILINE)
_MAKERS = {"finding_of", "_finding"}
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")
MENDED_BY_PROBE = {"bad-checksum", "bridge-down", "stp-delay"}
"""Those whose steps come with what a stand-in guest went through (`core/probe_symptoms.py`)."""


def _constants(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def names_in_code() -> set[str]:
    """What `Finding(name=…)` and what makes one are given, and what `problem_name` says."""
    found: set[str] = set()
    for path in CORE.rglob("*.py"):
        if path.name == "up_plan.py":  # what `kvmnet up` says in its own words
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _called(node) == "Finding":
                found |= {x for y in node.keywords if y.arg == "name" for x in _constants(y.value)}
            elif isinstance(node, ast.Call) and _called(node) in _MAKERS and node.args:
                found |= set(_constants(node.args[0]))
            elif isinstance(node, ast.FunctionDef) and node.name == "problem_name":
                found |= {x for y in node.body[1:] for x in _constants(y)}
    return {x for x in found if NAME.fullmatch(x) and x != "dhcp-servers"}


def cases() -> Iterator[Finding]:
    for path in Path(__file__).parent.glob("*/*/expected.json"):
        yield from msgspec.json.decode(path.read_bytes(), type=tuple[Finding, ...])


def test_each_name_has_a_row() -> None:
    rows = [name for name, _ in ROW.findall(DOCUMENT.read_text())]
    assert len(rows) == len(set(rows))
    assert set(rows) == names_in_code()


def test_the_document_tells_what_is_mended() -> None:
    said = dict(ROW.findall(DOCUMENT.read_text()))
    mended = {x.name for x in cases() if x.mend} | MENDED_BY_PROBE
    left = {x.name for x in cases() if not x.mend and x.severity != "note"}
    for name, word in said.items():
        assert (word != "no") == (name in mended), name
        assert word != "yes" or name not in left, name
