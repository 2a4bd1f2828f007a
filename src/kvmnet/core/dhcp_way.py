"""How far a client's DHCP request and its answer came, by where they were seen."""

from __future__ import annotations

from msgspec import Struct

from kvmnet.core.scope import Place
from kvmnet.model.dhcp_seen import DhcpSeen
from kvmnet.model.state import State
from kvmnet.model.values import Mac


class Way(Struct, frozen=True, kw_only=True):
    """What was seen of packets that were lost."""

    lines: tuple[str, ...] = ()
    """In sentences, the nearest hop first."""
    last_seen: str = ""
    """`the bridge virbr0`."""
    left: bool = False
    """They left the host by an uplink, and nothing came back."""
    verdict: str = ""
    """One sentence: what became of one that was followed."""
    hint: str = ""
    by_rule: bool = False
    """A rule of a firewall, or the policy of a chain, threw it away."""


def dhcp_way(state: State, place: Place, mac: Mac, seen: tuple[DhcpSeen, ...]) -> Way:
    """The way of one client's packets at a place; empty where none of them was seen."""
    mine = [x for x in seen if x.mac == mac]
    asked = [x for x in mine if not x.reply]
    answers = [x for x in mine if x.reply]
    if not asked:
        return Way()
    lines = [f"the request: {_links(asked)}"]
    if answers:
        by = sorted({x.source for x in answers})
        lines.append(f"an answer of {', '.join(by)}: {_links(answers)}")
        return Way(lines=tuple(lines), last_seen=_named(state, place, answers[-1].link))
    lines.append("no answer was seen on any link")
    uplinks = {x.name for x in state.ports(place.bridge) if x.kind != "tap"}
    left = [x.link for x in asked if x.out and x.link in uplinks]
    if left:
        last = f"{left[-1]}, by which they left the host"
        return Way(lines=tuple(lines), last_seen=last, left=True)
    is_in = any(x.link == place.bridge for x in asked)
    last = place.bridge if is_in else asked[-1].link
    if is_in and place.kind == "network":
        lines.append(
            f"what comes in by {place.bridge} next meets the firewall's input, then dnsmasq"
        )
    return Way(lines=tuple(lines), last_seen=_named(state, place, last))


def _links(packets: list[DhcpSeen]) -> str:
    """`in by eth1, out by vnet3`, each once, in the order of the first that passed.

    The stand-in's port is gone by the time its packets are looked at, and has no name any more.
    """
    passed = dict.fromkeys(
        f"{'out' if x.out else 'in'} by {x.link or 'its own port'}" for x in packets
    )
    return ", ".join(passed)


def _named(state: State, place: Place, link: str) -> str:
    if link == place.bridge:
        return f"the bridge {link}"
    found = state.link(link)
    if found is None:
        return f"the stand-in's port of {place.bridge}"
    return f"the {'tap' if found.kind == 'tap' else 'link'} {link}"
