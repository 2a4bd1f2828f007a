"""Plans that put guests on another network: who is moved how, and what it will notice.

What libvirt changes of a running guest's NIC without unplugging it: `qemuDomainChangeNet`
(libvirt: src/qemu/qemu_hotplug.c) exchanges the bridge of a tap, so it can go between networks with
a bridge and bridges. All other kinds need another device in the guest.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

import msgspec

from kvmnet.core.guest_addresses import GuestAddress, guest_addresses
from kvmnet.core.move_target import BRIDGED_MODES, Carrier, check
from kvmnet.errors import Refused
from kvmnet.model import guest_steps as steps
from kvmnet.model.move import GuestMove, GuestWork, MovePlan, MoveWish, NicWork
from kvmnet.model.plan import Plan, PlannedStep
from kvmnet.model.state import State
from kvmnet.model.target import NetworkTarget, Target, is_on, place
from kvmnet.model.values import Cidr, Ip, Mac
from kvmnet.model.virt import Guest, GuestNic

Addresses = dict[Mac, tuple[GuestAddress, ...]]

_NOTICES = {
    "offline": "nothing: it is shut off",
    "live": "its cable is pulled for half a second; it asks for an address again",
    "replug": "its NIC is unplugged and a new one plugged in; names and settings may be others",
    "next-boot": "nothing until it is shut down and started again",
    "nothing": "nothing: it is there already",
}


def plan_move(state: State, works: Sequence[GuestWork], target: Target, wish: MoveWish) -> MovePlan:
    """The plan for all of them. Raises `NotFound`, `Refused` if the target, or every guest, is bad.

    Guests that can't be moved are in `refused`, unless they were to go together.
    """
    carrier = check(state, target)
    known: Addresses = {
        x.mac: x.addresses
        for found in guest_addresses(state)
        for x in found.nics
        if x.mac is not None
    }
    taken = _macs_there(state, target, works)
    moves: list[GuestMove] = []
    planned: list[PlannedStep] = []
    notes = list(carrier.warnings)
    for work in works:
        try:
            move, own, said = _guest(state, work, target, carrier, wish, known, taken)
        except Refused as error:
            if wish.together or len(works) == 1:
                raise
            moves.append(_move(work.guest, "refused", str(error)))
            continue
        moves.append(move)
        together = wish.together or len(works) == 1
        planned += own if together else (_grouped(x, work.guest.name) for x in own)
        notes += said
    if works and all(x.how == "refused" for x in moves):
        raise Refused(
            f"no guest can be put on {target}", why="; ".join(x.notices for x in moves[:5])
        )
    names = moves[0].guest if len(moves) == 1 else f"{len(moves)} guests"
    plan = Plan(title=f"move {names} to {target}", steps=tuple(planned), notes=tuple(notes))
    return MovePlan(target=target, guests=tuple(moves), plan=plan)


def _grouped(planned: PlannedStep, group: str) -> PlannedStep:
    return msgspec.structs.replace(planned, group=group)


def _move(guest: Guest, how: str, notices: str = "") -> GuestMove:
    return msgspec.convert(
        {"guest": guest.name, "uuid": guest.uuid, "how": how,
         "notices": notices or _NOTICES[how]}, GuestMove,
    )  # fmt: skip


def _guest(
    state: State,
    work: GuestWork,
    target: Target,
    carrier: Carrier,
    wish: MoveWish,
    known: Addresses,
    taken: dict[Mac, str],
) -> tuple[GuestMove, tuple[PlannedStep, ...], tuple[str, ...]]:
    guest = work.guest
    moving = tuple(x for x in work.nics if x.before != x.after or x.new_mac is not None)
    stale = work.saved_before != work.saved_after
    if not moving and not stale:
        return _move(guest, "nothing"), (), ()
    _check_macs(guest, moving, taken)
    how = _how(state, work, moving, target, carrier, wish)
    if how in {"live", "replug"}:
        _check_addresses(state, guest, moving, carrier, known, wish)
    said = tuple(f"{guest.name}: {x}" for nic in moving for x in (*_new_mac(nic), *nic.remarks))
    if how == "next-boot":
        said += (f"{guest.name} runs on as it is; it is on {target} from its next start on "
                 f"(shut down, not only rebooted)",)  # fmt: skip
    own = [*_live_steps(guest, moving, how, target, carrier, known)]
    if work.saved_before is not None and work.saved_after is not None and stale:
        own.append(_save(work, moving, "nobody" if how != "next-boot" else f"{guest.name}: later"))
    return _move(guest, how), tuple(own), said


def _new_mac(nic: NicWork) -> tuple[str, ...]:
    """What DHCP reservations and others that know the NIC by its address have to be told."""
    if nic.new_mac is None:
        return ()
    return (f"NIC {nic.number} gets the MAC address {nic.new_mac}, in place of {nic.mac}",)


def _how(
    state: State,
    work: GuestWork,
    moving: Sequence[NicWork],
    target: Target,
    carrier: Carrier,
    wish: MoveWish,
) -> str:
    guest = work.guest
    if not guest.active:
        if wish.how in {"live", "replug"}:
            raise Refused(
                f"guest {guest.name} does not run", why=f"--{wish.how} is for one that does"
            )
        return "offline"
    if wish.how == "offline":
        raise Refused(
            f"guest {guest.name} is not shut off", why=f"it is {guest.state}",
            hint="leave --offline out, or say --next-boot",
        )  # fmt: skip
    why = _why_not_live(state, work, moving, carrier)
    if wish.how == "replug":
        return "replug" if why else "live"
    if wish.how == "next-boot" or (wish.how == "auto" and why and work.saved_before is not None):
        if work.saved_before is None:
            raise Refused(f"guest {guest.name} has no next start", why="it is transient")
        return "next-boot"
    if why:
        raise Refused(
            f"guest {guest.name} can not be put on {target} while it runs", why=why,
            hint="--replug (it gets another NIC), or --next-boot",
        )  # fmt: skip
    return "live"


def _why_not_live(
    state: State, work: GuestWork, moving: Sequence[NicWork], carrier: Carrier
) -> str:
    if work.guest.state not in {"running", "paused", "idle"}:
        return f"it is {work.guest.state}"
    if carrier.bridge is None:
        return "a NIC on a bridge is another device than what is wanted"
    live = {x.mac: x for x in work.guest.live_nics}
    for nic in moving:
        now = live.get(nic.mac)
        if nic.new_mac is not None:
            return "a running NIC keeps its address"
        if now is None or nic.before_xml is None:
            return f"the running guest has no NIC {nic.mac}"
        if not _is_on_bridge(state, now):
            return f"its NIC on {place(now)} is another device than one on a bridge"
    return ""


def _is_on_bridge(state: State, nic: GuestNic) -> bool:
    if nic.type == "bridge":
        return True
    network = state.network(nic.source) if nic.type == "network" and nic.source else None
    config = network.config if network is not None else None
    return config is not None and config.bridge is not None and (
        config.mode in BRIDGED_MODES or config.mode == "bridge"
    )  # fmt: skip


def _macs_there(state: State, target: Target, works: Sequence[GuestWork]) -> dict[Mac, str]:
    """Who has which address on the target already; those that move there too count."""
    own = {x.guest.uuid for x in works}
    found: dict[Mac, str] = {}
    for guest in state.guests:
        for nic in guest.nics:
            if nic.mac is not None and is_on(nic, target) and guest.uuid not in own:
                found[nic.mac] = f"guest {guest.name}"
    if isinstance(target, NetworkTarget):
        return found
    bridge = getattr(target, "name", None)
    mine = {x.target for guest in state.guests for x in guest.live_nics}
    for entry in state.forwarding:
        if entry.kind == "learned" and entry.bridge == bridge and entry.port not in mine:
            found.setdefault(entry.mac, f"somebody behind {entry.port}")
    return found


def _check_macs(guest: Guest, moving: Sequence[NicWork], taken: dict[Mac, str]) -> None:
    """Two NICs of one address on a LAN take each other's packets."""
    for nic in moving:
        mac = nic.new_mac or nic.mac
        if mac in taken:
            raise Refused(
                f"guest {guest.name} is not put on {nic.after}",
                why=f"its address {mac} is in use there, by {taken[mac]}", hint="--mac new",
            )  # fmt: skip
        taken[mac] = f"guest {guest.name}"


def _check_addresses(
    state: State,
    guest: Guest,
    moving: Sequence[NicWork],
    carrier: Carrier,
    known: Addresses,
    wish: MoveWish,
) -> None:
    if wish.force or not carrier.subnets:
        return
    for nic in moving:
        for address in known.get(nic.mac, ()):
            if address.family == 4 and _is_static(state, nic, address) and not _fits(
                address.ip, carrier.subnets
            ):  # fmt: skip
                raise Refused(
                    f"guest {guest.name} is not put on {nic.after}",
                    why=f"its address {address.ip} is set by hand in the guest, and does not fit "
                    f"{', '.join(carrier.subnets)}: nobody would reach it",
                    hint="have it ask for one by DHCP, or say --force",
                )


def _is_static(state: State, nic: NicWork, address: GuestAddress) -> bool:
    """The agent tells of it, and the network that gives out leases there gave none."""
    sources = {x.source for x in address.sources}
    name = nic.before.removeprefix("network:")
    network = state.network(name) if nic.before.startswith("network:") else None
    config = network.config if network is not None else None
    gives = config is not None and any(x.ranges or x.reservations for x in config.ips)
    return gives and "agent" in sources and "lease" not in sources


def _fits(ip: Ip, subnets: Sequence[Cidr]) -> bool:
    return any(ipaddress.ip_address(ip) in ipaddress.ip_network(x) for x in subnets)


def _live_steps(
    guest: Guest,
    moving: Sequence[NicWork],
    how: str,
    target: Target,
    carrier: Carrier,
    known: Addresses,
) -> Iterator[PlannedStep]:
    if how not in {"live", "replug"}:
        return
    for nic in moving:
        if nic.before_xml is None or nic.after_xml is None:
            continue
        if how == "live":
            yield _old_place(guest, nic)
            yield from _move_steps(guest, nic, carrier)
        else:
            yield from _replug_steps(guest, nic)
        if carrier.bridge is not None:
            yield _proof(guest, nic, carrier, known)


def _move_steps(guest: Guest, nic: NicWork, carrier: Carrier) -> Iterator[PlannedStep]:
    assert nic.before_xml is not None and nic.after_xml is not None
    back = steps.MoveNic(
        guest=guest.name, uuid=guest.uuid, mac=nic.mac, place=nic.before, xml=nic.before_xml,
        cable="kept" if _stays_on_bridge(guest, nic, carrier) else "pulled", if_off="skip",
    )  # fmt: skip
    yield PlannedStep(
        step=msgspec.structs.replace(back, place=nic.after, xml=nic.after_xml, if_off="fail"),
        undo=back,
        disturbs=f"guest {guest.name}: {_NOTICES['live']}",
    )


def _stays_on_bridge(guest: Guest, nic: NicWork, carrier: Carrier) -> bool:
    """From a network to the bridge it has, or back: the LAN, and so the address, is the same."""
    now = next((x for x in guest.live_nics if x.mac == nic.mac), None)
    here = now.source if now is not None and now.type == "bridge" else now and now.bridge
    return here is not None and here == carrier.bridge


def _replug_steps(guest: Guest, nic: NicWork) -> Iterator[PlannedStep]:
    assert nic.before_xml is not None and nic.after_xml is not None
    mac = nic.new_mac or nic.mac
    plug = steps.PlugNic(
        guest=guest.name, uuid=guest.uuid, mac=nic.mac, place=nic.before, xml=nic.before_xml,
        where="running", if_off="skip",
    )  # fmt: skip
    unplug = steps.UnplugNic(guest=guest.name, uuid=guest.uuid, mac=nic.mac, where="running")
    yield PlannedStep(step=unplug, undo=plug, disturbs=f"guest {guest.name}: {_NOTICES['replug']}")
    yield PlannedStep(
        step=msgspec.structs.replace(
            plug, mac=mac, place=nic.after, xml=nic.after_xml, if_off="fail"
        ),
        undo=msgspec.structs.replace(unplug, mac=mac),
        disturbs=f"guest {guest.name}: it gets a NIC",
    )


def _old_place(guest: Guest, nic: NicWork) -> PlannedStep:
    """It is plugged in where it is now; if it has to go back, it is so there again."""
    proof = steps.ProveGuest(
        guest=guest.name, uuid=guest.uuid, mac=nic.mac, place=nic.before, demands="port",
        within_s=10.0, if_off="skip",
    )  # fmt: skip
    return PlannedStep(step=msgspec.structs.replace(proof, if_off="fail"), undo=proof)


def _proof(guest: Guest, nic: NicWork, carrier: Carrier, known: Addresses) -> PlannedStep:
    """An address is demanded of a guest that had one; one that had none may never ask."""
    had = tuple(x.ip for x in known.get(nic.mac, ()) if x.family == 4)
    old = () if _stays_on_bridge(guest, nic, carrier) else had
    return PlannedStep(
        step=steps.ProveGuest(
            guest=guest.name, uuid=guest.uuid, mac=nic.new_mac or nic.mac, place=nic.after,
            demands="address" if had and guest.state == "running" else "port",
            subnets=carrier.subnets, old=old,
        ),
        undo=None,
    )  # fmt: skip


def _save(work: GuestWork, moving: Sequence[NicWork], disturbs: str) -> PlannedStep:
    assert work.saved_after is not None and work.saved_before is not None
    what = "; ".join(
        f"NIC {x.mac}: {x.before} becomes {x.after}"
        + (f", its MAC address {x.new_mac}" if x.new_mac is not None else "")
        for x in moving
    )
    guest = work.guest
    return PlannedStep(
        step=steps.SaveGuest(
            guest=guest.name, uuid=guest.uuid, what=what or "as it runs", xml=work.saved_after,
            active=guest.active,
        ),
        undo=steps.RestoreGuest(guest=guest.name, uuid=guest.uuid, xml=work.saved_before),
        disturbs=disturbs,
    )  # fmt: skip
