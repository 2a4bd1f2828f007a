"""The set-up scripts install what the code needs, and stay plain POSIX shell."""

import subprocess
from pathlib import Path

import pytest
from machines.images import NEEDED

from kvmnet.lab.requirements import requirements

ROOT = Path(__file__).parents[2]
SCRIPTS = (
    "demo",
    "test",
    "bench/run",
    "tools/prepare.sh",
    "tools/packages.sh",
    "tools/lock",
    "tests/machines/try",
    "tests/machines/clean",
)


def listed(variables: str) -> set[str]:
    """The packages in shell variables of tools/packages.sh."""
    script = f". tools/packages.sh; echo {variables}"
    done = subprocess.run(
        ["sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
    )
    return {package.removesuffix("?") for package in done.stdout.split()}


def test_the_scripts_install_all_that_the_lab_requires() -> None:
    required = {requirement.package for requirement in requirements()}
    assert required <= listed("$python_packages $lab_packages")


def test_the_scripts_install_all_that_machines_require() -> None:
    assert set(NEEDED.values()) <= listed("$machine_packages") | {"qemu-system-x86"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_posix_shell(script: str) -> None:
    text = (ROOT / script).read_text()
    assert text.startswith(("#!/bin/sh\n", "# "))
    subprocess.run(["sh", "-n", str(ROOT / script)], check=True, timeout=10)
    for bashism in ("[[", "function ", "local ", "pipefail", "<<<"):
        assert bashism not in text
