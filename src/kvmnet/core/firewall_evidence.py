"""What people are shown of a walk: which rule drops, whose it is, and what does not help."""

from __future__ import annotations

from collections.abc import Iterable

from kvmnet.core.finding import some
from kvmnet.core.firewall import Decision, Passage
from kvmnet.core.firewall_makers import BY_HAND, maker

MAX_LINES = 8


def evidence(passages: Iterable[Passage]) -> tuple[str, ...]:
    """The drops, further chains that would drop too, and accepts that do not help against them."""
    dropped: dict[str, list[str]] = {}
    also: dict[str, None] = {}
    helpless: dict[str, None] = {}
    for passage in passages:
        if not passage.drops:
            continue
        dropped.setdefault(described(passage.drops[0]), []).append(passage.packet.what)
        also.update(dict.fromkeys(described(x) for x in passage.drops[1:]))
        helpless.update(
            dict.fromkeys(described(x) for x in passage.accepts if x.base.type != "nat")
        )
    lines = [f"{some(what)}: dropped by {text}" for text, what in dropped.items()]
    lines += [f"would be dropped too by {text}" for text in also if text not in dropped]
    lines += [
        f"accepted, which does not help (an accept ends only its own base chain), by {text}"
        for text in helpless
    ]
    return tuple(lines[:MAX_LINES])


def decided_by(decision: Decision) -> str:
    """The program whose rule or policy decides; `nft` or `iptables` if no known one."""
    return maker(decision.chain, decision.rule)


def owner(who: str) -> str:
    """For a sentence: `Docker`, or that nobody known made it."""
    return f"a rule made with {who}" if who in BY_HAND else who


def described(decision: Decision) -> str:
    """`ip filter FORWARD (Docker): policy drop`, or the rule with its handle and counter."""
    chain, rule = decision.chain, decision.rule
    where = f"{chain.family} {chain.table} {chain.name}"
    if chain.backend != "nft":
        where += f" [{chain.backend}]"
    if rule is None:
        return f"{where} ({maker(chain)}): policy {chain.policy}"
    handle = "" if rule.handle is None else f" handle {rule.handle}"
    text = f"{where}{handle} ({maker(chain, rule)}): {rule.text}"
    if rule.packets is not None and "counter" not in rule.text:
        text += f" ({rule.packets} packets)"
    if chain.name != decision.base.name:
        text += f", reached from {decision.base.name}"
    return text
