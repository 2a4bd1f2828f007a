"""What the kernel tells about traced packets (nfnetlink, group NFTRACE), and the rules that ask it.

Facts: include/uapi/linux/netfilter/nf_tables.h (NFTA_TRACE_*), nft(8) `meta nftrace`. This is what
`nft monitor trace` prints; read directly it comes with the packet's bytes, without a race at the
start and without a program that could be left behind.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Literal

from kvmnet.formats.trace_packet import decode
from kvmnet.model.trace import Pattern, RuleHit

TRACE_MESSAGE = 10 << 8 | 17
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_TRACE."""
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_KINDS: dict[int, Literal["rule", "return", "policy"]] = {1: "policy", 2: "return", 3: "rule"}
_VERDICTS = {
    0: "drop", 1: "accept", 2: "stolen", 3: "queue", 4: "repeat", -1: "continue", -2: "break",
    -3: "jump", -4: "goto", -5: "return",
}  # fmt: skip
(_TABLE, _CHAIN, _HANDLE, _TYPE, _VERDICT, _ID, _LINK, _NETWORK, _TRANSPORT, _IIF, _IIFTYPE, _OIF,
 _OIFTYPE, _MARK, _NFPROTO, _POLICY) = range(1, 17)  # fmt: skip
_CODE, _TARGET = 1, 2
OWN_TABLE = "kvmnet_trace"


def parse(raw: bytes, at: float, patterns: tuple[Pattern, ...]) -> Iterator[RuleHit]:
    """All trace messages of one datagram. What is not whole is left out."""
    start = 0
    while start + 16 <= len(raw):
        length, kind = struct.unpack_from("=IH", raw, start)
        if length < 16 or start + length > len(raw):
            return
        if kind == TRACE_MESSAGE and length >= 20:
            hit = _hit(raw[start + 16 : start + length], at, patterns)
            if hit is not None:
                yield hit
        start += (length + 3) & ~3


def _hit(raw: bytes, at: float, patterns: tuple[Pattern, ...]) -> RuleHit | None:
    attributes = dict(_attributes(raw[4:]))
    kind = _KINDS.get(_number(attributes, _TYPE))
    if kind is None or _CHAIN not in attributes:
        return None
    verdict = dict(_attributes(attributes.get(_VERDICT, b"")))
    code = _number(verdict, _CODE)
    if kind == "policy":
        code = _number(attributes, _POLICY)
    signed = code - (1 << 32) if code & 0x80000000 else code
    head = attributes.get(_NETWORK, b"") + attributes.get(_TRANSPORT, b"")
    return RuleHit(
        at=at,
        id=_number(attributes, _ID),
        family=_FAMILIES.get(raw[0], str(raw[0])),
        table=_text(attributes, _TABLE),
        chain=_text(attributes, _CHAIN),
        kind=kind,
        verdict=_VERDICTS.get(signed if signed < 0 else signed & 0xFF, str(signed)),
        handle=int.from_bytes(attributes[_HANDLE], "big") if _HANDLE in attributes else None,
        target=_text(verdict, _TARGET) or None,
        packet=decode(head, patterns) if head else None,
        iif=_number(attributes, _IIF) or None,
        oif=_number(attributes, _OIF) or None,
        mark=_number(attributes, _MARK),
    )


def _attributes(raw: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start + 4 <= len(raw):
        length, kind = struct.unpack_from("=HH", raw, start)
        if length < 4:
            return
        yield kind & 0x3FFF, raw[start + 4 : start + length]
        start += (length + 3) & ~3


def _number(attributes: dict[int, bytes], name: int) -> int:
    return int.from_bytes(attributes.get(name, b""), "big")


def _text(attributes: dict[int, bytes], name: int) -> str:
    return attributes.get(name, b"").rstrip(b"\0").decode("utf-8", "replace")


_FIRST = -450
"""Before connection tracking's defragmentation (-400) and iptables' raw table (-300)."""
_HOOKS = {"inet": ("prerouting", "output"), "bridge": ("prerouting", "output")}


def table(family: str, name: str, patterns: Sequence[Pattern]) -> str:
    """A table that is gone with the program that made it, and that marks the packets to trace."""
    lines = [f"add table {family} {name} {{ flags owner; }}"]
    for hook in _HOOKS[family]:
        chain = f"{family} {name} {hook}"
        lines.append(
            f"add chain {chain} {{ type filter hook {hook} priority {_FIRST}; policy accept; }}"
        )
        lines += [f"add rule {chain} {match} meta nftrace set 1" for match in _matches(patterns)]
    return "\n".join(lines) + "\n"


def _matches(patterns: Sequence[Pattern]) -> Iterator[str]:
    for pattern in patterns:
        words = []
        for word in pattern.words:
            field = f"@nh,{word.offset * 8},32"
            whole = word.mask == 0xFFFFFFFF
            words.append(f"{field} {'' if whole else f'& {word.mask:#x} == '}{word.value:#x}")
        yield " ".join(words)
