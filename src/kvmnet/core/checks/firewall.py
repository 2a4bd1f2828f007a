"""What the host's firewall drops of what guests live by: docker-forward-drop, input-drop-dhcp,
firewall-drop.

Each guest's packets are walked through every base chain of every hook that they pass. Only what is
surely dropped is a finding; a rule that kvmnet does not understand proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from kvmnet.core import firewall_fix
from kvmnet.core.bridge_firewall import frame_openings
from kvmnet.core.finding import Finding, some
from kvmnet.core.firewall import Decision, Passage, Ruleset
from kvmnet.core.firewall_evidence import decided_by, evidence, owner
from kvmnet.core.firewall_makers import BY_HAND, DOCKER, FIREWALLD, NWFILTER
from kvmnet.core.firewall_places import Place, places, ways
from kvmnet.core.firewall_ways import Plug, Way
from kvmnet.core.libvirt_rules import late_firewalld
from kvmnet.core.openings import blockades
from kvmnet.model.host import FirewallRule
from kvmnet.model.opening import Opening
from kvmnet.model.plan import CloseOpening, MakeOpening, PlannedStep
from kvmnet.model.state import State

BRIDGE_NF = {"ip": "net.bridge.bridge-nf-call-iptables",
             "ip6": "net.bridge.bridge-nf-call-ip6tables"}  # fmt: skip


class _Loss(Struct, frozen=True, kw_only=True):
    """Something that a guest does, and where it is dropped."""

    way: Way
    passage: Passage

    @property
    def drop(self) -> Decision:
        return self.passage.drops[0]

    @property
    def name(self) -> str:
        return problem_name(self.passage, self.way.kind == "service")


def problem_name(passage: Passage, service: bool) -> str:
    """The problem's stable name: by whose rule it is, and what it stops."""
    if service:
        return "input-drop-dhcp"
    by_docker = bool(passage.drops) and decided_by(passage.drops[0]) == DOCKER
    return "docker-forward-drop" if by_docker else "firewall-drop"


def firewall_drops(state: State) -> Iterator[Finding]:
    """All losses of all guests, one finding for each place and problem."""
    if not state.firewall.chains:
        return
    ruleset = Ruleset(state.firewall)
    for place in places(state):
        lost = [(plug, names, _losses(state, ruleset, place, plug)) for plug, names in place.plugs]
        shared = _shared([losses for _, _, losses in lost])
        yield from _findings(state, place, shared, _everybody(place))
        for _, names, losses in lost:
            own = tuple(x for x in losses if _key(x) not in set(map(_key, shared)))
            yield from _findings(state, place, own, names)


def _losses(state: State, ruleset: Ruleset, place: Place, plug: Plug) -> tuple[_Loss, ...]:
    found = []
    for way in ways(state, place, plug):
        for packet in way.packets:
            passage = ruleset.passage(packet)
            if passage.outcome == "blocked":
                found.append(_Loss(way=way, passage=passage))
                break
    return tuple(found)


def _key(loss: _Loss) -> tuple[str, str]:
    return (loss.way.what, loss.passage.packet.family)


def _shared(lost: list[tuple[_Loss, ...]]) -> tuple[_Loss, ...]:
    """What happens to all guests of a place."""
    if not lost:
        return ()
    common = set.intersection(*({_key(x) for x in losses} for losses in lost))
    return tuple(x for x in lost[0] if _key(x) in common)


def _everybody(place: Place) -> tuple[str, ...]:
    return tuple(name for _, names in place.plugs for name in names)


def _findings(
    state: State, place: Place, losses: tuple[_Loss, ...], guests: tuple[str, ...]
) -> Iterator[Finding]:
    by_name: dict[str, list[_Loss]] = {}
    for loss in losses:
        by_name.setdefault(loss.name, []).append(loss)
    for name, found in by_name.items():
        yield _finding(state, place, name, tuple(found), guests)


def _finding(
    state: State, place: Place, name: str, losses: tuple[_Loss, ...], guests: tuple[str, ...]
) -> Finding:
    all_of_them = set(guests) == set(_everybody(place))
    who = some(dict.fromkeys(owner(decided_by(x.drop)) for x in losses))
    openings = _openings(state, place, losses)
    meant = any(is_meant(x.drop.rule, decided_by(x.drop)) for x in losses)
    bridged = any(x.way.kind == "bridged" and x.passage.packet.layer == "ip" for x in losses)
    subject = place.subject if all_of_them or not guests else f"guest {guests[0]}"
    steps = tuple(
        PlannedStep(step=MakeOpening(opening=x), undo=CloseOpening(opening=x)) for x in openings
    )
    return Finding(
        name=name,
        severity="problem",
        subject=subject,
        what=f"{who} drops {some(x.way.what for x in losses)}{_families(losses)}",
        breaks=_breaks(place, losses, guests if not all_of_them else ()),
        evidence=(*_evidence(state, losses, guests), *_late(state, place, losses)),
        fix=() if meant else
        firewall_fix.commands(tuple(x.passage for x in losses), openings, place.bridge,
                              bridged=bridged and place.network is None),
        mend=() if meant else steps,
    )  # fmt: skip


def _families(losses: tuple[_Loss, ...]) -> str:
    families = {x.passage.packet.family for x in losses}
    return " (IPv6 only)" if families == {"ip6"} else ""


def _breaks(place: Place, losses: tuple[_Loss, ...], guests: tuple[str, ...]) -> str:
    who = f"guests {some(guests)}" if guests else f"guests on {place.subject.split(' ', 1)[1]}"
    what = {x.way.what for x in losses}
    kinds = {x.way.kind for x in losses}
    if any("DHCP" in x for x in what):
        return f"{who} get no address"
    if "service" in kinds:
        names = any("DNS" in x for x in what)
        return f"{who} find no names" if names else f"{who} have no IPv6"
    if "forward" in kinds:
        return f"{who} reach nothing beyond the host"
    return f"{who} reach nobody through the bridge"


def _evidence(state: State, losses: tuple[_Loss, ...], guests: tuple[str, ...]) -> tuple[str, ...]:
    lines = [f"used by: {some(f'guest {x}' for x in guests)}"] if guests else []
    lines += evidence(x.passage for x in losses)
    for family in sorted({x.passage.packet.family for x in losses if _is_frame(x)}):
        if state.sysctl(BRIDGE_NF[family]) is not None:
            lines.append(f"{BRIDGE_NF[family]} = {state.sysctl(BRIDGE_NF[family])}")
    return tuple(dict.fromkeys(lines))


def _late(state: State, place: Place, losses: tuple[_Loss, ...]) -> tuple[str, ...]:
    """Why firewalld drops it: it came after libvirt."""
    if place.network is None or not any(decided_by(x.drop) == FIREWALLD for x in losses):
        return ()
    return late_firewalld(state.firewall, place.bridge)


def _is_frame(loss: _Loss) -> bool:
    return loss.way.kind == "bridged" and loss.passage.packet.layer == "ip"


def is_meant(rule: FirewallRule | None, who: str) -> bool:
    """Whether somebody wrote that rule against such packets: it is theirs to take away."""
    if rule is None:
        return False
    if who in {NWFILTER, "fail2ban"}:
        return True
    asks = rule.iif or rule.oif or rule.source or rule.destination or rule.dports
    return who in BY_HAND and bool(asks or rule.more or rule.protocol)


def _openings(state: State, place: Place, losses: tuple[_Loss, ...]) -> tuple[Opening, ...]:
    """The narrowest rules that would let these packets through; none where they would not do."""
    name = place.bridge if place.network is None else place.network.name
    found: list[Opening] = []
    frames = [x for x in losses if _is_frame(x)]
    for family in dict.fromkeys(x.passage.packet.family for x in frames):
        found += frame_openings(state.firewall, place.bridge, family)
    packets = [
        packet for x in losses if x not in frames and x.passage.packet.layer == "ip"
        for packet in x.way.packets if packet.layer == "ip"
    ]  # fmt: skip
    for blockade in blockades(state.firewall, packets, f"kvmnet:{name}"):
        found += blockade.openings
    return tuple(dict.fromkeys(found))
