"""One stand-in guest's way through all steps that IPv4 has, and those of both families."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from kvmnet.adapters.files import read_optional
from kvmnet.adapters.netns import StandIn
from kvmnet.errors import Failed
from kvmnet.flow import probe_path, probe_steps
from kvmnet.flow.probe_asks import (
    CONFLICT_WAIT_S,
    DNS_ROOT_WAIT_S,
    DNS_WAIT_S,
    is_address,
    path_mtu,
    ping,
    reach,
)
from kvmnet.flow.probe_place import Place
from kvmnet.flow.probe_record import Recorder
from kvmnet.flow.probe_tour6 import Tour6
from kvmnet.model.probe import Conflict, Endpoint, ProbeLease, ProbeStep, StepName
from kvmnet.model.reached import MacResult, NameResult
from kvmnet.model.standin import (
    AskLease,
    AskName,
    BringUp,
    CheckAddress,
    CollectOffers,
    Configure,
    Done,
    FindMac,
    GiveBack,
    LatencyResult,
    LeaseResult,
    MeasureLatency,
    OffersResult,
    Solicit,
)
from kvmnet.model.values import Ip

LEASE_S = 120
"""The shortest lease that dnsmasq gives: should all clean-up fail, this is how long it stays."""
DHCP_WAIT_S = 8.0
UNLIKELY_DHCP_WAIT_S = 4.0
"""Where the network's definition has no DHCP range, or the guest has an address anyway."""
IPV6_ONLY_DHCP_WAIT_S = 1.5
"""Where the host itself has IPv6 alone."""
LINGER_S = 0.3
"""How long after the first DHCP offer more are looked for, most of which other steps take."""
ARP_WAIT_S = 1.0
LATENCY_COUNT = 5
LATENCY_EVERY_S = 0.01
LATENCY_WAIT_S = 0.5

_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_NEEDS_ADDRESS: tuple[StepName, ...] = ("gateway", "host", "dns", "target", "path-mtu")


class Tour:
    """The steps in their order; what they show goes to the recorder.

    Without `dhcp_matters` nobody here depends on DHCP: a silent server is a doubt, and not waited
    for as long. `between` is called when the stand-in has what addresses it will get.
    """

    def __init__(
        self,
        guest: StandIn,
        place: Place,
        to: Endpoint | None,
        record: Recorder,
        *,
        dhcp_matters: bool = True,
        between: Callable[[], None] | None = None,
    ) -> None:
        self._guest = guest
        self._place = place
        self._to = to
        self._record = record
        self._dhcp_matters = dhcp_matters
        self._between = between
        self._resolved: tuple[Ip, ...] = ()
        self._asked: tuple[Ip | None, NameResult] = (None, NameResult())
        """The DNS server, and what it told of the target's name."""
        self._reached: list[Ip] = []
        self.lonely = False
        """Nothing here speaks IPv4, and nothing says that anything should."""

    def run(self) -> None:
        """All steps. Raises nothing that a step may end with."""
        if self._plug_in() and self._get_address():
            self._use_address()
        six = Tour6(self._guest, self._place, self._to, self._record)
        if self._record.verdict("link") == "failed":
            self._record.skip("ipv6", self._why_not())
        else:
            six.run(self._resolved)
        if self._between is not None:
            self._between()
        self._measure_latency([*self._reached, *six.reached])
        if self._record.verdict("link") != "failed":
            self._record.do("dhcp-servers", self._servers, self._expected_server())
            six.rivals()
        if self._record.facts.lease is not None or self._record.facts.lease6 is not None:
            self._record.do("release", self.release, "all leases given back")

    def get_address(self) -> bool:
        """Only as far as a lease goes: for those that go another way from there."""
        if not self._record.do("link", self.link, f"a port of {self._place.bridge} that forwards"):
            return False
        if not self._record.do("dhcp", self._dhcp, "an offer, confirmed"):
            return False
        if self._record.facts.lease is None:
            return False
        return self._record.do("address", self._address, "nobody answers ARP for it")

    def _plug_in(self) -> bool:
        delay = 2 * self._place.forward_delay_s if self._place.stp else 0.0
        expected = f"a port of {self._place.bridge} that forwards"
        expected += f" within {delay:g} s of listening and learning" if delay else " at once"
        if self._record.do("link", self.link, expected):
            return True
        for name in ("dhcp", "address", *_NEEDS_ADDRESS):
            self._record.skip(name, self._why_not())
        return False

    def _get_address(self) -> bool:
        if not self._place.ipv4 and self._place.network is not None:
            self._without_ipv4("the network has no IPv4 subnet", "dhcp")
            return False
        server = f" from {self._place.dhcp_ip}" if self._place.dhcp_ip else ""
        got = self._record.do("dhcp", self._dhcp, f"an offer{server}, confirmed")
        if self.lonely:
            self._without_ipv4("nothing here speaks IPv4")
            return False
        got = got and self._record.facts.lease is not None
        if got:
            ip = self._leased().address
            got = self._record.do("address", self._address, f"nobody answers ARP for {ip}")
        else:
            self._record.skip("address", self._why_not())
        if not got:
            for name in _NEEDS_ADDRESS:
                self._record.skip(name, self._why_not())
        return got

    def _without_ipv4(self, reason: str, *more: StepName) -> None:
        for name in (*more, "address", *_NEEDS_ADDRESS):
            self._record.skip(name, reason)

    def _use_address(self) -> None:
        lease = self._leased()
        do = self._record.do
        do("gateway", self._gateway, f"an answer to ARP from {lease.router or 'no router'}")
        do("host", self._host, f"an echo reply from {self._place.host_ip or 'nobody'}")
        do("dns", self._dns, f"an answer from {next(iter(lease.dns), 'no server')}")
        do("target", self._target, f"an answer from {self._endpoint_name()}")
        do("path-mtu", self._path_mtu, "packets as large as the NIC's MTU pass, or are refused")

    def _why_not(self) -> str:
        broken = self._record.broken
        return {
            "link": "the bridge lets nothing through",
            "dhcp": "there is no address without a lease",
            "address": "the address belongs to somebody else",
        }.get(broken.name if broken is not None else "dhcp", "there is no address without a lease")

    def link(self) -> ProbeStep:
        """Switch the NIC on and wait until the bridge lets it through."""
        self._guest.call(BringUp(), Done)
        wait_s = 2.0 + (2 * self._place.forward_delay_s if self._place.stp else 0.0)
        end = time.monotonic() + (wait_s if self._place.up else 0.0)
        pause = 0.005
        while (state := self._guest.port_state()) != "forwarding" and time.monotonic() < end:
            time.sleep(pause)
            pause = min(0.1, pause * 2)
        ms = self._record.ms()
        if state == "forwarding":
            self._guest.call(Solicit(), Done)
        return probe_steps.link(self._place, ms, state)

    def _dhcp(self) -> ProbeStep:
        config = self._place.config
        made = config is not None and config.mode != "bridge"
        wait_s = DHCP_WAIT_S if self._dhcp_matters else UNLIKELY_DHCP_WAIT_S
        if made and self._place.dhcp_ip is None:
            wait_s = min(wait_s, UNLIKELY_DHCP_WAIT_S)
        if not self._place.ipv4:
            wait_s = min(wait_s, IPV6_ONLY_DHCP_WAIT_S)
        order = AskLease(lease_s=LEASE_S, wait_s=wait_s)
        result = self._guest.call(order, LeaseResult, 2 * DHCP_WAIT_S)
        if result.outcome == "silent" and not self._place.ipv4:
            self.lonely = True
            return ProbeStep(
                name="dhcp", verdict="skipped", ms=self._record.ms(),
                reason="no DHCP server answered, and the host has IPv6 alone on "
                f"{self._place.bridge}",
            )  # fmt: skip
        self._record.facts.lease = result.lease if result.outcome == "bound" else None
        step = probe_steps.dhcp(self._place, result, self._record.ms())
        if step.verdict == "failed" and not self._dhcp_matters:
            reason = f"{step.reason}; the guest has an address nevertheless"
            return msgspec.structs.replace(step, verdict="warn", reason=reason)
        return step

    def _address(self) -> ProbeStep:
        lease = self._leased()
        result = self._guest.call(
            CheckAddress(ip=lease.address, wait_s=CONFLICT_WAIT_S), MacResult, CONFLICT_WAIT_S
        )
        if result.mac is not None:
            self._record.facts.conflicts.append(Conflict(ip=lease.address, mac=result.mac))
        else:
            self._guest.call(Configure(), Done)
        return probe_steps.address(lease, result, self._record.ms())

    def _gateway(self) -> ProbeStep:
        router = self._leased().router
        if router is None:
            return ProbeStep(
                name="gateway", verdict="skipped",
                reason="the server names no router: guests reach only this network",
            )  # fmt: skip
        found = self._find(router)
        if found.mac is not None:
            self._reached.append(router)
        return probe_steps.gateway(router, found, self._record.ms())

    def _host(self) -> ProbeStep:
        ip = self._place.host_ip
        if ip is None:
            reason = f"the host has no IPv4 address on {self._place.bridge}"
            return ProbeStep(name="host", verdict="skipped", reason=reason)
        result = ping(self._guest, ip)
        if result.ms is None and ip in self._reached:
            self._reached.remove(ip)  # it answers no echo requests
        neighbour = MacResult() if result.ms is not None else self._find(ip)
        return probe_steps.host(ip, result, neighbour, self._record.ms())

    def _dns(self) -> ProbeStep:
        servers = self._leased().dns
        if not servers:
            return ProbeStep(name="dns", verdict="skipped", reason="no DNS server was offered")
        name = self._name() or "."
        wait_s = DNS_ROOT_WAIT_S if name == "." else DNS_WAIT_S
        result = self._guest.call(
            AskName(server=servers[0], name=name, wait_s=wait_s), NameResult, wait_s
        )
        self._resolved = result.addresses if self._name() else ()
        self._asked = (servers[0], result)
        return probe_steps.dns(self._place, servers[0], name, result, self._record.ms())

    def _target(self) -> ProbeStep:
        to = self._endpoint()
        if isinstance(to, str):
            return ProbeStep(name="target", verdict="skipped", reason=to)
        if ":" in to.host:
            reason = f"{to.host} is an IPv6 address: see target6"
            return ProbeStep(name="target", verdict="skipped", reason=reason)
        ip = next((x for x in self._resolved if ":" not in x), None)
        if self._name() is None:
            ip = Ip(to.host)
        if ip is None and self._resolved:
            reason = f"{to.host} has no IPv4 address: see target6"
            return ProbeStep(name="target", verdict="skipped", reason=reason)
        if ip is None:
            return probe_steps.unresolved(self._place, to, *self._asked)
        result = reach(self._guest, to, ip)
        if result.ms is not None:
            self._reached.append(ip)
        forwards = read_optional(_IP_FORWARD) or ""
        return probe_steps.target(self._place, to, ip, result, self._record.ms(), forwards)

    def _path_mtu(self) -> ProbeStep:
        return path_mtu(self._guest, self._record, "path-mtu", self._reached)

    def _measure_latency(self, ips: list[Ip]) -> None:
        ips = list(dict.fromkeys(ips))
        if not ips:
            self._record.skip("latency", "nothing was reached that answers echo requests")
            return

        def measure() -> ProbeStep:
            order = MeasureLatency(ips=tuple(ips), count=LATENCY_COUNT, every_s=LATENCY_EVERY_S,
                                   wait_s=LATENCY_WAIT_S)  # fmt: skip
            found = self._guest.call(order, LatencyResult, 1.0).latencies
            self._record.facts.latencies = found
            return probe_path.latency(found, self._record.ms())

        self._record.do("latency", measure, "every echo request answered, next door in no time")

    def _servers(self) -> ProbeStep:
        found = self._guest.call(CollectOffers(linger_s=LINGER_S), OffersResult, LINGER_S).servers
        marked = probe_path.marked_servers(self._place, found)
        self._record.facts.dhcp_servers = marked
        return probe_path.dhcp_servers(self._place, marked, self._record.ms())

    def _expected_server(self) -> str:
        here = self._place.dhcp_ip is not None
        return "one DHCP server" + (f", the host's ({self._place.bridge_mac})" if here else "")

    def release(self) -> ProbeStep:
        """Give all leases back."""
        self._guest.call(GiveBack(), Done)
        facts = self._record.facts
        four = facts.lease.address if facts.lease is not None else None
        six = facts.lease6.address if facts.lease6 is not None else None
        return ProbeStep(
            name="release", verdict="ok", ms=self._record.ms(),
            detail=f"{' and '.join(x for x in (four, six) if x is not None)} given back",
        )  # fmt: skip

    def _name(self) -> str | None:
        """The target's name, where it is not an address."""
        return None if self._to is None or is_address(self._to.host) else self._to.host

    def _endpoint(self) -> Endpoint | str:
        """What to reach, or why there is nothing to reach."""
        if self._to is not None:
            return self._to
        if not self._place.leads_out:
            return "the network is isolated: nothing beyond it is to be reached"
        if self._place.beyond is None:
            return "the host itself has no default gateway, and no target was named with --to"
        return Endpoint(host=self._place.beyond)

    def _endpoint_name(self) -> str:
        to = self._endpoint()
        return str(to) if isinstance(to, Endpoint) else "nobody"

    def _find(self, ip: Ip) -> MacResult:
        return self._guest.call(FindMac(ip=ip, wait_s=ARP_WAIT_S), MacResult, ARP_WAIT_S)

    def _leased(self) -> ProbeLease:
        lease = self._record.facts.lease
        if lease is None:
            raise Failed("there is no lease")
        return lease
