"""systemd-networkd: units (systemd.syntax(7), systemd.network(5)) and its state files."""

from __future__ import annotations

import re

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
