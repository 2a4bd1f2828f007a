"""Host bridges, from what the user asks for to what packets have proven and files keep.

A plan is: openings in the firewall, the live change, a proof, the manager's files, a proof. The
live change comes first, so that a host that is cut off in the middle of it reboots into what it
was; the files come last, once packets have shown that the new way carries.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

import msgspec
from msgspec import Struct

from kvmnet.adapters import kernel_modules, nics, tcp
from kvmnet.core import bridge_firewall, bridge_plan, ports_back, vlans
from kvmnet.core.bridge_plan import BridgeChange
from kvmnet.core.demands import demanded
from kvmnet.errors import KvmnetError, Refused, Unavailable
from kvmnet.flow import backends, sources, taking_back
from kvmnet.flow.apply import Watcher, apply, changing
from kvmnet.flow.baseline import baseline
from kvmnet.flow.beside import Beside
from kvmnet.flow.observe import Part, observe
from kvmnet.model.arrangement import Arrangement
from kvmnet.model.check import Check, LinkAddressed
from kvmnet.model.desired import BridgeRequest
from kvmnet.model.handover import FileState, HandedOver
from kvmnet.model.host import NicOwner
from kvmnet.model.plan import Arrange, HandOver, Plan, PlannedStep, Prove
from kvmnet.model.state import State, Unread
from kvmnet.model.transaction import Confirm

PARTS = frozenset(
    {
        Part.LINKS, Part.ADDRESSES, Part.ROUTES, Part.RULES, Part.NEIGHBOURS, Part.FORWARDING,
        Part.SYSCTLS, Part.FIREWALL, Part.OWNERS, Part.NETWORKS, Part.GUESTS,
    }
)  # fmt: skip

_ESSENTIAL = frozenset(
    {"links and addresses", "routes", "rules", "host network managers", "NetworkManager"}
)
"""Who owns a NIC must be known for sure: else nobody would be told, and take it back."""

LIVE_PROOF_S = 10.0
KEPT_PROOF_S = 45.0
"""A manager may take a while to make what it was told its own: DHCP, duplicate detection."""

Planner = Callable[[State], BridgeChange]
"""A pure function that knows what the user wants."""

Consent = Callable[[Plan], None]


def look(uri: str | None, watcher: Watcher) -> State:
    """The host as a change of its network is planned for it. Raises `Unavailable`.

    A libvirt that is not there does not keep a host from having a bridge.
    """
    state = observe(uri, PARTS)
    state = msgspec.structs.replace(state, links=nics.with_port_facts(state.links))
    if any(map(vlans.filters, state.links)):
        state = msgspec.structs.replace(state, port_vlans=sources.port_vlans())
    for gap in state.unread:
        if gap.what in _ESSENTIAL or gap.what.startswith("/"):  # a manager's file
            raise Unavailable(f"{gap.what} could not be read", why=gap.why, hint=gap.hint)
        watcher.say(f"not looked at: {gap.what} ({gap.why})")
    return state


def creation(request: BridgeRequest) -> Planner:
    """Plans `kvmnet bridge create`."""
    return lambda state: bridge_plan.plan_create(state, request)


def deletion(name: str) -> Planner:
    """Plans `kvmnet bridge delete`, unless guests use the bridge."""
    return lambda state: bridge_plan.plan_delete(state, name)


def forced_deletion(name: str) -> Planner:
    """Plans `kvmnet bridge delete --force`."""
    return lambda state: bridge_plan.plan_forced_delete(state, name)


def port_addition(bridge: str, nic: str) -> Planner:
    """Plans `kvmnet bridge add-port`."""
    return lambda state: bridge_plan.plan_add_port(state, bridge, nic)


def port_removal(bridge: str, nic: str) -> Planner:
    """Plans `kvmnet bridge remove-port`."""
    return lambda state: bridge_plan.plan_remove_port(state, bridge, nic)


def propose(
    planner: Planner, *, uri: str | None, extra: tuple[Check, ...], watcher: Watcher
) -> Plan:
    """The plan for the host as it is now, its checks measured; nothing is touched.

    Raises the planner's refusals.
    """
    return _propose(planner, uri, extra, watcher).plan


class _Proposal(Struct, frozen=True, kw_only=True):
    plan: Plan
    undoes: str | None = None
    """The id of the transaction that it takes back."""


def _propose(
    planner: Planner, uri: str | None, extra: tuple[Check, ...], watcher: Watcher
) -> _Proposal:
    opened = Beside("open TCP connections", tcp.established)
    state = look(uri, watcher)
    change = planner(state)
    if change.before is not None and change.takeover is None:
        exact = _taken_back(change, extra, watcher)
        if exact is not None:
            return exact
    if change.arrange is None:
        return _Proposal(plan=Plan(title=change.title, notes=change.notes))
    if not state.port_vlans and _has_ports(change.arrange):
        state = _with_vlans(state)
        change = planner(state)
    holding = baseline(state, change.nics, extra, watcher, opened.value)
    assert change.arrange is not None  # VLANs alone are no reason to do nothing
    return _Proposal(plan=_plan(state, change, change.arrange, holding))


def _has_ports(planned: PlannedStep) -> bool:
    """Whether its undo is to have ports again, which have VLANs that leaving them forgets."""
    undo = planned.undo
    return isinstance(undo, Arrange) and any(x.master is not None for x in undo.target.links)


def _with_vlans(state: State) -> State:
    """Where nothing filters they do nothing: that they can't be read stops nobody."""
    try:
        return msgspec.structs.replace(state, port_vlans=sources.port_vlans())
    except KvmnetError as error:
        gap = Unread(what=vlans.VLANS_PART, why=str(error), hint=error.hint)
        return msgspec.structs.replace(state, unread=(*state.unread, gap))


def _taken_back(
    change: BridgeChange, extra: tuple[Check, ...], watcher: Watcher
) -> _Proposal | None:
    """A bridge that is as kvmnet made it goes by the very undo: every byte is as it was."""
    every = taking_back.history()
    gone = taking_back.taken_back_by(every)
    made = [
        x for x in every
        if x.outcome == "kept" and x.id not in gone and _makes(x.plan, change.bridge)
    ]  # fmt: skip
    if not made:
        return None
    try:
        plan = taking_back.propose(made[-1], extra, watcher)
    except Refused:
        return None  # something else was changed since: the files are edited instead
    plan = msgspec.structs.replace(plan, title=change.title, notes=change.notes)
    return _Proposal(plan=plan, undoes=made[-1].id)


def _makes(plan: Plan, bridge: str) -> bool:
    return any(isinstance(x.undo, Arrange) and bridge in x.undo.target.absent for x in plan.steps)


def _plan(
    state: State, change: BridgeChange, arrange: PlannedStep, holding: tuple[Check, ...]
) -> Plan:
    walls = _walls(state, change)
    kept = _kept(state, change)
    proof = _proof(arrange, holding)
    live: tuple[PlannedStep, ...] = (arrange, *_prove(proof, LIVE_PROOF_S))
    lasting: tuple[PlannedStep, ...] = ()
    if kept is not None:
        first, then = hand_over_steps(kept.handed, kept.manager, change.bridge)
        before = arrange.undo.target if isinstance(arrange.undo, Arrange) else Arrangement(links=())
        live = (*ports_back.steps(before), first, *live)
        lasting = (then, *_prove((*proof, *_hoped_for(change)), KEPT_PROOF_S))
    return Plan(
        title=change.title,
        steps=(*walls.steps, *live, *lasting),
        notes=(*change.notes, *walls.notes, *_lasting_notes(change, kept)),
    )


def carry_out(
    planner: Planner,
    *,
    uri: str | None,
    extra: tuple[Check, ...],
    confirm: Confirm,
    command: str,
    consent: Consent,
    watcher: Watcher,
) -> Plan:
    """Plan under the lock, ask, apply under the guard, prove. Returns the plan."""
    with changing(command, watcher):
        proposal = _propose(planner, uri, extra, watcher)
        plan = proposal.plan
        consent(plan)
        if plan.steps:
            with kernel_modules.loading("bridge"):
                apply(
                    plan, uri=uri, command=command, verify=lambda: None, watcher=watcher,
                    confirm=confirm, undoes=proposal.undoes,
                )  # fmt: skip
        return plan


class _Kept(Struct, frozen=True, kw_only=True):
    """What the manager that owns the NIC is to be given, and its name."""

    manager: str
    handed: HandedOver


def _kept(state: State, change: BridgeChange) -> _Kept | None:
    """What makes the change last; None: nothing does, and the notes say so."""
    owner = _owner(state, change)
    if owner is None:
        return None
    backend = backends.backend(owner)
    if backend is None:
        return None
    before, after = change.before, change.takeover
    if before is None and after is not None:
        handed = backend.create(after)
    elif before is not None and after is None:
        handed = backend.delete(before)
    elif before is not None and after is not None:
        handed = backend.set_ports(before, after)
    else:
        return None
    return _Kept(manager=owner.manager, handed=handed)


def _lasting_notes(change: BridgeChange, kept: _Kept | None) -> tuple[str, ...]:
    if kept is not None:
        return kept.handed.notes
    if change.takeover is None and change.before is not None:
        return ()  # it is in no file, and goes
    if change.takeover is None:
        return ("this holds until the host reboots: no file is written",)
    return (
        f"no host network manager owns {change.heir or change.bridge}, so no file is written: this "
        "holds until the host reboots",
    )


def _owner(state: State, change: BridgeChange) -> NicOwner | None:
    """Who keeps the bridge: the owner of the NIC that it is made of, or of the bridge itself.

    One without ports belongs to whoever owns the host's way out.
    """
    names = [x for x in (change.heir, change.bridge) if x is not None]
    if change.heir is None:
        names += [x.link for x in state.routes if x.link and x.destination.endswith("/0")]
    return next((x for name in names for x in state.owners if x.link == name), None)


def _walls(state: State, change: BridgeChange) -> bridge_firewall.BridgeFirewall:
    if change.takeover is None:
        return bridge_firewall.BridgeFirewall()
    return bridge_firewall.prepare(state, change.takeover.heir_of, change.takeover.bridge)


def _proof(arrange: PlannedStep, checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """What holds now, as far as the user does not take it away."""
    if not isinstance(arrange.step, Arrange) or not isinstance(arrange.undo, Arrange):
        return checks
    return demanded(checks, arrange.undo.target, arrange.step.target)


def _hoped_for(change: BridgeChange) -> tuple[Check, ...]:
    """What is not there before, and has to be once the manager has its files."""
    wanted = change.takeover
    if change.before is not None or wanted is None or wanted.address != "dhcp":
        return ()
    return (LinkAddressed(link=change.bridge),)


def _prove(checks: tuple[Check, ...], within_s: float) -> tuple[PlannedStep, ...]:
    if not checks:
        return ()
    return (PlannedStep(step=Prove(checks=checks, within_s=within_s), undo=None),)


def hand_over_steps(
    handed: HandedOver, manager: str, bridge: str
) -> tuple[PlannedStep, PlannedStep]:
    """The two steps around the live change, with a copy of each changed file beside that file.

    On the way there the files come after the links have changed, and on the way back too: so the
    first step has the files from before as its undo, since it is undone after the links are.
    """
    copies = tuple(_copy(x, bridge) for x in handed.files_before if _is_kept(x))
    gone = tuple(msgspec.structs.replace(x, text=None) for x in copies)
    first = PlannedStep(
        step=HandOver(manager=manager, files=(), calls=handed.calls_first),
        undo=HandOver(
            manager=manager,
            files=(*handed.files_before, *gone),
            calls=handed.calls_back,
            calls_at_boot=handed.calls_back_at_boot,
        ),
    )
    then = PlannedStep(
        step=HandOver(manager=manager, files=(*copies, *handed.files), calls=handed.calls),
        undo=HandOver(manager=manager, files=(), calls=handed.calls_back_first),
        disturbs=handed.disturbs,
    )
    return first, then


def _is_kept(state: FileState) -> bool:
    return state.text is not None and state.path.startswith("/etc/")


def _copy(state: FileState, bridge: str) -> FileState:
    """The file under a name that no manager reads: all of them pass over hidden files."""
    path = PurePosixPath(state.path)
    return msgspec.structs.replace(state, path=str(path.with_name(f".{path.name}.before-{bridge}")))
