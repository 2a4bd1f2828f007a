"""What nft's expressions look at, and the values they compare with (libnftables-json(5))."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kvmnet.errors import InvalidInput
from kvmnet.model.firewall import FirewallBranch, FirewallSet

Requires = Callable[[str, str], None]
"""Told of what an expression says beside itself."""

_META = {"iif": "iif", "iifname": "iif", "oif": "oif", "oifname": "oif", "l4proto": "protocol",
         "nfproto": "nfproto", "pkttype": "pkttype"}  # fmt: skip
_TRANSPORT = {"tcp", "udp", "sctp", "dccp", "udplite"}
_ETHERTYPES = {"ip": "ipv4", "ip6": "ipv6"}
_ICMP = {"icmp": "icmp", "icmpv6": "ipv6-icmp"}


def keys(left: Any, requires: Requires) -> tuple[str, ...] | None:
    """The keys (`MATCH_KEYS`) of an expression; None where kvmnet does not know one of them."""
    if isinstance(left, dict) and isinstance(left.get("concat"), list):
        found = [_key(part, requires) for part in left["concat"]]
        return None if None in found else tuple(x for x in found if x is not None)
    one = _key(left, requires)
    return None if one is None else (one,)


def _key(left: Any, requires: Requires) -> str | None:
    if not isinstance(left, dict) or len(left) != 1:
        return None
    ((kind, data),) = left.items()
    if not isinstance(data, dict):
        return None
    if kind == "payload":
        return _payload(str(data.get("protocol")), str(data.get("field")), requires)
    if kind == "meta":
        return _META.get(str(data.get("key")))
    if kind == "ct" and "dir" not in data:
        return {"state": "ct_state", "status": "ct_status"}.get(str(data.get("key")))
    if kind == "fib":
        return _fib(str(data.get("result")), data.get("flags"))
    return None


def _payload(protocol: str, field: str, requires: Requires) -> str | None:
    if protocol in _ETHERTYPES:
        key = {"saddr": "source", "daddr": "destination", "protocol": "protocol",
               "nexthdr": "protocol"}.get(field)  # fmt: skip
        if key is not None:
            requires("nfproto", _ETHERTYPES[protocol])
        return key
    if protocol in _ICMP and field == "type":
        requires("protocol", _ICMP[protocol])
        requires("nfproto", "ipv4" if protocol == "icmp" else "ipv6")
        return "icmp_type"
    if protocol == "ether" and field == "saddr":
        return "mac"
    if field in {"sport", "dport"} and protocol in _TRANSPORT | {"th"}:
        if protocol != "th":
            requires("protocol", protocol)
        return field
    return None


def _fib(result: str, flags: Any) -> str | None:
    named = {flags} if isinstance(flags, str) else set(flags or ())
    if result == "type":
        return {frozenset({"daddr"}): "dst_type", frozenset({"saddr"}): "src_type"}.get(
            frozenset(named)
        )
    # `fib saddr . iif oif missing`: no route back by which it came. The mark may take part.
    return "reverse_path" if result == "oif" and named - {"mark"} == {"saddr", "iif"} else None


def new_destination(value: Any) -> str | None:
    """Where a `dnat` statement leads, if to one address."""
    if not isinstance(value, dict):
        return None
    address, port = element(value.get("addr")), element(value.get("port"))
    if address is None or port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def items(right: Any) -> list[Any]:
    """The elements of an anonymous set or list; of one value that one."""
    if isinstance(right, dict) and isinstance(right.get("set"), list):
        return list(right["set"])
    return list(right) if isinstance(right, list) else [right]


def elements(right: Any) -> tuple[str, ...] | None:
    """The values as `FirewallMatch` has them; None where one is not understood."""
    found = [element(item) for item in items(right)]
    return None if None in found else tuple(x for x in found if x is not None)


def element(item: Any) -> str | None:
    """One value: a word, number, address, prefix, range or concatenation of these."""
    if isinstance(item, str | int) and not isinstance(item, bool):
        return None if str(item).startswith("@") else str(item)
    if not isinstance(item, dict):
        return None
    if isinstance(item.get("prefix"), dict):
        return f"{item['prefix'].get('addr')}/{item['prefix'].get('len')}"
    if isinstance(item.get("range"), list) and len(item["range"]) == 2:
        ends = [element(x) for x in item["range"]]
        return None if None in ends else "-".join(x for x in ends if x is not None)
    if isinstance(item.get("elem"), dict):
        return element(item["elem"].get("val"))
    if isinstance(item.get("concat"), list):
        parts = [element(x) for x in item["concat"]]
        return None if None in parts else " . ".join(x for x in parts if x is not None)
    return None


def branches(entries: list[Any]) -> tuple[FirewallBranch, ...]:
    """The entries of a verdict map. A value that is not understood may be any: `unknown`."""
    found: list[FirewallBranch] = []
    for entry in entries:
        key, verdict = entry
        ((name, data),) = verdict.items()
        target = data.get("target") if isinstance(data, dict) else None
        for value in items(key):
            said = element(value)
            found.append(FirewallBranch(value=said or "?", verdict=name, target=target))
    return tuple(found)


def parse_set(text: str) -> FirewallSet | None:
    """A named set or verdict map, out of `nft -j list set|map …`; None for maps of other things.

    Raises `InvalidInput`.
    """
    try:
        objects = msgspec.json.decode(text.encode("utf-8", "replace"))["nftables"]
        raw: dict[str, Any] = next(
            (x.get("set") or x.get("map") for x in objects if {"set", "map"} & x.keys()), {}
        )
        listed = raw.get("elem") or []
        place = {"family": raw["family"], "table": raw["table"], "name": raw["name"]}
        if "map" in raw:
            found = branches(listed) if raw["map"] == "verdict" else None
            return None if found is None else FirewallSet(**place, branches=found)
        values = [element(x) for x in listed]
        known = tuple(x for x in values if x is not None)
        return FirewallSet(**place, elements=known, complete=len(known) == len(values))
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidInput("the answer of `nft -j` is not understood", why=str(error)) from None
