"""The probe: a stand-in guest is plugged in and lives through what a guest would."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from kvmnet.adapters.files import read_optional
from kvmnet.adapters.netns import StandIn, stand_in
from kvmnet.errors import Failed, InvalidInput, TimedOut
from kvmnet.flow import probe_steps
from kvmnet.flow.probe_place import Place, find_place
from kvmnet.model.probe import (
    Endpoint,
    ProbeLease,
    ProbeReport,
    ProbeStep,
    ProbeTarget,
    StepName,
)
from kvmnet.model.standin import (
    AskLease,
    AskName,
    AwaitRouter,
    BringUp,
    CheckAddress,
    Configure,
    Connect,
    ConnectResult,
    Done,
    FindMac,
    GiveBack,
    LeaseResult,
    MacResult,
    MeasureMtu,
    MtuResult,
    NameResult,
    Ping,
    PingResult,
    RouterResult,
    Solicit,
)
from kvmnet.model.values import Ip, parse_domain_name

LEASE_S = 120
"""The shortest lease that dnsmasq gives: should all clean-up fail, this is how long it stays."""
DHCP_WAIT_S = 8.0
CONFLICT_WAIT_S = 0.1
ARP_WAIT_S = 1.0
PING_WAIT_S = 1.0
DNS_WAIT_S = 2.0
DNS_ROOT_WAIT_S = 0.5
TARGET_WAIT_S = 2.0
MTU_WAIT_S = 0.4
ROUTER_WAIT_S = 0.6
"""A router may take up to 0.5 s before it answers a solicitation (RFC 4861, 6.2.6)."""

WAKING_ROUTER_WAIT_S = 3.0

_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def _silent(step: ProbeStep) -> None:
    """Nobody wants to know about single steps."""


def parse_target(text: str) -> tuple[Literal["network", "bridge"], str]:
    """`network:NAME` or `bridge:NAME`. Raises `InvalidInput`."""
    kind, colon, name = text.partition(":")
    if kind not in ("network", "bridge") or not colon or not name:
        raise InvalidInput(
            f"{text!a} is no target",
            why="network:NAME or bridge:NAME is expected",
            hint="kvmnet probe network:default",
        )
    return ("network" if kind == "network" else "bridge"), name


def parse_endpoint(text: str) -> Endpoint:
    """`HOST`, `HOST:PORT` or `[IPv6]:PORT`. Raises `InvalidInput`."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise _bad_endpoint(text)
        port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if text.endswith(":") and text.count(":") < 2:
        raise _bad_endpoint(text)
    if port and not (port.isdecimal() and port.isascii() and 0 < int(port[:6]) < 65536):
        raise _bad_endpoint(text)
    try:
        host = str(ip_address(host))
    except ValueError:
        if ":" in host or host.rsplit(".", 1)[-1].isdecimal():
            raise _bad_endpoint(text) from None
        host = parse_domain_name(host.rstrip("."))
    return Endpoint(host=host, port=int(port) if port else None)


def _bad_endpoint(text: str) -> InvalidInput:
    return InvalidInput(
        f"{text[:80]!a} is nothing to connect to",
        why="a name or IP address is expected, with a port after a colon if it is to be TCP",
        hint="examples: example.org:443, 192.168.1.1, [2001:db8::1]:22",
    )


def probe(target: ProbeTarget, *, on_step: Callable[[ProbeStep], None] = _silent) -> ProbeReport:
    """Plug in a stand-in guest, go through all steps, take it away again.

    `on_step` is called as each step ends. Raises `PermissionDenied` (needs root), `NotFound` (no
    such network or bridge), `Refused` (not a plain Linux bridge), `Failed` (network not active,
    the stand-in could not be made). A step that fails is in the report, not an error.
    """
    begin = time.monotonic()
    with stand_in() as guest:
        # The stand-in starts while the host is looked at.
        place = find_place(target)
        guest.plug_in(place.bridge, place.mac, place.mtu, commands=place.port_commands)
        tour = _Tour(guest, place, target, on_step)
        tour.run()
    return ProbeReport(
        target=target,
        bridge=place.bridge,
        mac=place.mac,
        steps=tuple(tour.steps),
        lease=tour.lease,
        ms=(time.monotonic() - begin) * 1000,
    )


class _Tour:
    """One stand-in guest's way through all steps."""

    def __init__(
        self,
        guest: StandIn,
        place: Place,
        target: ProbeTarget,
        on_step: Callable[[ProbeStep], None],
    ) -> None:
        self._guest = guest
        self._place = place
        self._target = target
        self._on_step = on_step
        self._begin = time.monotonic()
        self._resolved: Ip | None = None
        self.steps: list[ProbeStep] = []
        self.lease: ProbeLease | None = None

    def run(self) -> None:
        later: tuple[StepName, ...] = ("address", "gateway", "host", "dns", "target", "path-mtu")
        usable = self._step("link", self._link) and self._step("dhcp", self._dhcp)
        usable = usable and self._step("address", self._address)
        actions: dict[StepName, Callable[[], ProbeStep]] = {
            "gateway": self._gateway, "host": self._host, "dns": self._dns,
            "target": self._to_target, "path-mtu": self._path_mtu,
        }  # fmt: skip
        done = {step.name for step in self.steps}
        for name in later:
            if usable and name in actions:
                self._step(name, actions[name])
            elif name not in done:
                self._skip(name, self._why_not())
        if "dhcp" not in done:
            self._skip("dhcp", self._why_not())
        if self.steps[0].verdict == "failed":
            self._skip("ipv6", self._why_not())
        else:
            self._step("ipv6", self._ipv6)
        if self.lease is not None:
            self._step("release", self._release)

    def _why_not(self) -> str:
        broken = next((x.name for x in self.steps if x.verdict == "failed"), "link")
        return {
            "link": "the bridge lets nothing through",
            "dhcp": "there is no address without a lease",
            "address": "the address belongs to somebody else",
        }[broken]

    def _step(self, name: StepName, action: Callable[[], ProbeStep]) -> bool:
        """Do one step; False if it failed."""
        self._begin = time.monotonic()
        try:
            step = action()
        except (Failed, TimedOut) as error:
            step = ProbeStep(
                name=name, verdict="failed", ms=self._ms(), detail=error.what, reason=error.why,
                hint=error.hint,
            )  # fmt: skip
        self._add(step)
        return step.verdict != "failed"

    def _skip(self, name: StepName, reason: str) -> None:
        self._add(ProbeStep(name=name, verdict="skipped", reason=reason))

    def _add(self, step: ProbeStep) -> None:
        self.steps.append(step)
        self._on_step(step)

    def _ms(self) -> float:
        return (time.monotonic() - self._begin) * 1000

    def _link(self) -> ProbeStep:
        self._guest.call(BringUp(), Done)
        wait_s = 2.0 + (2 * self._place.forward_delay_s if self._place.stp else 0.0)
        end = time.monotonic() + (wait_s if self._place.up else 0.0)
        pause = 0.005
        while (state := self._guest.port_state()) != "forwarding" and time.monotonic() < end:
            time.sleep(pause)
            pause = min(0.1, pause * 2)
        ms = self._ms()
        if state == "forwarding":
            self._guest.call(Solicit(), Done)
        return probe_steps.link(self._place, ms, state)

    def _dhcp(self) -> ProbeStep:
        order = AskLease(lease_s=LEASE_S, wait_s=DHCP_WAIT_S)
        result = self._guest.call(order, LeaseResult, 2 * DHCP_WAIT_S)
        self.lease = result.lease if result.outcome == "bound" else None
        return probe_steps.dhcp(self._place, result, self._ms())

    def _address(self) -> ProbeStep:
        lease = self._leased()
        result = self._guest.call(
            CheckAddress(ip=lease.address, wait_s=CONFLICT_WAIT_S), MacResult, CONFLICT_WAIT_S
        )
        step = probe_steps.address(lease, result, self._ms())
        if step.verdict == "ok":
            self._guest.call(Configure(), Done)
        return step

    def _gateway(self) -> ProbeStep:
        router = self._leased().router
        if router is None:
            return ProbeStep(
                name="gateway", verdict="skipped",
                reason="the server names no router: guests reach only this network",
            )  # fmt: skip
        return probe_steps.gateway(router, self._find(router), self._ms())

    def _host(self) -> ProbeStep:
        ip = self._place.host_ip
        if ip is None:
            reason = f"the host has no IPv4 address on {self._place.bridge}"
            return ProbeStep(name="host", verdict="skipped", reason=reason)
        result = self._ping(ip, PING_WAIT_S)
        neighbour = MacResult() if result.ms is not None else self._find(ip)
        return probe_steps.host(ip, result, neighbour, self._ms())

    def _dns(self) -> ProbeStep:
        servers = self._leased().dns
        if not servers:
            return ProbeStep(name="dns", verdict="skipped", reason="no DNS server was offered")
        name = self._name() or "."
        wait_s = DNS_ROOT_WAIT_S if name == "." else DNS_WAIT_S
        result = self._guest.call(
            AskName(server=servers[0], name=name, wait_s=wait_s), NameResult, wait_s
        )
        self._resolved = next(iter(result.addresses), None)
        return probe_steps.dns(self._place, servers[0], name, result, self._ms())

    def _to_target(self) -> ProbeStep:
        to = self._endpoint()
        if isinstance(to, str):
            return ProbeStep(name="target", verdict="skipped", reason=to)
        ip = self._resolved if self._name() else Ip(to.host)
        if ip is None:
            return ProbeStep(
                name="target", verdict="failed", detail=f"{to.host} could not be resolved",
                reason="the DNS step shows why",
            )  # fmt: skip
        if to.port is None:
            result: PingResult | ConnectResult = self._ping(ip, TARGET_WAIT_S)
        else:
            order = Connect(ip=ip, port=to.port, wait_s=TARGET_WAIT_S)
            result = self._guest.call(order, ConnectResult, TARGET_WAIT_S)
        self._resolved = ip
        forwards = read_optional(_IP_FORWARD) or ""
        return probe_steps.target(self._place, to, ip, result, self._ms(), forwards)

    def _path_mtu(self) -> ProbeStep:
        last = self.steps[-1]
        if last.verdict != "ok" or self._resolved is None:
            reason = last.reason if last.verdict == "skipped" else "the target was not reached"
            return ProbeStep(name="path-mtu", verdict="skipped", reason=reason)
        if ":" in self._resolved:
            return ProbeStep(
                name="path-mtu", verdict="skipped", reason="it is measured for IPv4 only"
            )
        order = MeasureMtu(ip=self._resolved, wait_s=MTU_WAIT_S)
        result = self._guest.call(order, MtuResult, 12 * MTU_WAIT_S)
        return probe_steps.path_mtu(self._resolved, result, self._ms())

    def _ipv6(self) -> ProbeStep:
        wait_s = WAKING_ROUTER_WAIT_S if self._place.waking_ipv6 else ROUTER_WAIT_S
        found = self._guest.call(AwaitRouter(wait_s=wait_s), RouterResult, wait_s)
        answer = None if found.ip is None else self._ping(found.ip, PING_WAIT_S)
        return probe_steps.ipv6(found, answer, self._ms())

    def _release(self) -> ProbeStep:
        self._guest.call(GiveBack(), Done)
        return ProbeStep(
            name="release", verdict="ok", ms=self._ms(),
            detail=f"{self._leased().address} given back",
        )  # fmt: skip

    def _name(self) -> str | None:
        """The target's name, where it is not an address."""
        to = self._target.to
        if to is None or ":" in to.host or to.host.replace(".", "").isdecimal():
            return None
        return to.host

    def _endpoint(self) -> Endpoint | str:
        """What to reach, or why there is nothing to reach."""
        if self._target.to is not None:
            return self._target.to
        config = self._place.config
        if config is not None and config.mode == "isolated":
            return "the network is isolated: nothing beyond it is to be reached"
        if self._place.beyond is None:
            return "the host itself has no default gateway, and no target was named with --to"
        return Endpoint(host=self._place.beyond)

    def _ping(self, ip: Ip, wait_s: float) -> PingResult:
        return self._guest.call(Ping(ip=ip, wait_s=wait_s), PingResult, wait_s)

    def _find(self, ip: Ip) -> MacResult:
        return self._guest.call(FindMac(ip=ip, wait_s=ARP_WAIT_S), MacResult, ARP_WAIT_S)

    def _leased(self) -> ProbeLease:
        if self.lease is None:
            raise Failed("there is no lease")
        return self.lease
