"""The probe: what a stand-in guest went through on a network or bridge, step by step."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.values import Ip, Mac

StepName = Literal[
    "link", "dhcp", "address", "gateway", "host", "dns", "target", "path-mtu", "ipv6", "release"
]
Verdict = Literal["ok", "warn", "failed", "skipped"]


class Endpoint(Struct, frozen=True, kw_only=True):
    """What the stand-in guest tries to reach: a name or address, by TCP if a port is given."""

    host: str
    port: int | None = None

    def __str__(self) -> str:
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ProbeTarget(Struct, frozen=True, kw_only=True):
    """Where the stand-in guest is plugged in and what it should reach."""

    kind: Literal["network", "bridge"]
    name: str
    to: Endpoint | None = None
    """None: the host's own default gateway, if the network leads beyond the host."""
    connection: str | None = None
    """libvirt URI for kind network; None: libvirt's default."""
    mac: Mac | None = None
    """None: a new one from QEMU's prefix that nobody is known to use."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


class ProbeLease(Struct, frozen=True, kw_only=True):
    """What the DHCP server gave (RFC 2132 option numbers in brackets)."""

    address: Ip
    prefix_len: int
    """From the subnet mask [1]; 32 if none came."""
    server: Ip
    server_mac: Mac
    router: Ip | None = None
    """The first of [3], or the default route of [121]."""
    dns: tuple[Ip, ...] = ()
    domain: str | None = None
    mtu: int | None = None
    lease_s: int | None = None
    bad_checksum: bool = False
    """The server's packets came with a UDP checksum that is wrong: some guests drop them."""


class ProbeStep(Struct, frozen=True, kw_only=True):
    """One step: what came out, how long it took, what shows it."""

    name: StepName
    verdict: Verdict
    ms: float = 0.0
    """Milliseconds that this step alone took."""
    detail: str = ""
    """One line for people."""
    evidence: tuple[str, ...] = ()
    reason: str = ""
    """Why it failed, was skipped or is doubtful."""
    hint: str = ""


class ProbeReport(Struct, frozen=True, kw_only=True):
    """All that the stand-in guest went through."""

    target: ProbeTarget
    bridge: str
    mac: Mac
    steps: tuple[ProbeStep, ...]
    lease: ProbeLease | None = None
    ms: float = 0.0
    """Milliseconds in all, set-up and clean-up included."""

    @property
    def ok(self) -> bool:
        """No step failed. Steps that were skipped or are doubtful do not count as failed."""
        return all(step.verdict != "failed" for step in self.steps)

    def step(self, name: StepName) -> ProbeStep | None:
        return next((x for x in self.steps if x.name == name), None)


class MacAnswer(Struct, frozen=True, kw_only=True):
    """Somebody on the LAN uses that address."""

    mac: Mac
    how: str
    """For people: `answered an echo request to ff02::1`."""
    ip: Ip | None = None
    """The IP address that the answer came from, if it had one."""
