"""Lines of sysctl.conf(5) and sysctl.d(5)."""

from __future__ import annotations

from collections.abc import Iterator


def parse(text: str) -> Iterator[tuple[str, str]]:
    """Names, as sysctl(8) prints them, and values, in the order of the lines."""
    for line in text.splitlines():
        body = line.strip().removeprefix("-").strip()
        if not body or body[0] in "#;" or "=" not in body:
            continue
        name, _, value = body.partition("=")
        # With slashes as separators a dot belongs to a link's name, and the other way round.
        yield name.strip().replace("/", "."), value.strip()
