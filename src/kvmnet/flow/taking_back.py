"""Later: confirming, taking back what was kept, giving up what is stuck, the history."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from kvmnet.adapters import files, journal, lock, openings, process
from kvmnet.core import ports_back, unchanged
from kvmnet.core.demands import demanded_after
from kvmnet.errors import Failed, KvmnetError, NotFound, PermissionDenied, Refused
from kvmnet.flow.apply import Watcher, apply, changing
from kvmnet.flow.baseline import baseline
from kvmnet.flow.observe import Part, observe
from kvmnet.flow.rollback import close, is_of_another_boot
from kvmnet.model import plan
from kvmnet.model.check import Check
from kvmnet.model.guest_steps import GUEST_STEPS
from kvmnet.model.handover import FileState
from kvmnet.model.link_steps import LINK_STEPS
from kvmnet.model.plan import Plan, PlannedStep, Prove
from kvmnet.model.state import State
from kvmnet.model.transaction import Confirm, Transaction

PROOF_S = 45.0
_CLOSES_S = 15.0
_HOST = frozenset({Part.LINKS, Part.ADDRESSES, Part.ROUTES})
_LIBVIRT = (
    plan.DefineNetwork, plan.EditNetwork, plan.RestoreNetwork, plan.UndefineNetwork,
    plan.StartNetwork, plan.StopNetwork, plan.SetAutostart,
)  # fmt: skip

Consent = Callable[[Plan], None]


def history() -> tuple[Transaction, ...]:
    """All transactions that are still known, the oldest first. Raises `Failed`."""
    return journal.transactions()


def taken_back_by(every: tuple[Transaction, ...]) -> dict[str, str]:
    """For each kept transaction that another took back: which. Ids are no order of time here:
    the clock may have been set.

    An undo that was taken back itself leaves the first change as it was.
    """
    undos = {x.id: x.undoes for x in every if x.undoes is not None and x.outcome == "kept"}

    def taker(transaction_id: str) -> str | None:
        takers = [by for by, done in undos.items() if done == transaction_id]
        return next((by for by in takers if taker(by) is None), None)

    found = {x.id: taker(x.id) for x in every}
    return {done: by for done, by in found.items() if by is not None}


def confirm(transaction_id: str | None) -> Transaction:
    """Say that the change which waits for it is to be kept; returns once it is.

    Raises `PermissionDenied`, `NotFound` (nothing waits), `Refused` (several do), `Failed` (late).
    """
    if os.geteuid() != 0:
        raise PermissionDenied(
            "nothing was confirmed", why="only root may", hint="sudo kvmnet confirm"
        )
    waiting = [x for x in journal.transactions() if _is_waiting(x)]
    if transaction_id is not None:
        waiting = [x for x in waiting if x.id.startswith(transaction_id)]
    if not waiting:
        raise NotFound(
            "nothing waits to be confirmed", hint="how the last change ended: kvmnet history"
        )
    if len(waiting) > 1:
        raise Refused(
            "more than one change waits to be confirmed",
            why=", ".join(x.id for x in waiting), hint="kvmnet confirm ID",
        )  # fmt: skip
    journal.confirm(waiting[0].id)
    end = time.monotonic() + _CLOSES_S
    while (found := journal.read(waiting[0].id)).outcome == "open" and time.monotonic() < end:
        time.sleep(0.05)
    if found.outcome != "kept":
        raise Failed(
            f"{found.plan.title} was not kept", why=found.why or "nobody has taken note of it yet",
            hint="kvmnet history",
        )  # fmt: skip
    return found


def _is_waiting(transaction: Transaction) -> bool:
    return (
        transaction.outcome == "open"
        and transaction.waits_until is not None
        and not is_of_another_boot(transaction)
        and process.now() <= transaction.waits_until
    )


def find(transaction_id: str | None) -> Transaction:
    """The transaction of that id, or of the only id that begins so.

    Without one: what was cut off or is stuck, else the last that was kept.

    Raises `NotFound`, `Refused`.
    """
    every = journal.transactions()
    back = taken_back_by(every)
    if transaction_id is None:
        unfinished = [x for x in every if x.outcome in {"open", "stuck"}]
        if unfinished:
            return unfinished[-1]
        kept = [x for x in every if x.outcome == "kept" and x.undoes is None and x.id not in back]
        if not kept:
            raise NotFound("there is nothing to undo", why="no change of this user's was kept")
        return kept[-1]
    found = [x for x in every if x.id.startswith(transaction_id)]
    exact = [x for x in found if x.id == transaction_id] or found
    if not exact:
        raise NotFound(f"there is no transaction {transaction_id!a}", hint="kvmnet history")
    if len(exact) > 1:
        raise Refused(
            f"{transaction_id!a} is the beginning of more than one",
            why=", ".join(x.id for x in exact),
        )
    if exact[0].id in back:
        raise Refused(
            f"{exact[0].plan.title}: nothing to undo",
            why=f"it was taken back already, by {back[exact[0].id]}",
        )
    return exact[0]


def propose(transaction: Transaction, extra: tuple[Check, ...], watcher: Watcher) -> Plan:
    """The plan that takes a kept transaction back, with the checks that hold now; changes nothing.

    Raises `Refused` where something else has changed since what it would touch. One that was cut
    off is taken back as far as it had come, whatever is there.
    """
    if transaction.outcome != "kept":
        begun = transaction.plan.steps[: transaction.begun]
        return unchanged.reversed_plan(msgspec.structs.replace(transaction.plan, steps=begun))
    transaction = _without_left_out(transaction)
    back = unchanged.reversed_plan(transaction.plan)
    nics = _nics(transaction.plan)
    parts = _HOST | ({Part.NETWORKS} if _is_libvirts(transaction.plan) else set())
    parts |= {Part.VLANS} if nics else set()
    state = observe(transaction.uri, frozenset(parts))
    back = ports_back.of_now(state, back)
    changed = [x for y in unchanged.lasting(transaction.plan, state) for x in _changes(y, state)]
    changed += _network_changes(transaction)
    if any(isinstance(x.step, GUEST_STEPS) for x in transaction.plan.steps):
        from kvmnet.flow import guest_changes  # late: what follows reads definitions of guests

        changed += guest_changes.changes(transaction.plan, transaction.uri)
    changed += unchanged.still_used(state, transaction.plan, back)
    if changed:
        raise Refused(
            f"{transaction.plan.title} can not be taken back",
            why=f"since then something else has changed: {'; '.join(dict.fromkeys(changed))}",
            hint=unchanged.command_instead(transaction.plan),
        )
    if not nics:
        return back
    holding = demanded_after(back, baseline(state, nics, extra, watcher))
    if not holding:
        return back
    proof = PlannedStep(step=Prove(checks=holding, within_s=PROOF_S), undo=None)
    return msgspec.structs.replace(back, steps=(*back.steps, proof))


def _without_left_out(transaction: Transaction) -> Transaction:
    """Without the groups of steps that failed and were put back at once."""
    out = {x.group for x in transaction.left_out}
    kept = tuple(x for x in transaction.plan.steps if x.group not in out)
    return msgspec.structs.replace(
        transaction, plan=msgspec.structs.replace(transaction.plan, steps=kept)
    )


def _is_libvirts(kept: Plan) -> bool:
    return any(isinstance(x.step, _LIBVIRT) for x in kept.steps)


def _nics(kept: Plan) -> tuple[str, ...]:
    return tuple(
        link.name
        for planned in kept.steps
        if isinstance(planned.step, plan.Arrange)
        for link in planned.step.target.links
    )


def _changes(step: plan.Step, state: State) -> tuple[str, ...]:
    """What is not any more as the step left it, in sentences."""
    match step:
        case plan.WriteFile():
            is_same = files.read_optional(Path(step.path)) == step.text.rstrip("\n")
            return () if is_same else (f"{step.path} has another text",)
        case plan.RemoveFile():
            return (f"{step.path} is there again",) if Path(step.path).exists() else ()
        case plan.HandOver():
            return tuple(x for one in step.files for x in _file_changes(one))
        case plan.SetSysctl():
            now = files.read_optional(Path("/proc/sys") / step.path)
            return () if now in {None, step.value} else (f"{step.name} is {now}",)
        case plan.MakeOpening() | plan.CloseOpening():
            wanted = isinstance(step, plan.MakeOpening)
            if openings.is_made(step.opening) == wanted:
                return ()
            return (f"kvmnet's firewall rule is {'gone' if wanted else 'there'}: {step}",)
        case plan.Arrange():
            return unchanged.arrangement(state, step.target)
        case _ if isinstance(step, LINK_STEPS):
            return unchanged.link_step(state, step)
        case _:
            return ()  # libvirt's are compared as a whole, and a proof leaves nothing behind


def _file_changes(expected: FileState) -> tuple[str, ...]:
    path = Path(expected.path)
    if expected.text is None:
        return (f"{path} is there again",) if path.exists() else ()
    try:
        status = path.stat()
        text = files.read_text(path)
    except (OSError, KvmnetError):
        return (f"{path} is gone",)
    if text != expected.text:
        return (f"{path} has another text",)
    if (status.st_mode & 0o7777, status.st_uid, status.st_gid) != (
        expected.mode, expected.uid, expected.gid,
    ):  # fmt: skip
        return (f"{path} has another mode or owner",)
    return ()


def _network_changes(transaction: Transaction) -> list[str]:
    if not _is_libvirts(transaction.plan):
        return []
    from kvmnet.flow.networks import verify_networks  # late: it brings all planning of networks

    try:
        verify_networks(transaction.plan, transaction.uri)
    except Failed as error:
        return [str(error)]
    return []


def carry_out(
    transaction: Transaction,
    *,
    extra: tuple[Check, ...],
    confirm: Confirm,
    command: str,
    consent: Consent,
    watcher: Watcher,
) -> Plan:
    """Take a kept transaction back, as a transaction of its own. Returns its plan.

    One that is stuck, or was cut off, is undone by coming here: that is tried before anything.
    Raises `Refused` if it was never kept, and all that `apply` raises.
    """
    with changing(command, watcher):
        found = journal.read(transaction.id)
        if found.outcome == "undone" and transaction.outcome in {"open", "stuck"}:
            return Plan(title=f"undo {found.plan.title}")
        if found.outcome != "kept":
            raise Refused(
                f"{found.plan.title}: nothing to undo", why=f"it was not kept, but {found.outcome}"
            )
        plan_ = propose(found, extra, watcher)
        consent(plan_)
        apply(
            plan_, uri=found.uri, command=command, watcher=watcher, confirm=confirm,
            undoes=found.id, verify=_verifier(plan_, found.uri),
        )  # fmt: skip
        return plan_


def _verifier(back: Plan, uri: str | None) -> Callable[[], None]:
    if not _is_libvirts(back):
        return lambda: None
    from kvmnet.flow.networks import verify_networks  # late: it brings all planning of networks

    return lambda: verify_networks(back, uri)


def give_up(transaction_id: str, command: str, watcher: Watcher) -> Transaction:
    """Leave a transaction that can not be undone as it is, so that others can go on.

    Raises `NotFound`, `Refused` if it is not stuck.
    """
    with lock.hold(command, watcher.say):
        found = find(transaction_id)
        if found.outcome != "stuck":
            raise Refused(
                f"{found.plan.title} is not given up", why=f"it is not stuck, but {found.outcome}"
            )
        close(found, "given-up", found.why)
        return found
