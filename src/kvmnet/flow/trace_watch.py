"""Everything that watches packets of a trace, switched on together and off together."""

from __future__ import annotations

import contextlib
import secrets
import select
import time

from kvmnet.adapters.bpf import DropWatch
from kvmnet.adapters.capture import Capture
from kvmnet.adapters.drop_log import DropLog
from kvmnet.adapters.nft_trace import RuleWatch
from kvmnet.core.drop_pattern import tied
from kvmnet.core.drop_reasons import BENIGN
from kvmnet.core.trace_facts import walks
from kvmnet.errors import KvmnetError, Unavailable
from kvmnet.flow.trace_send import Sender
from kvmnet.formats.drop_program import RawDrop
from kvmnet.model.state import Unread
from kvmnet.model.trace import (
    Flow,
    KernelDrop,
    LoggedDrop,
    Observed,
    Pattern,
    RuleHit,
    Sighting,
)

_GAPS_S = (0.0, 0.045, 0.08)
_PATTERN = 7
_PATTERN_GAP_S = (0.045, 0.095)
"""Between two packets of a pattern, at random: nothing else has this rhythm."""
_NO_ANSWER_WAIT_S = 0.35
"""Where none is to be expected: time for an error about it."""
_GRACE_S = 0.03
_SETTLED_S = 0.06
"""After the last packet of a pattern: by then its drop is told, and so is a pause."""


class Watch:
    """Captures, rules and drops of one flow."""

    def __init__(self, patterns: tuple[Pattern, ...]) -> None:
        self._missing: list[Unread] = []
        self._sightings: list[Sighting] = []
        self._hits: list[RuleHit] = []
        self._raw: list[RawDrop] = []
        self._logged: list[LoggedDrop] = []
        with contextlib.ExitStack() as stack:
            self._capture = stack.enter_context(Capture(patterns))
            self._rules = self._rule_watch(patterns, stack)
            self._drops = self._drop_watch(patterns, stack)
            self._log = None if self._drops is not None else self._drop_log(stack)
            self._stack = stack.pop_all()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def missing(self) -> tuple[Unread, ...]:
        """What could not be watched."""
        return (*self._missing, *(self._rules.missing if self._rules is not None else ()))

    def _rule_watch(
        self, patterns: tuple[Pattern, ...], stack: contextlib.ExitStack
    ) -> RuleWatch | None:
        try:
            return stack.enter_context(RuleWatch(patterns))
        except KvmnetError as error:
            self._missing.append(_unread("firewall rules", error))
            return None

    def _drop_watch(
        self, patterns: tuple[Pattern, ...], stack: contextlib.ExitStack
    ) -> DropWatch | None:
        try:
            return stack.enter_context(DropWatch(patterns))
        except Unavailable as error:
            self._missing.append(_unread("the kernel's drops packet by packet (BPF)", error))
            return None

    def _drop_log(self, stack: contextlib.ExitStack) -> DropLog | None:
        try:
            return stack.enter_context(DropLog())
        except Unavailable as error:
            self._missing.append(_unread("the kernel's drops by tracefs", error))
            return None

    def follow(self, flow: Flow, send: Sender, wait_s: float) -> Observed:
        """Send, and collect until it is clear what became of them, `wait_s` at most.

        Raises `KvmnetError`.
        """
        sent = send.send(flow, self._gaps())
        last = max(sent.at)
        wait_s = min(wait_s, _NO_ANSWER_WAIT_S) if _needs_no_answer(flow) else wait_s
        self._collect(send, last + wait_s, sent.at)
        now = time.monotonic()
        return Observed(
            sent_at=sent.at,
            refused=sent.errors,
            sightings=tuple(x for x in self._sightings if x.link != send.cable),
            hits=tuple(self._hits),
            drops=self._explained(sent.at, now),
            waited_s=max(0.0, now - last),
        )

    def _gaps(self) -> tuple[float, ...]:
        if self._log is None:
            return _GAPS_S
        least, most = _PATTERN_GAP_S
        span = int((most - least) * 1e6)
        return (0.02, *(least + secrets.randbelow(span) / 1e6 for _ in range(_PATTERN - 1)))

    def _collect(self, send: Sender, end: float, sent_at: tuple[float, ...]) -> None:
        now = time.monotonic()
        readers = [self._capture.fileno()]
        if self._rules is not None:
            readers.append(self._rules.fileno())
        quiet_until = end
        while now < quiet_until:
            select.select(readers, [], [], min(0.02, quiet_until - now))
            self._take()
            now = time.monotonic()
            if self._is_over(send, sent_at):
                quiet_until = min(quiet_until, now + _GRACE_S)
        self._take()

    def _take(self) -> None:
        self._sightings += self._capture.take()
        if self._rules is not None:
            self._hits += self._rules.take()
        if self._drops is not None:
            self._raw += self._drops.take()
        if self._log is not None:
            self._logged += self._log.take()

    def _is_over(self, send: Sender, sent_at: tuple[float, ...]) -> bool:
        """The answer is back, or all that was sent was dropped before it left by any link."""
        home = send.origin.link
        for seen in self._sightings:
            if seen.packet.role == "request":
                continue
            if (home is None and not seen.out) or (seen.out and seen.link == home):
                return True
        if any(x.out for x in self._sightings):
            return False  # what is dropped may be a copy
        if self._pattern_is_told(sent_at):
            return True
        packets = [x.packet for x in self._raw if x.packet is not None]
        packets += [x.packet for x in walks(tuple(self._hits))
                    if any(h.verdict == "drop" for h in x.hits)]  # fmt: skip
        return len({x.number for x in packets if x.role == "request"}) >= len(sent_at)

    def _pattern_is_told(self, sent_at: tuple[float, ...]) -> bool:
        now = time.monotonic()
        if self._log is None or now < max(sent_at) + _SETTLED_S:
            return False
        return any(x.reason not in BENIGN for x in tied(sent_at, self._logged, now))

    def _explained(self, sent_at: tuple[float, ...], now: float) -> tuple[KernelDrop, ...]:
        if self._drops is not None:
            return self._drops.explain(self._raw)
        return tied(sent_at, self._logged, now)


def _needs_no_answer(flow: Flow) -> bool:
    return flow.protocol == "udp" and flow.dport != 53


def _unread(what: str, error: KvmnetError) -> Unread:
    return Unread(what=what, why=error.why or error.what, hint=error.hint)
