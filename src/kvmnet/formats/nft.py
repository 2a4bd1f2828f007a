"""`nft -j list ruleset` as chains and rules.

Facts: libnftables-json(5). What is not understood makes a rule `opaque`; it is never left out.
The text of a rule, which is the evidence shown to people, comes from `nft -a list ruleset`, where
each rule ends with its handle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from kvmnet.errors import InvalidInput
from kvmnet.formats import nft_values
from kvmnet.model.firewall import FirewallBranch, FirewallMatch
from kvmnet.model.host import FirewallChain, FirewallRule

RuleKey = tuple[str, str, int]
"""Family, table and handle: they name one rule."""

_TABLE = re.compile(r"table (\S+) (\S+) \{")
_RULE = re.compile(r"\t+(.*) # handle (\d+)$")
_TERMINAL = {"accept", "drop", "reject", "return", "continue", "queue", "masquerade", "snat",
             "dnat", "redirect", "synproxy"}  # fmt: skip
_CONDITIONS = {"limit", "quota", "ct count", "meter", "connlimit"}


def parse_texts(text: str) -> dict[RuleKey, str]:
    """Each rule's text, out of `nft -a list ruleset`."""
    texts: dict[RuleKey, str] = {}
    family = table = ""
    for line in text.splitlines():
        if (head := _TABLE.match(line)) is not None:
            family, table = head[1], head[2]
        elif (rule := _RULE.match(line)) is not None and not rule[1].endswith("{"):
            texts[family, table, int(rule[2])] = rule[1]
    return texts


def parse(text: str, texts: Mapping[RuleKey, str]) -> tuple[FirewallChain, ...]:
    """All chains with their rules, in the kernel's order. Raises `InvalidInput`."""
    try:
        raw = (text or '{"nftables":[]}').encode("utf-8", "replace")
        return _parse(msgspec.json.decode(raw)["nftables"], texts)
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput("the answer of `nft -j` is not understood", why=str(error)) from None


def _parse(
    objects: list[dict[str, Any]], texts: Mapping[RuleKey, str]
) -> tuple[FirewallChain, ...]:
    chains = {_place(x["chain"], "name"): x["chain"] for x in objects if "chain" in x}
    rules: dict[tuple[str, str, str], list[FirewallRule]] = {place: [] for place in chains}
    for raw in (x["rule"] for x in objects if "rule" in x):
        place = _place(raw, "chain")
        rules.setdefault(place, []).append(_Rule(raw).build(texts))
    return tuple(_chain(raw, tuple(rules[place])) for place, raw in chains.items())


def _place(raw: Mapping[str, Any], name: str) -> tuple[str, str, str]:
    return (raw["family"], raw["table"], raw[name])


def _chain(raw: Mapping[str, Any], rules: tuple[FirewallRule, ...]) -> FirewallChain:
    policy: Literal["accept", "drop"] | None = None
    if raw.get("hook"):
        policy = "drop" if raw.get("policy") == "drop" else "accept"
    priority, devices = raw.get("prio"), raw.get("dev") or ()
    return FirewallChain(
        backend="nft",
        family=raw["family"],
        table=raw["table"],
        name=raw["name"],
        hook=raw.get("hook"),
        priority=priority if isinstance(priority, int) else None,
        policy=policy,
        type=raw.get("type"),
        devices=(devices,) if isinstance(devices, str) else tuple(devices),
        rules=rules,
    )


class _Rule:
    """One rule while its expressions are read, one after the other."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw
        self.fields: dict[str, str] = {}
        self.dports: tuple[str, ...] = ()
        self.ct_states: tuple[str, ...] = ()
        self.more: list[FirewallMatch] = []
        self.branch_keys: tuple[str, ...] = ()
        self.branches: tuple[FirewallBranch, ...] = ()
        self.branch_set: str | None = None
        self.verdict = "continue"
        self.target: str | None = None
        self.to: str | None = None
        self.packets: int | None = None
        self.opaque = False
        for expression in raw.get("expr", ()):
            for name, value in expression.items():
                self.read(name, value)

    def build(self, texts: Mapping[RuleKey, str]) -> FirewallRule:
        raw, handle = self.raw, self.raw.get("handle")
        key = (raw["family"], raw["table"], handle if isinstance(handle, int) else -1)
        spoken = texts.get(key) or msgspec.json.encode(raw.get("expr", [])).decode()
        return FirewallRule(
            text=spoken,
            verdict=self.verdict,
            target=self.target,
            to=self.to,
            iif=self.fields.get("iif"),
            oif=self.fields.get("oif"),
            protocol=self.fields.get("protocol"),
            dports=self.dports,
            source=self.fields.get("source"),
            destination=self.fields.get("destination"),
            ct_states=self.ct_states,
            more=tuple(dict.fromkeys(self.more)),
            branch_keys=self.branch_keys,
            branches=self.branches,
            branch_set=self.branch_set,
            opaque=self.opaque,
            handle=handle,
            comment=raw.get("comment"),
            packets=self.packets,
        )

    def read(self, name: str, value: Any) -> None:
        if name == "match":
            self.match(value)
        elif name in {"jump", "goto"}:
            self.verdict, self.target = name, value["target"]
        elif name == "counter":
            self.packets = value.get("packets") if isinstance(value, dict) else None
        elif name == "xt":
            self.extension(value)
        elif name == "vmap":
            self.verdict_map(value)
        elif name in _TERMINAL:
            self.verdict = name
            self.to = nft_values.new_destination(value) if name == "dnat" else None
        elif name in _CONDITIONS:
            self.opaque = True
        # Everything else (log, mangle, notrack, set …) does something and goes on.

    def extension(self, value: Any) -> None:
        """A match or target of iptables, of which nft only knows the name."""
        if isinstance(value, dict) and value.get("type") == "target":
            self.verdict = str(value.get("name", "xt")).lower()
        elif not isinstance(value, dict) or value.get("name") != "comment":
            self.opaque = True

    def verdict_map(self, value: Mapping[str, Any]) -> None:
        self.verdict = "vmap"
        keys = nft_values.keys(value.get("key"), self.requires)
        data = value.get("data")
        if keys is None:
            self.opaque = True
            # Where it leads is known all the same: to any of these, or on.
            keys = ("unknown",)
        self.branch_keys = keys
        if isinstance(data, str):
            self.branch_set = data.removeprefix("@")
        else:
            self.branches = nft_values.branches(nft_values.items(data))

    def match(self, value: Mapping[str, Any]) -> None:
        operator, right = value.get("op"), value.get("right")
        keys = nft_values.keys(value.get("left"), self.requires)
        if keys is None or operator not in {"==", "!=", "in"}:
            self.opaque = True
            return
        negated = operator == "!="
        if isinstance(right, str) and right.startswith("@"):
            self.more.append(FirewallMatch(keys=keys, set_name=right[1:], negated=negated))
            return
        values = nft_values.elements(right)
        if keys == ("reverse_path",):
            values = ("exists" if right else "missing",) if isinstance(right, bool) else None
        if not values:
            self.opaque = True
        elif not self.put(keys, values, negated=negated):
            self.more.append(FirewallMatch(keys=keys, values=values, negated=negated))

    def requires(self, key: str, value: str) -> None:
        """What an expression says beside itself: `tcp dport` that it is TCP."""
        match = FirewallMatch(keys=(key,), values=(value,))
        known = self.fields.get(key) == value if key == "protocol" else False
        one_family = key == "nfproto" and self.raw["family"] in {"ip", "ip6"}
        if known or one_family:
            return
        if key == "protocol" and "protocol" not in self.fields:
            self.fields["protocol"] = value
        else:
            self.more.append(match)

    def put(self, keys: tuple[str, ...], values: tuple[str, ...], *, negated: bool) -> bool:
        """Note a condition in the field of its own that it may have; whether there is one."""
        key = keys[0]
        if len(keys) > 1:
            return False
        if key == "dport" and not negated and not self.dports:
            self.dports = values
            return True
        if key == "ct_state" and not negated and not self.ct_states:
            self.ct_states = values
            return True
        plain = len(values) == 1 and not (negated and key == "protocol")
        text = f"!{values[0]}" if negated else values[0]
        if not plain or self.fields.get(key, text) != text or key not in _FIELDS:
            return False
        self.fields[key] = text
        return True


_FIELDS = frozenset({"iif", "oif", "protocol", "source", "destination"})
