"""Plans that start, stop and delete libvirt networks: pure functions of the State."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from kvmnet.core import lan_range6
from kvmnet.core.accept_ra import accept_ra_steps
from kvmnet.core.bridge_guests import another_network
from kvmnet.core.finding import command
from kvmnet.core.lan_firewall import closing_steps
from kvmnet.core.lan_range import LanFacts, is_lan_range
from kvmnet.core.lan_settings import again_steps, withdraw_steps
from kvmnet.core.network_find import find_network
from kvmnet.core.subnets import occupied, overlap
from kvmnet.errors import Refused
from kvmnet.model.host import Link
from kvmnet.model.plan import (
    Plan,
    PlannedStep,
    RestoreNetwork,
    SetAutostart,
    StartNetwork,
    StopNetwork,
    UndefineNetwork,
)
from kvmnet.model.state import State
from kvmnet.model.target import place
from kvmnet.model.values import Cidr
from kvmnet.model.virt import Guest, Network, NetworkConfig

RandomBytes = Callable[[int], bytes]

ROUTED = frozenset({"nat", "route", "open"})
"""Modes for which libvirt turns packet forwarding on."""


class Saved(Struct, frozen=True, kw_only=True):
    """What was read beside the State, so that undo restores it exactly."""

    network_xml: str | None = None
    """The network's saved definition, as libvirt printed it."""
    transient_xml: str | None = None
    """The running definition of a network that has no saved one."""
    accept_ra_file: str | None = None
    """The text of kvmnet's own sysctl file, if there is one."""
    lan_file: str | None = None
    """The text of the network's file in sysctl.d, if it has one (`lan_settings.settings_file`)."""
    lan_hook: str | None = None
    """The text of the network's hook, if it has one (`lan_range6.hook_file`)."""
    lan: LanFacts = LanFacts()


def forwards_ipv6(config: NetworkConfig) -> bool:
    """Whether libvirt turns IPv6 forwarding on for such a network when it starts."""
    return config.mode in ROUTED and any(ip.family == 6 for ip in config.ips)


def check_understood(state: State, name: str) -> None:
    """Raise `Refused` if a definition of that name exists and could not be read.

    A new one in its place would destroy what somebody wrote.
    """
    gap = next((x for x in state.unread if x.what == f"network {name}"), None)
    if gap is not None:
        raise Refused(f"there is a definition of network {name}", why=gap.why, hint=gap.hint)


def plan_start(state: State, name: str, saved: Saved) -> Plan:
    """The plan that starts a network; no steps if it is active. Raises `NotFound`, `Refused`."""
    network = find_network(state, name)
    title = f"start network {name}"
    config = network.saved
    mended = again_steps(state, network, saved.lan_file)
    answers = lan_range6.again_steps(state, network, saved.lan_hook)
    if network.active or config is None:
        # What the host does for the guests of an active network may be unset by others.
        note = f"network {name} is active already"
        if mended or answers:
            note += "; this host answers for its guests again"
        return Plan(title=title, steps=(*mended, *answers), notes=(note,))
    taken = occupied(state, except_network=name)
    for ip in config.ips:
        subnet = Cidr(str(ipaddress.ip_interface(f"{ip.address}/{ip.prefix_len}").network))
        present = tuple(x for x in taken if "(not active)" not in x.by)
        if is_lan_range(state, config):  # a part of its uplink's LAN on purpose
            present = tuple(x for x in present if x.link not in config.uplinks)
        clash = overlap(subnet, present)
        if clash is not None:
            raise Refused(
                f"network {name} can not start", why=f"its {subnet} overlaps {clash.by}",
                hint=f"give it another subnet: {command('virsh', 'net-edit', name)}; "
                "`kvmnet network create` finds a free one",
            )  # fmt: skip
    _check_stale_bridge(state, name, config)
    extra = accept_ra_steps(state, saved.accept_ra_file) if forwards_ipv6(config) else ()
    extra += mended
    step = StartNetwork(name=name, plug=orphaned_taps(state, network))
    start = PlannedStep(step=step, undo=StopNetwork(name=name))
    return Plan(title=title, steps=(*extra, start, *answers))


def network_taps(state: State, network: Network) -> tuple[Link, ...]:
    """The host's ends of running guests' NICs on the network; only root may move them."""
    if not state.privileged:
        return ()
    wanted = {
        nic.target
        for guest in running_users(state, network)
        for nic in guest.live_nics
        if nic.type == "network" and nic.source == network.name
    }
    return tuple(link for link in state.links if link.name in wanted and link.kind == "tap")


def orphaned_taps(state: State, network: Network) -> tuple[str, ...]:
    """Those of them that are in no bridge: libvirt leaves them so when it starts a network."""
    return tuple(link.name for link in network_taps(state, network) if link.master is None)


def _check_stale_bridge(state: State, name: str, config: NetworkConfig) -> None:
    """libvirt makes the bridge itself: one that is there already stops it (`File exists`)."""
    if config.mode not in ROUTED | {"isolated"} or config.bridge is None:
        return
    link = state.link(config.bridge)
    if link is None:
        return
    ports = [port.name for port in state.ports(link.name)]
    way = f"if nobody needs it: ip link delete {link.name}" if not ports else (
        f"name another bridge in the network: {command('virsh', 'net-edit', name)}"
    )  # fmt: skip
    raise Refused(
        f"network {name} can not start",
        why=f"a {link.kind} {link.name} is there already"
        + (f", with ports {', '.join(ports)}" if ports else ", without ports"),
        hint=way,
    )


def running_users(state: State, network: Network) -> tuple[Guest, ...]:
    """The running guests that are plugged into the network or straight into its bridge."""
    config = network.live
    bridge = config.bridge if config is not None and config.mode != "bridge" else None
    return tuple(
        guest
        for guest in state.guests
        if guest.active
        and any(
            (nic.type == "network" and nic.source == network.name)
            or (bridge is not None and nic.type == "bridge" and nic.source == bridge)
            for nic in guest.live_nics
        )
    )


def defined_users(state: State, network: Network) -> tuple[Guest, ...]:
    """The guests whose saved definition names the network."""
    return tuple(
        guest
        for guest in state.guests
        if any(nic.type == "network" and nic.source == network.name for nic in guest.saved_nics)
    )


def plan_stop(state: State, name: str, *, even_in_use: bool) -> Plan:
    """The plan that stops a network. Raises `NotFound`; `Refused` while guests use it."""
    network = find_network(state, name)
    title = f"stop network {name}"
    if not network.active:
        return Plan(title=title, notes=(f"network {name} is not active",))
    users = running_users(state, network)
    if not network.persistent and not even_in_use:
        raise Refused(
            f"network {name} is not stopped",
            why="it has no saved definition: stopped, it is gone for good",
            hint=f"save it first: kvmnet up {name}; or say --force",
        )
    if users and not even_in_use:
        raise _in_use(state, network, users, "stop")
    steps = (_stop_step(state, network, users), *lan_range6.ignore_steps(state, network))
    return Plan(title=title, steps=steps, notes=_orphans(users))


def _stop_step(state: State, network: Network, users: tuple[Guest, ...]) -> PlannedStep:
    names = ", ".join(guest.name for guest in users)
    return PlannedStep(
        step=StopNetwork(name=network.name),
        undo=StartNetwork(name=network.name, plug=_plugged(state, network, users))
        if network.persistent
        else None,
        disturbs=f"guests {names}: cut off from the network" if users else "nobody",
    )


def _plugged(state: State, network: Network, users: tuple[Guest, ...]) -> tuple[str, ...]:
    """The guests' taps that are in the network's bridge now; only root could put them back."""
    bridge = network.live.bridge if network.live is not None else None
    if bridge is None or not state.privileged:
        return ()
    taps = {nic.target for guest in users for nic in guest.live_nics}
    return tuple(link.name for link in state.ports(bridge) if link.name in taps)


def _in_use(
    state: State, network: Network, users: tuple[Guest, ...], verb: Literal["stop", "delete"]
) -> Refused:
    bridge = network.live.bridge if network.live is not None else None
    other = another_network(state, bridge, network.connection)
    to = f"network:{other.name if other is not None else 'OTHER'}"
    own = {f"network:{network.name}", f"bridge:{bridge}"}
    places = dict.fromkeys(place(x) for guest in users for x in guest.nics)
    move = "; ".join(
        command("kvmnet", "guest", "move", "--all", "--from", x, "--to", to)
        for x in places if x in own
    )  # fmt: skip
    # Guests that are off use it all the same: what they are defined with would be gone.
    first = "shut them down, or move them: " if verb == "stop" else "move them: "
    force = command("kvmnet", "network", verb, network.name, "--force")
    return Refused(
        f"network {network.name} is not {'stopped' if verb == 'stop' else 'deleted'}",
        why=f"guests use it: {', '.join(guest.name for guest in users)}",
        hint=f"{first}{move}; or cut them off: {force}",
    )


def _orphans(users: tuple[Guest, ...]) -> tuple[str, ...]:
    if not users:
        return ()
    return (
        f"{', '.join(guest.name for guest in users)}: the NIC stays in the guest but its tap has "
        "no bridge any more (orphaned tap); `kvmnet network start` plugs it in again, and so does "
        "starting the guest anew",
    )


def plan_delete(state: State, name: str, saved: Saved, *, even_in_use: bool) -> Plan:
    """The plan that stops and forgets a network. Raises `NotFound`; `Refused` while in use."""
    network = find_network(state, name)
    running = running_users(state, network)
    users = tuple(dict.fromkeys((*running, *defined_users(state, network))))
    if users and not even_in_use:
        raise _in_use(state, network, users, "delete")
    steps: list[PlannedStep] = []
    if network.active:
        steps += (_stop_step(state, network, running), *lan_range6.ignore_steps(state, network))
    if network.persistent and saved.network_xml is not None:
        if network.autostart:
            steps.append(
                PlannedStep(
                    step=SetAutostart(name=name, on=False), undo=SetAutostart(name=name, on=True)
                )
            )
        steps.append(
            PlannedStep(
                step=UndefineNetwork(name=name),
                undo=RestoreNetwork(name=name, xml=saved.network_xml),
            )
        )
    steps += (*closing_steps(state, name), *withdraw_steps(state, network, saved.lan_file))
    steps += lan_range6.unhook_steps(name, saved.lan_hook)
    notes = _orphans(running)
    left = [guest.name for guest in users if guest not in running]
    if left:
        notes += (f"{', '.join(left)} can not start until they get another network",)
    return Plan(title=f"delete network {name}", steps=tuple(steps), notes=notes)
