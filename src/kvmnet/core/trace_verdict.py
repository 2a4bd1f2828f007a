"""Where the packet died, or that it arrived: one sentence, and what helps."""

from __future__ import annotations

from typing import NamedTuple

from kvmnet.core.drop_reasons import BENIGN, BY_FIREWALL, meaning
from kvmnet.core.trace_facts import OWN_TABLES, Facts, Passage, Walk, last_drop, latest, rule_text
from kvmnet.model.trace import Ending, KernelDrop, RuleHit, Sighting

_INSPECT = {
    "firewalld": "firewall-cmd --get-active-zones; firewall-cmd --list-all-policies",
    "libvirt": "the network's forward mode decides what libvirt lets in: kvmnet network list",
    "libvirt's nwfilter": "the guest's <filterref> decides: virsh nwfilter-list",
}


def _help_with(made: str, inwards: str, outwards: str) -> str:
    """A command for the program that made the rule; empty where there is no general one."""
    if made == "Docker":
        program = f"iptables -I DOCKER-USER{f' -i {inwards}' if inwards else ''} -j ACCEPT"
        return f"{program}, and the same with -o; Docker leaves that chain to you"
    if made == "ufw" and outwards:
        return f"ufw route allow in on {inwards} out on {outwards}; ufw status numbered"
    if made == "ufw":
        return f"ufw allow in on {inwards}; ufw status numbered" if inwards else "ufw status"
    return _INSPECT.get(made, "")


class Verdict(NamedTuple):
    ending: Ending
    text: str
    hint: str = ""
    drop: KernelDrop | None = None
    rule: RuleHit | None = None
    expected_next: str = ""


def judge(facts: Facts) -> Verdict:
    """What became of the packets."""
    out = Passage(facts, "request")
    back = Passage(facts, "reply", "error")
    home = _came_home(facts, back)
    if home is not None and home.packet.role == "reply":
        return _answered(home)
    answers = [x.packet for x in back.sightings] + [x.packet for x in back.walks]
    if any(x.role == "reply" for x in answers):
        return _dead(facts, back, "the answer") or _answer_lost(facts, back)
    died = _dead(facts, out, "it")
    if died is not None:
        return died
    if home is not None:
        return _refused(facts, home)
    if answers:
        return _dead(facts, back, "the error about it") or _answer_lost(facts, back)
    return _unanswered(facts, out)


def last_seen(facts: Facts) -> str:
    """The last link at which a packet that was sent was seen."""
    end = latest(Passage(facts, "request").sightings)
    return "" if end is None else end.link


def _came_home(facts: Facts, back: Passage) -> Sighting | None:
    """The answer, or the error about it, seen where its receiver gets it."""
    if facts.origin.how == "host":
        dropped = {x.packet.number for x in back.drops if x.packet and x.reason not in BENIGN}
        gone = {x.packet.number for x in back.walks if any(h.verdict == "drop" for h in x.hits)}
        bad = dropped | gone
        found = [x for x in back.sightings if not x.out and x.packet.number not in bad]
    else:
        found = [x for x in back.sightings if x.out and x.link == facts.origin.link]
    replies = [x for x in found if x.packet.role == "reply"]
    return next(iter(replies or found), None)


def _answered(home: Sighting) -> Verdict:
    if home.packet.note == "RST":
        return Verdict("answered", "arrived; the answer is a reset (RST): nothing listens there",
                       "ss -ltn there: is the program running, on that address?")  # fmt: skip
    note = f" ({home.packet.note})" if home.packet.note else ""
    return Verdict("answered", f"arrived; the answer came back{note}")


def _refused(facts: Facts, home: Sighting) -> Verdict:
    packet = home.packet
    if packet.note == "port unreachable" and packet.source == facts.flow.destination:
        told = "arrived; the answer is `port unreachable`: nothing listens there"
        return Verdict("answered", told, "ss -lun there: is the program running, on that address?")
    who = "this host" if packet.source in facts.local else packet.source
    hint = "" if who != "this host" else f"ip route get {facts.flow.destination}"
    return Verdict("died", f"died at: {who}, which answered `{packet.note}`", hint)


def _dead(facts: Facts, passage: Passage, what: str) -> Verdict | None:
    """The rule or the kernel's reason that ended it, if all of its packets ended."""
    found = passage.dying_hit()
    if found is not None:
        return _by_rule(facts, *found, what)
    drops = [x for x in passage.drops if x.reason not in BENIGN and not _went_on(passage, x)]
    drop = last_drop(drops)
    if drop is None or (not drop.here and what != "it"):
        return None
    link = drop.link or _link_before(passage, drop)
    told = meaning(drop.reason, facts.values(drop.packet, link, here=drop.here))
    if not drop.here:
        left = last_seen(facts)
        text = (
            f"left the host through {left}, and died in another network namespace of this machine"
        )
        return Verdict("died", f"{text}: {told.what} ({drop.reason}, {drop.function})", drop=drop)
    if drop.reason == BY_FIREWALL or drop.function in _LEGACY_PLACES:
        return _by_unseen_rule(facts, drop, what)
    where = f"{drop.reason} in {drop.function}" if drop.reason else drop.function
    who = "" if what == "it" else f" ({what})"
    route = facts.route
    expected = route.link or "" if route is not None and drop.reason.startswith("NEIGH_") else ""
    return Verdict("died", f"died at: kernel, {where}{who}: {told.what}", told.hint, drop=drop,
                   expected_next=expected)  # fmt: skip


_LEGACY_PLACES = frozenset({"ipt_do_table", "ip6t_do_table"})


def _went_on(passage: Passage, drop: KernelDrop) -> bool:
    """The packet was seen after the drop: only a copy of it ended there."""
    number = 1 if drop.packet is None else drop.packet.number
    return any(x.at > drop.at for x in passage.sightings if x.packet.number == number)


def _link_before(passage: Passage, drop: KernelDrop) -> str:
    before = latest([x for x in passage.sightings if x.at <= drop.at])
    return "" if before is None else before.link


def _by_rule(facts: Facts, walk: Walk, hit: RuleHit, what: str) -> Verdict:
    made = facts.maker(hit)
    rule = facts.rule(hit)
    by = f", made by {made}" if made else ""
    place = f"{hit.family} {hit.table} {hit.chain}"
    ends = (facts.indexes.get(walk.iif or 0, ""), facts.indexes.get(walk.oif or 0, ""))
    hint = _help_with(made, *ends) or f"nft -a list chain {place}"
    answer = "" if what == "it" else f" ({what})"
    if hit.kind == "policy":
        text = f"died at: policy drop of chain {place}{by}{answer}: no rule accepted it"
        return Verdict("died", text, hint, rule=hit)
    text = rule_text(rule)
    told = f"died at: rule `{text}` (handle {hit.handle}) of chain {place}{by}{answer}"
    return Verdict("died", told, hint, rule=hit)


def _by_unseen_rule(facts: Facts, drop: KernelDrop, what: str) -> Verdict:
    """A firewall dropped it, but no rule that nft traces."""
    legacy = facts.legacy
    whose = "" if what == "it" else f" ({what})"
    place = f"{drop.reason or 'no reason'} in {drop.function}"
    if legacy:
        tables = ", ".join(sorted({f"{x.family} {x.table}" for x in legacy}))
        text = f"died at: a rule of iptables-legacy{whose}, table {tables}: {place}"
        program = "ip6tables" if facts.flow.family == 6 else "iptables"
        return Verdict("died", f"{text}; the kernel does not trace which",
                       f"{program}-legacy-save -c: which counter grows?", drop=drop)  # fmt: skip
    text = f"died at: a firewall rule that was not traced{whose}: {place}"
    return Verdict("died", text, "nft list ruleset; iptables-legacy-save", drop=drop)


def _answer_lost(facts: Facts, back: Passage) -> Verdict:
    seen = latest(back.sightings)
    where = seen.link if seen is not None else "the firewall"
    home = facts.origin.link or "its program"
    return Verdict("lost", f"the answer came, was last seen on {where}, and did not get to {home}",
                   expected_next=home)  # fmt: skip


def _unanswered(facts: Facts, out: Passage) -> Verdict:
    if not out.sightings and not [x for x in out.walks if not x.base.table.startswith(OWN_TABLES)]:
        return _never_seen(facts, out)
    end = latest(out.sightings)
    if end is None:
        return Verdict("lost", "it was seen by the firewall, and on no link after that")
    expects = facts.flow.protocol != "udp" or facts.flow.dport == 53
    waited = f"no answer came within {facts.observed.waited_s:.1f} s"
    place = _destination(facts, end)
    if place is None:
        return _stuck(facts, end)
    if not expects:
        return Verdict("arrived", f"arrived: {place}; an answer to UDP is not to be expected")
    hint = _why_silent(facts, end)
    return Verdict("lost", f"{place}, but {waited}", hint, expected_next="the answer")


def _never_seen(facts: Facts, out: Passage) -> Verdict:
    if facts.observed.refused:
        said = facts.observed.refused[0]
        return Verdict("died", f"died at: the sender's own routing: {said}",
                       f"ip route get {facts.flow.destination}")  # fmt: skip
    if facts.origin.how == "plugged":
        hop = facts.origin.router or facts.flow.destination
        told = f"died at: no neighbour: {hop} does not answer on {facts.origin.bridge}"
        return Verdict("died", told, f"ip neigh show {hop}", expected_next=hop)
    if facts.origin.how == "host" and facts.route is not None and facts.route.link is not None:
        hop = facts.route.gateway or facts.flow.destination
        waiting = [x for x in facts.neighbours if x.ip == hop and x.mac is None]
        if waiting or out.walks:
            state = f" ({waiting[0].state})" if waiting and waiting[0].state else ""
            return Verdict("died", f"died at: no neighbour: {hop} does not answer on "
                           f"{facts.route.link}{state}", f"ip neigh show {hop}",
                           expected_next=facts.route.link)  # fmt: skip
    return Verdict("lost", "it was sent, and seen nowhere", expected_next=facts.origin.link or "")


def _destination(facts: Facts, end: Sighting) -> str | None:
    """Where the packet got to, if that is as far as this host takes it."""
    if not end.out:
        if end.packet.destination in facts.local:
            return "reached the host itself"
        return None
    if facts.is_bridge(end.link) and any(facts.state.ports(end.link)):
        return None
    owner = facts.owner(end.link)
    if owner:
        return f"reached {owner} (tap {end.link})"
    known = facts.behind(end)
    to = f"{known[0].ip} ({end.mac_to})" if known else end.mac_to
    return f"left the host through {end.link} to {to}"


def _why_silent(facts: Facts, end: Sighting) -> str:
    if facts.owner(end.link):
        return "is the program running in the guest, and does the guest's own firewall let it in?"
    if not end.out:
        return "does the program run, on that address? ss -ltnu"
    return "the next hop or what is beyond it: does it know a way back to the sender?"


def _stuck(facts: Facts, end: Sighting) -> Verdict:
    """Seen on a link, neither dropped as far as is known nor seen on the next."""
    route = facts.route
    expected = route.link if route is not None and route.link is not None else ""
    if route is not None and route.error:
        return Verdict("died", f"died at: routing: {route.error}; last seen on {end.link}",
                       route.command)  # fmt: skip
    hop = None if route is None else route.gateway or facts.flow.destination
    waiting = [x for x in facts.neighbours if x.ip == hop and x.mac is None]
    if waiting:
        state = f" ({waiting[0].state})" if waiting[0].state else ""
        return Verdict(
            "died", f"died at: no neighbour: {hop} does not answer ARP or ND on {expected}{state}",
            f"ip neigh show {hop}; is it up, and in the same VLAN?", expected_next=expected,
        )  # fmt: skip
    after = f", and not on {expected}" if expected and expected != end.link else ""
    return Verdict("lost", f"last seen on {end.link}{after}: nobody says what became of it",
                   expected_next=expected)  # fmt: skip
