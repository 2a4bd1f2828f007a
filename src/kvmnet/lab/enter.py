"""Running programs inside a lab for people: `kvmnet --lab …` and `kvmnet lab exec …`.

As a module, `python -m kvmnet.lab.enter LAB PLACE PROGRAM [ARGUMENT…]` is the same for programs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from kvmnet.adapters.run import environment
from kvmnet.errors import KvmnetError
from kvmnet.lab import record, topology

_DROPPED = ("XDG_", "LIBVIRT_", "VIRSH_", "QEMU_", "DBUS_")
"""Variables by these prefixes point to things of the machine that the lab does not have."""


def lab_environment(name: str) -> dict[str, str]:
    """The environment for programs inside: this one, without what points out of the lab."""
    kept = {k: v for k, v in environment().items() if not k.startswith(_DROPPED)}
    return {**kept, "HOME": topology.HOME, "KVMNET_LAB": name}


def run_inside(name: str, argv: Sequence[str]) -> int:
    """Run `kvmnet ARGV` inside the host of the lab `name` and return its exit status."""
    return execute(name, topology.HOST, [sys.executable, "-P", "-m", "kvmnet", *argv])


def execute(name: str, where: str, argv: Sequence[str]) -> int:
    """Run a program at a place of the lab, with this process's terminal; its exit status."""
    from kvmnet.lab.namespaces import run_in

    holder = record.running(name).holder(where)
    return run_in(holder.pid, argv, lab_environment(name))


def main() -> int:
    name, where, *argv = sys.argv[1:]
    try:
        return execute(name, where, argv)
    except KvmnetError as error:
        os.write(2, f"kvmnet: {error}\n".encode())
        return 125


if __name__ == "__main__":
    sys.exit(main())
