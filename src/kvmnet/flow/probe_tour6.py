"""One stand-in guest's way through the steps that IPv6 has."""

from __future__ import annotations

import msgspec

from kvmnet.adapters.netns import StandIn
from kvmnet.flow import probe_path, probe_steps, probe_steps6
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
from kvmnet.model.probe import Advertiser, Conflict, Endpoint, ProbeStep
from kvmnet.model.reached import MacResult, NameResult
from kvmnet.model.standin import (
    AskLease6,
    AskName,
    AwaitRouter,
    CheckAddress,
    CollectRouters,
    FindMac,
    Lease6Result,
    RouterResult,
    RoutersResult,
)
from kvmnet.model.values import Ip

ROUTER_WAIT_S = 0.6
"""A router may take up to 0.5 s before it answers a solicitation (RFC 4861, 6.2.6)."""
NO_ROUTER_WAIT_S = 0.2
"""Where the network's definition has no IPv6: only a rogue could answer."""
WAKING_ROUTER_WAIT_S = 4.5
DHCP6_WAIT_S = 2.0
NEIGHBOUR_WAIT_S = 1.0


class Tour6:
    """The steps in their order; what they show goes to the recorder."""

    def __init__(self, guest: StandIn, place: Place, to: Endpoint | None, record: Recorder) -> None:
        self._guest = guest
        self._place = place
        self._to = to
        self._record = record
        self._router: Advertiser | None = None
        self._resolved: tuple[Ip, ...] = ()
        self.reached: list[Ip] = []
        """What answers echo requests."""

    def run(self, resolved: tuple[Ip, ...]) -> None:
        """All steps; `resolved` is what IPv4's DNS server says about the target's name."""
        self._resolved = resolved
        expected = {
            "host": f"an advertisement by {self._place.bridge_mac}, and an address",
            "none": "no router: the network has no IPv6 subnet",
            "unknown": "if a router advertises itself, an address as it says",
        }[self._place.ipv6]
        self._record.do("ipv6", self._ipv6, expected)
        router, do = self._router, self._record.do
        if router is None:
            if self._to is not None and ":" in self._to.host:
                do("target6", self._no_way, f"an answer from {self._to}")
            return
        own = self._record.facts.addresses6
        if own:
            do("address6", self._address, f"nobody else answers for {', '.join(own)}")
        if router.default:
            do("gateway6", self._gateway, f"an echo reply from {router.ip}")
        servers = self._servers(router)
        if servers:
            do("dns6", self._dns, f"an answer from {servers[0]}")
        if own and self._to is not None:
            do("target6", self._target, f"an answer from {self._to} over IPv6")
            do("path-mtu6", self._path_mtu,
               "packets as large as the NIC's MTU pass, or are refused")  # fmt: skip

    def rivals(self) -> None:
        """Whether more than the right router advertised itself while the steps were taken."""
        found = self._guest.call(CollectRouters(), RoutersResult).routers
        if not found:
            return
        marked = probe_path.marked_routers(self._place, found)
        self._record.facts.routers6 = marked
        expected = {
            "host": f"one router, {self._place.bridge_mac}", "none": "no router",
            "unknown": "one default router",
        }[self._place.ipv6]  # fmt: skip
        self._record.do(
            "ipv6-routers",
            lambda: probe_path.routers6(self._place, marked, self._record.ms()),
            expected,
        )

    def _ipv6(self) -> ProbeStep:
        wait_s = NO_ROUTER_WAIT_S if self._place.ipv6 == "none" else ROUTER_WAIT_S
        wait_s = WAKING_ROUTER_WAIT_S if self._place.waking_ipv6 else wait_s
        found = self._guest.call(AwaitRouter(wait_s=wait_s), RouterResult, wait_s)
        router = self._router = found.router
        asked = None
        if router is not None and (router.managed or (router.other and not router.dns)):
            order = AskLease6(settings_only=not router.managed, wait_s=DHCP6_WAIT_S)
            asked = self._guest.call(order, Lease6Result, 2 * DHCP6_WAIT_S)
            self._record.facts.lease6 = asked.lease
        leased = asked.lease.address if asked is not None and asked.lease is not None else None
        more = () if leased is None else (leased,)
        self._record.facts.addresses6 = (*found.addresses, *more)
        return probe_steps6.ipv6(self._place, found, asked, self._record.ms())

    def _address(self) -> ProbeStep:
        own = self._record.facts.addresses6
        for ip in own:
            order = CheckAddress(ip=ip, wait_s=CONFLICT_WAIT_S)
            result = self._guest.call(order, MacResult, CONFLICT_WAIT_S)
            if result.mac is not None:
                self._record.facts.conflicts.append(Conflict(ip=ip, mac=result.mac))
                return probe_steps6.address6(ip, result, self._record.ms())
        return probe_steps6.address6(Ip(", ".join(own)), MacResult(), self._record.ms())

    def _gateway(self) -> ProbeStep:
        assert self._router is not None
        ip = self._router.ip
        answer = ping(self._guest, ip)
        if answer.ms is not None:
            self.reached.append(ip)
            return probe_steps6.gateway6(ip, answer, MacResult(), self._record.ms())
        order = FindMac(ip=ip, wait_s=NEIGHBOUR_WAIT_S)
        neighbour = self._guest.call(order, MacResult, NEIGHBOUR_WAIT_S)
        return probe_steps6.gateway6(ip, answer, neighbour, self._record.ms())

    def _servers(self, router: Advertiser) -> tuple[Ip, ...]:
        lease = self._record.facts.lease6
        return tuple(dict.fromkeys((*router.dns, *(lease.dns if lease is not None else ()))))

    def _dns(self) -> ProbeStep:
        assert self._router is not None
        server = self._servers(self._router)[0]
        name = self._name() or "."
        wait_s = DNS_ROOT_WAIT_S if name == "." else DNS_WAIT_S
        order = AskName(server=server, name=name, wait_s=wait_s)
        result = self._guest.call(order, NameResult, wait_s)
        if self._name():
            self._resolved = (*self._resolved, *result.addresses)
        step = probe_steps.dns(self._place, server, name, result, self._record.ms())
        return msgspec.structs.replace(step, name="dns6")

    def _name(self) -> str | None:
        to = self._to
        if to is None or is_address(to.host):
            return None
        return to.host

    def _no_way(self) -> ProbeStep:
        return ProbeStep(
            name="target6", verdict="failed", ms=self._record.ms(),
            detail=f"no way to {self._to}", reason="guests here have no IPv6",
        )  # fmt: skip

    def _target(self) -> ProbeStep:
        to = self._to
        assert to is not None
        ip = Ip(to.host) if ":" in to.host else next((x for x in self._resolved if ":" in x), None)
        if ip is None:
            return ProbeStep(
                name="target6", verdict="skipped", reason=f"{to.host} has no IPv6 address"
            )
        result = reach(self._guest, to, ip)
        if result.ms is not None:
            self.reached.append(ip)
        return probe_steps6.target6(self._place, to, ip, result, self._record.ms())

    def _path_mtu(self) -> ProbeStep:
        return path_mtu(self._guest, self._record, "path-mtu6", self.reached)
