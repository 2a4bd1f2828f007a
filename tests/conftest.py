"""What holds for all tests."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Helpers of tests that assert: a failure should show the values, as in the tests themselves.
pytest.register_assert_rewrite(*(f"machines.{x}" for x in ("lan", "machine", "scenarios")))

# A run shows what a change does, so the examples are the same each time. To look for new ones:
# --hypothesis-profile=default, which draws them at random. How long they take is not tested.
settings.register_profile("same", derandomize=True, database=None, deadline=None,
                          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
settings.load_profile("same")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests of real parts need root. Where it is missing they fail: a skip looks like a pass."""
    for mark in ("lab", "machines", "namespaces"):
        if os.geteuid() != 0 and item.get_closest_marker(mark) is not None:
            pytest.fail("this test needs root: run it by ./test", pytrace=False)
