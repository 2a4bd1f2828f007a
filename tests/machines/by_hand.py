"""`tests/machines/try`: one machine, one script."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from kvmnet.errors import KvmnetError
from machines import images
from machines.container import Container
from machines.machine import KINDS, Machine


def make(args: argparse.Namespace) -> Machine:
    images.check()
    if args.vm:
        from machines.vm import Vm

        return Vm(args.manager, args.config)
    return Container(args.manager, args.config)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/machines/try")
    parser.add_argument("--vm", action="store_true", help="a virtual machine, not a container")
    parser.add_argument("manager", choices=sorted(images.MANAGERS))
    parser.add_argument("config", choices=KINDS)
    parser.add_argument("script", nargs="?", help="for sh; without: line by line from stdin")
    args = parser.parse_args()
    scripts: Iterable[str] = [args.script] if args.script else sys.stdin
    try:
        with make(args) as machine:
            print(f"{machine.manager} at {machine.address}", file=sys.stderr)
            status = 0
            for script in scripts:
                done = machine.run(["sh", "-c", script], check=False, timeout=300)
                sys.stdout.write(done.stdout)
                sys.stderr.write(done.stderr)
                status = done.status
    except KvmnetError as error:
        print(f"try: {error}; {error.hint}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
