"""Reads what decides whether a NIC can be a bridge's port, and neither `ip` nor a file tells.

The kernel is asked, and `iw` where it is installed. What they do not tell stays unknown (None), as
it does for a NIC that went away meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from kvmnet.adapters import offloads
from kvmnet.adapters.run import run
from kvmnet.errors import KvmnetError
from kvmnet.formats import nics
from kvmnet.model.host import Link

_MERGING = frozenset({"bond", "team"})
"""Links that are no real NICs, but pass the setting on to those below (`dev_disable_lro`)."""


def with_port_facts(links: Iterable[Link]) -> tuple[Link, ...]:
    """The links: wireless ones with mode and 4-address mode, bridges with `tx_checksum`, others
    with `lro`.
    """
    return tuple(_with_port_facts(x) for x in links)


def _with_port_facts(link: Link) -> Link:
    if link.kind == "wireless":
        text = _told(["iw", "dev", link.name, "info"])
        if text is None:
            return link
        facts = nics.parse_wireless(text)
        return msgspec.structs.replace(link, mode=facts.mode, four_address=facts.four_address)
    if link.kind == "bridge":
        return msgspec.structs.replace(link, tx_checksum=offloads.is_on(link.name, "tx"))
    if link.driver is not None or link.kind in _MERGING:
        return msgspec.structs.replace(link, lro=offloads.is_on(link.name, "lro"))
    return link


def _told(argv: Sequence[str]) -> str | None:
    """What the program prints; None: it is not installed, or does not know the NIC."""
    try:
        return run(argv).stdout
    except KvmnetError:
        return None
