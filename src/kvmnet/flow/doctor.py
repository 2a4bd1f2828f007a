"""What is wrong with guests' networks: look at everything, try it, say what it is, mend it.

The State is looked at by pure checks (`core/findings.py`); each network and bridge in use is tried
by a stand-in guest, all at the same time; what both tell becomes one list, in which a cause is one
finding and its consequences are its evidence (`core/probe_findings.py`).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable

import msgspec
from msgspec import Struct

from kvmnet.adapters import checks
from kvmnet.adapters.dhcp_watch import DhcpWatch
from kvmnet.core import findings, vlans
from kvmnet.core.checks.asked import asked_guest_off, asked_network_inactive, libvirt_down
from kvmnet.core.dhcp_way import dhcp_way
from kvmnet.core.finding import Finding, command, some
from kvmnet.core.mending_plan import mending_plan
from kvmnet.core.probe_findings import merge
from kvmnet.core.probed import Probed
from kvmnet.core.proof_of_health import unknown
from kvmnet.core.proofs import default_route
from kvmnet.core.scope import Place, Scope, concern_of, concerns, places, with_guest
from kvmnet.errors import Failed, KvmnetError
from kvmnet.flow import lost_packets
from kvmnet.flow.apply import Watcher, apply, changing
from kvmnet.flow.lasting import made_lasting
from kvmnet.flow.observe import observe
from kvmnet.flow.probe import probe
from kvmnet.model.check import Check, GatewayAnswers, PingAnswers, TcpConnects
from kvmnet.model.dhcp_seen import DhcpSeen
from kvmnet.model.host import Route
from kvmnet.model.nic_choice import NumberedNic
from kvmnet.model.plan import Plan
from kvmnet.model.probe import Endpoint, ProbeReport, ProbeTarget
from kvmnet.model.state import State

AT_ONCE = 8
"""Stand-ins at the same time: each is a process of its own."""
MOST = 64
PROBES_S = 45.0
"""For all probes: a DHCP server that is silent is waited for 8 seconds."""
SLOW_S = 8.0
"""A place where a guest waits so long for its port is tried only when it is asked for."""
SETTLE_S = 3.0
"""How long a mended host may take until nothing of it is to be seen any more."""
_PAUSE_S = 0.3
_LOOK_S = 30.0
"""One look at the host at the most: a libvirt that hangs is given so long."""
_VERIFY_S = SETTLE_S + 2 * _LOOK_S + PROBES_S + lost_packets.MOST * lost_packets.TRACE_S
"""A healthy verification takes no longer, however slow the probes are."""

OnProbe = Callable[[Probed], None]


class Examination(Struct, frozen=True, kw_only=True):
    """What was looked at, and what is wrong."""

    scope: Scope
    state: State
    findings: tuple[Finding, ...]
    """The worst first."""
    checks: int
    """How many checks looked at the State."""
    probes: tuple[Probed, ...] = ()

    @property
    def healthy(self) -> bool | None:
        """Nothing but notes; None: so it seems, but what decides could not be read."""
        if any(x.severity != "note" for x in self.findings):
            return False
        return None if unknown(self.state) else True

    @property
    def complete(self) -> bool:
        """Everything could be read, and every place tried that was to be."""
        return self.state.privileged and all(x.absent for x in self.state.unread) \
            and not any(x.skipped for x in self.probes)  # fmt: skip


class Repair(Struct, frozen=True, kw_only=True):
    """What was wrong, what was done, and what is wrong now."""

    before: Examination
    plan: Plan
    after: Examination


def _silent(probed: Probed) -> None:
    """Nobody wants to know about single probes."""


def examine_state(state: State, scope: Scope) -> Examination:
    """What the State alone tells; nothing is read or sent. Raises `NotFound`, `Unavailable`."""
    concern = concern_of(state, scope)
    every = [*libvirt_down(state), *findings.find(state), *asked_guest_off(state, scope)]
    if concern is not None:  # what is no fault is told to those who ask about just this
        every += findings.explain(state)
    found = [x for x in every if concerns(concern, x)]
    known = {(x.name, x.subject) for x in found}
    found += [x for x in asked_network_inactive(state, scope) if (x.name, x.subject) not in known]
    return Examination(
        scope=scope,
        state=state,
        findings=merge(state, tuple(found), ()),
        checks=len(findings.CHECKS) + len(findings.SYMPTOMS) + 3,
    )


def examine(
    scope: Scope,
    uri: str | None,
    *,
    probing: bool = True,
    to: Endpoint | None = None,
    on_probe: OnProbe = _silent,
) -> Examination:
    """Look at this host and try what is in use. Raises `NotFound`, `Unavailable` for the scope.

    `to` is what guests should reach; None: the host's own default gateway.

    What can't be read or tried is in the State's `unread` and in the probes, with the reason.
    """
    state = observe(uri)
    seen = examine_state(state, scope)
    tried = _try(state, scope, uri, to, on_probe) if probing else ()
    by_design = findings.explain(state)
    found = merge(state, seen.findings, tried, by_design)
    followed = lost_packets.followed(state, tried, found)
    if followed != tried:
        found = merge(state, seen.findings, followed, by_design)
    return msgspec.structs.replace(seen, findings=found, probes=followed)


def _try(
    state: State, scope: Scope, uri: str | None, to: Endpoint | None, on_probe: OnProbe
) -> tuple[Probed, ...]:
    """A stand-in guest in every place, at the same time."""
    concern = concern_of(state, scope)
    found = places(state, concern)
    if scope.kind == "guest":
        found = with_guest(state, scope.name, found)
    if os.geteuid() != 0:
        return tuple(
            Probed(place=x, skipped="only root can plug in a stand-in guest") for x in found
        )
    turns = threading.BoundedSemaphore(AT_ONCE)
    left_out = {x: y for x in found if (y := _in_other_vlan(state, x))}
    if concern is None:
        left_out |= {x: y for x in found if (y := _slow(state, x))}
    late = [Probed(place=x, skipped=y) for x, y in left_out.items()]
    found = tuple(x for x in found if x not in left_out)
    with contextlib.ExitStack() as stack:
        watch = _watch(stack)
        jobs = [_Try(x, uri, to, turns, on_probe) for x in found[:MOST]]
        end = time.monotonic() + PROBES_S
        tried = [x.result(max(0.0, end - time.monotonic())) for x in jobs]
        seen = watch.seen() if watch is not None else ()
    tried = [_with_way(state, x, seen) for x in tried]
    left = [Probed(place=x, skipped=f"more than {MOST} places: name it") for x in found[MOST:]]
    return (*_with_control(state, tried, to), *late, *left)


def _slow(state: State, place: Place) -> str:
    """Why the whole host's diagnosis does not wait for a place; empty: it is not slow."""
    link = state.link(place.bridge)
    if link is None or link.bridge is None or not link.bridge.stp:
        return ""
    wait_s = 2 * link.bridge.forward_delay_s
    if wait_s < SLOW_S:
        return ""
    return f"spanning tree lets a guest wait {wait_s:g} s; by name it is tried: " + command(
        "kvmnet", "doctor", str(place)
    )


def _in_other_vlan(state: State, place: Place) -> str:
    """Why a new port would show nothing of what guests there live through; empty: it would."""
    there = () if place.guest else vlans.elsewhere(state, place.bridge)
    if not there:
        return ""
    asked = command("kvmnet", "doctor", place.guests[0]) if place.guests else "kvmnet doctor GUEST"
    numbers = some(map(str, there))
    return f"its guests are in VLAN {numbers}, a new port is not; by name they are tried: {asked}"


def _watch(stack: contextlib.ExitStack) -> DhcpWatch | None:
    """DHCP packets on all links, for those that get no lease; None: they can't be watched."""
    try:
        return stack.enter_context(DhcpWatch())
    except KvmnetError:
        return None


def _with_way(state: State, probed: Probed, seen: tuple[DhcpSeen, ...]) -> Probed:
    report = probed.report
    if report is None or report.mac is None or not _failed(report, "dhcp"):
        return probed
    way = dhcp_way(state, probed.place, report.mac, seen)
    return msgspec.structs.replace(probed, way=way)


class _Try(threading.Thread):
    """One probe; `result` waits for it."""

    def __init__(
        self,
        place: Place,
        uri: str | None,
        to: Endpoint | None,
        turns: threading.BoundedSemaphore,
        told: OnProbe,
    ) -> None:
        super().__init__(daemon=True, name=f"probe {place}")
        self._place = place
        self._uri = uri
        self._to = to
        self._turns = turns
        self._told = told
        self._found: Probed | None = None
        self._failure: BaseException | None = None
        self._done = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            with self._turns:
                self._found = _probed(self._place, self._uri, self._to)
            self._told(self._found)
        except BaseException as error:  # handed over in `result`
            self._failure = error
        finally:
            self._done.set()

    def result(self, timeout: float) -> Probed:
        if not self._done.wait(timeout):
            return Probed(place=self._place, skipped=f"it did not end in {PROBES_S:g} s")
        if self._failure is not None:
            raise self._failure
        return self._found or Probed(place=self._place, skipped="it told nothing")


def _probed(place: Place, uri: str | None, to: Endpoint | None) -> Probed:
    connection = place.connection or uri
    target = ProbeTarget(kind=place.kind, name=place.name, to=to, connection=connection)
    if place.guest:
        nic = NumberedNic(number=place.nic)
        target = ProbeTarget(kind="guest", name=place.guest, nic=nic, to=to, connection=connection)
    try:
        return Probed(place=place, report=probe(target))
    except KvmnetError as error:
        return Probed(place=place, skipped=str(error))


def _with_control(state: State, tried: list[Probed], to: Endpoint | None) -> tuple[Probed, ...]:
    """Whether the host itself reaches what stand-ins did not: else it proves nothing."""
    lost = {
        family: [x for x in tried if x.report is not None and _failed(x.report, name)]
        for family, name in ((4, "target"), (6, "target6"))
    }
    gateways = {x: default_route(state, x) for x, failed in lost.items() if failed}
    asked: dict[int | str, Check] = {
        x: PingAnswers(host=_scoped(y)) for x, y in gateways.items() if y is not None
    }
    if not asked:
        return tuple(tried)
    if to is not None:
        asked = {x: _asked(to) for x in asked}
    four = gateways.get(4)
    if four is not None and four.gateway is not None:
        asked["arp"] = GatewayAnswers(ip=four.gateway)
    against = dict(zip(asked, checks.measure(tuple(asked.values())), strict=True))
    said = {x: y is None for x, y in against.items()}
    return tuple(
        msgspec.structs.replace(
            x,
            beyond_answers=said.get(4) if x in lost[4] else None,
            beyond_named="" if to is None else str(to),
            beyond_error=(against.get(4) or "") if x in lost[4] else "",
            gateway_there=said.get("arp") if x in lost[4] else None,
            beyond_answers6=said.get(6) if x in lost[6] else None,
        )
        for x in tried
    )


def _asked(to: Endpoint) -> Check:
    """The host's own try at what guests should reach."""
    if to.port is None:
        return PingAnswers(host=to.host)
    return TcpConnects(host=to.host, port=to.port)


def _scoped(route: Route) -> str:
    """The gateway; a link-local one with its link."""
    gateway = str(route.gateway)
    return f"{gateway}%{route.link}" if gateway.startswith("fe80:") else gateway


def _failed(report: ProbeReport, name: str) -> bool:
    return any(x.name == name and x.verdict == "failed" for x in report.steps)


def propose(examined: Examination, uri: str | None) -> Plan:
    """The plan that mends what can be mended, to last; no steps if nothing can."""
    plan = mending_plan(examined.findings, str(examined.scope))
    return made_lasting(examined.state, examined.findings, plan, uri)


def repair(
    scope: Scope,
    *,
    uri: str | None,
    said: str,
    consent: Callable[[Examination, Plan], None],
    watcher: Watcher,
    probing: bool = True,
    to: Endpoint | None = None,
    on_probe: OnProbe = _silent,
) -> Repair:
    """Mend what can be mended, as one transaction that is kept only if it helped.

    `said` is the command line, for the history; `consent` shows what is wrong and the plan, and
    raises unless it may be carried out. Raises `Undone` where a finding that was to be mended is
    still there afterwards, or a stand-in guest gets less far than before: then all is as it was.
    """
    seen: list[Examination] = []
    with changing(said, watcher):
        before = examine(scope, uri, probing=probing, to=to, on_probe=on_probe)
        plan = propose(before, uri)
        consent(before, plan)
        if not plan.steps:
            return Repair(before=before, plan=plan, after=before)

        def verify() -> None:
            seen.append(_examined_until_mended(before, uri, to, probing=probing))

        apply(
            plan, uri=uri, command=said, verify=verify, watcher=watcher, verify_within_s=_VERIFY_S
        )
    return Repair(before=before, plan=plan, after=seen[-1])


def _examined_until_mended(
    before: Examination, uri: str | None, to: Endpoint | None, *, probing: bool
) -> Examination:
    """The host as it is now. Raises `Failed` if what was to be mended is still there, or worse."""
    end = time.monotonic() + SETTLE_S
    while (left := _left(before, examine_state(observe(uri), before.scope))) \
            and time.monotonic() < end:  # fmt: skip
        time.sleep(_PAUSE_S)
    if left:
        raise _still_there(left)
    after = examine(before.scope, uri, probing=probing, to=to)
    if left := _left(before, after):
        raise _still_there(left)
    for was in before.probes:
        same = (was.place.bridge, was.place.nic)
        now = next((x for x in after.probes if (x.place.bridge, x.place.nic) == same), None)
        if now is not None and _worse(was, now):
            raise Failed(f"a guest on {was.place} gets less far than before", why=_broken_at(now))
    return after


def _left(before: Examination, after: Examination) -> list[Finding]:
    mended = {(x.name, x.subject) for x in before.findings if x.mend}
    return [x for x in after.findings if (x.name, x.subject) in mended]


def _still_there(left: list[Finding]) -> Failed:
    return Failed(f"{left[0].name}, {left[0].subject}, is still there", why=left[0].what)


def _worse(was: Probed, now: Probed) -> bool:
    if was.report is None or now.report is None:
        return was.report is not None
    fine = {x.name for x in was.report.steps if x.verdict in {"ok", "warn"}}
    return any(x.verdict == "failed" and x.name in fine for x in now.report.steps)


def _broken_at(probed: Probed) -> str:
    if probed.report is None:
        return probed.skipped
    return next((f"{x.name}: {x.detail}" for x in probed.report.steps if x.verdict == "failed"), "")
