"""What a probe has gone through so far: its steps, and the facts that they showed."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from kvmnet.errors import KvmnetError
from kvmnet.model.probe import (
    Advertiser,
    Conflict,
    DhcpServer,
    GuestInside,
    GuestSeen,
    Latency,
    Measurer,
    PathMtu,
    ProbeLease,
    ProbeLease6,
    ProbeReport,
    ProbeStep,
    ProbeTarget,
    StepName,
)
from kvmnet.model.values import Ip, Mac

OnStep = Callable[[ProbeStep], None]


class Facts:
    """What the report holds beside the steps, for programs."""

    def __init__(self) -> None:
        self.lease: ProbeLease | None = None
        self.lease6: ProbeLease6 | None = None
        self.dhcp_servers: tuple[DhcpServer, ...] = ()
        self.routers6: tuple[Advertiser, ...] = ()
        self.addresses6: tuple[Ip, ...] = ()
        self.path_mtus: list[PathMtu] = []
        self.latencies: tuple[Latency, ...] = ()
        self.conflicts: list[Conflict] = []
        self.guest: GuestSeen | None = None
        self.inside: GuestInside | None = None


class Recorder:
    """Takes steps one after the other, with their times, and tells whoever wants to know."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._began = time.monotonic()
        self._step_began = self._began
        self.steps: list[ProbeStep] = []
        self.facts = Facts()

    def do(
        self,
        name: StepName,
        action: Callable[[], ProbeStep],
        expected: str,
        by: Measurer = "stand-in",
    ) -> bool:
        """Do one step; False if it failed."""
        self._step_began = time.monotonic()
        try:
            step = action()
        except KvmnetError as error:
            step = ProbeStep(
                name=name, verdict="failed", ms=self.ms(), detail=error.what, reason=error.why,
                hint=error.hint,
            )  # fmt: skip
        self.add(msgspec.structs.replace(step, expected=step.expected or expected, by=by))
        return step.verdict != "failed"

    def skip(
        self, name: StepName, reason: str, expected: str = "", by: Measurer = "stand-in"
    ) -> None:
        self.add(ProbeStep(name=name, verdict="skipped", reason=reason, expected=expected, by=by))

    def add(self, step: ProbeStep) -> None:
        self.steps.append(step)
        self._on_step(step)

    def ms(self) -> float:
        """Milliseconds since the step that is going on began."""
        return (time.monotonic() - self._step_began) * 1000

    def verdict(self, name: StepName) -> str:
        """The verdict of a step that was taken, else nothing."""
        return next((x.verdict for x in self.steps if x.name == name), "")

    @property
    def broken(self) -> ProbeStep | None:
        """The first step that failed."""
        return next((x for x in self.steps if x.verdict == "failed"), None)

    def report(self, target: ProbeTarget, bridge: str, mac: Mac | None) -> ProbeReport:
        facts = self.facts
        return ProbeReport(
            target=target,
            bridge=bridge,
            mac=mac,
            steps=tuple(self.steps),
            lease=facts.lease,
            lease6=facts.lease6,
            dhcp_servers=facts.dhcp_servers,
            routers6=facts.routers6,
            addresses6=facts.addresses6,
            path_mtus=tuple(facts.path_mtus),
            latencies=facts.latencies,
            conflicts=tuple(facts.conflicts),
            guest=facts.guest,
            inside=facts.inside,
            ms=(time.monotonic() - self._began) * 1000,
        )
