"""The trace: real packets are sent, seen at every hop, and what became of them is told."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator

import msgspec

from kvmnet.adapters.kernel import read_neighbours
from kvmnet.adapters.netns import StandIn, stand_in
from kvmnet.adapters.route_choice import choice
from kvmnet.core.trace import report
from kvmnet.core.trace_facts import Facts
from kvmnet.errors import KvmnetError
from kvmnet.flow.observe import Part, observe
from kvmnet.flow.trace_origin import check_source, find_origin
from kvmnet.flow.trace_send import Sender, sender
from kvmnet.flow.trace_target import resolve
from kvmnet.flow.trace_watch import Watch
from kvmnet.formats.trace_packet import DNS, dns_token, patterns
from kvmnet.model.host import Neighbour
from kvmnet.model.state import State, Unread
from kvmnet.model.trace import Flow, Observed, Origin, TraceReport, TraceRequest
from kvmnet.model.values import Ip

_KERNEL = frozenset({Part.LINKS, Part.ADDRESSES, Part.ROUTES, Part.NEIGHBOURS, Part.FIREWALL})
_LIBVIRT = frozenset({Part.NETWORKS, Part.GUESTS, Part.LEASES})
_FIRST_PORT, _PORTS = 33000, 27000
"""Below and within what most hosts use for outgoing connections: NAT keeps such ports."""


def trace(request: TraceRequest) -> TraceReport:
    """Send packets, follow them, and say where they ended.

    Whatever is switched on for it is off again when this returns, or when the process ends in any
    other way. Raises `InvalidInput`, `NotFound` (no such guest, network, bridge or NIC),
    `PermissionDenied`, `Refused` (nothing can be sent from there), `Failed`.
    """
    begin = time.monotonic()
    with _helper(request) as helper:
        # The stand-in starts while the host is looked at.
        to_guest = request.to.host.startswith("guest:")
        wants_libvirt = request.source.kind != "host" or to_guest
        agents = {Part.AGENTS} if request.source.kind == "guest" or to_guest else set()
        state = observe(
            request.connection, _KERNEL | _LIBVIRT | agents if wants_libvirt else _KERNEL
        )
        to = resolve(request, state)
        check_source(request, to)
        send = sender(helper, state, find_origin(state, request, to), to)
        flow = _flow(request, send.origin, to)
        return _follow(request, state, flow, send, begin)


@contextlib.contextmanager
def _helper(request: TraceRequest) -> Iterator[StandIn | None]:
    if request.source.kind == "host":
        yield None
        return
    with stand_in() as guest:
        yield guest


def _flow(request: TraceRequest, origin: Origin, to: Ip) -> Flow:
    token = secrets.randbits(32) or 1
    sport = dport = 0
    if request.protocol != "icmp":
        sport, dport = _FIRST_PORT + secrets.randbelow(_PORTS), request.to.port or 0
        token = dns_token(token) if (request.protocol, dport) == ("udp", DNS) else token
    return Flow(
        protocol=request.protocol, source=origin.address, destination=to, sport=sport, dport=dport,
        token=token,
    )  # fmt: skip


def _follow(
    request: TraceRequest, state: State, flow: Flow, send: Sender, begin: float
) -> TraceReport:
    wanted = patterns(flow)
    missing: tuple[Unread, ...] = ()
    if send.problem:
        observed = Observed(refused=(send.problem,))
    else:
        with Watch(wanted) as watch:
            observed = watch.follow(flow, send, request.wait_s)
            missing = watch.missing
    marks = [x.mark for x in observed.hits if x.mark]
    facts = Facts(
        request, flow, send.origin, observed, state,
        route=choice(
            flow.destination, source=None if send.origin.how == "host" else flow.source,
            iif=None if send.origin.how == "host" else send.origin.bridge or send.origin.link,
            mark=marks[-1] if marks else 0,
        ),
        neighbours=_neighbours(),
    )  # fmt: skip
    unread = [x for x in state.unread if x.what.startswith("firewall")]
    found = report(facts, (*missing, *_not_traced(facts), *unread))
    return _timed(found, begin)


def _timed(found: TraceReport, begin: float) -> TraceReport:
    return msgspec.structs.replace(found, ms=(time.monotonic() - begin) * 1000)


def _neighbours() -> tuple[Neighbour, ...]:
    try:
        return read_neighbours()
    except KvmnetError:
        return ()


def _not_traced(facts: Facts) -> tuple[Unread, ...]:
    if not facts.legacy:
        return ()
    tables = ", ".join(sorted({f"{x.family} {x.table}" for x in facts.legacy}))
    return (
        Unread(
            what=f"rules of iptables-legacy ({tables})",
            why="the kernel does not trace them for nft",
            hint="iptables-legacy-save -c before and after: which counter grows?",
        ),
    )
