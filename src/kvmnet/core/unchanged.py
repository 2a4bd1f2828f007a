"""Whether what a kept change left is still so: what its undo needs, one row a step."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kvmnet.model import guest_steps, link_steps, plan
from kvmnet.model.arrangement import Arrangement, LinkTarget
from kvmnet.model.handover import NetplanGenerate
from kvmnet.model.host import Address, Route
from kvmnet.model.plan import Plan, PlannedStep
from kvmnet.model.state import State

_PASSING = frozenset({"temporary", "deprecated"})


def arrangement(state: State, target: Arrangement) -> tuple[str, ...]:
    """How the links differ from the arrangement, in sentences; empty: as it left them.

    Lifetimes, counters and neighbour entries are of the moment; link-local and temporary addresses
    come by themselves, and who made a route is its manager's business.
    """
    found = [x for link in target.links for x in _link(state, link)]
    found += [f"{name} is there again" for name in target.absent if state.link(name) is not None]
    found += list(_routes(state, target))
    return tuple(found)


def _link(state: State, target: LinkTarget) -> Iterator[str]:
    link = state.link(target.name)
    if link is None:
        yield f"{target.name} is gone"
        return
    if target.bridge is not None and link.bridge is None:
        yield f"{target.name} is no bridge any more"
    if link.master != target.master:
        now = f"a port of {link.master}" if link.master is not None else "no port any more"
        yield f"{target.name} is {now}"
    if target.mac is not None and link.mac != target.mac:
        yield f"{target.name} has the MAC address {link.mac}"
    mine = tuple(x for x in state.addresses if x.link == target.name)
    for cidr in sorted(_lasting(mine) ^ _lasting(target.addresses)):
        was = cidr in _lasting(target.addresses)
        yield f"{target.name} {'has lost' if was else 'has got'} the address {cidr}"


def _lasting(addresses: tuple[Address, ...]) -> set[str]:
    return {
        f"{x.ip}/{x.prefix_len}"
        for x in addresses
        if x.scope == "global" and not _PASSING & set(x.flags)
    }


def _routes(state: State, target: Arrangement) -> Iterator[str]:
    names = {x.name for x in target.links}
    now = {_way(x) for x in state.routes if x.link in names and x.gateway is not None}
    then = {_way(x) for x in target.routes if x.gateway is not None}
    for way in sorted(now ^ then):
        destination, gateway, link = way
        yield (
            f"the route to {destination} by {gateway} through {link} is "
            f"{'gone' if way in then else 'new'}"
        )


def _way(route: Route) -> tuple[str, str, str]:
    return route.destination, str(route.gateway), str(route.link)


def link_step(state: State, step: link_steps.LinkStep) -> tuple[str, ...]:
    """How a link differs from what the step made of it, in sentences; empty: as it left it.

    A link that is gone took its attributes with it: nothing is left to put back.
    """
    found: str | None = None
    match step:
        case link_steps.PlugTap() | link_steps.UnplugTap():
            plugged = isinstance(step, link_steps.PlugTap)
            link = state.link(step.tap)
            if link is not None and (link.master == step.bridge) != plugged:
                found = f"{step.tap} is {f'a port of {link.master}' if link.master else 'no port'}"
        case link_steps.SetBridge():
            now = _bridge_value(state, step)
            if now not in {None, step.value}:
                found = f"{step.attribute} of {step.bridge} is {now}"
        case link_steps.SetLink():
            link = state.link(step.link)
            if link is not None and link.up != step.up:
                found = f"{step.link} is {'on' if link.up else 'off'}"
        case link_steps.AddAddress():
            if not _has(state, step.address.link, step.cidr):
                found = f"{step.address.link} has lost the address {step.cidr}"
        case link_steps.RemoveAddress():
            if _has(state, step.link, step.address):
                found = f"{step.link} has the address {step.address} again"
        case link_steps.SetOffload() | link_steps.SetPorts():
            pass  # it is set again, whatever it is by now
    return () if found is None else (found,)


def _has(state: State, link: str, cidr: str) -> bool:
    return any(x.link == link and f"{x.ip}/{x.prefix_len}" == cidr for x in state.addresses)


def _bridge_value(state: State, step: link_steps.SetBridge) -> int | None:
    link = state.link(step.bridge)
    if link is None or link.bridge is None:
        return None
    now = link.bridge
    return {
        "stp_state": int(now.stp),
        "forward_delay": round(now.forward_delay_s * 100),
        "mcast_snooping": int(now.multicast_snooping),
        "mcast_querier": int(now.multicast_querier),
        "nf_call_iptables": int(now.nf_call_iptables),
        "nf_call_ip6tables": int(now.nf_call_ip6tables),
    }[step.attribute]


def lasting(kept: Plan, state: State) -> tuple[plan.Step, ...]:
    """The plan's steps, without what a later one of them undid on purpose: a bridge that was taken
    away so that a network could make its own of that name."""
    started = {x.step.name for x in kept.steps if isinstance(x.step, plan.StartNetwork)}
    made = {x.live.bridge for x in state.networks if x.name in started and x.live is not None}
    found: list[plan.Step] = []
    for planned in kept.steps:
        step = planned.step
        if isinstance(step, plan.Arrange):
            absent = tuple(x for x in step.target.absent if x not in made)
            target = msgspec.structs.replace(step.target, absent=absent)
            step = msgspec.structs.replace(step, target=target)
        found.append(step)
    return tuple(found)


def removed_bridges(taken_back: Plan) -> tuple[str, ...]:
    """Bridges that a plan takes away."""
    return tuple(
        name
        for planned in taken_back.steps
        if isinstance(planned.step, plan.Arrange)
        for name in planned.step.target.absent
    )


def still_used(state: State, kept: Plan, taken_back: Plan) -> tuple[str, ...]:
    """Who would be cut off: ports that were plugged into bridges and networks since."""
    own = {
        x.name
        for planned in kept.steps
        if isinstance(planned.step, plan.Arrange)
        for x in planned.step.target.links
    }
    own |= set(_plugged(kept))
    bridges = set(removed_bridges(taken_back))
    for planned in taken_back.steps:
        if isinstance(planned.step, plan.StopNetwork):
            network = state.network(planned.step.name)
            config = network.config if network is not None else None
            if config is not None and config.bridge is not None:
                bridges.add(config.bridge)
    return tuple(
        f"{port.name} is a port of {name}"
        for name in sorted(bridges)
        for port in state.ports(name)
        if port.name not in own and not port.name.endswith("-nic")
    )


def _plugged(kept: Plan) -> Iterator[str]:
    """Taps that the plan plugged in itself: taking them out again is what is asked for."""
    for planned in kept.steps:
        match planned.step:
            case plan.StartNetwork(plug=taps):
                yield from taps
            case link_steps.PlugTap(tap=tap):
                yield tap
            case _:
                pass


def reversed_plan(kept: Plan) -> Plan:
    """The plan that takes another back: its undos, the last first, each undone by the step."""
    return Plan(
        title=f"undo {kept.title}",
        steps=tuple(
            PlannedStep(step=x.undo, undo=_again(x.step), disturbs=x.disturbs)
            for x in reversed(kept.steps)
            if x.undo is not None
        ),
    )


def _again(step: plan.Step) -> plan.Step:
    """The step, to be taken once more where taking it back fails, or a reboot comes between."""
    if not isinstance(step, plan.HandOver) or step.calls_at_boot:
        return step
    early = tuple(x for x in step.calls if isinstance(x, NetplanGenerate))
    return msgspec.structs.replace(step, calls_at_boot=early)


def command_instead(kept: Plan) -> str:
    """The command that does by hand what an undo would have done; empty: there is none."""
    back = reversed_plan(kept)
    for name in removed_bridges(back):
        return f"kvmnet bridge delete {name}"
    for planned in kept.steps:
        if isinstance(planned.step, plan.DefineNetwork):
            return f"kvmnet network delete {planned.step.name}"
        if isinstance(planned.step, guest_steps.GUEST_STEPS):
            return f"kvmnet guest move {planned.step.guest} --to TARGET"
    return ""
