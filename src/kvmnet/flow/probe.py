"""The probe: what a guest lives through, measured by a stand-in, and by the guest itself."""

from __future__ import annotations

from kvmnet.adapters.netns import StandIn, stand_in
from kvmnet.flow.probe_place import find_place, plug_in
from kvmnet.flow.probe_record import OnStep, Recorder
from kvmnet.flow.probe_tour import Tour
from kvmnet.model.probe import ProbeReport, ProbeStep, ProbeTarget


def _silent(step: ProbeStep) -> None:
    """Nobody wants to know about single steps."""


def probe(target: ProbeTarget, *, on_step: OnStep = _silent) -> ProbeReport:
    """Plug in a stand-in guest, go through all steps, take it away again.

    `on_step` is called as each step ends. Raises `PermissionDenied` (needs root), `NotFound` (no
    such network, bridge, guest or NIC), `Refused` (not a plain Linux bridge), `Failed` (network
    not active, the stand-in could not be made). A step that fails is in the report, not an error.
    """
    record = Recorder(on_step)
    with stand_in() as machine:
        # The stand-in starts while the host is looked at.
        if target.lan is not None:
            from kvmnet.flow.probe_way_in import probe_way_in  # late: so is the trace's

            return probe_way_in(target, machine, record)
        if target.kind == "guest":
            from kvmnet.flow.probe_guest import probe_guest  # late: libvirt's part is heavy

            return probe_guest(target, machine, record)
        return _probe_place(target, machine, record)


def _probe_place(target: ProbeTarget, machine: StandIn, record: Recorder) -> ProbeReport:
    place = find_place(target)
    plug_in(machine, place)
    Tour(machine, place, target.to, record).run()
    return record.report(target, place.bridge, place.mac)
