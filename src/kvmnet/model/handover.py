"""Handing a host's network over to its manager: files in its own format, and what it is told.

The files are written first, all of them, then the calls are made in their order. Both can be done
twice without harm.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class FileState(Struct, frozen=True, kw_only=True):
    """A file as it is, or as it is to be."""

    path: str
    text: str | None
    """None: there is no such file. Bytes that are not UTF-8 are kept (surrogateescape)."""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


class NetplanGenerate(Struct, frozen=True, kw_only=True, tag="netplan-generate"):
    """Have netplan write its renderer's files anew (netplan-generate(8)); touches no link."""

    def __str__(self) -> str:
        return "netplan generate"


class LinkUnit(Struct, frozen=True, kw_only=True):
    """Which .network file networkd is to use for a link."""

    link: str
    unit: str | None
    """Its path; None: networkd is to leave the link alone."""
    leased: bool = False
    """Whether it also has to have a DHCPv4 lease again, as the link had that it comes after."""


class NetworkdReload(Struct, frozen=True, kw_only=True, tag="networkd-reload"):
    """Have systemd-networkd read its files (networkctl(1), reload) and wait until it is done.

    Only links whose files changed are configured anew.
    """

    volatile: tuple[FileState, ...] = ()
    """Files below /run, written before: they are gone after the next boot by themselves."""
    bridges: tuple[str, ...] = ()
    """Bridges that were there before networkd heard of them: the kernel announces them again, or
    networkd waits for ever to enslave their ports (seen with systemd 252)."""
    links: tuple[LinkUnit, ...] = ()
    """Waited for until networkd has configured them so."""

    def __str__(self) -> str:
        return "networkctl reload"


class DhcpClient(Struct, frozen=True, kw_only=True):
    """ISC's dhclient(8) or dhcpcd(8) serving one link, as ifupdown starts it."""

    program: Literal["dhclient", "dhcpcd"] = "dhclient"
    link: str
    family: Literal[4, 6]
    """dhcpcd is one process for both; it counts as 4."""
    argv: tuple[str, ...]
    pid_file: str
    lease_file: str


class DhclientHeld(Struct, frozen=True, kw_only=True, tag="dhclient-held"):
    """Have DHCP clients hold still (SIGSTOP): none may renew on a link that loses its place."""

    clients: tuple[DhcpClient, ...]

    def __str__(self) -> str:
        names = sorted({f"{x.program} on {x.link}" for x in self.clients})
        return f"hold {', '.join(names)}"


class DhclientMoved(Struct, frozen=True, kw_only=True, tag="dhclient-moved"):
    """End one DHCP client without releasing its lease and have another one ask for the same.

    The new one reads the old one's leases, so its client identifier and DUID stay, and it asks
    for its address again (RFC 2131, section 3.2). The kernel's addresses stay all the while.
    """

    ends: DhcpClient | None
    starts: DhcpClient | None
    """None: the link's address is not leased from now on."""

    def __str__(self) -> str:
        if self.starts is None:
            ended = f"{self.ends.program} on {self.ends.link}" if self.ends else "nothing"
            return f"end {ended}, keep its lease"
        here = f" instead of {self.ends.link}" if self.ends else ""
        family = f" -{self.starts.family}" if self.starts.program == "dhclient" else ""
        return f"have {self.starts.program}{family} serve {self.starts.link}{here}"


class IfstateSet(Struct, frozen=True, kw_only=True, tag="ifstate-set"):
    """Write down what ifupdown has brought up (`ifquery --state`), without bringing up anything."""

    up: tuple[str, ...]
    down: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{', '.join(self.up)} up"] if self.up else []
        parts += [f"{', '.join(self.down)} down"] if self.down else []
        return f"tell ifupdown that {' and '.join(parts)}"


class IfupdownDns(Struct, frozen=True, kw_only=True, tag="ifupdown-dns"):
    """Run ifupdown's hooks that tell resolvconf or systemd-resolved a link's DNS servers."""

    link: str
    family: Literal["inet", "inet6"]
    method: str
    mode: Literal["start", "stop"]
    options: tuple[tuple[str, str], ...] = ()
    """The stanza's `dns-…` options."""

    def __str__(self) -> str:
        does = "tell" if self.mode == "start" else "forget"
        return f"{does} the DNS servers of {self.link} ({self.family})"


class NmPort(Struct, frozen=True, kw_only=True):
    """A NIC and the profile that makes it a bridge's port."""

    uuid: str
    nic: str


class NmLoad(Struct, frozen=True, kw_only=True, tag="nm-load"):
    """Have NetworkManager read these profiles anew; what is in force on links stays in force."""

    paths: tuple[str, ...]
    volatile: tuple[FileState, ...] = ()
    """Files below /run, written before: netplan writes them anew whenever it is asked to."""

    def __str__(self) -> str:
        return "nmcli connection load"


class NmUp(Struct, frozen=True, kw_only=True, tag="nm-up"):
    """Have NetworkManager put a profile in force on a link, unless it is."""

    uuid: str
    path: str
    """Where the profile is."""
    link: str
    ports: tuple[NmPort, ...] = ()
    """Of a bridge: waited for."""
    keeps_from: str | None = None
    """A link whose addresses the host keeps until NetworkManager has put them on `link`."""
    instead_of: str | None = None
    """UUID of a profile that is taken out of force first."""
    role: Literal["port", "no port"] | None = None
    """What the link has to be by it: netplan changes a profile that is in force already, and it
    has to be put in force as it is now. None: whatever the profile says."""

    def __str__(self) -> str:
        return f"nmcli connection up {self.uuid} on {self.link}"


class NmReapply(Struct, frozen=True, kw_only=True, tag="nm-reapply"):
    """Have a changed profile that is in force on a link count at once."""

    link: str

    def __str__(self) -> str:
        return f"nmcli device reapply {self.link}"


class NmDown(Struct, frozen=True, kw_only=True, tag="nm-down"):
    """Have NetworkManager take a profile out of force, and leave it so."""

    uuid: str

    def __str__(self) -> str:
        return f"nmcli connection down {self.uuid}"


ManagerCall = (
    NetplanGenerate
    | NetworkdReload
    | DhclientHeld
    | DhclientMoved
    | IfstateSet
    | IfupdownDns
    | NmLoad
    | NmUp
    | NmReapply
    | NmDown
)
"""What a manager is told; each is carried out by `adapters/manager_calls.py`."""


class HandedOver(Struct, frozen=True, kw_only=True):
    """What a manager's own module makes of a `Takeover`: the files and calls, there and back."""

    files: tuple[FileState, ...]
    """As they are to be; only those that change."""
    files_before: tuple[FileState, ...]
    """The same paths, as they are now."""
    calls_first: tuple[ManagerCall, ...] = ()
    """To be made before the kernel's links are changed: the manager lets go of them. networkd does
    not forgive that a port is taken out of its bridge behind its back."""
    calls: tuple[ManagerCall, ...] = ()
    calls_back_first: tuple[ManagerCall, ...] = ()
    """As `calls_first`, on the way back: before the links are put back as they were, while the
    files are still as they are to be."""
    calls_back: tuple[ManagerCall, ...] = ()
    """To be made after the links and then the files are as they were before, on a host that has
    not rebooted."""
    calls_back_at_boot: tuple[ManagerCall, ...] = ()
    """The same, where a reboot came between: before the manager starts. Most need none."""
    notes: tuple[str, ...] = ()
    """What people should know: what was chosen, and what the manager does differently from now."""
    disturbs: str = "nobody"
