"""What the tours of both families ask of the stand-in alike, and how long each waits for it."""

from __future__ import annotations

import msgspec

from kvmnet.adapters.netns import StandIn
from kvmnet.flow import probe_path
from kvmnet.flow.probe_record import Recorder
from kvmnet.model.probe import Endpoint, PathMtu, ProbeStep, StepName
from kvmnet.model.reached import ConnectResult, PingResult
from kvmnet.model.standin import Connect, MeasureMtu, MtuResult, Ping
from kvmnet.model.values import Ip

CONFLICT_WAIT_S = 0.1
PING_WAIT_S = 1.0
DNS_WAIT_S = 2.0
DNS_ROOT_WAIT_S = 1.5
TARGET_WAIT_S = 2.0
MTU_WAIT_S = 0.4


def is_address(host: str) -> bool:
    """Whether a parsed host is an IP address and not a name."""
    return ":" in host or host.replace(".", "").isdecimal()


def ping(guest: StandIn, ip: Ip, wait_s: float = PING_WAIT_S) -> PingResult:
    """One echo request. Raises `Failed`, `TimedOut`."""
    return guest.call(Ping(ip=ip, wait_s=wait_s), PingResult, wait_s)


def reach(guest: StandIn, to: Endpoint, ip: Ip) -> PingResult | ConnectResult:
    """By TCP if a port is given, else by echo requests. Raises `Failed`, `TimedOut`."""
    if to.port is None:
        return ping(guest, ip, TARGET_WAIT_S)
    order = Connect(ip=ip, port=to.port, wait_s=TARGET_WAIT_S)
    return guest.call(order, ConnectResult, TARGET_WAIT_S)


def path_mtu(guest: StandIn, record: Recorder, name: StepName, reached: list[Ip]) -> ProbeStep:
    """The path to the target, the last that was `reached`: the step before has to be about it.

    Who answers no echo requests is taken out of `reached`. Raises `Failed`, `TimedOut`.
    """
    last = record.steps[-1]
    if last.verdict != "ok":
        reason = last.reason if last.verdict == "skipped" else "the target was not reached"
        return ProbeStep(name=name, verdict="skipped", reason=reason)
    ip = reached[-1]
    order = MeasureMtu(ip=ip, wait_s=MTU_WAIT_S)
    result = guest.call(order, MtuResult, 12 * MTU_WAIT_S)
    if result.mtu is None:
        reached.remove(ip)
    found = PathMtu(ip=ip, **msgspec.structs.asdict(result))
    record.facts.path_mtus.append(found)
    return probe_path.path_mtu(name, found, record.ms())
