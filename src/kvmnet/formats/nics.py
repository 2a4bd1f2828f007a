"""What `iw` prints of one NIC. Facts: iw's `info.c`."""

from __future__ import annotations

from msgspec import Struct


class Wireless(Struct, frozen=True, kw_only=True):
    """How a wireless NIC takes part in its network."""

    mode: str | None = None
    """In the words of iw(8): `managed` (a station), `AP`, `mesh point`; None: it does not say."""
    four_address: bool = False


def parse_wireless(text: str) -> Wireless:
    """Read `iw dev NAME info`, which has a line about 4-address mode only where that is on."""
    facts = dict(_pair(line) for line in text.splitlines())
    return Wireless(mode=facts.get("type"), four_address=facts.get("4addr:") == "on")


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.strip().partition(" ")
    return name, value
