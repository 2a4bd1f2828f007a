"""Symptoms of what lies beyond the host: no answer from there, or of small packets only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_interface

import msgspec

from kvmnet.core.causes import with_evidence
from kvmnet.core.finding import command
from kvmnet.core.probed import Probed, Symptom
from kvmnet.core.proofs import ways_out
from kvmnet.core.subnets import is_beyond
from kvmnet.core.symptom import finding_of, unexplained, users
from kvmnet.model.probe import Endpoint, ProbeStep
from kvmnet.model.state import State
from kvmnet.model.values import Ip
from kvmnet.model.virt import NetworkConfig

WAY_OUT = "way-out"
"""What fails where the host itself reaches nothing: no step of a probe, but shown by one."""


NO_NAME = re.compile(r"there is no name \S+|\S+ has no address")
"""How the probe says that a DNS server answered, and told no address."""
_RESOLVED = re.compile(r" \(([0-9a-f.:]+)\)")


def no_target(state: State, probed: Probed, step: ProbeStep) -> Iterator[Symptom]:
    place = probed.place
    to = probed.report.target.to if probed.report is not None else None
    if to is not None and _is_beyond(state, probed, to, step):
        yield _by_design(probed, to, step)
        return
    if to is not None and NO_NAME.fullmatch(step.detail):
        yield _no_such_name(probed, to, step)
        return
    if probed.beyond_answers is False:
        yield _no_gateway(probed, step)
        return
    network = state.network(place.name) if place.kind == "network" else None
    config = network.live if network is not None else None
    no_nat = config is not None and config.mode in {"route", "open"}
    if config is not None and no_nat and (probed.way.left or not probed.way.last_seen):
        yield _no_way_back(state, probed, step, config)
        return
    yield unexplained(probed, step, "what guests send beyond the host gets no answer")


def _is_beyond(state: State, probed: Probed, to: Endpoint, step: ProbeStep) -> bool:
    """Whether the place is an isolated network, and what was named is nothing in it."""
    place = probed.place
    network = state.network(place.name) if place.kind == "network" else None
    config = network.live if network is not None else None
    if config is None:
        return False
    resolved = _RESOLVED.search(step.detail)
    address = resolved[1] if resolved is not None else to.host
    try:
        return is_beyond(config, Ip(address))
    except ValueError:  # a name, and its guests' names are resolved there
        return config.mode == "isolated"


def _by_design(probed: Probed, to: Endpoint, step: ProbeStep) -> Symptom:
    place = probed.place
    base = finding_of(
        "network-isolated", probed, step,
        f"network {place.name} is isolated, as its definition says: its guests reach each other "
        f"and this host, and not {to}",
        "nothing by itself",
    )  # fmt: skip
    finding = msgspec.structs.replace(
        base, severity="note", subject=f"guest {place.guest}" if place.guest else base.subject,
        fix=(command("kvmnet", "guest", "move", place.guest or "GUEST", "--to",
                     "network:default"),),
    )  # fmt: skip
    return Symptom(step=step.name, finding=finding, certain=True)


def _no_such_name(probed: Probed, to: Endpoint, step: ProbeStep) -> Symptom:
    """The server answered: it is the name, unless the host does know it."""
    known = probed.beyond_answers is True
    base = finding_of(
        "name-unknown", probed, step,
        f"{step.detail}, says the DNS server of guests, but the host reaches it"
        if known else f"{step.detail}: the DNS server of guests answers, and says so",
        f"{users(probed.place)} do not reach it by this name" if known else "nothing by itself",
    )  # fmt: skip
    told = (f"asked by the host: {probed.beyond_error}",) if probed.beyond_error else ()
    finding = msgspec.structs.replace(
        base, severity="warning" if known else "note", subject=f"the name {to.host}",
        fix=(command("resolvectl", "query", to.host), "grep nameserver /etc/resolv.conf")
        if known else (),
    )  # fmt: skip
    return Symptom(step=step.name, finding=with_evidence(finding, *told), certain=True)


def _no_gateway(probed: Probed, step: ProbeStep) -> Symptom:
    """The host itself gets no answer either: it is cut off, or its gateway ignores pings."""
    alive = probed.gateway_there is not False
    if alive and probed.beyond_named:
        return _no_answer_to_host(probed, step)
    base = finding_of(
        "gateway-silent", probed, step,
        "the host's own gateway answers no pings, so nothing beyond the host could be tried"
        if alive else "the host's own gateway does not answer, not even ARP: it is cut off itself",
        "nothing by itself" if alive else "the host and all guests reach nothing beyond it",
    )  # fmt: skip
    finding = msgspec.structs.replace(
        base, severity="note" if alive else "problem", subject="the host",
        fix=() if alive else ("ip neighbour show", "ip -s link"),
    )  # fmt: skip
    return Symptom(step=WAY_OUT, finding=finding, certain=alive)


def _no_answer_to_host(probed: Probed, step: ProbeStep) -> Symptom:
    """What a user named does not answer the host either: that tells nothing of guests."""
    base = finding_of(
        "target-silent", probed, step,
        f"{probed.beyond_named} does not answer the host itself either, so this does not tell "
        "whether guests get there",
        "nothing by itself",
    )  # fmt: skip
    told = (f"asked by the host: {probed.beyond_error}",) if probed.beyond_error else ()
    finding = msgspec.structs.replace(base, severity="note", subject="the host", fix=())
    return Symptom(step=WAY_OUT, finding=with_evidence(finding, *told), certain=True)


def _no_way_back(state: State, probed: Probed, step: ProbeStep, config: NetworkConfig) -> Symptom:
    base = finding_of(
        "lan-route-missing", probed, step,
        "packets of guests leave the host, and no answer finds the way back: there is no NAT",
        f"{users(probed.place)} reach nothing beyond the host",
    )  # fmt: skip
    return Symptom(
        step=step.name,
        finding=msgspec.structs.replace(
            base,
            evidence=(*base.evidence, *probed.way.lines),
            fix=_routes_back(state, config, 4),
        ),
    )


def _routes_back(state: State, config: NetworkConfig, family: int) -> tuple[str, ...]:
    """What the LAN's router has to be told, by the host's own address there."""
    ways = ways_out(state)
    own = [x.ip for x in state.addresses
           if x.link in ways and x.family == family and x.scope == "global"]  # fmt: skip
    by = own[0] if own else "THIS-HOST"
    subnets = [ip_interface(f"{x.address}/{x.prefix_len}").network
               for x in config.ips if x.family == family]  # fmt: skip
    return tuple(f"on the LAN's router: ip route add {x} via {by}" for x in subnets)


def black_hole(state: State, probed: Probed, step: ProbeStep) -> Iterator[Symptom]:
    """One finding for all places that go the same way."""
    del state
    finding = finding_of("mtu-black-hole", probed, step, step.detail,
                       f"{users(probed.place)}: large transfers hang")  # fmt: skip
    family = 6 if step.name.endswith("6") else 4
    mtus = probed.report.path_mtus if probed.report is not None else ()
    holes = [x.ip for x in mtus if x.black_hole and (":" in x.ip) == (family == 6)]
    if holes:
        finding = msgspec.structs.replace(finding, subject=f"the way to {holes[0]}")
    yield Symptom(step=step.name, certain=True, finding=finding)


def no_target6(state: State, probed: Probed, step: ProbeStep) -> Iterator[Symptom]:
    """libvirt translates no IPv6 addresses: without a route back nothing answers."""
    place = probed.place
    to = probed.report.target.to if probed.report is not None else None
    if to is not None and _is_beyond(state, probed, to, step):
        yield _by_design(probed, to, step)
        return
    if probed.beyond_answers6 is not True:
        return  # the host itself has no IPv6 way out, or none that answers
    network = state.network(place.name) if place.kind == "network" else None
    config = network.live if network is not None else None
    if config is None or config.mode == "bridge":
        yield unexplained(probed, step, "what guests send beyond the host by IPv6 gets no answer")
        return
    base = finding_of(
        "lan-route-missing", probed, step,
        "guests have IPv6 addresses that nothing beyond the host has a route to",
        f"{users(place)} try IPv6 first and wait before they fall back",
    )  # fmt: skip
    yield Symptom(
        step=step.name,
        finding=msgspec.structs.replace(
            base, severity="warning",
            fix=_routes_back(state, config, 6),
        ),
    )  # fmt: skip
