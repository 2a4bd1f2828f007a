"""A trace's report out of everything that was seen: hops, an ending, a sentence. Pure."""

from __future__ import annotations

from kvmnet.core.trace_facts import Facts
from kvmnet.core.trace_hops import hops
from kvmnet.core.trace_verdict import judge, last_seen
from kvmnet.model.state import Unread
from kvmnet.model.trace import TraceReport


def report(facts: Facts, missing: tuple[Unread, ...] = ()) -> TraceReport:
    """All that can be said about the packets."""
    verdict = judge(facts)
    return TraceReport(
        request=facts.request,
        flow=facts.flow,
        sent_by=facts.origin.sent_by,
        sent=len(facts.observed.sent_at),
        hops=hops(facts),
        ending=verdict.ending,
        verdict=verdict.text,
        hint=verdict.hint,
        last_seen=last_seen(facts),
        expected_next=verdict.expected_next,
        drop=verdict.drop,
        rule=verdict.rule,
        missing=missing,
    )
