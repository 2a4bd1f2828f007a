"""The set-up scripts install what the code needs, and stay plain POSIX shell."""

import subprocess
from pathlib import Path

import pytest

from kvmnet.lab.requirements import requirements

ROOT = Path(__file__).parents[2]
SCRIPTS = ("demo", "test", "bench/run", "tools/prepare.sh", "tools/packages.sh", "tools/lock")


def test_the_scripts_install_all_that_the_lab_requires() -> None:
    script = '. tools/packages.sh; echo "$python_packages" $lab_packages'
    listed = subprocess.run(
        ["sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
    )
    assert {requirement.package for requirement in requirements()} <= {
        package.removesuffix("?") for package in listed.stdout.split()
    }


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_posix_shell(script: str) -> None:
    text = (ROOT / script).read_text()
    assert text.startswith(("#!/bin/sh\n", "# "))
    subprocess.run(["sh", "-n", str(ROOT / script)], check=True, timeout=10)
    for bashism in ("[[", "function ", "local ", "pipefail", "<<<"):
        assert bashism not in text
