"""What is wrong on a host, as far as a State tells it cheaply and surely.

Each check looks at one known problem, by its name in the field, and answers with findings: what,
the evidence, and the command that mends it. A part that was not read proves nothing: a check whose
parts are missing stays silent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from kvmnet.core.causes import folded
from kvmnet.core.checks import (
    address,
    bridge_state,
    firewall,
    forwarding,
    guest,
    lan,
    libvirt,
    listener,
    multicast,
    path,
    plug,
    publish,
    session,
    uplink,
    wrong_subnet,
)
from kvmnet.core.finding import Finding
from kvmnet.model.state import State

CHECKS: tuple[Callable[[State], Iterator[Finding]], ...] = (
    plug.network_inactive,
    plug.network_not_started,
    plug.bridges_of_guests,
    plug.orphaned_tap,
    plug.stp_delay,
    firewall.firewall_drops,
    libvirt.firewall_flushed,
    libvirt.firewall_backend,
    publish.publish_rejected,
    publish.publish_incomplete,
    libvirt.bad_checksum,
    forwarding.ip_forward_off,
    forwarding.bridge_nf_ignored,
    address.duplicate_identity,
    address.subnet_overlap,
    address.address_conflict,
    address.accept_ra,
    plug.live_differs,
    plug.stale_bridge,
    lan.lan_not_answered,
    bridge_state.bridge_down,
    bridge_state.tap_down,
    bridge_state.ip_left_on_port,
    bridge_state.bridge_mac_differs,
    bridge_state.port_renamed,
    bridge_state.portless_bridge_address,
    bridge_state.guests_before_bridge,
    uplink.uplink_down,
    uplink.port_blocked,
    uplink.lro_on_port,
    uplink.vlan_missing,
    uplink.mtu_mismatch,
    uplink.wireless_uplink,
    guest.cable_out,
    guest.filter_address,
    wrong_subnet.wrong_subnet,
    guest.macvtap_host,
    session.bridge_helper_acl,
    listener.dns_port_taken,
    path.rp_filter,
    multicast.multicast_snooping,
)
SYMPTOMS: tuple[Callable[[State], Iterator[Finding]], ...] = (
    guest.mac_locked_uplink,
    guest.address_unknown,
    libvirt.firewalld_late,
)
"""What follows from other problems too: found only where no other finding explains it."""
SYMPTOM_NAMES = frozenset({"mac-locked-uplink", "address-unknown"})
BY_DESIGN: tuple[Callable[[State], Iterator[Finding]], ...] = (
    guest.isolated_guest,
    path.tunnel_mtu,
    path.missing_lan_route,
)
"""What is as somebody wanted it, but explains a guest without a way out to those who ask."""


def find(state: State) -> tuple[Finding, ...]:
    """All findings, the worst first."""
    found = [finding for check in CHECKS for finding in check(state)]
    for check in SYMPTOMS:
        causes = [x for x in found if x.severity != "note"]
        found += [x for x in check(state) if not is_explained(state, x, causes)]
    return folded(found)


def explain(state: State) -> tuple[Finding, ...]:
    """What is no fault, but may be why a guest has no way out: for somebody who asks just that."""
    return folded(finding for check in BY_DESIGN for finding in check(state))


def is_explained(state: State, symptom: Finding, causes: Sequence[Finding]) -> bool:
    """Whether one of the causes is about the same guest, network or bridge, or all of the host."""
    kind, _, name = symptom.subject.partition(" ")
    about = {symptom.subject}
    for one in state.guests if kind == "guest" else ():
        if one.name == name:
            about |= {f"network {x.source}" for x in one.nics}
            about |= {f"bridge {x.bridge or x.source}" for x in one.nics}
    return any(
        x.subject in about or x.subject.partition(" ")[0] not in {"guest", "network", "bridge"}
        for x in causes
    )
