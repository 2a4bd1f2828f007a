"""What `kvmnet doctor` says on a machine."""

from __future__ import annotations

import json
from typing import Any

from machines.machine import Machine


def diagnose(m: Machine, *words: str) -> Any:
    """The document of a `kvmnet doctor`; its exit status agrees with it."""
    done = m.kvmnet("doctor", *words, "--json", check=False)
    document = json.loads(done.stdout)
    bad = any(x["severity"] != "note" for x in document["findings"])
    assert done.status == (1 if bad else 0), done
    return document


def names(document: Any) -> list[tuple[str, str]]:
    """What was found, and about what."""
    return sorted((x["name"], x["subject"]) for x in document["findings"])
