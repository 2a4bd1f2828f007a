"""The way in: can a guest, network or bridge be reached from the LAN of one of the host's NICs?

Where the NIC is a port of a bridge the stand-in becomes another port: a machine on that LAN. Where
it is not, the stand-in's frames are made to come in through the NIC, and what the host sends out to
it is brought to it; it and the host see each other as they would, but it sees nobody else there.
"""

from __future__ import annotations

import contextlib
from ipaddress import ip_address, ip_interface, ip_network
from typing import Literal

from msgspec import Struct

from kvmnet.adapters.neighbours import NO_IP, find_mac
from kvmnet.adapters.netns import StandIn
from kvmnet.adapters.relay import Relay
from kvmnet.adapters.run import run
from kvmnet.core.finding import command
from kvmnet.errors import CommandFailed, Failed, KvmnetError, NotFound, Refused
from kvmnet.flow.observe import Part, observe
from kvmnet.flow.probe_asks import is_address, reach
from kvmnet.flow.probe_guest import PARTS, find_guest
from kvmnet.flow.probe_outside import Outside
from kvmnet.flow.probe_place import Place, place_beside, place_for, place_on, plug_in
from kvmnet.flow.probe_record import Recorder
from kvmnet.flow.probe_tour import Tour
from kvmnet.flow.trace_origin import free_address, own_address
from kvmnet.model.host import Address, Link
from kvmnet.model.probe import Endpoint, ProbeReport, ProbeStep, ProbeTarget
from kvmnet.model.reached import ConnectResult, MacResult, PingResult
from kvmnet.model.standin import (
    AddRoute,
    BringUp,
    CheckAddress,
    Done,
    TakeAddress,
)
from kvmnet.model.state import State
from kvmnet.model.values import Cidr, Ip, Mac
from kvmnet.model.virt import Network

_TAKEN_WAIT_S = 0.2


class Lan(Struct, frozen=True, kw_only=True):
    """The LAN to probe from."""

    nic: Link
    link: Link
    """What the host has its address on: the bridge that the NIC is a port of, or the NIC itself."""
    own: Address | None
    """The host's address there, of the target's family."""

    @property
    def bridged(self) -> bool:
        return self.link.bridge is not None


class Aim(Struct, frozen=True, kw_only=True):
    """What is to be reached."""

    to: Endpoint
    network: Network | None = None
    """The libvirt network that the target is on."""
    guest: str = ""

    @property
    def ip(self) -> Ip:
        return Ip(self.to.host)

    @property
    def mode(self) -> str:
        """The forward mode of the network whose subnet the address is of; empty: of none."""
        config = self.network.config if self.network is not None else None
        if config is None or config.mode == "bridge":
            return ""
        subnets = [ip_network(f"{x.address}/{x.prefix_len}", strict=False) for x in config.ips]
        return config.mode if any(ip_address(self.ip) in x for x in subnets) else ""

    @property
    def behind(self) -> str:
        """The forward mode of a network that the address is inside of; empty: of none."""
        config = self.network.config if self.network is not None else None
        own = config is not None and any(self.ip == x.address for x in config.ips)
        return "" if own else self.mode

    @property
    def translated(self) -> bool:
        """In a network that hides its guests: nobody outside has a way to them."""
        return self.mode == "nat" and ":" not in self.ip


def probe_way_in(target: ProbeTarget, machine: StandIn, record: Recorder) -> ProbeReport:
    """All steps. `machine` is a stand-in that is not plugged in yet."""
    state, aim = _aim(target, record)
    if aim is None:
        return record.report(target, "", None)
    lan = _lan(state, target.lan or "", 6 if ":" in aim.ip else 4)
    place, own = _place(state, lan, target)
    with contextlib.ExitStack() as stack:
        known: list[Ip] = []
        stack.callback(
            _forget, lan.link.name, known
        )  # the last thing, when nobody answers any more
        own_ip = _arrive(machine, state, lan, place, record, stack, aim)
        if own_ip is None:
            record.skip("way-in", "the stand-in has no address on that LAN", f"{aim.to} answers")
        else:
            known.append(own_ip)
            _try(machine, lan, aim, record, own_ip, named=target.to is not None)
        if record.facts.lease is not None:
            tour = Tour(machine, place, None, record)
            record.do("release", tour.release, "the lease given back")
    return record.report(target, place.bridge, own)


def _aim(target: ProbeTarget, record: Recorder) -> tuple[State, Aim | None]:
    """None: the guest does not run, or has no address that is known; a step says so."""
    if target.to is not None and not is_address(target.to.host):
        raise Refused(
            f"{target.to.host} can not be looked up from there",
            why="names mean something else on the LAN than here", hint="name its address",
        )  # fmt: skip
    if target.kind != "guest":
        state = observe(target.connection, PARTS)
        place = place_for(state, target)
        if target.to is not None:
            return state, Aim(to=target.to, network=place.network)
        own = own_address(state, place.bridge, 4) or own_address(state, place.bridge, 6)
        if own is None:
            raise Failed(
                f"nothing is known on {place.bridge} that could be reached",
                why="the host has no address there", hint="name an address: --to HOST[:PORT]",
            )  # fmt: skip
        return state, Aim(to=Endpoint(host=own.ip), network=place.network)
    # A guest that was moved has the lease of its former network still: its agent knows better.
    state, where = find_guest(target, PARTS | {Part.AGENTS})
    outside = Outside(state, where, record)
    if not outside.run():
        return state, None
    known = outside.addresses
    if target.to is None and not known:
        record.skip("way-in", "no address of the guest is known: name it with --to", "it answers")
        return state, None
    to = target.to or Endpoint(host=known[0])
    return state, Aim(to=to, network=where.network, guest=where.guest.name)


def _lan(state: State, name: str, family: int) -> Lan:
    nic = state.link(name)
    if nic is None:
        raise NotFound(f"there is no NIC {command(name)}", hint="list them: ip -br link")
    link = nic
    while link.master is not None and link.bridge is None:
        above = state.link(link.master)
        if above is None or above.bridge is None:
            raise Refused(
                f"no stand-in can be put on the LAN of {name}",
                why=f"it belongs to {link.master}, which is no Linux bridge",
                hint=f"name that one: --from lan:{link.master}",
            )
        link = above
    return Lan(nic=nic, link=link, own=own_address(state, link.name, family))


def _place(state: State, lan: Lan, target: ProbeTarget) -> tuple[Place, Mac]:
    if lan.bridged:
        place = place_on(state, lan.link.name, None, target.mac)
    else:
        place = place_beside(state, lan.nic.name, "bridge", target.mac)
    return place, place.mac


def _arrive(
    machine: StandIn, state: State, lan: Lan, place: Place, record: Recorder,
    stack: contextlib.ExitStack, aim: Aim,
) -> Ip | None:  # fmt: skip
    """The stand-in's address on the LAN: leased where there is a bridge, else a free one."""
    four = ":" not in aim.ip
    if lan.bridged:
        plug_in(machine, place)
        tour = Tour(machine, place, None, record, dhcp_matters=lan.own is None)
        if four and tour.get_address() and record.facts.lease is not None:
            return record.facts.lease.address
        if not four:
            record.do("link", tour.link, f"a port of {place.bridge} that forwards")
        if record.verdict("link") == "failed":
            return None
    else:
        expected = f"its frames come in through {lan.nic.name}"
        if not record.do("link", lambda: _face(machine, lan, place, stack, record), expected):
            return None
    if lan.own is None:
        family = 4 if four else 6
        reason = f"the host has no IPv{family} address on {lan.link.name} to tell the LAN's subnet"
        record.skip("address", reason)
        return None
    ip = free_address(state, lan.own)
    taken = record.do("address", lambda: _take(machine, lan, ip, record), "a free one of the LAN")
    return ip if taken else None


def _face(
    machine: StandIn, lan: Lan, place: Place, stack: contextlib.ExitStack, record: Recorder
) -> ProbeStep:
    """Have the stand-in's frames come in through the NIC, and the host's answers reach it."""
    assert lan.nic.mac is not None
    try:
        machine.aim_at(lan.nic.name, lan.nic.mac, own=place.mac)
    except CommandFailed as error:
        raise Failed(
            f"no packets can be made to come in through {lan.nic.name}", why=error.why,
            hint="probe from another machine on that LAN",
        ) from None  # fmt: skip
    stack.enter_context(Relay(lan.nic.name, machine.nic, place.mac))
    machine.call(BringUp(), Done)
    return ProbeStep(
        name="link", verdict="ok", ms=record.ms(),
        detail=f"its frames come in through {lan.nic.name}",
        evidence=("it sees the host as a machine on that LAN does, and nobody else there",),
    )  # fmt: skip


def _take(machine: StandIn, lan: Lan, ip: Ip, record: Recorder) -> ProbeStep:
    assert lan.own is not None
    if lan.bridged and ":" not in ip:
        order = CheckAddress(ip=ip, wait_s=_TAKEN_WAIT_S)
        found = machine.call(order, MacResult, _TAKEN_WAIT_S).mac
    else:
        found = _host_asks(lan.link.name, ip)
    if found is not None:
        raise Failed(f"{ip} belongs to {found}", why="no free address was found for the stand-in")
    machine.call(TakeAddress(address=Cidr(f"{ip}/{lan.own.prefix_len}")), Done)
    return ProbeStep(
        name="address", verdict="ok", ms=record.ms(),
        detail=f"{ip}/{lan.own.prefix_len}, which nobody answers for",
    )  # fmt: skip


def _host_asks(link: str, ip: Ip) -> Mac | None:
    return None if ":" in ip else find_mac(link, None, ip, NO_IP, _TAKEN_WAIT_S).mac


def _forget(link: str, known: list[Ip]) -> None:
    """The host has learnt an address that is gone with the stand-in."""
    for ip in known:
        with contextlib.suppress(KvmnetError):
            run(["ip", "neigh", "del", ip, "dev", link], accept=(0, 1, 2))


def _try(
    machine: StandIn, lan: Lan, aim: Aim, record: Recorder, own_ip: Ip, *, named: bool
) -> None:
    """As any machine on the LAN would, and if that fails with the host as router.

    The host's own address stands for a network that nobody named an address of: not where NAT
    hides the guests, since it would answer all the same.
    """
    next_door = _next_door(lan, aim.ip)
    expected = f"{aim.to} answers a machine on the LAN of {lan.nic.name}"
    if aim.translated and not aim.behind and not named:
        record.do("way-in", lambda: _no_way_in(aim, record), "guests answer the LAN")
        return
    if next_door or (lan.bridged and record.facts.lease is not None
                     and record.facts.lease.router is not None):  # fmt: skip

        def as_any() -> ProbeStep:
            result = reach(machine, aim.to, aim.ip)
            return _judge("way-in", lan, aim, result, record, next_door=next_door)

        reached = record.do("way-in", as_any, expected)
        if reached or next_door or aim.behind in {"nat", "isolated"}:
            return
    else:
        reason = (
            "only the host can be asked from there: whether the LAN's router knows the way to "
            f"{aim.ip} is not known"
        )
        record.skip("way-in", reason, expected)
    if lan.own is None:
        record.skip("way-in-by-host", f"the host has no address on {lan.link.name}")
        return
    via = lan.own.ip

    def by_host() -> ProbeStep:
        machine.call(AddRoute(ip=aim.ip, via=via), Done)
        result = reach(machine, aim.to, aim.ip)
        return _judge("way-in-by-host", lan, aim, result, record, next_door=False)

    record.do("way-in-by-host", by_host, f"{aim.to} answers when sent to by way of {via}")


def _no_way_in(aim: Aim, record: Recorder) -> ProbeStep:
    network = aim.network.name if aim.network is not None else ""
    reason, hint = _behind_nat(network, aim.guest)
    return ProbeStep(
        name="way-in", verdict="failed", ms=record.ms(), detail=f"network {network} has none",
        reason=reason, hint=hint,
    )  # fmt: skip


def _next_door(lan: Lan, ip: Ip) -> bool:
    if lan.own is None:
        return False
    return ip_address(ip) in ip_interface(f"{lan.own.ip}/{lan.own.prefix_len}").network


def _judge(
    name: Literal["way-in", "way-in-by-host"], lan: Lan, aim: Aim,
    result: PingResult | ConnectResult, record: Recorder, *, next_door: bool,
) -> ProbeStep:  # fmt: skip
    connects = isinstance(result, ConnectResult)
    if result.ms is not None:
        how = "connected" if connects else "answered"
        return ProbeStep(
            name=name, verdict="ok", ms=record.ms(),
            detail=f"{aim.to} {how} in {result.ms:.1f} ms",
        )  # fmt: skip
    said = (f"the network says: {result.error}",) if result.error else ("nothing came back",)
    reason, hint = _why(lan, aim, result.error, name, next_door=next_door)
    return ProbeStep(
        name=name, verdict="failed", ms=record.ms(), evidence=said,
        detail=f"{'no connection to' if connects else 'no answer from'} {aim.to}",
        reason=reason, hint=hint,
    )  # fmt: skip


def _behind_nat(network: str, guest: str) -> tuple[str, str]:
    move = command("kvmnet", "guest", "move", guest or "GUEST", "--to", "bridge:BRIDGE")
    return (f"network {network} is behind NAT: connections begin inside of it, none can be made "
            "from the LAN, and no route on a router changes that",
            f"{move}, a network of mode route, or a port of the host that is published to the "
            "guest")  # fmt: skip


def _why(lan: Lan, aim: Aim, error: str, name: str, *, next_door: bool) -> tuple[str, str]:
    """What a failure means, and what helps."""
    network = aim.network.name if aim.network is not None else ""
    if aim.translated and (aim.behind or (name == "way-in" and not next_door)):
        return _behind_nat(network, aim.guest)
    if aim.behind == "isolated":
        return (f"network {network} is isolated: nothing gets in or out",
                "use a network of mode nat, route or open")  # fmt: skip
    if error == "Connection refused" and aim.to.port is not None:
        return ("it is there and nothing listens on that port, or a firewall refuses",
                f"look there: ss -ltn sport = :{aim.to.port}")  # fmt: skip
    if name == "way-in" and not next_door:
        return ("the LAN's router does not know the way, or something refuses on it",
                f"give the LAN's router a route to {aim.ip} by "
                f"{lan.own.ip if lan.own is not None else 'this host'}")  # fmt: skip
    if next_door:
        return ("it does not answer, or the host drops what comes in there",
                f"kvmnet trace lan:{lan.nic.name} {aim.to}")  # fmt: skip
    return ("the host does not forward it, or a firewall drops it",
            f"kvmnet trace lan:{lan.nic.name} {aim.to}; sysctl net.ipv4.ip_forward")  # fmt: skip
