"""What can be seen of a guest's NIC from the host: the steps before any stand-in is needed."""

from __future__ import annotations

from collections.abc import Sequence

from kvmnet.adapters.kernel import read_counters
from kvmnet.adapters.neighbours import find_mac6, find_owners
from kvmnet.core.finding import command
from kvmnet.core.guest_addresses import NicAddresses, guest_addresses
from kvmnet.core.guest_place import GuestPlace
from kvmnet.core.vlans import filters, host_link, of_port
from kvmnet.flow.probe_record import Recorder
from kvmnet.model.probe import Conflict, GuestSeen, ProbeStep
from kvmnet.model.state import State
from kvmnet.model.values import Ip, Mac

ANSWER_WAIT_S = 1.0
MORE_ANSWER_WAIT_S = 0.3
"""For each further address."""
ANSWER_LINGER_S = 0.05
"""How long after the first answer a second owner of the address is looked for."""
MAX_ADDRESSES = 4

_NO_TAP = {
    "user": "its packets go through a program of the user (passt, slirp), not through the host's "
    "network",
    "hostdev": "it is a real device, given to the guest",
    "vhostuser": "its packets go to a program through shared memory",
    "vdpa": "it is a device of the host's NIC, given to the guest",
}


class Outside:
    """The steps in their order; what they show goes to the recorder."""

    def __init__(self, state: State, place: GuestPlace, record: Recorder) -> None:
        self._state = state
        self._place = place
        self._record = record
        self._name = place.guest.name
        self._known = next(
            (x.nics[place.number - 1] for x in guest_addresses(state)
             if x.connection == place.guest.connection and x.name == self._name), None
        )  # fmt: skip
        self._counters = None
        if place.tap is not None:
            self._counters = read_counters(place.tap.name)
        record.facts.guest = self._seen()

    def run(self) -> bool:
        """All steps that need no stand-in; False if the guest does not even run."""
        place, do = self._place, self._record.do
        if not do("guest", self._guest, "running", by="host"):
            return False
        do("cable", self._cable, "plugged in", by="host")
        if place.nic.type in _NO_TAP:
            self._record.skip("tap", _NO_TAP[place.nic.type], by="host")
            return True
        kind = "macvtap" if place.by_macvtap else "tap"
        if do("tap", self._tap, f"a {kind} {place.nic.target or ''}".rstrip(), by="host"):
            where = f"{'on' if place.by_macvtap else 'a forwarding port of'} {place.belongs_to}"
            do("port", self._port, where, by="host")
            do("traffic", self._traffic, "packets from the guest, and its MAC behind its tap",
               by="host")  # fmt: skip
        do("known", self._addresses, "an address by a lease, a neighbour entry or the agent",
           by="host")  # fmt: skip
        return True

    @property
    def addresses(self) -> tuple[Ip, ...]:
        """The guest's known addresses, those that people use first, no link-local ones."""
        known = self._known.addresses if self._known is not None else ()
        found = [x.ip for x in known if not x.ip.startswith(("fe80:", "169.254."))]
        return tuple(found[:MAX_ADDRESSES])

    def host_ip(self, ip: Ip) -> Ip | None:
        """The host's own address from which it can ask for `ip` on the guest's bridge."""
        family = 6 if ":" in ip else 4
        here = self._host_link()
        own = [x for x in self._state.addresses if x.link == here]
        link_local = [x.ip for x in own if x.scope == "link"]
        usable = link_local if family == 6 else [x.ip for x in own if x.family == 4]
        return next(iter(usable), None)

    def _host_link(self) -> str | None:
        """The host's own link in the LAN that the guest is in."""
        place, bridge = self._place, self._place.belongs_to
        if place.by_macvtap or bridge is None:
            return None
        if place.tap is None or not place.is_there or not filters(self._state.link(bridge)):
            return bridge
        there = of_port(self._state, place.tap.name)
        if there is None or there.pvid is None:
            return None
        return host_link(self._state, bridge, there.pvid)

    def answers_to_host(self, more: Sequence[Ip]) -> bool:
        """Ask the guest by ARP and ND from the host; False if the host has no address there."""
        every = tuple(dict.fromkeys((*self.addresses, *more)))
        asked = [x for x in every if self.host_ip(x) is not None]
        if not asked:
            return False
        broken = self._record.broken
        if broken is not None:
            self._record.skip("answers", f"no answer can come: see {broken.name}", by="host")
            return True
        expected = f"{self._place.nic.mac} answers for {' or '.join(asked)}"
        self._record.do("answers", lambda: self._answers(asked), expected, by="host")
        return True

    def _seen(self) -> GuestSeen:
        place, nic, tap = self._place, self._place.nic, self._place.tap
        return GuestSeen(
            name=self._name, uuid=place.guest.uuid, state=place.guest.state, nic=place.number,
            type=nic.type, mac=nic.mac, tap=nic.target,
            bridge=None if tap is None else tap.parent if place.by_macvtap else tap.master,
            belongs_to=place.belongs_to,
            port_state=tap.port.state if tap is not None and tap.port is not None else "",
            link_up=nic.link_up,
            received=None if self._counters is None else self._counters.received,
            sent=None if self._counters is None else self._counters.sent,
            addresses=self.addresses, filter=nic.filter,
            not_mirrored=(f"the filter {nic.filter}",) if nic.filter else (),
        )  # fmt: skip

    def _guest(self) -> ProbeStep:
        guest, ms = self._place.guest, self._record.ms()
        if guest.state == "running":
            return ProbeStep(
                name="guest", verdict="ok", ms=ms, detail=f"running, NIC {self._place.number} is "
                f"{self._place.nic.mac} ({self._place.nic.model or 'no model named'})",
            )  # fmt: skip
        verb = "start" if not guest.active else "resume" if guest.state == "paused" else ""
        return ProbeStep(
            name="guest", verdict="failed", ms=ms, detail=f"guest {self._name} is {guest.state}",
            reason="only a running guest has a network",
            hint=command("virsh", verb, self._name) if verb else f"look: virsh dominfo "
            f"{command(self._name)}",
        )  # fmt: skip

    def _cable(self) -> ProbeStep:
        ms = self._record.ms()
        if self._place.nic.link_up:
            return ProbeStep(name="cable", verdict="ok", ms=ms, detail="plugged in")
        which = self._place.nic.mac or self._place.nic.target or ""
        return ProbeStep(
            name="cable", verdict="failed", ms=ms, detail="libvirt has the NIC's link down",
            evidence=("<link state='down'/> in the running definition",),
            reason="the guest sees a NIC without a cable",
            hint=command("virsh", "domif-setlink", self._name, which, "up"),
        )  # fmt: skip

    def _tap(self) -> ProbeStep:
        tap, name, ms = self._place.tap, self._place.nic.target, self._record.ms()
        if tap is None:
            return ProbeStep(
                name="tap", verdict="failed", ms=ms,
                detail=f"there is no link {name}" if name else "libvirt names no tap",
                reason="it was deleted, or is in another network namespace: QEMU holds one end of "
                "a cable that has no other", hint="a restart makes a new one: "
                f"{command('virsh', 'shutdown', self._name)}, then "
                f"{command('virsh', 'start', self._name)}",
            )  # fmt: skip
        if not tap.up:
            return ProbeStep(
                name="tap", verdict="failed", ms=ms, detail=f"{tap.name} is down",
                reason="nothing passes a link that is switched off",
                hint=f"ip link set {tap.name} up",
            )  # fmt: skip
        return ProbeStep(
            name="tap", verdict="ok", ms=ms, detail=f"{tap.name} is up, MTU {tap.mtu}",
            evidence=(f"{tap.name}: {tap.kind}, {tap.operstate}",),
        )  # fmt: skip

    def _port(self) -> ProbeStep:
        place, tap, ms = self._place, self._place.tap, self._record.ms()
        assert tap is not None
        now = tap.parent if place.by_macvtap else tap.master
        if not place.is_there and place.belongs_to is not None:
            return ProbeStep(
                name="port", verdict="failed", ms=ms,
                detail=f"{tap.name} is {f'on {now}' if now else 'on no bridge'}, and not on "
                f"{place.belongs_to}",
                reason="a bridge that is made anew, or a manager that takes the tap, unplugs "
                "running guests (orphaned-tap)",
                evidence=(f"ip link show {tap.name}: master {now or 'none'}",),
                hint=f"ip link set {tap.name} master {place.belongs_to}",
            )  # fmt: skip
        if place.by_macvtap:
            return self._macvtap(ms)
        if tap.port is None:
            return ProbeStep(name="port", verdict="skipped", reason=f"{now} is no Linux bridge")
        evidence = (f"{tap.name}: state {tap.port.state}, isolated "
                    f"{'on' if tap.port.isolated else 'off'}",)  # fmt: skip
        if tap.port.state != "forwarding":
            plugged = place.nic.link_up
            return ProbeStep(
                name="port", verdict="failed" if plugged else "warn", ms=ms, evidence=evidence,
                detail=f"the port {tap.name} does not forward: {tap.port.state}",
                reason="its cable is out" if not plugged else "spanning tree holds it, or QEMU "
                "has closed its end", hint=f"look: bridge -d link show dev {tap.name}",
            )  # fmt: skip
        told = f"a port of {now}, forwarding{', isolated' if tap.port.isolated else ''}"
        if not filters(self._state.link(now or "")):
            return ProbeStep(name="port", verdict="ok", ms=ms, evidence=evidence, detail=told)
        return self._vlan(tap.name, told, evidence, ms)

    def _vlan(self, tap: str, told: str, evidence: tuple[str, ...], ms: float) -> ProbeStep:
        """Of a port that forwards, on a bridge with VLAN filtering."""
        there = of_port(self._state, tap)
        if there is not None and not there.ranges:
            return ProbeStep(
                name="port", verdict="failed", ms=ms, evidence=evidence,
                detail=f"the port {tap} is in no VLAN", reason="its bridge filters by VLAN: "
                "nothing passes such a port (vlan-missing)",
                hint=f"bridge vlan add dev {tap} vid NUMBER pvid untagged",
            )  # fmt: skip
        pvid = None if there is None else there.pvid
        if pvid is not None:
            told += f", VLAN {pvid}"
        return ProbeStep(name="port", verdict="ok", ms=ms, evidence=evidence, detail=told)

    def _macvtap(self, ms: float) -> ProbeStep:
        tap = self._place.tap
        below = None if tap is None or tap.parent is None else self._state.link(tap.parent)
        mode = self._place.nic.source_mode or (tap.mode if tap is not None else None) or "vepa"
        if below is None or not below.carrier:
            return ProbeStep(
                name="port", verdict="failed", ms=ms,
                detail=f"{self._place.belongs_to} below the macvtap has no carrier",
                hint=f"look: ip link show {self._place.belongs_to}",
            )  # fmt: skip
        return ProbeStep(
            name="port", verdict="ok", ms=ms, detail=f"macvtap in mode {mode} on {below.name}",
            evidence=("host and guest do not see each other on a macvtap (macvtap-host)",),
        )  # fmt: skip

    def _traffic(self) -> ProbeStep:
        ms, seen, counted = self._record.ms(), None, self._counters
        if self._known is not None:
            seen = self._known.present
        heard = "its MAC is in no forwarding database"
        if seen is not None:
            age = "" if seen.age_s is None else f", {seen.age_s} s ago"
            heard = f"its MAC was heard behind {seen.port}{age}"
        evidence = (heard,)
        if counted is None:
            return ProbeStep(name="traffic", verdict="skipped", reason="the tap is gone")
        detail = f"{counted.received} packets from the guest, {counted.sent} to it"
        tap = self._place.tap
        if seen is not None and tap is not None and seen.port != tap.name:
            return ProbeStep(
                name="traffic", verdict="warn", ms=ms, detail=detail, evidence=evidence,
                reason=f"its MAC was heard behind {seen.port}, and not behind its tap {tap.name}: "
                "somebody else has it too, or it has moved",
                hint=f"look: bridge fdb show | grep {self._place.nic.mac}",
            )  # fmt: skip
        if counted.received == 0:
            return ProbeStep(
                name="traffic", verdict="warn", ms=ms, detail=detail, evidence=evidence,
                reason="the guest has sent nothing yet: it still boots, has no driver for the NIC, "
                "or does not switch it on", hint="look at the guest's console",
            )  # fmt: skip
        return ProbeStep(name="traffic", verdict="ok", ms=ms, detail=detail, evidence=evidence)

    def _addresses(self) -> ProbeStep:
        ms, known = self._record.ms(), self._known
        if not self.addresses or known is None:
            return ProbeStep(
                name="known", verdict="warn", ms=ms, detail="no address of it is known",
                reason="libvirt has no lease for it and the host has not talked to it",
            )  # fmt: skip
        return ProbeStep(
            name="known", verdict="warn" if known.disagreements else "ok", ms=ms,
            detail=", ".join(self.addresses), evidence=_sources(known),
            reason="; ".join(known.disagreements),
        )  # fmt: skip

    def _answers(self, asked: Sequence[Ip]) -> ProbeStep:
        owners: dict[Ip, tuple[Mac, ...]] = {}
        for ip in asked:
            owners[ip] = self._owners(ip, ANSWER_WAIT_S if not owners else MORE_ANSWER_WAIT_S)
        return judge_answers(self._place.nic.mac, owners, self._record)

    def _owners(self, ip: Ip, wait_s: float) -> tuple[Mac, ...]:
        source = self.host_ip(ip)
        link = self._host_link()
        assert source is not None and link is not None
        if ":" in ip:
            found = find_mac6(link, ip, source, wait_s).mac
            return () if found is None else (found,)
        return find_owners(link, ip, source, wait_s, ANSWER_LINGER_S)


def judge_answers(
    mac: Mac | None, owners: dict[Ip, tuple[Mac, ...]], record: Recorder
) -> ProbeStep:
    """Who answered for which of the guest's addresses: it, nobody, somebody else."""
    others = [Conflict(ip=ip, mac=x) for ip, found in owners.items() for x in found if x != mac]
    record.facts.conflicts.extend(others)
    mine = [ip for ip, found in owners.items() if mac in found]
    evidence = tuple(
        f"{ip}: {', '.join(found) if found else 'nobody answers'}" for ip, found in owners.items()
    )
    if others:
        shown = ", ".join(f"{x.ip} is used by {x.mac}" for x in others)
        return ProbeStep(
            name="answers", verdict="failed", ms=record.ms(), detail=f"{shown} too" if mine else
            shown, evidence=evidence, reason="two machines have one address: packets go to either "
            "(duplicate-identity)", hint="take it off one of them",
        )  # fmt: skip
    if not mine:
        return ProbeStep(
            name="answers", verdict="failed", ms=record.ms(), evidence=evidence,
            detail=f"{', '.join(owners)} does not answer" if len(owners) == 1 else
            f"none of {', '.join(owners)} answers",
            reason="the guest does not have that address now, or its packets are lost on the way",
        )  # fmt: skip
    return ProbeStep(
        name="answers", verdict="ok", ms=record.ms(), evidence=evidence,
        detail=f"{', '.join(mine)} is {mac}",
    )  # fmt: skip


def _sources(known: NicAddresses) -> tuple[str, ...]:
    return tuple(
        f"{address.ip} by {x.source}"
        + (f" ({x.detail})" if x.detail else "")
        + ("" if x.age_s is None else f", {x.age_s} s ago")
        for address in known.addresses
        for x in address.sources
    )
