"""Plans: the steps that change a host, each with the step that undoes it.

A plan is complete before its first step is taken. It goes to JSON as it is: that is what the
journal keeps, and what --dry-run --json prints.

Each step can be taken twice without harm, and its undo can be taken whether the step was taken,
half taken or not at all: a process that is killed can't say how far it came.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.arrangement import Arrangement
from kvmnet.model.check import Check
from kvmnet.model.edit import NetworkEdit
from kvmnet.model.guest_steps import GuestStep
from kvmnet.model.handover import FileState, ManagerCall
from kvmnet.model.link_steps import LinkStep
from kvmnet.model.opening import Opening
from kvmnet.model.values import Ip
from kvmnet.model.virt import NetworkConfig


class DefineNetwork(Struct, frozen=True, kw_only=True, tag="define-network"):
    """Save the definition of a network; an existing one of that name is replaced."""

    name: str
    uuid: str
    """Chosen by the plan, so that undo takes away this network and no other of that name."""
    config: NetworkConfig

    def __str__(self) -> str:
        places = [self.config.bridge or "no bridge"]
        places += [f"{ip.address}/{ip.prefix_len}" for ip in self.config.ips]
        return f"define network {self.name} ({self.config.mode}, {', '.join(places)})"


class EditNetwork(Struct, frozen=True, kw_only=True, tag="edit-network"):
    """Change some things in a network's saved definition and leave the rest as it is."""

    name: str
    xml: str
    """The saved definition that is changed, as libvirt printed it when the plan was made."""
    edit: NetworkEdit

    def __str__(self) -> str:
        return f"change the definition of network {self.name}: {self.edit}"


class RestoreNetwork(Struct, frozen=True, kw_only=True, tag="restore-network"):
    """Save a network's definition exactly as it was before."""

    name: str
    xml: str

    def __str__(self) -> str:
        return f"define network {self.name} as it was"


class UndefineNetwork(Struct, frozen=True, kw_only=True, tag="undefine-network"):
    """Forget a network's saved definition; with `uuid` only if it is that network."""

    name: str
    uuid: str | None = None

    def __str__(self) -> str:
        return f"remove the definition of network {self.name}"


class StartNetwork(Struct, frozen=True, kw_only=True, tag="start-network"):
    name: str
    plug: tuple[str, ...] = ()
    """Taps of running guests to put into its bridge again: libvirt does not when it starts one."""

    def __str__(self) -> str:
        plugged = f", plug {', '.join(self.plug)} into it again" if self.plug else ""
        return f"start network {self.name}{plugged}"


class StopNetwork(Struct, frozen=True, kw_only=True, tag="stop-network"):
    """Stop a network; with `uuid` only if it is that network."""

    name: str
    uuid: str | None = None

    def __str__(self) -> str:
        return f"stop network {self.name}"


class SetAutostart(Struct, frozen=True, kw_only=True, tag="set-autostart"):
    name: str
    on: bool

    def __str__(self) -> str:
        return f"{'start' if self.on else 'do not start'} network {self.name} when the host starts"


class SetSysctl(Struct, frozen=True, kw_only=True, tag="set-sysctl"):
    """Set a kernel setting of the running host. NIC names in `name` may have dots: see `path`."""

    name: str
    value: str
    path: str
    """The file below /proc/sys."""

    def __str__(self) -> str:
        return f"set {self.name} = {self.value}"


class WriteFile(Struct, frozen=True, kw_only=True, tag="write-file"):
    path: str
    text: str
    mode: int = 0o644

    def __str__(self) -> str:
        return f"write {self.path}"


class RemoveFile(Struct, frozen=True, kw_only=True, tag="remove-file"):
    path: str

    def __str__(self) -> str:
        return f"remove {self.path}"


class ReloadLibvirt(Struct, frozen=True, kw_only=True, tag="reload-libvirt"):
    """Have libvirt's daemon write the firewall rules of all its networks again (SIGHUP)."""

    daemon: Literal["virtnetworkd", "libvirtd"]
    bridge: str
    """It is done when rules for this bridge are there."""

    def __str__(self) -> str:
        return f"make libvirt's firewall chains, have {self.daemon} write its networks' rules again"


class AnswerNeighbours(Struct, frozen=True, kw_only=True, tag="answer-neighbours"):
    """Answer neighbour solicitations on a NIC for others (ip-neighbour(8), proxy)."""

    nic: str
    addresses: tuple[Ip, ...]

    def __str__(self) -> str:
        return f"answer on {self.nic} for {_shown(self.addresses)}"


class IgnoreNeighbours(Struct, frozen=True, kw_only=True, tag="ignore-neighbours"):
    """Cease to answer on a NIC for these addresses."""

    nic: str
    addresses: tuple[Ip, ...]

    def __str__(self) -> str:
        return f"do not answer on {self.nic} for {_shown(self.addresses)} any more"


def _shown(addresses: tuple[Ip, ...]) -> str:
    return addresses[0] if len(addresses) == 1 else f"{addresses[0]} to {addresses[-1]}"


class MakeOpening(Struct, frozen=True, kw_only=True, tag="make-opening"):
    opening: Opening

    def __str__(self) -> str:
        rule = self.opening
        what = "answers" if rule.established else "packets"
        if rule.dport is not None:
            what = f"{rule.protocol} port {rule.dport}"
        if rule.destination is not None:
            what += f" of {rule.destination}"
        where = f"from {rule.iif}" if rule.iif is not None else f"to {rule.oif}"
        return f"accept {what} {where} in firewall chain {rule.family} {rule.table} {rule.chain}"


class CloseOpening(Struct, frozen=True, kw_only=True, tag="close-opening"):
    opening: Opening

    def __str__(self) -> str:
        rule = self.opening
        return f"remove kvmnet's rule from firewall chain {rule.family} {rule.table} {rule.chain}"


class Arrange(Struct, frozen=True, kw_only=True, tag="arrange"):
    """Bring the kernel's links into an arrangement, in an order that loses no packet."""

    what: str
    """For people: `make bridge br0 of eth0, with its MAC, 2 addresses and 3 routes`."""
    target: Arrangement

    def __str__(self) -> str:
        return self.what


class HandOver(Struct, frozen=True, kw_only=True, tag="hand-over"):
    """Write a host network manager's files, then tell it."""

    manager: str
    files: tuple[FileState, ...]
    calls: tuple[ManagerCall, ...] = ()
    calls_at_boot: tuple[ManagerCall, ...] = ()
    """Instead of `calls` where it is carried out at boot, before the manager starts."""

    def __str__(self) -> str:
        written = [x.path for x in self.files if x.text is not None]
        removed = [x.path for x in self.files if x.text is None]
        said = [f"write {', '.join(written)}"] if written else []
        said += [f"remove {', '.join(removed)}"] if removed else []
        said += map(str, self.calls)
        return f"{self.manager}: {'; '.join(said) or 'remember its files'}"


class Prove(Struct, frozen=True, kw_only=True, tag="prove"):
    """Go on only if all of these checks pass, at the same time, before `within_s` is over."""

    checks: tuple[Check, ...]
    within_s: float = 10.0
    """Seconds."""

    def __str__(self) -> str:
        if len(self.checks) == 1:
            return f"prove that {self.checks[0]}"
        return f"prove that {len(self.checks)} things that worked still work"


Step = (
    DefineNetwork
    | EditNetwork
    | RestoreNetwork
    | UndefineNetwork
    | StartNetwork
    | StopNetwork
    | SetAutostart
    | SetSysctl
    | WriteFile
    | RemoveFile
    | ReloadLibvirt
    | AnswerNeighbours
    | IgnoreNeighbours
    | MakeOpening
    | CloseOpening
    | Arrange
    | HandOver
    | Prove
    | LinkStep
    | GuestStep
)


class PlannedStep(Struct, frozen=True, kw_only=True):
    """A step, what undoes it, and whom it disturbs."""

    step: Step
    undo: Step | None
    """None: nothing to undo, or nothing that could (deleting is undone by defining again)."""
    disturbs: str = "nobody"
    """For people: nobody, `guests web and db: cut off until …`."""
    group: str | None = None
    """Steps of one group stand and fall together: where one fails, the group is put back and the
    others go on. None: all of the plan falls with it."""


class Plan(Struct, frozen=True, kw_only=True):
    """What will be done, in this order."""

    title: str
    """For people and the history: `create network lab1`."""
    steps: tuple[PlannedStep, ...] = ()
    notes: tuple[str, ...] = ()
    """What else people should know: consequences, what was chosen and why."""
