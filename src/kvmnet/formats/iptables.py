"""`iptables-save -c` (nft and legacy variants, IPv4 and IPv6) as chains and rules.

Facts: iptables-extensions(8). What is not understood makes a rule `opaque`.
"""

from __future__ import annotations

import re
import shlex
from typing import Literal

from kvmnet.errors import InvalidInput
from kvmnet.formats import iptables_words
from kvmnet.model.host import FirewallChain, FirewallRule

_HOOKS = {"PREROUTING": "prerouting", "INPUT": "input", "FORWARD": "forward", "OUTPUT": "output",
          "POSTROUTING": "postrouting"}  # fmt: skip
_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_CHAIN = re.compile(r":(\S+) (\S+)")
_RULE = re.compile(r"(?:\[(\d+):\d+\] )?(-A (\S+).*)")


def parse(
    text: str, *, backend: Literal["iptables-nft", "iptables-legacy"], family: Literal["ip", "ip6"]
) -> tuple[FirewallChain, ...]:
    """All chains that the program printed; built-in ones are printed even if they do not exist."""
    chains: list[FirewallChain] = []
    table, policies, rules = "", dict[str, str](), dict[str, list[FirewallRule]]()
    for line in text.splitlines():
        if line.startswith("*"):
            table, policies, rules = line[1:].strip(), {}, {}
        elif (head := _CHAIN.match(line)) is not None:
            policies[head[1]] = head[2]
            rules[head[1]] = []
        elif (rule := _RULE.match(line)) is not None:
            rules.setdefault(rule[3], []).append(_rule(rule[2], rule[1], frozenset(policies)))
        elif line == "COMMIT":
            for name, policy in policies.items():
                found = tuple(rules[name])
                chains.append(_chain(backend, family, table, name, policy, found))
    return tuple(chains)


def _chain(
    backend: Literal["iptables-nft", "iptables-legacy"],
    family: str,
    table: str,
    name: str,
    policy: str,
    rules: tuple[FirewallRule, ...],
) -> FirewallChain:
    hook = _HOOKS.get(name) if policy != "-" else None
    return FirewallChain(
        backend=backend,
        family=family,
        table=table,
        name=name,
        hook=hook,
        priority=_priority(table, name) if hook else None,
        policy=("drop" if policy == "DROP" else "accept") if hook else None,
        type=("nat" if table == "nat" else "filter") if hook else None,
        rules=rules,
    )


def _priority(table: str, chain: str) -> int:
    """Where the chain stands among others (include/uapi/linux/netfilter_ipv4.h)."""
    if table == "nat":
        return -100 if chain in {"PREROUTING", "OUTPUT"} else 100
    return _PRIORITIES.get(table, 0)


def _rule(text: str, packets: str | None, chains: frozenset[str]) -> FirewallRule:
    try:
        words = iter(shlex.split(text)[2:])
    except ValueError as error:
        raise InvalidInput("a rule of iptables-save is not understood", why=str(error)) from None
    rule = iptables_words.RuleWords()
    rule.read(words, chains)
    return FirewallRule(
        text=text,
        verdict=rule.verdict,
        target=rule.target,
        to=rule.to,
        iif=rule.fields.get("iif"),
        oif=rule.fields.get("oif"),
        protocol=rule.fields.get("protocol"),
        dports=rule.dports,
        source=rule.fields.get("source"),
        destination=rule.fields.get("destination"),
        ct_states=rule.ct_states,
        more=tuple(rule.more),
        opaque=rule.opaque,
        comment=rule.comment,
        packets=int(packets) if packets is not None else None,
    )
