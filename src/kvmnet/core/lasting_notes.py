"""What of a mending holds only until the next boot, or until somebody makes the thing anew.

Each sentence names the file, or the command, with which people make it last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kvmnet.core.finding import command
from kvmnet.core.firewall_fix import how_to_keep
from kvmnet.core.plugged import libvirts_network
from kvmnet.model.link_steps import PlugTap, RemoveAddress, SetBridge, SetLink, SetOffload
from kvmnet.model.plan import EditNetwork, MakeOpening, PlannedStep, SetAutostart, StartNetwork
from kvmnet.model.setup import ConfiguredBridge
from kvmnet.model.state import State

_WORDS = {
    "netplan": {"stp_state": "parameters: {stp: false}",
                "forward_delay": "parameters: {forward-delay: 0}"},
    "NetworkManager": {"stp_state": "[bridge] stp=false",
                       "mcast_snooping": "[bridge] multicast-snooping=false",
                       "mcast_querier": "[bridge] multicast-querier=true"},
    "systemd-networkd": {"stp_state": "[Bridge] STP=no",
                         "forward_delay": "[Bridge] ForwardDelaySec=0",
                         "mcast_snooping": "[Bridge] MulticastSnooping=no",
                         "mcast_querier": "[Bridge] MulticastQuerier=yes"},
    "ifupdown": {"stp_state": "bridge_stp off", "forward_delay": "bridge_fd 0"},
}  # fmt: skip
"""How each host network manager says what is mended: netplan(5), nm-settings(5), systemd.netdev(5),
bridge-utils-interfaces(5). NetworkManager sets no delay where spanning tree is off."""


def notes(state: State, steps: Iterable[PlannedStep]) -> tuple[str, ...]:
    """One sentence for each thing that these steps do not make last."""
    every = tuple(steps)
    edited = {x.step.name for x in every if isinstance(x.step, EditNetwork)}
    found: list[str] = []
    for planned in every:
        match planned.step:
            case SetBridge():
                found += _bridge(state, planned.step, edited)
            case SetOffload():
                found += _offload(state, planned.step)
            case SetLink():
                if planned.step.up:
                    found += _link(state, planned.step.link)
            case PlugTap():
                found += _plug(state, planned.step)
            case RemoveAddress():
                found += _address(state, planned.step)
            case StartNetwork():
                found += _network(state, planned.step.name, every)
            case _:
                pass
    openings = [x.step.opening for x in every if isinstance(x.step, MakeOpening)]
    return (*dict.fromkeys(found), *how_to_keep(state, openings))


def _configured(state: State, bridge: str) -> ConfiguredBridge | None:
    return next((x for x in state.configured_bridges or () if x.name == bridge), None)


def _bridge(state: State, step: SetBridge, edited: set[str]) -> Iterator[str]:
    network = libvirts_network(state, step.bridge)
    by_definition = step.attribute in {"stp_state", "forward_delay"}
    if network is not None and by_definition:
        if network.name not in edited and (network.saved is None or network.saved.stp):
            yield f"{step.attribute} of {step.bridge} holds until network {network.name} is " \
                  f"started again: {command('virsh', 'net-edit', network.name)}"  # fmt: skip
        return
    until = f"{step.attribute} of {step.bridge} holds until it is made anew"
    by_hand = command("ip", "link", "set", step.bridge, "type", "bridge", step.attribute,
                      str(step.value))  # fmt: skip
    configured = _configured(state, step.bridge)
    if network is not None:
        yield f"{until}; libvirt's hook /etc/libvirt/hooks/network can do it: {by_hand}"
    elif configured is None:
        if step.attribute != "forward_delay":  # it goes with the spanning tree
            yield f"{until}; whatever makes it has to do it: {by_hand}"
    elif word := _WORDS[configured.manager].get(step.attribute):
        yield f"{until}; to keep it, say in {configured.path}, at {step.bridge}: {word}"
    elif configured.manager != "NetworkManager" or not by_definition:
        yield f"{until}; {configured.manager} has no word for it: {by_hand}"


def _offload(state: State, step: SetOffload) -> Iterator[str]:
    by_hand = command("ethtool", "-K", step.nic, step.feature, "on" if step.on else "off")
    if libvirts_network(state, step.nic) is not None:
        yield f"{step.feature} of {step.nic} holds until its network is started again; libvirt's " \
              f"hook /etc/libvirt/hooks/network can do it: {by_hand}"  # fmt: skip
    else:
        yield f"{step.feature} of {step.nic} holds until the next boot; whatever sets {step.nic} " \
              f"up has to do it: {by_hand}"  # fmt: skip


def _link(state: State, name: str) -> Iterator[str]:
    link = state.link(name)
    if link is not None and link.kind in {"tap", "macvtap"}:
        return  # the guest's next start makes a new one, switched on
    owner = next((x for x in state.owners if x.link == name and x.manager != "none"), None)
    if owner is None:
        yield f"{name} is on until the next boot: no host network manager has it in its files"
    else:
        yield f"{name} is on until the next boot, or for good if {owner.manager} brings it up: " \
              f"{', '.join(owner.evidence) or 'see its files'}"  # fmt: skip


def _plug(state: State, step: PlugTap) -> Iterator[str]:
    link = state.link(step.tap)
    if link is None:
        return
    if link.kind == "tap":
        yield (
            f"{step.tap} is in {step.bridge} until something takes it out again (a restart of "
            "its network or of the host's network manager); the guest's next start makes it anew"
        )
        return
    configured = _configured(state, step.bridge)
    gone = [x for x in configured.ports if x.link is None] if configured is not None else []
    where = "; ".join(f"write {step.tap} instead of {x.name} in {x.path}" for x in gone)
    yield f"{step.tap} is a port of {step.bridge} until the next boot" \
          + (f"; to keep it: {where}" if where else "")  # fmt: skip


def _address(state: State, step: RemoveAddress) -> Iterator[str]:
    known = next((x for x in state.owners if x.link == step.link), None)
    for rival in known.rivals if known is not None else ():
        yield f"{step.link} may get {step.address} again, as long as it is also managed by {rival}"


def _network(state: State, name: str, steps: tuple[PlannedStep, ...]) -> Iterator[str]:
    network = state.network(name)
    starts = any(isinstance(x.step, SetAutostart) and x.step.name == name for x in steps)
    if network is not None and not network.autostart and not starts:
        yield f"network {name} does not start with the host; to have it so: " \
              + command("virsh", "net-autostart", name)  # fmt: skip
