"""The committed schemas are those of the documents, and real documents fit them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from kvmnet.cli import schemas
from kvmnet.cli.main import main

ROOT = Path(__file__).parents[3]
STATES = sorted((ROOT / "tests/unit/findings/cases").glob("*/state.json"))
MANY = [["status"], ["guest", "list"], ["bridge", "list"], ["network", "list"]]


def test_committed_schemas_are_current() -> None:
    committed = {x.name: x.read_text() for x in (ROOT / "docs/schema").glob("*.json")}
    assert committed == schemas.render(), "run: python3 -m kvmnet.cli.schemas docs/schema"


@pytest.mark.parametrize("words", MANY, ids=" ".join)
@pytest.mark.parametrize("path", STATES, ids=lambda x: x.parent.name)
def test_documents_fit(words: list[str], path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--state", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    schema = json.loads((ROOT / f"docs/schema/{document['format']}.json").read_text())
    jsonschema.validate(document, schema)


def test_saved_states_fit() -> None:
    schema = json.loads((ROOT / "docs/schema/kvmnet.state.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    for path in STATES:
        validator.validate(msgspec.json.decode(path.read_bytes()))


def test_every_document_is_in_the_docs() -> None:
    text = (ROOT / "docs/json.md").read_text()
    for name in schemas.render():
        assert f"schema/{name}" in text, name
