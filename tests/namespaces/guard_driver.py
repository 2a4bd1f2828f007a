"""Runs inside a world: one change of its network, with a fault at one of its steps.

    guard_driver.py FAULT began|done STEP [auto|manual=SECONDS|none] [step seconds] \
        [seconds that verifying takes] [seconds that it may take]

The plan touches all that the guard has to put back: a file, a kernel setting, an address, a
manager's files. Exit status: 0 kept, 3 refused, 4 undone, 130 interrupted, 5 not undone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

import msgspec

import kvmnet.flow.apply as flow_apply
from kvmnet.adapters import arrange, journal
from kvmnet.errors import Failed, Interrupted, NotUndone, Refused, Undone
from kvmnet.flow import rollback
from kvmnet.flow.apply import apply, changing
from kvmnet.model.arrangement import Arrangement, LinkTarget
from kvmnet.model.check import AddressThere, GatewayAnswers
from kvmnet.model.handover import FileState
from kvmnet.model.host import Address
from kvmnet.model.plan import (
    Arrange,
    HandOver,
    Plan,
    PlannedStep,
    Prove,
    RemoveFile,
    SetSysctl,
    WriteFile,
)
from kvmnet.model.transaction import Confirm
from kvmnet.model.values import Cidr, Ip

FILES = Path("/run/files")
SYSCTL = "net/ipv4/conf/up0/accept_local"


def plan() -> Plan:
    prove = PlannedStep(
        step=Prove(
            checks=(AddressThere(address=Cidr("10.1.1.9/24")), GatewayAnswers(ip=Ip("10.1.1.1"))),
            within_s=5.0,
        ),
        undo=None,
    )
    return Plan(
        title="change the world",
        steps=(
            PlannedStep(
                step=WriteFile(path=f"{FILES}/new", text="new\n"),
                undo=RemoveFile(path=f"{FILES}/new"),
            ),
            PlannedStep(step=_sysctl("1"), undo=_sysctl("0")),
            PlannedStep(step=_arrange("10.1.1.2", "10.1.1.9"), undo=_arrange("10.1.1.2")),
            prove,
            PlannedStep(step=_hand_over("new words\n", 0o600), undo=_hand_over("old words\n")),
            prove,
        ),
    )


def _sysctl(value: str) -> SetSysctl:
    return SetSysctl(name=SYSCTL.replace("/", "."), value=value, path=SYSCTL)


def _arrange(*ips: str) -> Arrange:
    state = arrange.read_kernel()
    old = next(x for x in state.addresses if x.ip == "10.1.1.2")
    others = tuple(x for x in state.addresses if x.link == "up0" and x.family == 6)
    addresses = tuple(_like(old, ip) for ip in ips)
    link = LinkTarget(name="up0", addresses=(*addresses, *others))
    routes = tuple(x for x in state.routes if x.link == "up0" and x.protocol != "kernel")
    return Arrange(
        what=f"give up0 {', '.join(ips)}", target=Arrangement(links=(link,), routes=routes)
    )


def _like(old: Address, ip: str) -> Address:
    return Address(
        link="up0", ip=Ip(ip), prefix_len=24, family=4, scope="global", broadcast=old.broadcast
    )


def _hand_over(text: str, mode: int = 0o640) -> HandOver:
    return HandOver(
        manager="test", files=(FileState(path=f"{FILES}/manager", text=text, mode=mode),)
    )


def fill_disk() -> None:
    with open(journal.state_directory() / "ballast", "wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(b"x" * 4096)
        except OSError:
            return


def signal_the_undo() -> None:
    """Have a signal come before the undo holds signals back."""

    def interrupted(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    flow_apply.undo = interrupted
    raise KeyboardInterrupt


def end_by(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


class Saboteur:
    """A watcher that does harm at one place."""

    def __init__(self, fault: str, moment: str, step: int) -> None:
        self._fault, self._at = fault, (moment, step)

    def began(self, number: int, planned: PlannedStep) -> None:
        self._maybe("began", number)

    def done(self, number: int, planned: PlannedStep) -> None:
        self._maybe("done", number)

    def undoing(self, planned: PlannedStep) -> None:
        print(f"undoing {planned.undo}", flush=True)

    def say(self, text: str) -> None:
        print(text, flush=True)
        if self._fault == "two-signals" and "kvmnet confirm" in text:
            signal_the_undo()

    def _maybe(self, moment: str, number: int) -> None:
        if (moment, number) != self._at:
            return
        if self._fault == "exception":
            raise Failed("the test's fault")
        if self._fault == "two-signals":
            signal_the_undo()
        if self._fault == "disk-full":
            fill_disk()
        if self._fault.startswith("SIG"):
            end_by(signal.Signals[self._fault])


def main() -> int:
    defaults = ("auto", "30", "0", "30")
    fault, moment, step, how, seconds, takes, may = (*sys.argv[1:], *defaults[len(sys.argv) - 4 :])
    by, _, within = how.partition("=")
    confirm = msgspec.convert({"by": by, "within_s": int(within or "60")}, Confirm)
    rollback.STEP_S = rollback.HAND_OVER_S = float(seconds)
    watcher = Saboteur(fault, moment, int(step))
    try:
        with changing("the driver", watcher):
            apply(
                plan(), uri=None, command="the driver", verify=lambda: time.sleep(float(takes)),
                watcher=watcher, confirm=confirm, verify_within_s=float(may),
            )  # fmt: skip
    except (Undone, Interrupted, NotUndone, Refused) as error:
        print(error)
        return {Undone: 4, Interrupted: 130, NotUndone: 5, Refused: 3}[type(error)]
    return 0


if __name__ == "__main__":
    sys.exit(main())
