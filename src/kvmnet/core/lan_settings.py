"""The uplink's settings for a LAN range, live and in a file of their own, and back again."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from kvmnet.core.lan_range import PROXY_DELAY, LanFacts, is_lan_range
from kvmnet.core.lan_range6 import answered
from kvmnet.model.plan import PlannedStep, RemoveFile, SetSysctl, Step, WriteFile
from kvmnet.model.state import State
from kvmnet.model.virt import Network, NetworkConfig


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
    state: State, name: str, config: NetworkConfig, facts: LanFacts, old_file: str | None
) -> tuple[PlannedStep, ...]:
    """The steps that make the host answer on the uplink for what it routes elsewhere."""
    nic = config.uplinks[0]
    wanted = [
        _proxying(state, name, f"net/ipv4/conf/{nic}/proxy_arp", "1", "0"),
        _proxying(state, name, f"net/ipv4/neigh/{nic}/proxy_delay", "0", facts.proxy_delay),
    ]
    if answered(config):
        wanted += [
            _proxying(state, name, f"net/ipv6/conf/{nic}/proxy_ndp", "1", "0"),
            _proxying(state, name, f"net/ipv6/neigh/{nic}/proxy_delay", "0", facts.proxy_delay6),
        ]  # fmt: skip
    mine = tuple(x for x in wanted if x.before != x.value)
    steps = [
        # Another network that needs the setting keeps it.
        PlannedStep(
            step=x.step(x.value),
            undo=None if _needed_elsewhere(state, name, x.path) else x.step(x.before),
        )
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


def _proxying(state: State, name: str, path: str, value: str, unread: str) -> Setting:
    """A setting and what it was before; `unread` is that where the State does not hold it.

    The delays are 0 because nobody else answers for these addresses: nobody is to be waited for.
    """
    before = state.sysctl(path.replace("/", ".")) or unread
    if _needed_elsewhere(state, name, path):  # the other network has changed it
        before = PROXY_DELAY if path.endswith("proxy_delay") else "0"
    return Setting(path=path, value=value, before=before)


_BEFORE = "# before: "


def render_settings(name: str, nic: str, settings: Iterable[Setting]) -> str:
    """The text of `settings_file`."""
    lines = [
        f"# Written by kvmnet for network {name}: this host answers on {nic} for its guests.",
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
        if (
            not equals
            or path.count("/") != 4
            or not path.startswith(("net/ipv4/", "net/ipv6/"))
            or ".." in path
        ):
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
        if not _needed_elsewhere(state, network.name, x.path)
    ]
    remove = PlannedStep(step=RemoveFile(path=path), undo=WriteFile(path=path, text=text))
    return (*steps, remove)


def _needed_elsewhere(state: State, name: str, path: str) -> bool:
    _net, family, _kind, nic, _key = path.split("/")
    return any(
        x.name != name
        and is_lan_range(state, x.config, nic)
        and (family == "ipv4" or answered(x.config) != ())
        for x in state.networks
    )


def again_steps(state: State, network: Network, text: str | None) -> tuple[PlannedStep, ...]:
    """The steps that set again what somebody has unset since, when the network is started."""
    if text is None and is_lan_range(state, network.config) and network.config is not None:
        if not unset(state, network.config):
            return ()
        return answer_steps(state, network.name, network.config, LanFacts(), None)
    settings = parse_settings(text or "")
    known = [(state.sysctl(x.path.replace("/", ".")), x.value) for x in settings]
    if all(value in (None, wanted) for value, wanted in known):
        return ()
    return tuple(PlannedStep(step=x.step(x.value), undo=None) for x in settings)


def unset(state: State, config: NetworkConfig) -> tuple[str, ...]:
    """The settings by which the kernel would answer for the guests, and that are known to be off.

    It answers where the NIC's own setting is on, or that of all NICs (ip-sysctl.rst).
    """
    wanted = [
        "net.ipv4.conf.{}.proxy_arp",
        *(["net.ipv6.conf.{}.proxy_ndp"] * bool(answered(config))),
    ]
    nic = config.uplinks[0]
    return tuple(
        name.format(nic)
        for name in wanted
        if state.sysctl(name.format(nic)) == "0" and state.sysctl(name.format("all")) != "1"
    )
