"""Lines of interfaces(5) that are put aside as comments, so that they can come back.

    #kvmnet br0 eth1 +1: iface eth1 inet dhcp
    iface eth1 inet manual

says: for bridge br0 and its port eth1 the next 1 line stands in this one's place.
"""

from __future__ import annotations

import re


def aside(raw: str, bridge: str, port: str, instead: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The line (`raw` may take several; empty: there was none) as a comment, then what replaces
    it: physical lines, each with its newline."""
    physical = raw.removesuffix("\n").split("\n")
    head = f"#kvmnet {bridge} {port}"
    first = "".join(f"{head} +0: {x}\n" for x in physical[:-1])
    last = f" {physical[-1]}" if raw else ""
    return (f"{first}{head} +{len(instead)}:{last}\n", *instead)


def restore(text: str, bridge: str, port: str | None = None) -> str:
    """The text with what was put aside in its place again; with `port` only what was for it."""
    which = re.escape(port) if port else r"\S+"
    mark = re.compile(rf"#kvmnet {re.escape(bridge)} {which} \+(\d+): ?(.*)", re.DOTALL)
    found: list[str] = []
    skip = 0
    for line in re.split(r"(?<=\n)", text):
        told = mark.fullmatch(line)
        if skip and told is None:
            skip -= 1
        elif told is None:
            found.append(line)
        else:
            skip = int(told[1])
            found += [told[2]] if told[2].strip() else []
    return "".join(found)
