"""The uplink's settings for a LAN range, live and in a file of their own, and back again."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from kvmnet.core.lan_range import PROXY_DELAY, LanFacts, is_lan_range
from kvmnet.model.plan import PlannedStep, RemoveFile, SetSysctl, Step, WriteFile
from kvmnet.model.state import State
from kvmnet.model.virt import Network


def settings_file(network: str) -> str:
    """The file that turns the host's answers on again when it starts (sysctl.d(5))."""
    return f"/etc/sysctl.d/60-kvmnet-lan-{network}.conf"


class Setting(Struct, frozen=True, kw_only=True):
    """A kernel setting of the uplink, what it must be, and what it was before."""

    path: str
    """Below /proc/sys, as sysctl.d(5) takes it where NIC names have dots."""
    value: str
    before: str

    def step(self, value: str) -> SetSysctl:
        return SetSysctl(name=self.path.replace("/", "."), value=value, path=self.path)


def answer_steps(
    state: State, name: str, nic: str, facts: LanFacts, old_file: str | None
) -> tuple[PlannedStep, ...]:
    """The steps that make the host answer ARP on the uplink for what it routes elsewhere."""
    shared = any(
        is_lan_range(state, x.config, nic) for x in state.networks if x.name != name
    )  # fmt: skip
    arp = f"net/ipv4/conf/{nic}/proxy_arp"
    was = state.sysctl(arp.replace("/", ".")) or "0"
    settings = (
        Setting(path=arp, value="1", before="0" if shared else was),
        # Nobody else answers for these addresses, so nobody has to be waited for.
        Setting(path=f"net/ipv4/neigh/{nic}/proxy_delay", value="0",
                before=PROXY_DELAY if shared else facts.proxy_delay),
    )  # fmt: skip
    mine = tuple(x for x in settings if x.before != x.value)
    steps = [
        # Another network that needs the setting keeps it.
        PlannedStep(step=x.step(x.value), undo=None if shared else x.step(x.before))
        for x in mine
    ]
    if mine:
        path = settings_file(name)
        undo: Step = (
            RemoveFile(path=path) if old_file is None else WriteFile(path=path, text=old_file)
        )
        text = render_settings(name, nic, mine)
        steps.append(PlannedStep(step=WriteFile(path=path, text=text), undo=undo))
    return tuple(steps)


_BEFORE = "# before: "


def render_settings(name: str, nic: str, settings: Iterable[Setting]) -> str:
    """The text of `settings_file`."""
    lines = [
        f"# Written by kvmnet for network {name}: this host answers ARP on {nic} for its guests.",
        "# Applied when the NIC appears, by udev. `kvmnet network delete` removes it.",
    ]
    for setting in settings:
        lines += [
            f"{_BEFORE}{setting.path} = {setting.before}",
            f"{setting.path} = {setting.value}",
        ]
    return "\n".join(lines) + "\n"


def parse_settings(text: str) -> tuple[Setting, ...]:
    """The settings of a file that `render_settings` made; other lines are passed over."""
    before: dict[str, str] = {}
    found: list[Setting] = []
    for line in text.splitlines():
        path, equals, value = line.removeprefix(_BEFORE).partition(" = ")
        if not equals or not path.startswith("net/ipv4/") or ".." in path:
            continue
        if line.startswith(_BEFORE):
            before[path] = value.strip()
        elif path in before:
            found.append(Setting(path=path, value=value.strip(), before=before[path]))
    return tuple(found)


def withdraw_steps(state: State, network: Network, text: str | None) -> tuple[PlannedStep, ...]:
    """The steps that take the answers back when the network is deleted."""
    if text is None:
        return ()
    path = settings_file(network.name)
    steps = [
        PlannedStep(step=x.step(x.before), undo=x.step(x.value))
        for x in parse_settings(text)
        if not _needed_elsewhere(state, network, x)
    ]
    remove = PlannedStep(step=RemoveFile(path=path), undo=WriteFile(path=path, text=text))
    return (*steps, remove)


def _needed_elsewhere(state: State, network: Network, setting: Setting) -> bool:
    nic = setting.path.split("/")[3]
    return any(is_lan_range(state, x.config, nic) for x in state.networks if x.name != network.name)


def again_steps(state: State, text: str | None) -> tuple[PlannedStep, ...]:
    """The steps that set again what somebody has unset since, when the network is started."""
    settings = parse_settings(text or "")
    known = [(state.sysctl(x.path.replace("/", ".")), x.value) for x in settings]
    if all(value in (None, wanted) for value, wanted in known):
        return ()
    return tuple(PlannedStep(step=x.step(x.value), undo=None) for x in settings)
