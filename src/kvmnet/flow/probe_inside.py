"""What the guest itself says and can reach, through its agent."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import msgspec

from kvmnet.adapters.guest_inside import Agent
from kvmnet.adapters.run import Completed
from kvmnet.core.finding import command
from kvmnet.core.guest_place import GuestPlace
from kvmnet.errors import KvmnetError
from kvmnet.flow.probe_asks import is_address
from kvmnet.flow.probe_record import Recorder
from kvmnet.model.probe import Endpoint, GuestInside, ProbeStep
from kvmnet.model.values import Cidr, Ip

TRY_S = 3
"""For a program that reaches for something; what does not answer by then does not."""


def no_agent(place: GuestPlace, record: Recorder) -> None:
    """The one step that says why the guest tells nothing."""
    if place.guest.agent == "none":
        reason = "its definition has no channel org.qemu.guest_agent.0"
    elif place.guest.agent == "connected":
        reason = "qemu-guest-agent is connected in the guest, but does not answer"
    else:
        reason = "no agent answers in the guest: is qemu-guest-agent installed and running there?"
    record.skip("agent", reason, "the guest's agent answers", by="agent")


class Inside:
    """The steps in their order; what they show goes to the recorder.

    `to` is what to reach, or why nothing is to be reached.
    """

    def __init__(
        self,
        agent: Agent,
        place: GuestPlace,
        to: Endpoint | str,
        record: Recorder,
    ) -> None:
        self._agent = agent
        self._place = place
        self._to = to
        self._record = record
        told, mac = agent.told, place.nic.mac
        self._nic = next((name for name, x in told.nics if x == mac), None)
        self.addresses = tuple(x for x in told.addresses if x.mac == mac)
        self._facts = GuestInside(
            name=self._nic or "",
            addresses=tuple(Cidr(f"{x.ip}/{x.prefix_len}") for x in self.addresses),
            can_execute=told.can_execute,
        )

    @property
    def usable(self) -> tuple[Ip, ...]:
        """The guest's own addresses but for those that lead nowhere."""
        return tuple(x.ip for x in self.addresses if not ipaddress.ip_address(x.ip).is_link_local)

    def run(self) -> None:
        """All steps. Can run in a thread of its own, with a recorder of its own."""
        do = self._record.do
        do("agent", self._speaks, "the guest's agent answers", by="agent")
        mac = self._place.nic.mac
        if do("inside-address", self._address, f"a NIC {mac} with an address", by="agent"):
            do("inside-routes", self._routes, "a default route by this NIC", by="agent")
            do("inside-dns", self._dns, "DNS servers", by="agent")
        if isinstance(self._to, str):
            self._record.skip("inside-target", self._to, by="agent")
        else:
            to = self._to
            expected = f"an answer from {to}"
            do("inside-target", lambda: self._target(to), expected, by="agent")
        self._record.facts.inside = self._facts

    def _speaks(self) -> ProbeStep:
        told = self._agent.told
        may = "may" if told.can_execute else "may not"
        return ProbeStep(
            name="agent", verdict="ok", ms=self._agent.took_ms,
            detail=f"qemu-ga {told.version}, {may} run programs",
            reason="" if told.can_execute else "the guest forbids guest-exec: what it can reach is "
            "tried by the stand-in beside it",
        )  # fmt: skip

    def _address(self) -> ProbeStep:
        ms, found = self._record.ms(), self._facts
        name, shown = self._nic, ", ".join(found.addresses)
        if name is None:
            return ProbeStep(
                name="inside-address", verdict="failed", ms=ms,
                detail=f"the guest has no NIC {self._place.nic.mac}",
                evidence=tuple(f"{x}: {mac or 'no MAC'}" for x, mac in self._agent.told.nics),
                reason="it has no driver for it, or gives it another MAC address",
            )  # fmt: skip
        if self.usable:
            return ProbeStep(name="inside-address", verdict="ok", ms=ms, detail=f"{name}: {shown}")
        return ProbeStep(
            name="inside-address", verdict="failed", ms=ms,
            detail=f"{name} has {'no address' if not found.addresses else f'only {shown}'}",
            reason="its DHCP client got no answer or does not run, and no address is set by hand",
            hint="look at the steps of the stand-in: they show whether DHCP works here",
        )  # fmt: skip

    def _routes(self) -> ProbeStep:
        routes = self._agent.default_routes()
        ms = self._record.ms()
        if routes is None:
            return ProbeStep(
                name="inside-routes", verdict="skipped",
                reason="the agent tells no routes, and may neither read files nor run programs",
            )  # fmt: skip
        mine = tuple(x.gateway for x in routes if x.nic == self._nic and x.gateway is not None)
        self._facts = msgspec.structs.replace(self._facts, gateways=mine)
        evidence = tuple(f"default via {x.gateway or 'nobody'} dev {x.nic}" for x in routes)
        if mine:
            return ProbeStep(
                name="inside-routes", verdict="ok", ms=ms, evidence=evidence,
                detail=f"default via {', '.join(mine)}",
            )  # fmt: skip
        config = self._place.network.config if self._place.network is not None else None
        alone = config is not None and config.mode == "isolated"
        other = ", ".join(dict.fromkeys(x.nic for x in routes))
        return ProbeStep(
            name="inside-routes", verdict="ok" if alone or routes else "failed", ms=ms,
            evidence=evidence,
            detail=f"no default route by {self._nic}" + (f", but by {other}" if other else ""),
            reason="" if alone or routes else "the guest reaches its own subnet and nothing else: "
            "its DHCP server names no router, or its own configuration has no gateway",
        )  # fmt: skip

    def _dns(self) -> ProbeStep:
        servers = self._agent.dns_servers()
        ms = self._record.ms()
        if servers is None:
            return ProbeStep(
                name="inside-dns", verdict="skipped",
                reason="the agent may neither read files nor run programs, or there is no "
                "/etc/resolv.conf",
            )  # fmt: skip
        self._facts = msgspec.structs.replace(self._facts, dns=servers)
        if not servers:
            return ProbeStep(
                name="inside-dns", verdict="warn", ms=ms, detail="the guest has no DNS server",
                evidence=("/etc/resolv.conf has no nameserver line",),
                reason="it reaches addresses, but no names",
            )  # fmt: skip
        return ProbeStep(
            name="inside-dns", verdict="ok", ms=ms, detail=f"servers {', '.join(servers)}"
        )

    def _target(self, to: Endpoint) -> ProbeStep:
        if not self._agent.told.can_execute:
            return ProbeStep(
                name="inside-target", verdict="skipped",
                reason="the guest forbids guest-exec: no connection could be made from inside",
            )  # fmt: skip
        programs = _pings(to.host) if to.port is None else _connections(to.host, to.port)
        done = self._agent.run_one_of(programs, TRY_S + 2)
        ms = self._record.ms()
        what = "an echo request" if to.port is None else "a TCP connection"
        if done is None:
            names = "ping" if to.port is None else "bash, python3, busybox"
            return ProbeStep(
                name="inside-target", verdict="skipped",
                reason=f"the guest has no program for {what}: none of {names}",
            )  # fmt: skip
        if done.status == 0:
            how = "answered" if to.port is None else "connected"
            return ProbeStep(name="inside-target", verdict="ok", ms=ms, detail=f"{to} {how}")
        return ProbeStep(
            name="inside-target", verdict="failed", ms=ms,
            detail=f"{'no answer from' if to.port is None else 'no connection to'} {to}",
            evidence=(f"inside the guest: {_said(done)}",), reason=self._why(to),
        )  # fmt: skip

    def _why(self, to: Endpoint) -> str:
        if is_address(to.host):
            return "the guest's packets or the answers are lost; compare the stand-in's target step"
        try:
            names = [["getent", "ahosts", to.host], ["nslookup", to.host]]
            done = self._agent.run_one_of(names, TRY_S + 2)
        except KvmnetError:
            return "the guest does not resolve that name in time"
        if done is None or done.status == 0:
            return "the guest resolves the name, but gets no answer"
        return f"the guest can not resolve {command(to.host)}"


def _pings(host: str) -> Sequence[Sequence[str]]:
    return (["ping", "-c", "1", "-W", str(TRY_S), host], ["ping", "-n", "1", host])


def _connections(host: str, port: int) -> Sequence[Sequence[str]]:
    """Programs that end with 0 once connected, one of which most guests have."""
    number = str(port)
    by_python = (
        f"import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), {TRY_S})"
    )
    return (
        ["timeout", str(TRY_S), "bash", "-c", ': > "/dev/tcp/$0/$1"', host, number],
        ["python3", "-c", by_python, host, number],
        ["busybox", "nc", "-w", str(TRY_S), host, number, "-e", "true"],
    )


def _said(done: Completed) -> str:
    lines = [x.strip() for x in (done.stderr or done.stdout).splitlines() if x.strip()]
    return (lines[-1] if lines else f"exit status {done.status}")[:200]
