"""What a trace is asked for, from words to values."""

from __future__ import annotations

from ipaddress import ip_address

from kvmnet.adapters.names import addresses_of
from kvmnet.core.finding import command
from kvmnet.core.guest_addresses import guest_addresses
from kvmnet.core.missing import no_such
from kvmnet.errors import Failed, InvalidInput, NotFound
from kvmnet.flow.probe_words import parse_endpoint
from kvmnet.model.probe import Endpoint
from kvmnet.model.state import State
from kvmnet.model.trace import Protocol, SourceKind, TraceRequest, TraceSource
from kvmnet.model.values import Ip, parse_ip

_KINDS: dict[str, SourceKind] = {
    "guest": "guest", "network": "network", "bridge": "bridge", "lan": "lan",
}  # fmt: skip
_GUEST = "guest:"


def parse_source(text: str) -> TraceSource:
    """`guest:NAME` or a guest's bare name, `network:NAME`, `bridge:NAME`, `lan:NIC`, `host`.

    Raises `InvalidInput`.
    """
    if text == "host":
        return TraceSource(kind="host")
    kind, colon, name = text.partition(":")
    if colon and kind in _KINDS and name:
        return TraceSource(kind=_KINDS[kind], name=name)
    if not text or (colon and kind in (*_KINDS, "host")) or text.startswith("-"):
        raise InvalidInput(
            f"{text[:80]!a} is no place to send from",
            why="guest:NAME, network:NAME, bridge:NAME, lan:NIC or host is expected",
            hint="kvmnet trace guest:web 192.0.2.1:443",
        )
    return TraceSource(kind="guest", name=text)


def parse_to(text: str) -> Endpoint:
    """What is to be reached: as the probe's, or `guest:NAME[:PORT]`. Raises `InvalidInput`."""
    if not text.startswith(_GUEST):
        return parse_endpoint(text)
    name, colon, port = text.removeprefix(_GUEST).partition(":")
    if not name:
        raise InvalidInput(f"{text!a} names no guest", hint="an example: guest:web:443")
    if not colon:
        return Endpoint(host=_GUEST + name)
    return Endpoint(host=_GUEST + name, port=parse_endpoint(f"localhost:{port}").port)


def protocol_for(wanted: Protocol | None, to: Endpoint) -> Protocol:
    """TCP where a port is named, else ICMP. Raises `InvalidInput` where the two do not fit."""
    chosen: Protocol = wanted or ("icmp" if to.port is None else "tcp")
    if chosen != "icmp" and to.port is None:
        raise InvalidInput(f"{chosen} needs a port", hint=f"an example: {to.host}:443")
    if chosen == "icmp" and to.port is not None:
        raise InvalidInput(f"ICMP has no ports: {to}", hint=f"leave it out: {to.host}")
    return chosen


def resolve(request: TraceRequest, state: State) -> Ip:
    """The address to send to. Raises `NotFound`, `Failed`."""
    host = request.to.host
    if host.startswith(_GUEST):
        return _of_guest(state, host.removeprefix(_GUEST), request.address)
    try:
        found = [parse_ip(host)]
    except InvalidInput:
        found = list(addresses_of(host))
    six = [x for x in found if ":" in x]
    four = [x for x in found if ":" not in x]
    order = six + four if request.address is not None and ":" in request.address else four + six
    if not order:
        raise NotFound(f"{host} has no address", why="the host's resolver knows none",
                       hint=command("getent", "ahosts", host))  # fmt: skip
    _check(order[0])
    return order[0]


def _check(ip: Ip) -> None:
    value = ip_address(ip)
    if value.is_multicast or value.is_unspecified or ip == "255.255.255.255":
        raise InvalidInput(f"{ip} is not one machine", why="a trace follows a packet to one",
                           hint="name the address of a host")  # fmt: skip
    if value.is_loopback:
        raise InvalidInput(f"{ip} never leaves the machine that sends to it")
    if ip.startswith("fe80:"):
        raise InvalidInput(f"{ip} is link-local: it is not routed",
                           hint="name a global address")  # fmt: skip


def _of_guest(state: State, name: str, source: Ip | None) -> Ip:
    if state.guest(name) is None:
        raise no_such(state, "guest", name)
    wanted = 6 if source is not None and ":" in source else 4
    for guest in guest_addresses(state):
        if guest.name == name:
            every = [a for nic in guest.nics for a in nic.addresses]
            usable = [a for a in every if not a.ip.startswith("fe80:")]
            usable.sort(key=lambda a: a.family != wanted)
            if usable:
                return usable[0].ip
    raise Failed(f"no address of guest {name} is known",
                 hint=command("kvmnet", "guest", "show", name))  # fmt: skip
