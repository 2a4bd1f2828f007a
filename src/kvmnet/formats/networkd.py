"""systemd-networkd: units (systemd.syntax(7), systemd.network(5)) and its state files."""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct


class LinkState(Struct, frozen=True, kw_only=True):
    """A file of /run/systemd/netif/links: what networkd does with one link."""

    admin_state: str = ""
    """configured, configuring, pending, failed, unmanaged, linger."""
    network_file: str | None = None
    dhcp6_iaid: int | None = None
    """The DHCPv6 identity association that is in use."""

    @property
    def managed(self) -> bool:
        return self.network_file is not None and self.admin_state not in {"unmanaged", "linger"}


class Section(Struct, frozen=True, kw_only=True):
    """One section of a unit; keys and sections may repeat, and their order counts."""

    name: str
    entries: tuple[tuple[str, str], ...]

    def get(self, key: str) -> str | None:
        """The last value, which is the one that holds."""
        return next((v for k, v in reversed(self.entries) if k == key), None)


class _Piece(Struct, frozen=True, rename="pascal"):
    """An address or a route, where it comes from and how far it is."""

    config_source: str = ""
    config_state: str = ""

    @property
    def own(self) -> bool:
        return self.config_source not in {"", "foreign"}

    @property
    def there(self) -> bool:
        """It may have been asked for again since: `configuring,configured`."""
        states = self.config_state.split(",")
        return "configured" in states and "removing" not in states


class _Description(Struct, frozen=True, rename="pascal"):
    """What `networkctl --json=short status LINK` tells (systemd 250 and later)."""

    administrative_state: str = ""
    network_file: str | None = None
    addresses: tuple[_Piece, ...] = ()
    routes: tuple[_Piece, ...] = ()


_DESCRIPTION = msgspec.json.Decoder(_Description)


def is_in_place(text: str, unit: str, unit_text: str) -> bool:
    """Whether all that the unit asks for is in the kernel, as networkd describes a link.

    Only of static addresses and routes this can be told: where there are none, or the text is not
    understood, nobody knows.
    """
    try:
        found = _DESCRIPTION.decode(text)
    except msgspec.DecodeError:
        return False
    if found.administrative_state != "configuring" or found.network_file != unit:
        return False
    if not all(x.there for x in (*found.addresses, *found.routes) if x.own):
        return False
    sections = parse_unit(unit_text)
    addresses = _asked(sections, "Address")
    static = [x for x in found.addresses if x.config_source == "static"]
    routes = [x for x in found.routes if x.config_source == "static"]
    return 0 < addresses <= len(static) and _asked(sections, "Gateway") <= len(routes)


def _asked(sections: tuple[Section, ...], key: str) -> int:
    """How many addresses or routes a unit asks for, in sections of their own or short."""
    own = "Route" if key == "Gateway" else key
    short = sum(1 for x in sections if x.name == "Network" for k, _ in x.entries if k == key)
    return short + sum(1 for x in sections if x.name == own)


def parse_link_state(text: str) -> LinkState:
    """A state file: lines of KEY=value; readable by everybody."""
    found = pairs(text)
    iaid = found.get("DHCP6_CLIENT_IAID", "").removeprefix("0x")
    return LinkState(
        admin_state=found.get("ADMIN_STATE", ""),
        network_file=found.get("NETWORK_FILE") or None,
        dhcp6_iaid=int(iaid, 16) if re.fullmatch("[0-9a-f]{1,8}", iaid) else None,
    )


def pairs(text: str) -> dict[str, str]:
    """What a state file of /run/systemd/netif says (links, leases): lines of KEY=value."""
    return dict(x.split("=", 1) for x in text.splitlines() if "=" in x and x[0] != "#")


def parse_unit(text: str) -> tuple[Section, ...]:
    """A .network, .netdev or .link file; a backslash at a line's end continues it."""
    sections: list[tuple[str, list[tuple[str, str]]]] = []
    for raw in text.replace("\\\n", " ").splitlines():
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("[") and line.endswith("]"):
            sections.append((line[1:-1], []))
        elif sections and "=" in line:
            key, _, value = line.partition("=")
            sections[-1][1].append((key.strip(), value.strip()))
    return tuple(Section(name=name, entries=tuple(entries)) for name, entries in sections)
