"""What goes from a NIC's profile to its bridge's, what stays with the NIC, and what is added."""

from __future__ import annotations

from kvmnet.errors import Refused
from kvmnet.formats import networkmanager_edit as edit
from kvmnet.formats.networkmanager_edit import Group
from kvmnet.model.networkmanager import NmFacts, NmProfile
from kvmnet.model.takeover import BridgePort, Takeover

_ADDRESSING = frozenset({"ipv4", "ipv6", "proxy", "hostname"})
_OF_ADDRESSES = frozenset(
    {"zone", "metered", "dns-over-tls", "llmnr", "mdns", "permissions", "secondaries", "stable-id",
     "gateway-ping-timeout", "wait-device-timeout", "ip-ping-addresses", "mptcp-flags"}
)  # fmt: skip
"""Keys of [connection] that go where the addresses are (nm-settings(5), connection)."""
_FAMILIES = ("ipv4", "ipv6")
_MASTER = ("master", "controller", "slave-type", "port-type")
_IDENTITY = frozenset(
    {"route-metric", "dhcp-client-id", "dhcp-duid", "dhcp-iaid", "token", "addr-gen-mode"}
)
"""Keys that `create` may add, so that nobody takes the bridge for another host."""
ADDED = "kvmnet.added"
"""What is noted of them in the bridge's profile: `ipv4.route-metric ipv6.addr-gen-mode=default`."""


def bridge_text(
    takeover: Takeover, own: str, old: NmProfile | None, heir: NmFacts | None, priority: int
) -> str:
    """The bridge's profile. `stp=false` is written out: NetworkManager's own default is on."""
    lines = [f"# Bridge {takeover.bridge}, made by kvmnet.\n", "[connection]\n"]
    lines += [f"id={takeover.bridge}\n", f"uuid={own}\n", "type=bridge\n"]
    lines += [f"interface-name={takeover.bridge}\n", f"autoconnect-priority={priority}\n"]
    if old is not None and takeover.address != "none":
        lines += [
            x for g in edit.groups(old.text) if g.name == "connection"
            for x in g.lines if x.split("=")[0].strip() in _OF_ADDRESSES
        ]  # fmt: skip
    bridge = ["[bridge]\n", f"mac-address={takeover.mac}\n", f"stp={_bool(takeover.stp)}\n"]
    if takeover.forward_delay_s is not None:
        bridge.append(f"forward-delay={_seconds(takeover)}\n")
    bridge += ["vlan-filtering=true\n"] if takeover.vlan_filtering else []
    ethernet = ["[ethernet]\n", f"cloned-mac-address={takeover.mac}\n"]
    ethernet += [f"mtu={takeover.mtu}\n"] if takeover.mtu != 1500 else []
    parts = [
        Group(name="connection", lines=tuple(_ended(lines))),
        Group(name="bridge", lines=tuple(bridge)),
        Group(name="ethernet", lines=tuple(ethernet)),
    ]
    text = edit.joined([*parts, *_addressing(takeover, old)])
    if heir is not None and takeover.address in ("keep", "dhcp"):
        return _with_note(text, with_identity(text, takeover, heir))
    return text


def identity(text: str, takeover: Takeover, heir: NmFacts) -> dict[str, str]:
    """What `with_identity` sets that the text does not say: `ipv4.route-metric` and its value."""
    after = with_identity(text, takeover, heir)
    found = {(f, k): edit.get(after, f, k) for f in _FAMILIES for k in sorted(_IDENTITY)}
    return {f"{f}.{k}": new for (f, k), new in found.items() if new and new != edit.get(text, f, k)}


def _with_note(before: str, after: str) -> str:
    """Note in the profile what was added to the NIC's own, so that it can be taken away again."""
    added = []
    for family in _FAMILIES:
        for key in sorted(_IDENTITY):
            old, new = edit.get(before, family, key), edit.get(after, family, key)
            if old != new:
                added.append(f"{family}.{key}" if old is None else f"{family}.{key}={old}")
    return edit.put(after, "user", ADDED, " ".join(added)) if added else after


def _without_added(text: str) -> str:
    """A bridge's profile with the values that were its NIC's."""
    for word in (edit.get(text, "user", ADDED) or "").split():
        name, equals, old = word.partition("=")
        family, _, key = name.partition(".")
        text = edit.put(text, family, key, old) if equals else edit.without(text, family, key)
    return text


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _ended(lines: list[str]) -> list[str]:
    return [x if x.endswith("\n") else f"{x}\n" for x in lines]


def _seconds(takeover: Takeover) -> int:
    delay = takeover.forward_delay_s or 0.0
    if delay != int(delay):
        raise Refused(f"{takeover.bridge} can not wait {delay:g} seconds",
                      why="NetworkManager knows whole seconds only")  # fmt: skip
    return int(delay)


def _addressing(takeover: Takeover, old: NmProfile | None) -> list[Group]:
    if takeover.address == "keep" and old is not None:
        own = [x for x in edit.groups(old.text) if x.name in _ADDRESSING]
        named = {x.name for x in own}
        # What NetworkManager takes for granted, written out since keys are added to it.
        return [*own, *(_group(x, {"method": "auto"}) for x in _FAMILIES if x not in named)]
    none = {"method": "disabled"}
    v4, v6 = none, none
    if takeover.address == "dhcp":
        v4, v6 = {"method": "auto"}, {"method": "link-local"}
    elif takeover.address not in ("keep", "none"):
        given = {"method": "manual", "address1": str(takeover.address)}
        v4, v6 = (none, given) if ":" in takeover.address else (given, {"method": "link-local"})
    return [_group("ipv4", v4), _group("ipv6", v6)]


def _group(name: str, values: dict[str, str]) -> Group:
    lines = (f"[{name}]\n", *(f"{k}={v}\n" for k, v in values.items()))
    return Group(name=name, lines=lines)


def with_identity(text: str, takeover: Takeover, heir: NmFacts) -> str:
    """The text with what is computed of the link or the profile, and so would change, pinned.

    DHCPv4's client identifier is by default made of the MAC, which stays; DHCPv6's DUID of the
    profile's UUID and the IAID of the link's name (nm-settings(5), dhcp-client-id, dhcp-duid,
    dhcp-iaid); an address of RFC 7217 of both.
    """
    auto4 = edit.get(text, "ipv4", "method") == "auto"
    method6 = edit.get(text, "ipv6", "method") or "auto"
    said = edit.get(text, "ipv4", "dhcp-client-id")
    by_mac = f"01:{takeover.mac}"
    if auto4 and heir.client_id and (heir.client_id != by_mac or said not in (None, "mac")):
        text = edit.put(text, "ipv4", "dhcp-client-id", heir.client_id)
    if method6 in ("auto", "dhcp"):
        if heir.duid:
            text = edit.put(text, "ipv6", "dhcp-duid", heir.duid)
        if heir.iaid:
            text = edit.put(text, "ipv6", "dhcp-iaid", heir.iaid)
        if heir.token:
            text = edit.put(text, "ipv6", "addr-gen-mode", "eui64")
            text = edit.put(text, "ipv6", "token", heir.token)
    for family in _FAMILIES:
        metric = edit.get(text, family, "route-metric")
        routed = edit.get(text, family, "method") in ("auto", "dhcp", "manual")
        if routed and heir.route_metric is not None and metric in (None, "-1"):
            text = edit.put(text, family, "route-metric", str(heir.route_metric))
    return text


def port_text(
    port: BridgePort, bridge: str, uuids: tuple[str, str], old: NmProfile | None, facts: NmFacts
) -> str:
    """A port's profile: `uuids` are the bridge's and its own.

    A real NIC is matched by its burnt-in MAC, so that it may be renamed. The keys' old names
    (master, slave-type) are understood by all versions.
    """
    lines = [f"# {port.name} is a port of bridge {bridge}, made by kvmnet.\n", "[connection]\n"]
    lines += [f"id={bridge} port {port.name}\n", f"uuid={uuids[1]}\n", "type=ethernet\n"]
    if facts.permanent_mac is None:
        lines.append(f"interface-name={port.name}\n")
    lines += [f"master={uuids[0]}\n", "slave-type=bridge\n"]
    kept = [] if old is None else [
        x for x in edit.groups(old.text)
        if x.name not in _ADDRESSING | {"", "connection", "user", "match", ".nmmeta"}
    ]  # fmt: skip
    text = edit.joined([Group(name="connection", lines=tuple(lines)), *kept])
    if facts.permanent_mac is not None:
        text = edit.put(text, "ethernet", "mac-address", facts.permanent_mac)
    return text


def became_port(text: str, bridge: str) -> str:
    """The profile of a bond, a VLAN … as that of a port of the bridge with this UUID."""
    text = edit.without_groups(text, _ADDRESSING)
    for key in _OF_ADDRESSES - {"stable-id", "permissions"}:
        text = edit.without(text, "connection", key)
    text = edit.put(text, "connection", "master", bridge)
    text = edit.put(text, "connection", "slave-type", "bridge")
    return edit.put(text, "user", "kvmnet.became-port", bridge)


def no_port(text: str) -> str:
    """A port's profile without its bridge."""
    for key in _MASTER:
        text = edit.without(text, "connection", key)
    for key in ("kvmnet.became-port", "kvmnet.instead-of", "kvmnet.held-back"):
        text = edit.without(text, "user", key)
    if not any(x.pairs for x in edit.groups(text) if x.name == "user"):
        text = edit.without_groups(text, ("user",))
    return edit.without_groups(text, ("bridge-port",))


def with_addressing(text: str, bridge: NmProfile | None) -> str:
    """The profile with the bridge's addresses instead of its own; None: with its own."""
    if bridge is None:
        return text
    own = [x for x in edit.groups(text) if x.name not in _ADDRESSING]
    new = [x for x in edit.groups(_without_added(bridge.text)) if x.name in _ADDRESSING]
    result = edit.joined([*own, *new])
    for key in sorted(_OF_ADDRESSES):
        value = edit.get(bridge.text, "connection", key)
        if value is not None:
            result = edit.put(result, "connection", key, value)
    return result


def says_the_same(one: NmProfile, other: NmProfile) -> bool:
    """Whether two profiles have the same addressing, but for what was added to a bridge's."""
    return _said(_without_added(one.text)) == _said(_without_added(other.text))


def _said(text: str) -> set[tuple[str, str, str]]:
    """All that concerns addresses."""
    found = {(x, "method", "auto") for x in _FAMILIES if edit.get(text, x, "method") is None}
    for group in edit.groups(text):
        for key, value in group.pairs:
            if group.name in _ADDRESSING or (group.name == "connection" and key in _OF_ADDRESSES):
                found.add((group.name, key, value))
    return found
