"""`ipset save` as sets (ipset(8))."""

from __future__ import annotations

from kvmnet.model.firewall import FirewallSet

_UNDERSTOOD = frozenset({"hash:ip", "hash:net", "bitmap:ip"})


def parse(text: str) -> tuple[FirewallSet, ...]:
    """All sets. Those of types that kvmnet does not understand are marked as not complete."""
    kinds: dict[str, str] = {}
    elements: dict[str, list[str]] = {}
    partly: set[str] = set()
    for line in text.splitlines():
        words = line.split()
        if len(words) < 3:
            continue
        verb, name, what = words[:3]
        if verb == "create":
            kinds[name], elements[name] = what, []
        elif verb == "add" and name in kinds:
            if kinds[name] not in _UNDERSTOOD or "nomatch" in words:
                partly.add(name)
            else:
                elements[name].append(what)
    return tuple(
        FirewallSet(family="", table="", name=name, elements=tuple(elements[name]),
                    complete=name not in partly and kind in _UNDERSTOOD)
        for name, kind in kinds.items()
    )  # fmt: skip
