"""What holds for all tests."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

# Helpers of tests that assert: a failure should show the values, as in the tests themselves.
pytest.register_assert_rewrite(*(f"machines.{x}" for x in ("lan", "machine", "scenarios")))

# A run shows what a change does, so the examples are the same each time. To look for new ones:
# --hypothesis-profile=default, which draws them at random. How long they take is not tested.
settings.register_profile("same", derandomize=True, database=None, deadline=None,
                          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
settings.load_profile("same")


NICE = 3
"""How much whoever runs the other tests gives way to whole machines, which count lost packets."""


class _Halves(LoadFileScheduling):
    """Of two processes that run tests (pytest-xdist, `--dist loadfile`) one has all machines, since
    each takes a processor; the other takes the rest, file by file: tests of one share a lab."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return "machines" if file.startswith("tests/machines/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Halves | None:
    return _Halves(config, log) if config.getvalue("dist") == "loadfile" else None


def _is_of_machines(item: pytest.Item) -> bool:
    return item.path.is_relative_to(Path(__file__).parent / "machines")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests of real parts need root. Where it is missing they fail: a skip looks like a pass."""
    if "PYTEST_XDIST_WORKER" in os.environ and os.geteuid() == 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0 if _is_of_machines(item) else NICE)
    for mark in ("lab", "machines", "namespaces"):
        if os.geteuid() != 0 and item.get_closest_marker(mark) is not None:
            pytest.fail("this test needs root: run it by ./test", pytrace=False)
