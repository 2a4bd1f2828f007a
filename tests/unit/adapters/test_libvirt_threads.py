"""Several calls to libvirt at once."""

from __future__ import annotations

import threading

import pytest

from kvmnet.adapters.libvirt import AT_ONCE, in_threads
from kvmnet.errors import Failed


@pytest.mark.parametrize("count", [0, 1, AT_ONCE - 1, AT_ONCE, 3 * AT_ONCE + 1])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    assert in_threads(lambda x: x * x, range(count)) == [x * x for x in range(count)]


def test_calls_are_made_at_once() -> None:
    together = threading.Barrier(AT_ONCE, timeout=10)
    assert len(in_threads(lambda _: together.wait(), range(AT_ONCE))) == AT_ONCE


def test_what_fails_is_raised_when_the_others_are_over() -> None:
    done: list[int] = []

    def call(number: int) -> None:
        if number == 1:
            raise Failed("number 1")
        done.append(number)

    with pytest.raises(Failed, match="number 1"):
        in_threads(call, range(2 * AT_ONCE))
    assert set(done) == set(range(2 * AT_ONCE)) - {1, 1 + AT_ONCE}
