"""What NetworkManager has read and what it does: its profiles, and its devices' identity."""

from __future__ import annotations

from msgspec import Struct

from kvmnet.model.handover import FileState
from kvmnet.model.values import Mac


class NmProfile(Struct, frozen=True, kw_only=True):
    """A connection profile in a file: nm-settings-keyfile(5)."""

    file: FileState
    uuid: str
    """NetworkManager makes one of the file's name where the file has none."""

    @property
    def text(self) -> str:
        return self.file.text or ""


class NmFacts(Struct, frozen=True, kw_only=True):
    """One of the host's NICs, and what NetworkManager does with it."""

    name: str
    state: str = ""
    """connected, disconnected, unmanaged …; empty where NetworkManager does not run."""
    active: str | None = None
    """UUID of the profile that is in force."""
    permanent_mac: Mac | None = None
    """None for software devices."""
    mac: Mac | None = None
    route_metric: int | None = None
    """Of its routes, where the profile names none (100 and more for Ethernet, 425 for bridges)."""
    client_id: str | None = None
    """DHCPv4 client identifier in use (RFC 2132, option 61): octets joined by colons."""
    duid: str | None = None
    """DHCPv6 unique identifier in use (RFC 8415, section 11): octets joined by colons."""
    iaid: str | None = None
    """DHCPv6 identity association in use, as NetworkManager prints it."""
    token: str | None = None
    """The interface identifier of the address made of a router's prefix: `::1a2b:3c4d`."""

    @property
    def settled(self) -> str | None:
        """UUID of a profile that is in force and not only on its way: a DHCP server that does not
        answer would be waited for in vain when the profile is to be in force again."""
        return None if self.state.startswith("connecting") else self.active


class NmView(Struct, frozen=True, kw_only=True):
    """All that has to be known of NetworkManager to hand a NIC's place over to a bridge."""

    profiles: tuple[NmProfile, ...] = ()
    """Of several with one UUID, the one that is in force."""
    devices: tuple[NmFacts, ...] = ()

    def device(self, name: str) -> NmFacts:
        found = next((x for x in self.devices if x.name == name), None)
        return found or NmFacts(name=name)

    def profile(self, uuid: str | None) -> NmProfile | None:
        return next((x for x in self.profiles if x.uuid == uuid), None)
