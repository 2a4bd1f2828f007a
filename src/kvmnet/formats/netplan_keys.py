"""Which of a device's keys in netplan go to the bridge above it, and which stay.

All keys of https://netplan.readthedocs.io/en/stable/netplan-yaml/; what is unknown is refused.
"""

from __future__ import annotations

from typing import Any

from kvmnet.errors import Refused


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ADDRESSING = _words(
    "dhcp4 dhcp6 dhcp4-overrides dhcp6-overrides dhcp-identifier ipv6-privacy link-local critical"
    " addresses ipv6-address-generation ipv6-address-token gateway4 gateway6 nameservers routes"
    " routing-policy accept-ra optional-addresses ipv6-mtu ra-overrides optional"
    " ignore-carrier neigh-suppress"
)
_STAYS = _words(
    "match set-name wakeonlan emit-lldp mtu macaddress receive-checksum-offload"
    " transmit-checksum-offload tcp-segmentation-offload tcp6-segmentation-offload"
    " generic-segmentation-offload generic-receive-offload large-receive-offload"
    " virtual-function-count embedded-switch-mode delay-virtual-functions-rebind link auth"
    " activation-mode renderer networkmanager interfaces parameters id regulatory-domain"
)
BOTH = _words("optional")
"""Said of the bridge and of the NIC: the host's start waits for neither."""
BRIDGE_ONLY = _words("interfaces macaddress mtu parameters renderer networkmanager openvswitch")
NEUTRAL: dict[str, Any] = {"dhcp4": False, "dhcp6": False, "accept-ra": False, "link-local": []}
"""What a port says about addresses: none at all."""


def moving(body: dict[str, Any], device: str) -> tuple[str, ...]:
    """The keys of a NIC that go to the bridge, in their order. Raises `Refused`."""
    for key in body:
        if key == "openvswitch":
            raise Refused(f"{device} belongs to Open vSwitch", why="netplan's file says so")
        if key not in ADDRESSING | _STAYS:
            raise Refused(
                f"netplan's definition of {device} is not understood",
                why=f"kvmnet does not know whether {key} belongs to the NIC or to the bridge",
                hint="use --no-persist and edit netplan's file yourself",
            )
    passed = body.get("networkmanager") or {}
    through = passed.get("passthrough") or {}
    if passed.get("uuid"):
        raise Refused(
            f"netplan's definition of {device} is one that NetworkManager has written",
            why="it writes it anew with each change of its profile "
            f"{passed.get('name') or passed['uuid']}",
            hint="give the NIC a definition of your own in /etc/netplan first (renderer: "
            "NetworkManager, its addresses), and remove NetworkManager's: nmcli connection delete",
        )
    if any(str(x).split(".")[0] in ("ipv4", "ipv6") for x in through):
        raise Refused(
            f"netplan's definition of {device} has addresses for NetworkManager only",
            why="networkmanager: passthrough: ipv4 or ipv6",
            hint="write them in netplan's own keys, or use --no-persist",
        )
    return tuple(x for x in body if x in ADDRESSING)
