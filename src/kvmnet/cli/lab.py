"""A small real world in which everything can be tried, without touching this machine's network.

It has four places, each a network namespace of its own:

  host      libvirtd, QEMU and your guests, with the NIC eth1 on the LAN
  router    the home router: DHCP, DNS, NAT
  peer      another computer on the LAN
  internet  a web server far away, http://www.example.org/

Several labs can run side by side under different names. `kvmnet --lab COMMAND …` (or
`--lab=NAME`) runs any command of kvmnet inside the lab's host.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvmnet.cli import lab_faults
from kvmnet.cli.arguments import integer
from kvmnet.cli.output import print_json, print_table, safe, say, use_color, wants_json
from kvmnet.cli.parser import Parser

if TYPE_CHECKING:
    from kvmnet.cli.documents import LabStatus


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """The sub-verbs of `kvmnet lab`."""
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    name = Parser(add_help=False)
    name.add_argument("--name", default="default", metavar="NAME", help="which lab (default)")
    parents = [common, name]

    up = verbs.add_parser("up", parents=parents, help="start a lab")
    up.set_defaults(handler=_up)
    down = verbs.add_parser("down", parents=parents, help="end a lab and all that runs in it")
    down.set_defaults(handler=_down)
    status = verbs.add_parser("status", parents=[common], help="all labs and what is in them")
    status.set_defaults(handler=_status)
    _add_exec(verbs.add_parser("exec", parents=parents, help="run a program at a place of a lab"))
    _add_guest(verbs.add_parser("guest", help="guests in a lab: add, remove"), parents)
    lab_faults.add_verbs(verbs, common)
    demo = verbs.add_parser(
        "demo", parents=[common], help="the story of a guest's network, told with real packets"
    )
    demo.set_defaults(handler=_demo)


def _add_exec(parser: argparse.ArgumentParser) -> None:
    from kvmnet.lab.topology import PLACES

    parser.add_argument("where", metavar="WHERE", help=f"one of: {', '.join(PLACES)}")
    parser.add_argument("program", metavar="PROGRAM", help="what to run there")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…", help="its arguments")
    parser.set_defaults(handler=_exec)


def _add_guest(parser: argparse.ArgumentParser, parents: list[argparse.ArgumentParser]) -> None:
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    add = verbs.add_parser("add", parents=parents, help="start a small real guest in the lab")
    add.add_argument("guest", metavar="GUEST", help="its name")
    add.add_argument(
        "--on", default="network:default", metavar="TARGET",
        help="what its NICs are plugged into: network:NAME or bridge:NAME (network:default)",
    )  # fmt: skip
    add.add_argument("--nics", default="1", metavar="N", help="how many NICs (1)")
    add.set_defaults(handler=_guest_add)
    remove = verbs.add_parser("remove", parents=parents, help="end a guest and forget it")
    remove.add_argument("guest", metavar="GUEST", help="its name")
    remove.set_defaults(handler=_guest_remove)


def _up(args: argparse.Namespace) -> int:
    from kvmnet.lab.lab import Lab
    from kvmnet.lab.record import parse_name

    parse_name(args.name)
    begin = time.monotonic()
    say(args, f"starting the lab {args.name!r} …")
    lab = Lab.up(args.name, lambda text: say(args, f"  {text}"))
    option = "" if lab.name == "default" else f" --name {lab.name}"
    suffix = "" if lab.name == "default" else f"={lab.name}"
    say(args, f"the lab {lab.name!r} is up after {time.monotonic() - begin:.1f} s")
    say(args, "  look at it:              kvmnet lab status")
    say(args, f"  work in its host:        kvmnet --lab{suffix} status")
    say(args, f"  run anything anywhere:   kvmnet lab exec{option} peer ip address")
    say(args, f"  end it:                  kvmnet lab down{option}")
    return 0


def _down(args: argparse.Namespace) -> int:
    from kvmnet.lab import start

    if start.down(args.name):
        say(args, f"the lab {args.name!r} is gone, nothing of it is left")
    else:
        say(args, f"there is no lab {args.name!r}")
    return 0


def _status(args: argparse.Namespace) -> int:
    from kvmnet.cli.documents import LabDocument, LabStatus
    from kvmnet.lab import inspect, record, start
    from kvmnet.lab.faults import broken

    crashed = start.tidy_stale()
    labs = []
    for name in record.names():
        known = record.read(name)
        if known is None or known.phase != "up" or not known.init.alive():
            continue
        labs.append(
            LabStatus(
                name=name,
                pid=known.init.pid,
                started_at=known.started_at,
                places=inspect.places(known),
                guests=inspect.guests(known),
                faults=tuple(x.name for x in broken.active(name)),
            )
        )
    if wants_json(args):
        print_json(LabDocument(labs=tuple(labs), crashed=crashed))
        return 0
    for name in crashed:
        say(args, f"the lab {name!r} had crashed; what was left of it is removed")
    if not labs:
        print("no lab is up; start one: kvmnet lab up")
    for lab in labs:
        _print_lab(args, lab)
    return 0


def _print_lab(args: argparse.Namespace, lab: LabStatus) -> None:
    age = max(0, int(time.time()) - lab.started_at)
    print(f"lab {lab.name}: up for {age // 60} min {age % 60} s, init is process {lab.pid}")
    rows = [
        [place.where if n == 0 else "", address, ", ".join(place.daemons) if n == 0 else ""]
        for place in lab.places
        for n, address in enumerate(place.addresses or ("-",))
    ]
    print_table(args, ["place", "address", "running"], rows)
    if lab.guests:
        print()
        print_table(
            args, ["guest", "state", "nics", "address"],
            [[g.name, g.state, ", ".join(g.nics), ", ".join(g.addresses)] for g in lab.guests],
        )  # fmt: skip

    if lab.faults:
        option = "" if lab.name == "default" else f" --name {lab.name}"
        print(f"\nbroken on purpose: {', '.join(lab.faults)}")
        print(f"  mend it: kvmnet lab mend {lab.faults[-1]}{option}")


def _exec(args: argparse.Namespace) -> int:
    from kvmnet.lab.enter import execute

    return execute(args.name, args.where, [args.program, *args.arguments])


def _guest_add(args: argparse.Namespace) -> int:
    from kvmnet.lab.lab import Lab

    begin = time.monotonic()
    lab = Lab.attach(args.name)
    guest = lab.add_guest(
        args.guest,
        on=args.on,
        nics=integer(args.nics, "--nics"),
        say=lambda text: say(args, f"  {text}"),
    )
    say(args, "  it boots …")
    guest.wait_ready(90)
    address = guest.wait_address(60)
    say(args, f"guest {guest.name} answers after {time.monotonic() - begin:.1f} s")
    print(f"{guest.name} {safe(address)}")
    return 0


def _guest_remove(args: argparse.Namespace) -> int:
    from kvmnet.lab.lab import Lab

    Lab.attach(args.name).guest(args.guest).remove()
    say(args, f"guest {args.guest} is gone")
    return 0


def _demo(args: argparse.Namespace) -> int:
    from kvmnet.lab.demo import GOING_ON, tell

    tell(_Stage(args))
    width = max(len(command) for command, _ in GOING_ON)
    own = Path(sys.executable).with_name("kvmnet")
    is_elsewhere = shutil.which("kvmnet") is None and own.exists()
    print(f"\nHow to go on (kvmnet is {own}):" if is_elsewhere else "\nHow to go on:")
    for command, meaning in GOING_ON:
        print(f"  {command:<{width}}   {meaning}")
    return 0


class _Stage:
    """Tells the demo's story on standard output; progress goes to standard error."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.color = use_color(args)
        self.number = 0

    def chapter(self, title: str) -> None:
        self.number += 1
        print(f"\n{self._styled(_BOLD, f'{self.number}. {title}')}", flush=True)

    def tell(self, text: str) -> None:
        print(textwrap.fill(safe(text), 88, initial_indent="   ", subsequent_indent="   "))

    def command(self, where: str, words: Sequence[str]) -> None:
        line = f"   {safe(where)}$ {safe(shlex.join(words))}"
        print(self._styled(_CYAN, line), flush=True)

    def output(self, text: str) -> None:
        for line in text.splitlines():
            print(f"     {safe(line)}")

    def progress(self, text: str) -> None:
        say(self.args, f"   … {text}")

    def _styled(self, style: str, text: str) -> str:
        return f"{style}{text}{_PLAIN}" if self.color else text


_BOLD, _CYAN, _PLAIN = "\033[1m", "\033[36m", "\033[0m"
