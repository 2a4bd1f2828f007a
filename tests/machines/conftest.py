"""Machines for tests, always taken down, also when pytest is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvmnet.errors import KvmnetError
from machines import images, scenarios
from machines.container import Container
from machines.vm import Vm


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.machines)


_measured_by_workers: list[str] = []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker (of pytest-xdist) has no terminal: it hands over what was measured."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["measured"] = scenarios.measured()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _measured_by_workers.extend(getattr(node, "workeroutput", {}).get("measured", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in (*_measured_by_workers, *scenarios.measured()):
        terminalreporter.write_line(line)


class Machines:
    """Where tests get machines from: `with machines.container("netplan", "dhcp") as m`."""

    def container(
        self, manager: str, config: str = "static", *, nics: int = 1, more: tuple[str, ...] = ()
    ) -> Container:
        """A container of the first tier, with these packages besides: a second."""
        try:
            images.check()
            return Container(manager, config, nics=nics, more=more)
        except KvmnetError as error:
            pytest.fail(f"no machine: {error}; {error.hint}", pytrace=False)

    def vm(
        self, manager: str, config: str = "static", *, kernel: str = "cloud", nics: int = 1
    ) -> Vm:
        """A virtual machine, booted already: two seconds, the first time a quarter of a minute."""
        try:
            images.check()
            return Vm(manager, config, kernel=kernel, nics=nics)
        except KvmnetError as error:
            pytest.fail(f"no machine: {error}; {error.hint}", pytrace=False)


@pytest.fixture(scope="session")
def machines() -> Machines:
    return Machines()
