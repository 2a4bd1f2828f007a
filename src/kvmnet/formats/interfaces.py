"""ifupdown: /etc/network/interfaces (interfaces(5)) and /run/network/ifstate."""

from __future__ import annotations

from msgspec import Struct


class Stanza(Struct, frozen=True, kw_only=True):
    """One stanza: `iface eth0 inet dhcp`, `auto eth0`, `source …`, with the lines below it."""

    path: str
    keyword: str
    """iface, auto, allow-hotplug, mapping, source, source-directory, no-auto-down …"""
    words: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()
    """Of iface and mapping: option and value, in their order; an option may repeat."""


_WITH_OPTIONS = frozenset({"iface", "mapping", "template"})
_ALONE = frozenset({"auto", "source", "source-directory", "no-auto-down", "no-scripts", "rename"})


def parse(text: str, path: str) -> tuple[Stanza, ...]:
    """All stanzas of one file, in their order."""
    found: list[tuple[str, tuple[str, ...], list[tuple[str, str]]]] = []
    for raw in text.replace("\\\n", " ").splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        keyword, _, rest = line.partition(" ") if " " in line else line.partition("\t")
        if keyword in _WITH_OPTIONS or keyword in _ALONE or keyword.startswith("allow-"):
            found.append((keyword, tuple(rest.split()), []))
        elif found and found[-1][0] in _WITH_OPTIONS:
            found[-1][2].append((keyword, rest.strip()))
    return tuple(Stanza(path=path, keyword=k, words=w, options=tuple(o)) for k, w, o in found)


def parse_ifstate(text: str) -> dict[str, str]:
    """Which NICs ifupdown has brought up: NIC to its logical name."""
    return dict(line.split("=", 1) for line in text.split() if "=" in line)
