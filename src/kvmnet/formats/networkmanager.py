"""NetworkManager: the answer of `nmcli -t`, and keyfiles (nm-settings-keyfile(5))."""

from __future__ import annotations

import ipaddress

from msgspec import Struct


class NmDevice(Struct, frozen=True, kw_only=True):
    """One line of `nmcli -t -f DEVICE,TYPE,STATE,CONNECTION device`."""

    name: str
    type: str
    state: str
    connection: str

    @property
    def managed(self) -> bool:
        """Whether NetworkManager acts on it; `connected (externally)` only means it watches."""
        return self.state not in {"unmanaged", "unavailable", ""} and "(extern" not in self.state


class Keyfile(Struct, frozen=True, kw_only=True):
    """A connection profile: sections of key and value, in their order."""

    sections: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

    def get(self, section: str, key: str) -> str | None:
        return next((v for s, kv in self.sections if s == section for k, v in kv if k == key), None)


def parse_devices(text: str) -> tuple[NmDevice, ...]:
    """What `nmcli -t` prints: fields split by colons, `\\:` is a colon inside a field."""
    rows = (fields(line) for line in text.splitlines() if line)
    return tuple(
        NmDevice(name=row[0], type=row[1], state=row[2], connection=row[3])
        for row in rows
        if len(row) >= 4
    )


def fields(line: str) -> list[str]:
    """One line of what `nmcli -t` prints; `\\:` is a colon inside a field."""
    fields, escaped = [""], False
    for character in line:
        if escaped or character not in "\\:":
            fields[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            fields.append("")
    return fields


def parse_keyfile(text: str) -> Keyfile:
    """A keyfile; comments are left out, what is no `key=value` too."""
    sections: list[tuple[str, list[tuple[str, str]]]] = []
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            sections.append((line[1:-1], []))
        elif sections and "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            sections[-1][1].append((key.strip(), value.strip()))
    return Keyfile(sections=tuple((name, tuple(pairs)) for name, pairs in sections))


_PERMANENT, _TEMPORARY = 0x80, 0x01
"""Flags of /proc/net/if_inet6 (linux/if_addr.h)."""


def token(table: str, link: str, mac: str | None) -> str | None:
    """The interface identifier of a link's address of a router's prefix, from /proc/net/if_inet6.

    None where there is no such address, or it is made of the MAC (RFC 4291, appendix A).
    """
    for words in (x.split() for x in table.splitlines()):
        if len(words) != 6 or words[5] != link or words[2] != "40" or words[3] != "00":
            continue
        if int(words[4], 16) & (_PERMANENT | _TEMPORARY):
            continue
        identifier = int(words[0][16:], 16)
        return None if identifier == _of_mac(mac) else str(ipaddress.IPv6Address(identifier))
    return None


def _of_mac(mac: str | None) -> int | None:
    if mac is None:
        return None
    octets = [int(x, 16) for x in mac.split(":")]
    parts = [octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]]
    return int.from_bytes(bytes(parts), "big")
