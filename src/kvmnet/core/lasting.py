"""What makes a mending outlast the host's next start: files and saved definitions, or what to say.

A kernel setting goes into a file of its own in /etc/sysctl.d, the spanning tree of a libvirt
network into its saved definition. What a host network manager keeps is its own: the plan's notes
name the file and the words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from kvmnet.core.accept_ra import ACCEPT_RA_FILE, accept_ra_steps
from kvmnet.core.finding import Finding
from kvmnet.core.forwarding_back import forwarding_back
from kvmnet.core.lasting_notes import notes
from kvmnet.core.plugged import libvirts_network
from kvmnet.model.edit import NetworkEdit
from kvmnet.model.link_steps import SetBridge
from kvmnet.model.plan import (
    EditNetwork,
    Plan,
    PlannedStep,
    RemoveFile,
    RestoreNetwork,
    SetAutostart,
    SetSysctl,
    StartNetwork,
    Step,
    WriteFile,
)
from kvmnet.model.state import State
from kvmnet.model.virt import Network

MODULE_FILE = "/etc/modules-load.d/95-kvmnet-br-netfilter.conf"
_MODULE_TEXT = """\
# Written by kvmnet doctor --fix (bridge-nf-ignored): files of sysctl.d set what is there only once
# this module is. Here it is loaded before they are read.
br_netfilter
"""
_BRIDGE_NF = "net/bridge/bridge-nf-call-"
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+-]+")
"""Names that sysctl.d(5) takes as they are: others may be patterns."""
_FORWARDING6 = re.compile(r"net/ipv6/conf/[^/]+/forwarding")


class KeptFile(Struct, frozen=True, kw_only=True):
    """A file as it is before the mending; None: it is absent."""

    path: str
    text: str | None = None


class KeptNetwork(Struct, frozen=True, kw_only=True):
    """A network's saved definition as libvirt printed it; None: it has none."""

    name: str
    xml: str | None = None


class Kept(Struct, frozen=True, kw_only=True):
    """What was read beside the State, so that undo restores it exactly."""

    files: tuple[KeptFile, ...] = ()
    networks: tuple[KeptNetwork, ...] = ()

    def text(self, path: str) -> str | None:
        return next((x.text for x in self.files if x.path == path), None)

    def xml(self, name: str) -> str | None:
        return next((x.xml for x in self.networks if x.name == name), None)


class _Setting(Struct, frozen=True, kw_only=True):
    """A kernel setting that is mended, and the finding that asks for it."""

    finding: Finding
    step: SetSysctl


def settings_file(problem: str) -> str:
    """The file of sysctl.d(5) that keeps what was set against a problem."""
    return f"/etc/sysctl.d/95-kvmnet-{problem}.conf"


def wanted_files(findings: Iterable[Finding]) -> tuple[str, ...]:
    """Files whose text has to be known to plan."""
    names = dict.fromkeys(x.finding.name for x in _settings(findings))
    return (*map(settings_file, names), MODULE_FILE, ACCEPT_RA_FILE) if names else ()


def wanted_networks(state: State, findings: Iterable[Finding]) -> tuple[str, ...]:
    """Networks whose saved definition has to be known to plan."""
    return tuple(x.name for x in _with_spanning_tree(state, findings))


def lasting(state: State, findings: tuple[Finding, ...], plan: Plan, kept: Kept) -> Plan:
    """The plan, with the steps that make it last; what can't be made to last is in its notes."""
    if not plan.steps:
        return plan
    settings = _settings(findings)
    before = (*forwarding_back(state, plan.steps), *_router_advertisements(state, plan, kept))
    files = _sysctl_files(state, settings, kept)
    more = (*files, *_networks(state, findings, kept), *_autostarts(state, plan))
    told = (*plan.notes, *_later_files(state, settings), *notes(state, (*plan.steps, *more)))
    return msgspec.structs.replace(
        plan, steps=(*before, *plan.steps, *more), notes=tuple(dict.fromkeys(told))
    )


def _settings(findings: Iterable[Finding]) -> list[_Setting]:
    """Each setting once, by the first finding that asks for it."""
    found: dict[str, _Setting] = {}
    for finding in findings:
        for planned in finding.mend:
            if isinstance(planned.step, SetSysctl):
                found.setdefault(planned.step.path, _Setting(finding=finding, step=planned.step))
    return list(found.values())


def _said(state: State, setting: _Setting) -> tuple[str, str] | None:
    """The file that has the last word at boot, and what it says: the last of the State's."""
    same = {setting.step.name}
    if same & _IPV4_FORWARDING:
        same |= _IPV4_FORWARDING
    told = [(x.path, x.value) for x in state.sysctl_files if x.name in same]
    return told[-1] if told else None


_IPV4_FORWARDING = {"net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding"}


def _is_later(path: str, problem: str) -> bool:
    """Whether a file is read after ours: by its name, /etc/sysctl.conf after all."""
    name = path.rpartition("/")[2]
    return path == "/etc/sysctl.conf" or name > settings_file(problem).rpartition("/")[2]


def _kept_how(state: State, setting: _Setting) -> str:
    """How a setting is made to last: by our file, `there` already, `later` or `odd`."""
    said = _said(state, setting)
    if said is not None and said[1] == setting.step.value:
        return "there"
    if not _PLAIN.fullmatch(setting.step.path):
        return "odd"
    if said is not None and _is_later(said[0], setting.finding.name):
        return "later"
    return "file"


def _sysctl_files(state: State, settings: list[_Setting], kept: Kept) -> Iterator[PlannedStep]:
    texts: dict[str, str] = {}
    for setting in settings:
        how, step = _kept_how(state, setting), setting.step
        if how == "there" and step.path.startswith(_BRIDGE_NF):
            texts[MODULE_FILE] = _MODULE_TEXT
        if how != "file":
            continue
        path = settings_file(setting.finding.name)
        old = texts.get(path, kept.text(path) or "")
        texts[path] = _with_line(old, setting)
    for path, text in texts.items():
        before = kept.text(path)
        if before == text:
            continue
        undo: Step = RemoveFile(path=path) if before is None else WriteFile(path=path, text=before)
        yield PlannedStep(step=WriteFile(path=path, text=text), undo=undo)


def _with_line(old: str, setting: _Setting) -> str:
    """The file with the setting: instead of an older line for it, else at its end."""
    key, finding = setting.step.path, setting.finding
    lines = [x for x in old.splitlines() if x.partition("=")[0].strip() != key]
    why = " ".join(f"{finding.subject}: {finding.what}".split())
    comment = f"# Written by kvmnet doctor --fix ({finding.name}, {why})"
    lines += [comment] if comment not in lines else []
    return "\n".join([*lines, f"{key} = {setting.step.value}"]) + "\n"


def _later_files(state: State, settings: list[_Setting]) -> Iterator[str]:
    for setting in settings:
        name, value = setting.step.name, setting.step.value
        said, how = _said(state, setting), _kept_how(state, setting)
        if how == "later" and said is not None:
            yield f"{name} holds until the next boot: {said[0]} sets it to {said[1]} and is read " \
                  f"last; say {value} there"  # fmt: skip
        elif how == "there" and said is not None and not setting.step.path.startswith(_BRIDGE_NF):
            yield f"{said[0]} sets {name} to {value} at boot already; something else set it since"
        elif how == "odd":
            yield f"{name} holds until the next boot: its name can not be written into a file of " \
                  "sysctl.d"  # fmt: skip


def _router_advertisements(state: State, plan: Plan, kept: Kept) -> tuple[PlannedStep, ...]:
    """A host that is made to forward IPv6 goes on to hear the router that gave it its address."""
    turned_on = any(
        isinstance(x.step, SetSysctl) and _FORWARDING6.fullmatch(x.step.path)
        and x.step.value == "1" for x in plan.steps
    )  # fmt: skip
    if not turned_on:
        return ()
    steps = accept_ra_steps(state, kept.text(ACCEPT_RA_FILE))
    return tuple(x for x in steps if not any(x.step == y.step for y in plan.steps))


def _with_spanning_tree(state: State, findings: Iterable[Finding]) -> list[Network]:
    """libvirt's networks whose spanning tree is switched off, and comes on when they start."""
    bridges = dict.fromkeys(
        x.step.bridge for y in findings for x in y.mend
        if isinstance(x.step, SetBridge) and x.step.attribute == "stp_state" and x.step.value == 0
    )  # fmt: skip
    networks = [libvirts_network(state, x) for x in bridges]
    return [
        x for x in networks
        if x is not None and x.saved is not None and (x.saved.stp or x.saved.forward_delay_s)
    ]  # fmt: skip


def _networks(state: State, findings: tuple[Finding, ...], kept: Kept) -> Iterator[PlannedStep]:
    for network in _with_spanning_tree(state, findings):
        xml = kept.xml(network.name)
        if xml is not None:
            yield PlannedStep(
                step=EditNetwork(name=network.name, xml=xml, edit=NetworkEdit(stp=False)),
                undo=RestoreNetwork(name=network.name, xml=xml),
            )


def _autostarts(state: State, plan: Plan) -> Iterator[PlannedStep]:
    """A network that is started for guests which start with the host does so too."""
    for planned in plan.steps:
        if not isinstance(planned.step, StartNetwork):
            continue
        name = planned.step.name
        network = state.network(name)
        needed = any(
            guest.autostart and any(x.type == "network" and x.source == name for x in guest.nics)
            for guest in state.guests
        )
        if network is not None and network.persistent and not network.autostart and needed:
            yield PlannedStep(
                step=SetAutostart(name=name, on=True), undo=SetAutostart(name=name, on=False)
            )
