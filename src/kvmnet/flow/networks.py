"""libvirt networks, from what the user asks for to what is proven to be there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from kvmnet.adapters import arp_sweep, files, libvirt_networks, nd_sweep
from kvmnet.core import lan_range, lan_range6, lan_settings, network_create, network_plan
from kvmnet.core.accept_ra import ACCEPT_RA_FILE
from kvmnet.core.lan_range import InUse, LanFacts
from kvmnet.core.network_plan import Saved
from kvmnet.errors import Failed, Unavailable
from kvmnet.flow.apply import Watcher, apply, changing
from kvmnet.flow.observe import Part, observe
from kvmnet.model.desired import NetworkRequest
from kvmnet.model.plan import (
    DefineNetwork,
    Plan,
    RestoreNetwork,
    SetAutostart,
    StartNetwork,
    StopNetwork,
    UndefineNetwork,
)
from kvmnet.model.state import State
from kvmnet.model.values import Ip
from kvmnet.model.virt import DhcpRange, NetworkConfig

PLANNING_PARTS = frozenset(
    {
        Part.LINKS, Part.ADDRESSES, Part.ROUTES, Part.NEIGHBOURS, Part.FORWARDING, Part.SYSCTLS,
        Part.DOCKER, Part.NETWORKS, Part.GUESTS, Part.LEASES,
    }
)  # fmt: skip

_ESSENTIAL = frozenset({"links and addresses", "routes"})

Planner = Callable[[State, Saved], Plan]
"""A pure function that knows what the user wants: create, start, stop, delete."""

Consent = Callable[[Plan], None]
"""Shows the plan to the user and raises an error unless it may be carried out."""


def creation(request: NetworkRequest) -> Planner:
    def plan(state: State, saved: Saved) -> Plan:
        if request.lan_range is not None:
            state, saved = _with_lan(state, saved, request, request.lan_range)
        return network_create.plan_create(state, request, saved, os.urandom)

    return plan


def _with_lan(
    state: State, saved: Saved, request: NetworkRequest, wanted: DhcpRange
) -> tuple[State, Saved]:
    """The firewall too, and who on the LAN answers for addresses of the range: it is asked."""
    lan_range.check_options(request)
    lan_range.blocks_of(wanted)
    if request.lan_range6 is not None:
        lan_range6.check_with(wanted)
    uplink = lan_range.check_uplink(state, request).name
    lan_range.check_range(state, uplink, wanted, saved.lan)
    source = lan_range.source_address(state, uplink)
    answers = arp_sweep.sweep(uplink, wanted, source or Ip("0.0.0.0"), lan_range.ASK_AT_MOST_S)
    facts = LanFacts(
        in_use=tuple(InUse(ip=ip, mac=mac) for ip, mac in answers),
        in_use6=_in_use6(state, uplink, request.lan_range6),
        proxy_delay=_proxy_delay("ipv4", uplink),
        proxy_delay6=_proxy_delay("ipv6", uplink),
    )
    return _with_firewall(state), msgspec.structs.replace(saved, lan=facts)


def _in_use6(state: State, uplink: str, wanted: DhcpRange | None) -> tuple[InUse, ...]:
    if wanted is None:
        return ()
    lan_range6.check_range(state, uplink, wanted, ())
    source = next((x.ip for x in state.addresses if x.link == uplink and x.family == 6), Ip("::"))
    asked = tuple(Ip(str(x)) for x in lan_range6.block_of(wanted))
    answers = nd_sweep.sweep(uplink, asked, source, lan_range.ASK_AT_MOST_S)
    return tuple(InUse(ip=ip, mac=mac) for ip, mac in answers)


def _proxy_delay(family: Literal["ipv4", "ipv6"], uplink: str) -> str:
    path = Path(f"/proc/sys/net/{family}/neigh/{uplink}/proxy_delay")
    return files.read_optional(path) or lan_range.PROXY_DELAY


def _with_firewall(state: State) -> State:
    seen = observe(None, frozenset({Part.FIREWALL}))
    return msgspec.structs.replace(
        state, firewall=seen.firewall, unread=(*state.unread, *seen.unread)
    )


def start(name: str) -> Planner:
    return lambda state, saved: network_plan.plan_start(state, name, saved)


def stop(name: str, *, even_in_use: bool) -> Planner:
    return lambda state, _saved: network_plan.plan_stop(state, name, even_in_use=even_in_use)


def deletion(name: str, *, even_in_use: bool) -> Planner:
    def plan(state: State, saved: Saved) -> Plan:
        seen = _with_firewall(state) if saved.lan_file is not None else state
        return network_plan.plan_delete(seen, name, saved, even_in_use=even_in_use)

    return plan


def propose(planner: Planner, name: str, uri: str | None, watcher: Watcher) -> Plan:
    """The plan for the host as it is now; nothing is touched.

    Raises the planner's refusals, and `Unavailable` or `PermissionDenied` where libvirt does not
    let networks be changed.
    """
    return planner(look(uri, PLANNING_PARTS, watcher), read_saved(uri, name))


def look(uri: str | None, parts: frozenset[Part], watcher: Watcher) -> State:
    """The host as a change is planned for it. Raises `Unavailable` rather than plan blindly.

    Without the routes, addresses and networks that are there a subnet would only seem free. What
    else can't be read is told to `watcher`.
    """
    libvirt_networks.check_writable(uri)
    state = observe(uri, parts)
    for gap in state.unread:
        if gap.what in _ESSENTIAL or gap.what.startswith("libvirt"):
            raise Unavailable(f"{gap.what} could not be read", why=gap.why, hint=gap.hint)
        watcher.say(f"not looked at: {gap.what} ({gap.why})")
    return state


def read_saved(uri: str | None, name: str) -> Saved:
    """What undo needs to put back exactly."""
    path = Path(ACCEPT_RA_FILE)
    return Saved(
        network_xml=libvirt_networks.saved_xml(uri, name),
        transient_xml=libvirt_networks.transient_xml(uri, name),
        accept_ra_file=files.read_text(path) if path.exists() else None,
        lan_file=_own_file(name, lan_settings.settings_file),
        lan_hook=_own_file(name, lan_range6.hook_file),
    )


def _own_file(name: str, path_of: Callable[[str], str]) -> str | None:
    if "/" in name or not name:  # libvirt allows names that no file can have; they have none here
        return None
    path = Path(path_of(name))
    return files.read_text(path) if path.exists() else None


def carry_out(
    planner: Planner,
    name: str,
    *,
    uri: str | None,
    command: str,
    consent: Consent,
    watcher: Watcher,
) -> Plan:
    """Plan under the lock, ask, apply, verify. Returns the plan; it may have had no steps."""
    with changing(command, watcher):
        plan = propose(planner, name, uri, watcher)
        consent(plan)
        if plan.steps:
            apply(
                plan, uri=uri, command=command, watcher=watcher,
                verify=lambda: verify_networks(plan, uri),
            )  # fmt: skip
        return plan


def verify_networks(plan: Plan, uri: str | None) -> None:
    """Look again: are the plan's networks as its steps say? Raises `Failed` with what differs."""
    libvirt_networks.wait_until_answering(uri)
    state = observe(uri, frozenset({Part.NETWORKS, Part.LINKS}))
    for name, problem in _differences(plan, state):
        raise Failed(f"network {name} is not as it should be", why=problem)


def _differences(plan: Plan, state: State) -> list[tuple[str, str]]:
    """What the plan's last word about each network promises and the host does not show."""
    found: list[tuple[str, str]] = []
    active: dict[str, bool] = {}
    defined: dict[str, bool] = {}
    made: dict[str, NetworkConfig] = {}
    for planned in plan.steps:
        match planned.step:
            case DefineNetwork(name=name, config=config):
                defined[name] = True
                made[name] = config
            case RestoreNetwork(name=name):
                defined[name] = True
            case UndefineNetwork(name=name):
                defined[name] = False
            case StartNetwork(name=name):
                active[name] = True
            case StopNetwork(name=name):
                active[name] = False
            case SetAutostart(name=name, on=on):
                network = state.network(name)
                if network is not None and network.autostart != on:
                    found.append((name, f"autostart is {'off' if on else 'on'}"))
            case _:
                continue
    for name, wanted in defined.items():
        network = state.network(name)
        if (network is not None and network.persistent) != wanted:
            found.append((name, "it is not defined" if wanted else "it is still defined"))
    for name, wanted in active.items():
        network = state.network(name)
        if (network is not None and network.active) != wanted:
            found.append((name, "it is not active" if wanted else "it is still active"))
    for name, config in made.items():
        network = state.network(name)
        saved = network.saved if network is not None else None
        if saved is not None and _essence(saved) != _essence(config):
            found.append((name, "libvirt saved something else than it was given"))
    return found


def _essence(config: NetworkConfig) -> tuple[object, ...]:
    """What libvirt neither adds to nor rewrites."""
    return (config.mode, config.bridge, config.ips, config.mtu, config.domain, config.uplinks)
