"""Which of a NIC's settings in networkd go to the bridge above it, and which stay with the NIC.

All keys and sections of systemd.network(5) of systemd 252; what is unknown is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kvmnet.errors import Refused
from kvmnet.formats.networkd_units import Entry, Section


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BRIDGE_SECTIONS = _words(
    "Address Neighbor IPv6AddressLabel RoutingPolicyRule NextHop Route DHCP DHCPv4 DHCPv6"
    " DHCPPrefixDelegation DHCPv6PrefixDelegation IPv6AcceptRA DHCPServer DHCPServerStaticLease"
    " IPv6SendRA IPv6PrefixDelegation IPv6Prefix IPv6RoutePrefix IPv6PREF64Prefix"
)
_PORT_SECTIONS = _words(
    "SR-IOV LLDP QDisc NetworkEmulator TokenBucketFilter PIE FlowQueuePIE StochasticFairBlue"
    " StochasticFairnessQueueing BFIFO PFIFO PFIFOHeadDrop PFIFOFast CAKE ControlledDelay"
    " DeficitRoundRobinScheduler DeficitRoundRobinSchedulerClass EnhancedTransmissionSelection"
    " GenericRandomEarlyDetection FairQueueingControlledDelay FairQueueing"
    " TrivialLinkEqualizer HierarchyTokenBucket HierarchyTokenBucketClass HeavyHitterFilter"
    " QuickFairQueueing QuickFairQueueingClass"
)
_BRIDGE_LINK = frozenset({"ARP", "RequiredForOnline", "RequiredFamilyForOnline"})
_PORT_LINK = _words("MACAddress MTUBytes Multicast AllMulticast Promiscuous Group ActivationPolicy")
_PORT_NETWORK = _words(
    "LLDP EmitLLDP BindCarrier IPVLAN IPVTAP MACsec MACVLAN MACVTAP Tunnel VLAN VXLAN Xfrm"
    " ActiveSlave PrimarySlave IgnoreCarrierLoss"
)
_SLAVE = ("Bridge", "Bond", "BatmanAdvanced", "IPoIB")
_BRIDGE_NETWORK = _words(
    "DHCP DHCPServer LinkLocalAddressing IPv6LinkLocalAddressGenerationMode"
    " IPv6StableSecretAddress IPv4LLStartAddress IPv4LLRoute DefaultRouteOnDevice IPv6Token LLMNR"
    " MulticastDNS DNSOverTLS DNSSEC DNSSECNegativeTrustAnchors Address Gateway DNS Domains"
    " DNSDefaultRoute NTP IPForward IPv4Forwarding IPv6Forwarding IPMasquerade"
    " IPv6PrivacyExtensions IPv6AcceptRA IPv6DuplicateAddressDetection IPv6HopLimit IPv4AcceptLocal"
    " IPv4RouteLocalnet IPv4ProxyARP IPv4ProxyARPPrivateVLAN IPv4ReversePathFilter IPv6ProxyNDP"
    " IPv6ProxyNDPAddress IPv6SendRA IPv6RetransmissionTimeSec DHCPPrefixDelegation"
    " DHCPv6PrefixDelegation IPv6MTUBytes MPLSRouting UseDomains VRF"
    " ConfigureWithoutCarrier KeepConfiguration"
)
_NAMES_ITSELF = frozenset({"IncomingInterface", "OutgoingInterface"})


def for_bridge(sections: Iterable[Section], nic: str, bridge: str) -> tuple[Section, ...]:
    """The addressing: what the bridge takes over. Raises `Refused` for what is not understood.

    `nic` is the link that has the settings now; where they name it, the bridge is meant from now.
    """
    check(sections)
    kept = []
    for section in sections:
        if section.name == "Link":
            entries = [x for x in section.entries if x.key in _BRIDGE_LINK]
        elif section.name == "Network":
            entries = [x for x in section.entries if x.key in _BRIDGE_NETWORK]
        elif section.name in _BRIDGE_SECTIONS:
            kept.append(section.of(_renamed(x, nic, bridge) for x in section.entries))
            continue
        else:
            continue
        if entries:
            kept.append(section.of(entries))
    return tuple(kept)


def for_port(sections: Iterable[Section]) -> tuple[Section, ...]:
    """What stays with the NIC: the link itself, its queues, what stands on it."""
    kept = []
    for section in sections:
        if section.name == "Link":
            entries = [x for x in section.entries if x.key in _PORT_LINK]
        elif section.name == "Network":
            entries = [x for x in section.entries if x.key in _PORT_NETWORK]
        else:
            entries = list(section.entries) if section.name in _PORT_SECTIONS else []
        if entries or section.name in _PORT_SECTIONS:
            kept.append(section.of(entries))
    return tuple(kept)


def check(sections: Iterable[Section]) -> None:
    """Raise `Refused` where a section or key is not understood, or the NIC is not free."""
    known = {
        "Link": _BRIDGE_LINK | _PORT_LINK,
        "Network": _BRIDGE_NETWORK | _PORT_NETWORK | {"Description"},
    }
    for section in sections:
        for entry in section.entries:
            if section.name == "Network" and entry.key in _SLAVE:
                raise Refused(
                    "the NIC is not free", why=f"networkd's file says {entry.key}={entry.value}"
                )
            if entry.key.startswith("X-") or section.name.startswith("X-"):
                continue
            if section.name in known and entry.key not in known[section.name]:
                raise _not_understood(f"[{section.name}] {entry.key}={entry.value}")
        other = _BRIDGE_SECTIONS | _PORT_SECTIONS | known.keys() | {"Match"}
        if section.name not in other and not section.name.startswith("X-"):
            raise _not_understood(f"[{section.name}]")


def _not_understood(what: str) -> Refused:
    return Refused(
        "networkd's file for the NIC is not understood",
        why=f"kvmnet does not know whether {what} belongs to the NIC or to the bridge",
        hint="use --no-persist and write the bridge's files yourself",
    )


def _renamed(entry: Entry, nic: str, bridge: str) -> Entry:
    if entry.key not in _NAMES_ITSELF or entry.value != nic:
        return entry
    text = re.sub(rf"=(\s*){re.escape(nic)}(\s*)$", rf"=\g<1>{bridge}\g<2>", entry.text)
    return Entry(key=entry.key, value=bridge, text=text)
