"""How machines, lease and results read in a terminal without screens."""

from __future__ import annotations

from collections.abc import Iterable

from instar_node.api import types as t
from instar_tui.widgets.text import age, ago, day, span

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def machine_rows(machines: Iterable[t.Machine]) -> Table:
    """The machine table."""
    headers = ("nickname", "role", "status", "seen", "rtt", "lag", "version", "machine", "fingerprint")
    return headers, [
        (
            f"{machine.nickname}{' (this one)' if machine.is_self else ''}",
            machine.role,
            machine.status_text,
            "now" if machine.is_self and machine.online else ago(machine.last_seen_ms),
            span(machine.rtt_ms),
            span(machine.lag.ms) if machine.lag else "–",
            machine.version or "–",
            machine.machine_id,
            machine.fingerprint,
        )
        for machine in machines
    ]


def lease_line(lease: t.LeaseView) -> str:
    """Who is awake, in one line."""
    if lease.holder is None:
        return "nobody is awake: `instar wakeup` makes this machine the awake one"
    who = f"{lease.holder_nickname or lease.holder}{' (this machine)' if lease.is_self else ''}"
    left = f", valid for {span(lease.valid_for_ms)}" if lease.expires else ", valid until handed over"
    if lease.state in ("held", "observed"):
        return f"{who} is awake, epoch {lease.epoch_text}{left}, since {day(lease.since)}"
    return f"{lease.state}: last held by {who}, epoch {lease.epoch_text}"


def if_lost_line(lost: t.IfLost) -> str:
    """What would happen if the holder died now."""
    if lost.why_not is not None or lost.next is None:
        text = f"nobody would take over: {lost.why_not or 'no other machine is ready'}"
        return f"{text} — {lost.hint}" if lost.hint else text
    when = f" after {span(lost.after_ms)}" if lost.after_ms is not None else ""
    return f"{lost.next_nickname or lost.next} would take over{when}"


def hub_line(hub: t.HubView) -> str:
    """Where the lease lies and whether it answers."""
    state = f"answers in {span(hub.latency_ms)}" if hub.reachable else f"does not answer: {hub.error or '?'}"
    return f"{hub.kind} {hub.url}, {state}"


def evidence_rows(evidence: Iterable[t.Evidence]) -> Table:
    """What the other machines contribute to the holder's validity."""
    return ("machine", "counts", "promised", "may take over in"), [
        (
            row.nickname,
            "benched" if row.benched else "yes" if row.in_electorate else "no",
            ago(row.promised_ms_ago) if row.promised_ms_ago is not None else "–",
            span(row.may_contend_in_ms),
        )
        for row in evidence
    ]


def history_rows(history: Iterable[t.EpochRow]) -> Table:
    """The epochs, newest as the node orders them."""
    return ("epoch", "holder", "why", "at", "for", "took"), [
        (
            row.epoch_text,
            row.holder_nickname,
            row.reason,
            day(row.at),
            age(row.for_ms) if row.for_ms is not None else "now",
            span(row.took_ms),
        )
        for row in history
    ]


def topic_rows(topics: Iterable[t.TopicRow]) -> Table:
    """The conversations and where they run."""
    return ("topic", "runs on", "why", "queued", "last", "text"), [
        (
            row.topic,
            row.owner_nickname or row.owner or "nowhere",
            f"{row.reason}: {row.pending_reason}" if row.pending_reason else row.reason,
            str(row.queued),
            ago(row.last_at_ms) if row.last_at else "–",
            row.last_text[:60],
        )
        for row in topics
    ]


def sas_line(sas: t.Sas) -> str:
    """The short authentication string."""
    return f"{sas.digits[:3]} {sas.digits[3:]}  {' '.join(sas.emoji)}  ({', '.join(sas.names)})"
