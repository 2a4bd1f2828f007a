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
from kvmnet.model.host import FirewallChain, FirewallRule

RuleKey = tuple[str, str, int]
"""Family, table and handle: they name one rule."""

_TABLE = re.compile(r"table (\S+) (\S+) \{")
_RULE = re.compile(r"\t+(.*) # handle (\d+)$")
_TERMINAL = {"accept", "drop", "reject", "return", "continue", "queue", "masquerade", "snat",
             "dnat", "redirect", "tproxy", "vmap"}  # fmt: skip
_PROTOCOL_FIELDS = {("ip", "protocol"), ("ip6", "nexthdr")}
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
    priority = raw.get("prio")
    return FirewallChain(
        backend="nft",
        family=raw["family"],
        table=raw["table"],
        name=raw["name"],
        hook=raw.get("hook"),
        priority=priority if isinstance(priority, int) else None,
        policy=policy,
        type=raw.get("type"),
        rules=rules,
    )


class _Rule:
    """One rule while its expressions are read, one after the other."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw
        self.fields: dict[str, str] = {}
        self.dports: tuple[str, ...] = ()
        self.ct_states: tuple[str, ...] = ()
        self.verdict = "continue"
        self.target: str | None = None
        self.packets: int | None = None
        self.opaque = False
        for expression in raw.get("expr", ()):
            for name, value in expression.items():
                self.read(name, value)
        # In a table for both families `ip protocol` also says "IPv4 only".
        if raw["family"] == "inet" and "one family" in self.fields:
            self.opaque |= "source" not in self.fields and "destination" not in self.fields

    def build(self, texts: Mapping[RuleKey, str]) -> FirewallRule:
        raw, handle = self.raw, self.raw.get("handle")
        key = (raw["family"], raw["table"], handle if isinstance(handle, int) else -1)
        spoken = texts.get(key) or msgspec.json.encode(raw.get("expr", [])).decode()
        return FirewallRule(
            text=spoken,
            verdict=self.verdict,
            target=self.target,
            iif=self.fields.get("iif"),
            oif=self.fields.get("oif"),
            protocol=self.fields.get("protocol"),
            dports=self.dports,
            source=self.fields.get("source"),
            destination=self.fields.get("destination"),
            ct_states=self.ct_states,
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
        elif name in _TERMINAL:
            self.verdict = name
            self.opaque |= name == "vmap"
        elif name in _CONDITIONS:
            self.opaque = True
        # Everything else (log, mangle, notrack, set …) does something and goes on.

    def extension(self, value: Any) -> None:
        """A match or target of iptables, of which nft only knows the name."""
        if isinstance(value, dict) and value.get("type") == "target":
            self.verdict = str(value.get("name", "xt")).lower()
        elif not isinstance(value, dict) or value.get("name") != "comment":
            self.opaque = True

    def match(self, value: Mapping[str, Any]) -> None:
        left, right, operator = value.get("left"), value.get("right"), value.get("op")
        key, detail = _left(left)
        negated = operator == "!="
        if operator not in {"==", "!=", "in"}:
            self.opaque = True
        elif key == "meta" and detail in {"iifname", "iif", "oifname", "oif"}:
            self.put("iif" if detail.startswith("i") else "oif", _one(right), negated)
        elif (key == "meta" and detail == "l4proto") or (key, detail) in _PROTOCOL_FIELDS:
            self.put("protocol", _one(right), negated, plain=True)
            if key != "meta":
                self.fields["one family"] = key
        elif detail == "dport" and not negated and (ports := _ports(right)):
            if key in {"tcp", "udp", "sctp", "dccp"}:
                self.put("protocol", key, False)
            self.dports = ports
        elif key in {"ip", "ip6"} and detail in {"saddr", "daddr"}:
            self.put("source" if detail == "saddr" else "destination", _prefix(right), negated)
        elif key == "ct" and detail == "state" and not negated:
            self.ct_states = _words(right)
            self.opaque |= not self.ct_states
        else:
            self.opaque = True

    def put(self, field: str, text: str | None, negated: bool, *, plain: bool = False) -> None:
        """Note a condition, unless it is none that a rule of the model can say."""
        if text is None or (negated and plain) or self.fields.get(field, text) != text:
            self.opaque = True
        else:
            self.fields[field] = f"!{text}" if negated else text


def _left(left: Any) -> tuple[str, str]:
    if isinstance(left, dict) and len(left) == 1:
        ((kind, data),) = left.items()
        if isinstance(data, dict):
            if kind == "payload":
                return str(data.get("protocol")), str(data.get("field"))
            return str(kind), str(data.get("key"))
    return "", ""


def _items(right: Any) -> list[Any]:
    if isinstance(right, dict) and isinstance(right.get("set"), list):
        return list(right["set"])
    return list(right) if isinstance(right, list) else [right]


def _one(right: Any) -> str | None:
    items = _items(right)
    plain = len(items) == 1 and isinstance(items[0], str | int) and not isinstance(items[0], bool)
    return str(items[0]) if plain and not str(items[0]).startswith("@") else None


def _words(right: Any) -> tuple[str, ...]:
    items = _items(right)
    return tuple(items) if all(isinstance(x, str) for x in items) else ()


def _ports(right: Any) -> tuple[str, ...]:
    """Ports and ranges; empty where they are in a named set or a map."""
    found: list[str] = []
    for item in _items(right):
        bounds = item.get("range") if isinstance(item, dict) else None
        if isinstance(item, int):
            found.append(str(item))
        elif isinstance(bounds, list) and len(bounds) == 2:
            found.append(f"{bounds[0]}-{bounds[1]}")
        else:
            return ()
    return tuple(found)


def _prefix(right: Any) -> str | None:
    if isinstance(right, dict) and isinstance(right.get("prefix"), dict):
        return f"{right['prefix'].get('addr')}/{right['prefix'].get('len')}"
    return _one(right)
