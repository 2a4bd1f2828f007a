"""Writes the JSON Schema of every document that kvmnet prints or saves.

    python3 -m kvmnet.cli.schemas docs/schema

The files are committed; a test holds them equal to what this makes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from kvmnet.adapters.files import write_atomic
from kvmnet.cli import doctor_document, documents, guest_documents, host_documents
from kvmnet.formats import state_json

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def document_types() -> Iterator[type[msgspec.Struct]]:
    """Every document: a Struct with a `format` and a `version`."""
    for module in (documents, doctor_document, guest_documents, host_documents, state_json):
        for kind in vars(module).values():
            is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
            if is_struct and kind.__module__ == module.__name__ and _is_document(kind):
                yield kind


def _is_document(kind: type[msgspec.Struct]) -> bool:
    fields = {x.name: x.default for x in msgspec.structs.fields(kind)}
    return isinstance(fields.get("format"), str) and bool(fields["format"]) and bool(
        fields.get("version")
    )  # fmt: skip


def render() -> dict[str, str]:
    """The text of every schema, by file name."""
    return {f"{_format(kind)}.json": _schema(kind) for kind in document_types()}


def _format(kind: type[msgspec.Struct]) -> str:
    return str(next(x.default for x in msgspec.structs.fields(kind) if x.name == "format"))


def _schema(kind: type[msgspec.Struct]) -> str:
    schema = {"$schema": DIALECT, **msgspec.json.schema(kind)}
    raw = msgspec.json.encode(schema, order="sorted")
    return msgspec.json.format(raw, indent=1).decode("utf-8") + "\n"


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/schema")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        write_atomic(folder / name, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
