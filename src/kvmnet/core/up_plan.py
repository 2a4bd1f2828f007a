"""What keeps guests on a NAT network from being online, and the plan that mends it.

Making, starting and autostarting the network is what `kvmnet up` is for and needs no question.
Everything else (another subnet or bridge name in an existing definition, kernel settings, the
host's firewall, a restart that cuts guests off) is named first and done only with consent.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec
from msgspec import Struct

from kvmnet.core.accept_ra import accept_ra_steps, autoconfigured_nics
from kvmnet.core.checks.firewall import problem_name
from kvmnet.core.finding import Finding
from kvmnet.core.firewall_fix import how_to_keep
from kvmnet.core.firewall_ways import guest_packets
from kvmnet.core.forwarding_back import forwarding_back
from kvmnet.core.libvirt_firewall import chains_libvirt_will_fill
from kvmnet.core.network_create import dynamic_range, free_bridge_name, plan_create
from kvmnet.core.network_plan import (
    RandomBytes,
    Saved,
    check_understood,
    forwards_ipv6,
    network_taps,
    orphaned_taps,
    running_users,
)
from kvmnet.core.openings import blockades
from kvmnet.core.subnets import Subnet, free_subnet, occupied, overlap
from kvmnet.errors import Refused
from kvmnet.model.desired import NetworkRequest
from kvmnet.model.edit import NetworkEdit
from kvmnet.model.plan import (
    CloseOpening,
    DefineNetwork,
    EditNetwork,
    MakeOpening,
    Plan,
    PlannedStep,
    RestoreNetwork,
    SetAutostart,
    SetSysctl,
    StartNetwork,
    StopNetwork,
    UndefineNetwork,
)
from kvmnet.model.state import State
from kvmnet.model.values import Cidr
from kvmnet.model.virt import Network, NetworkConfig, NetworkIp

FREE_PREFIX_LEN = 24
"""`free_subnet` finds IPv4 subnets of this size."""


class UpPlan(Struct, frozen=True, kw_only=True):
    """What is wrong, and the steps that put it right."""

    findings: tuple[Finding, ...]
    """Everything that needs consent, or that kvmnet can't mend."""
    plan: Plan
    needs_consent: bool
    blocked: tuple[Finding, ...] = ()
    """Findings that kvmnet has no step against: the plan would not put guests online."""


class _Mend(Struct, frozen=True, kw_only=True):
    """Things that are wrong and the steps against them; without steps, only people can mend it."""

    findings: tuple[Finding, ...] = ()
    steps: tuple[PlannedStep, ...] = ()


def plan_up(state: State, name: str, saved: Saved, random_bytes: RandomBytes) -> UpPlan:
    """What makes guests on NAT network `name` online. Raises `Refused` if it is no NAT network."""
    check_understood(state, name)
    network = state.network(name)
    if network is None:
        return _plan_new(state, name, saved, random_bytes)
    config = network.config
    if config is None or config.mode != "nat":
        mode = "unreadable" if config is None else config.mode
        raise Refused(
            f"network {name} is not a NAT network", why=f"its forward mode is {mode}",
            hint=f"look at it: kvmnet network show {name}; or make another: kvmnet up NAME",
        )  # fmt: skip
    edit = _mend_definition(state, network, saved, random_bytes)
    mends = [
        edit,
        _make_lasting(network, saved),
        _mend_links(state, network),
        _mend_router_advertisements(state, config, saved),
        _start(state, network),
        _mend_forwarding(state, network),
        *_mend_firewall(state, name, _edited(config, edit), active=network.active),
    ]
    return _with_notes(
        _joined(f"put guests on network {name} online", mends), _how_to_keep(state, mends)
    )


def _plan_new(state: State, name: str, saved: Saved, random_bytes: RandomBytes) -> UpPlan:
    plan = plan_create(state, NetworkRequest(name=name), saved, random_bytes)
    config = next(x.step.config for x in plan.steps if isinstance(x.step, DefineNetwork))
    made = _Mend(steps=plan.steps)
    mends = [made, *_mend_firewall(state, name, config, active=False)]
    up = _joined(f"put guests on network {name} online", mends)
    return _with_notes(up, (*plan.notes, *_how_to_keep(state, mends)))


def _with_notes(up: UpPlan, notes: tuple[str, ...]) -> UpPlan:
    return msgspec.structs.replace(up, plan=msgspec.structs.replace(up.plan, notes=notes))


def _how_to_keep(state: State, mends: list[_Mend]) -> tuple[str, ...]:
    steps = [planned.step for mend in mends for planned in mend.steps]
    return how_to_keep(state, [step.opening for step in steps if isinstance(step, MakeOpening)])


def _joined(title: str, mends: list[_Mend]) -> UpPlan:
    return UpPlan(
        findings=tuple(finding for mend in mends for finding in mend.findings),
        plan=Plan(title=title, steps=tuple(step for mend in mends for step in mend.steps)),
        needs_consent=any(mend.findings and mend.steps for mend in mends),
        blocked=tuple(f for mend in mends if not mend.steps for f in mend.findings),
    )


def _finding(network: str, name: str, what: str, *evidence: str, fix: str = "") -> Finding:
    return Finding(
        name=name,
        severity="problem",
        subject=f"network {network}",
        what=what,
        evidence=evidence,
        fix=(fix,) if fix else (),
    )


def _mend_definition(
    state: State, network: Network, saved: Saved, random_bytes: RandomBytes
) -> _Mend:
    """What in the saved definition keeps the network from starting or from serving guests.

    The definition of an active network is left alone: it works for those who use it.
    """
    config, name = network.saved, network.name
    if config is None or saved.network_xml is None or network.active:
        return _Mend()
    findings: list[Finding] = []
    subnet: Cidr | None = None
    first = next((ip for ip in config.ips if ip.family == 4), None)
    clash = None if first is None else _clash(state, name, first)
    if first is None:
        findings.append(_finding(name, "no-subnet", "it has no IPv4 subnet", "no <ip> in it"))
    elif clash is not None:
        what = f"its subnet {_network_of(first)} is in use"
        findings.append(_finding(name, "subnet-overlap", what, clash))
    if findings:
        subnet = free_subnet(4, occupied(state, except_network=name), random_bytes)
    dhcp_range = None
    if first is None or not first.ranges:
        base = subnet or Cidr(str(_network_of(first))) if first is not None else subnet
        dhcp_range = None if base is None else dynamic_range(base)
        findings.append(_finding(name, "no-dhcp", "it gives out no addresses", "no <range> in it"))
    bridge = None
    if config.bridge is not None and state.link(config.bridge) is not None:
        bridge = free_bridge_name(state)
        findings.append(
            _finding(name, "stale-bridge", f"its bridge's name {config.bridge} is taken",
                     f"the host has a link {config.bridge} while the network is not active")
        )  # fmt: skip
    edit = NetworkEdit(subnet=subnet, bridge=bridge, dhcp_range=dhcp_range)
    if not findings:
        return _Mend()
    if first is not None and subnet is not None and first.prefix_len != FREE_PREFIX_LEN:
        # Moving a subnet of another size would need room for all of its reservations.
        return _Mend(findings=tuple(findings))
    step = PlannedStep(
        step=EditNetwork(name=name, xml=saved.network_xml, edit=edit),
        undo=RestoreNetwork(name=name, xml=saved.network_xml),
    )
    return _Mend(findings=tuple(findings), steps=(step,))


def _network_of(ip: NetworkIp) -> Subnet:
    return ipaddress.ip_interface(f"{ip.address}/{ip.prefix_len}").network


def _clash(state: State, name: str, ip: NetworkIp) -> str | None:
    """What that is there now uses the subnet."""
    taken = occupied(state, except_network=name)
    present = tuple(item for item in taken if "(not active)" not in item.by)
    clash = overlap(Cidr(str(_network_of(ip))), present)
    return None if clash is None else f"it overlaps {clash.subnet}: {clash.by}"


def _edited(config: NetworkConfig, mend: _Mend) -> NetworkConfig:
    """The definition as the rest of the plan will find it."""
    for planned in mend.steps:
        if isinstance(planned.step, EditNetwork) and planned.step.edit.bridge is not None:
            config = msgspec.structs.replace(config, bridge=planned.step.edit.bridge)
    return config


def _mend_links(state: State, network: Network) -> _Mend:
    """An active network whose bridge is gone, down or without address is started anew."""
    config = network.live
    if not network.active or config is None or config.bridge is None:
        return _Mend()
    name, link = network.name, state.link(config.bridge)
    owned = {address.ip for address in state.addresses if address.link == config.bridge}
    missing = [ip.address for ip in config.ips if ip.address not in owned]
    if link is None:
        finding = _finding(name, "bridge-missing", f"its bridge {config.bridge} is gone",
                           "the host has no such link")  # fmt: skip
    elif not link.up:
        finding = _finding(name, "bridge-down", f"its bridge {config.bridge} is down",
                           f"{config.bridge} is not set up")  # fmt: skip
    elif missing:
        shown = ", ".join(sorted(owned)) or "none"
        finding = _finding(name, "bridge-address", f"its bridge has lost {', '.join(missing)}",
                           f"addresses of {config.bridge}: {shown}")  # fmt: skip
    elif _is_flushed(state, config.bridge):
        finding = _finding(name, "firewall-flushed", "libvirt's firewall rules for it are gone",
                           f"no chain of libvirt's names {config.bridge}")  # fmt: skip
    else:
        return _mend_orphans(state, network, config.bridge)
    users = ", ".join(guest.name for guest in running_users(state, network))
    again = StartNetwork(name=name, plug=tuple(link.name for link in network_taps(state, network)))
    restart = (
        PlannedStep(
            step=StopNetwork(name=name),
            undo=again,
            disturbs=f"guests {users}: cut off for a moment" if users else "nobody",
        ),
        PlannedStep(step=again, undo=again),
    )
    return _Mend(findings=(finding,), steps=restart)


def _mend_orphans(state: State, network: Network, bridge: str) -> _Mend:
    """Running guests that a restart of the network has left unplugged are plugged in again."""
    taps = orphaned_taps(state, network)
    if not taps:
        return _Mend()
    shown = ", ".join(taps)
    finding = _finding(network.name, "orphaned-tap", f"guests are unplugged: {shown}",
                       f"{shown}: in no bridge, belongs into {bridge}")  # fmt: skip
    step = PlannedStep(step=StartNetwork(name=network.name, plug=taps), undo=None)
    return _Mend(findings=(finding,), steps=(step,))


def _is_flushed(state: State, bridge: str) -> bool:
    """Whether libvirt's own rules for the bridge are gone (firewall restarted or reloaded)."""
    if any(gap.what.startswith("firewall") for gap in state.unread):
        return False
    name = re.compile(rf"(?<![\w.-]){re.escape(bridge)}(?![\w.-])")  # virbr1 is not virbr10
    return not any(
        name.search(rule.text)
        for chain in state.firewall.chains
        if chain.name.startswith("LIBVIRT_") or chain.table == "libvirt_network"
        for rule in chain.rules
    )


def _mend_router_advertisements(state: State, config: NetworkConfig, saved: Saved) -> _Mend:
    if not forwards_ipv6(config):
        return _Mend()
    steps = accept_ra_steps(state, saved.accept_ra_file)
    nics = ", ".join(autoconfigured_nics(state))
    if not steps or not nics:
        return _Mend()
    finding = Finding(
        name="accept-ra",
        severity="warning",
        subject=f"NIC {nics}",
        what="the host's own IPv6 address would run out once it forwards IPv6 for guests",
        evidence=(f"{nics}: routes from router advertisements, accept_ra = 1",),
    )
    return _Mend(findings=(finding,), steps=steps)


def _make_lasting(network: Network, saved: Saved) -> _Mend:
    """A network that only runs is gone with the host's next start, and can't be autostarted."""
    name = network.name
    if network.persistent:
        return _Mend()
    what = "it is not saved: it will be gone when it stops, or when the host starts again"
    finding = _finding(name, "network-transient", what, f"virsh net-info {name}: Persistent: no")
    if saved.transient_xml is None:
        return _Mend(findings=(finding,))
    step = PlannedStep(
        step=RestoreNetwork(name=name, xml=saved.transient_xml),
        undo=UndefineNetwork(name=name, uuid=network.uuid),
    )
    return _Mend(findings=(finding,), steps=(step,))


def _start(state: State, network: Network) -> _Mend:
    """Started and autostarted: the main job, for which nobody is asked."""
    name = network.name
    steps: list[PlannedStep] = []
    if not network.active:
        undo = StopNetwork(name=name, uuid=network.uuid)
        start = StartNetwork(name=name, plug=orphaned_taps(state, network))
        steps.append(PlannedStep(step=start, undo=undo))
    if not network.autostart:
        off = SetAutostart(name=name, on=False)
        steps.append(PlannedStep(step=SetAutostart(name=name, on=True), undo=off))
    return _Mend(steps=tuple(steps))


def _mend_forwarding(state: State, network: Network) -> _Mend:
    """libvirt turns forwarding on when it starts a network; something else may turn it off."""
    setting = "net.ipv4.ip_forward"
    if not network.active or state.sysctl(setting) != "0":
        return _Mend()
    path = setting.replace(".", "/")
    step = PlannedStep(
        step=SetSysctl(name=setting, value="1", path=path),
        undo=SetSysctl(name=setting, value="0", path=path),
    )
    finding = _finding(network.name, "ip-forward-off", "the host does not forward packets",
                       f"{setting} = 0")  # fmt: skip
    return _Mend(findings=(finding,), steps=(*forwarding_back(state, (step,)), step))


def _mend_firewall(state: State, name: str, config: NetworkConfig, *, active: bool) -> list[_Mend]:
    """Openings for whatever of the guests' packets the host's firewall stops."""
    uplink = next(
        (r.link for r in state.routes if r.destination == "0.0.0.0/0" and r.table == "main"), None
    )
    first = next((ip for ip in config.ips if ip.family == 4), None)
    if config.bridge is None:
        return []
    guest = None if first is None else str(_network_of(first).network_address + 2)
    packets = guest_packets(config.bridge, uplink, guest)
    trusted = () if active else chains_libvirt_will_fill(state)
    mends: list[_Mend] = []
    for blockade in blockades(state.firewall, packets, f"kvmnet:{name}", trusted):
        packet = blockade.passage.packet
        kind = problem_name(blockade.passage, packet.hook != "forward")
        finding = _finding(name, kind, f"the host's firewall stops {packet.what}",
                           blockade.passage.evidence)  # fmt: skip
        steps = tuple(
            PlannedStep(step=MakeOpening(opening=o), undo=CloseOpening(opening=o))
            for o in blockade.openings
        )
        mends.append(_Mend(findings=(finding,), steps=steps))
    return mends
