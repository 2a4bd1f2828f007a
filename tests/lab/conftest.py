"""Labs for tests: real ones, always taken down, also when pytest is killed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from kvmnet.errors import KvmnetError
from kvmnet.lab import record, requirements
from kvmnet.lab.lab import Lab

_numbers = itertools.count(1)


def start_lab() -> Lab:
    """A new lab of a unique name; the test fails with what to install if it can't be had."""
    try:
        record.require_root()
        requirements.check()
        return Lab.temporary(unique_name())
    except KvmnetError as error:
        pytest.fail(f"no lab: {error}; {error.hint}", pytrace=False)


def unique_name() -> str:
    return f"test_{os.getpid()}_{next(_numbers)}"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A fresh lab for the tests of one module; they may change it."""
    with start_lab() as running:
        yield running


@pytest.fixture(scope="session")
def shared_lab() -> Iterator[Lab]:
    """One lab for all tests that only look."""
    with start_lab() as running:
        yield running
