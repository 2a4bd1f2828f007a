"""The probe of one guest: seen from the host, told by its agent, tried by a stand-in beside it."""

from __future__ import annotations

import contextlib
import threading

import msgspec

from kvmnet.adapters.guest_inside import Agent, ask
from kvmnet.adapters.kernel import read_vlans
from kvmnet.adapters.libvirt import leave_behind
from kvmnet.adapters.netns import StandIn
from kvmnet.core.guest_place import GuestPlace, guest_place
from kvmnet.core.missing import no_such
from kvmnet.core.nic_choice import choose
from kvmnet.core.vlans import filters, of_port
from kvmnet.errors import InvalidInput, KvmnetError, Refused
from kvmnet.flow.observe import Part, observe
from kvmnet.flow.probe_inside import Inside, no_agent
from kvmnet.flow.probe_outside import Outside, judge_answers
from kvmnet.flow.probe_place import (
    Place,
    default_gateway,
    in_default_vlan,
    in_vlan,
    place_beside,
    place_on,
    plug_in,
)
from kvmnet.flow.probe_record import Recorder
from kvmnet.flow.probe_tour import ARP_WAIT_S, Tour
from kvmnet.model.nic_choice import AllNics
from kvmnet.model.probe import Endpoint, ProbeReport, ProbeStep, ProbeTarget
from kvmnet.model.reached import MacResult
from kvmnet.model.standin import FindMac
from kvmnet.model.state import State
from kvmnet.model.values import Ip, Mac

PARTS = frozenset(
    {Part.LINKS, Part.ADDRESSES, Part.ROUTES, Part.NEIGHBOURS, Part.FORWARDING, Part.NETWORKS,
     Part.GUESTS, Part.LEASES, Part.VLANS}
)  # fmt: skip
AGENT_END_S = 20.0
"""For all that is asked of an agent that has answered once."""


_NO_TARGET = "the host has no default gateway, or the network is isolated: name a target with --to"


def find_guest(target: ProbeTarget, parts: frozenset[Part] = PARTS) -> tuple[State, GuestPlace]:
    """Look at these parts of the host.

    Raises `NotFound`, `InvalidInput` (which NIC?), `Unavailable`.
    """
    state = observe(target.connection, parts)
    guest = state.guest(target.name)
    if guest is None:
        raise no_such(state, "guest", target.name)
    if isinstance(target.nic, AllNics) and len(guest.nics) > 1:
        raise InvalidInput("one NIC is probed at a time", hint="--nic 1 or --nic MAC")
    number = choose(guest.nics, target.nic, None, f"guest {guest.name}")[0]
    return state, guest_place(state, guest, number)


def probe_guest(target: ProbeTarget, machine: StandIn, record: Recorder) -> ProbeReport:
    """All steps. `machine` is a stand-in that is not plugged in yet."""
    state, where = find_guest(target)
    outside = Outside(state, where, record)
    if not outside.run():
        return record.report(target, "", None)
    to = target.to or _beyond(state, where)
    broken = record.broken
    with contextlib.ExitStack() as stack:
        why_not = f"no answer can come: see {broken.name}" if broken is not None else _NO_TARGET
        inside = _begin_inside(target, where, to if broken is None and to else why_not, stack)
        told = inside.inside.usable if inside is not None else ()
        asked = outside.answers_to_host(told)
        place = _place_beside_guest(state, where, target, record)
        if place is not None:
            plug_in(machine, place)

            def between() -> None:
                if not asked:
                    _answers_to_stand_in(machine, where, (*outside.addresses, *told), record)

            known = bool(told or outside.addresses)
            tour = Tour(machine, place, to, record, dhcp_matters=not known, between=between)
            tour.run()
        if inside is None:
            no_agent(where, record)
        else:
            inside.join(record)
    bridge = place.bridge if place is not None else ""
    return record.report(target, bridge, place.mac if place is not None else None)


def _beyond(state: State, where: GuestPlace) -> Endpoint | None:
    """The host's own default gateway, if the guest's network leads beyond the host."""
    config = where.network.config if where.network is not None else None
    gateway = default_gateway(state, 4, None)
    if gateway is None or (config is not None and config.mode == "isolated"):
        return None
    return Endpoint(host=gateway)


class _Told:
    """The agent's steps, taken in a thread while the stand-in takes its own."""

    def __init__(self, agent: Agent, where: GuestPlace, to: Endpoint | str) -> None:
        self._own = Recorder(lambda _step: None)
        self.inside = Inside(agent, where, to, self._own)
        self._failure: BaseException | None = None
        self._done = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        try:
            self.inside.run()
        except BaseException as error:  # handed over in `join`
            self._failure = error
        finally:
            self._done.set()

    def join(self, record: Recorder) -> None:
        """Wait for the agent's steps and add them to the others."""
        ended = self._done.wait(AGENT_END_S)
        for step in tuple(self._own.steps):
            record.add(step)
        record.facts.inside = self._own.facts.inside
        if self._failure is not None:
            raise self._failure
        if not ended:
            record.add(
                ProbeStep(
                    name="agent",
                    verdict="warn",
                    by="agent",
                    detail="the agent fell silent",
                    reason=f"it was given {AGENT_END_S:g} seconds",
                )
            )

    def leave(self) -> None:
        """Give it a moment when the process ends: it may be in the middle of a call."""
        if not self._done.is_set():
            leave_behind(self._done)


def _begin_inside(
    target: ProbeTarget, where: GuestPlace, to: Endpoint | str, stack: contextlib.ExitStack
) -> _Told | None:
    """None: no agent answers."""
    if where.guest.agent != "connected":
        return None
    try:
        agent = stack.enter_context(ask(target.connection, where.guest.uuid))
    except KvmnetError:
        return None
    told = _Told(agent, where, to)
    stack.callback(told.leave)
    return told


def _place_beside_guest(
    state: State, where: GuestPlace, target: ProbeTarget, record: Recorder
) -> Place | None:
    """Where the stand-in goes; None: nowhere, and the step `link` says why."""
    try:
        if where.belongs_to is None:
            raise Refused("no stand-in can be put beside it",
                          why=f"a NIC of type {where.nic.type} is on no bridge")  # fmt: skip
        if where.by_macvtap:
            mode = where.nic.source_mode or (where.tap.mode if where.tap is not None else None)
            if mode == "passthrough":
                why = "a macvtap in mode passthrough has the NIC for itself"
                raise Refused("no stand-in can be put beside it", why=why)
            return place_beside(state, where.belongs_to, mode or "vepa", target.mac)
        place = place_on(state, where.belongs_to, where.network, target.mac)
        return _mirrored(state, where, place)
    except KvmnetError as error:
        record.skip("link", f"{error.what}: {error.why}" if error.why else error.what,
                    "a stand-in beside the guest")  # fmt: skip
        return None


def _mirrored(state: State, where: GuestPlace, place: Place) -> Place:
    """The place with a port like the guest's own: isolation, VLANs, learning, MTU.

    Raises `Refused`: no frame without a tag passes the guest's port.
    """
    tap = where.tap
    if tap is None or tap.port is None or not where.is_there:
        return in_default_vlan(state, place)
    commands, mirrored = list(place.port_commands), []
    if tap.port.isolated:
        commands.append("bridge link set dev {nic} isolated on")
        mirrored.append("isolated")
    if filters(state.link(place.bridge)):
        place = in_vlan(state, place, _untagged_vlan(state, tap.name))
        # First: an entry of the forwarding database is made for the VLANs that the port is in.
        commands[:0], numbers = _vlan_commands(state, place.bridge, tap.name)
        mirrored += numbers
    return msgspec.structs.replace(
        place, port_commands=tuple(commands), mirrored=tuple(mirrored), mtu=tap.mtu
    )


def _untagged_vlan(state: State, tap: str) -> int:
    """The VLAN of what the guest sends without a tag."""
    there = of_port(state, tap)
    if there is not None and there.pvid is not None:
        return there.pvid
    raise Refused(
        "no stand-in can be put beside it",
        why=f"its port {tap} takes frames with a tag only: the guest itself says which VLAN"
        if there is not None and there.ranges else f"its port {tap} is in no VLAN",
        hint=f"look: bridge vlan show dev {tap}",
    )  # fmt: skip


def _vlan_commands(state: State, bridge: str, tap: str) -> tuple[list[str], list[str]]:
    """What puts the stand-in's port into the VLANs of the tap alone, and what they are."""
    link = state.link(bridge)
    given = link.bridge.default_pvid if link is not None and link.bridge is not None else 0
    commands = [f"bridge vlan del dev {{nic}} vid {given}"] if given else []
    numbers = []
    for vlan in read_vlans(tap):
        flags = f"{' pvid' if vlan.pvid else ''}{' untagged' if vlan.untagged else ''}"
        number = f"{vlan.vid}-{vlan.end}" if vlan.end != vlan.vid else f"{vlan.vid}"
        commands.append(f"bridge vlan add dev {{nic}} vid {number}{flags}")
        numbers.append(f"VLAN {number}")
    return commands, numbers


def _answers_to_stand_in(
    machine: StandIn, where: GuestPlace, addresses: tuple[Ip, ...], record: Recorder
) -> None:
    """Ask the guest from beside it: the host has no address there to ask from."""
    asked = tuple(dict.fromkeys(addresses))
    expected = f"{where.nic.mac} answers for {' or '.join(asked) or 'its address'}"
    if where.tap is not None and where.tap.port is not None and where.tap.port.isolated:
        record.skip("answers", "isolated ports do not see each other", expected)
        return
    if not asked:
        record.skip("answers", "no address of it is known", expected)
        return

    def step() -> ProbeStep:
        owners: dict[Ip, tuple[Mac, ...]] = {}
        for ip in asked:
            found = machine.call(FindMac(ip=ip, wait_s=ARP_WAIT_S), MacResult, ARP_WAIT_S).mac
            owners[ip] = () if found is None else (found,)
        return judge_answers(where.nic.mac, owners, record)

    record.do("answers", step, expected)
