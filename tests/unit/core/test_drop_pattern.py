"""Drops are tied to packets by their rhythm, and never to noise."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmnet.core.drop_pattern import tied
from kvmnet.model.trace import LoggedDrop

SENT = (10.0, 10.061, 10.137, 10.19, 10.281, 10.33, 10.42)
END = 10.5


def drops(times: list[float], reason: str = "NETFILTER_DROP") -> list[LoggedDrop]:
    return [LoggedDrop(at=x, reason=reason, function="nf_hook_slow") for x in times]


def ours(delay: float = 0.0002) -> list[float]:
    return [x + delay for x in SENT]


def noise(seed: int, rate: float) -> list[float]:
    """Drops at random moments, `rate` a second."""
    random = Random(seed)
    times, at = [], 9.9
    while (at := at + random.expovariate(rate)) < END:
        times.append(at)
    return times


def test_one_drop_after_each_packet_is_ours() -> None:
    (found,) = tied(SENT, drops(ours()), END)
    assert (found.reason, found.count, found.tied_by) == ("NETFILTER_DROP", 7, "pattern")
    assert found.at == pytest.approx(10.0002)


def test_one_packet_without_a_drop_is_enough_to_doubt() -> None:
    assert tied(SENT, drops(ours()[:-1]), END) == ()
    assert tied(SENT, [], END) == ()
    assert tied(SENT[:3], drops(ours()), END) == ()


def test_a_few_drops_of_others_do_not_hide_ours() -> None:
    assert tied(SENT, drops(sorted([*ours(), 10.03, 10.35])), END)


def test_the_right_kind_is_found_among_others() -> None:
    mixed = drops(ours(), "IP_RPFILTER") + drops(noise(1, 1000))
    assert [x.reason for x in tied(SENT, mixed, END)] == ["IP_RPFILTER"]


@pytest.mark.parametrize("rate", [100, 300, 1000, 5000])
def test_ours_among_many_of_the_same_kind_is_not_claimed(rate: float) -> None:
    assert tied(SENT, drops(sorted(ours() + noise(3, rate))), END) == ()


@given(seed=st.integers(0, 10**6), rate=st.sampled_from([1.0, 10.0, 60.0, 200.0, 1000.0]))
def test_noise_alone_is_never_taken_for_ours(seed: int, rate: float) -> None:
    assert tied(SENT, drops(noise(seed, rate)), END) == ()


def test_a_steady_beat_is_not_ours() -> None:
    for every in (0.005, 0.01, 0.02, 0.05):
        beat = [9.9 + every * n for n in range(int(0.6 / every))]
        assert tied(SENT, drops(beat), END) == ()
