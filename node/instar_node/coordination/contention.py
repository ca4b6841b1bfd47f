"""Who may contend for the lease, and when: the waits of ``FencedLease``.

Every wait is counted on this machine's own clock and stretched by the drift of two clocks, so that the holder
has stopped by its own clock before any contender begins by its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from instar_node.build import overlap
from instar_node.coordination.record import KnownRecord, LeaseRecord

if TYPE_CHECKING:
    from instar_node.coordination.fenced_lease import FencedLease, Refusal


def may_contend_at(lease: FencedLease, now: int) -> int | Refusal:
    """When (microseconds, own clock) this machine may swap ``epoch + 1`` onto the newest version.

    Returns:
        An instant, possibly in the past, or the reason why never (without a new record).
    """
    known = lease.durable.newest
    if lease.durable.evidence is not None and not lease.mutations.contend_on_evidence:
        return "split-brain"
    if known is None or lease.first_seen is None:
        return "no-record"
    if known.record.moves:
        return _may_open_moved(lease, known, now)
    if lease.baton:
        return _may_reopen(lease, known.record, now)
    if lease.own is not None and lease.may_act(now):
        return "holds-lease"
    return _member_wait(lease, known, now)


def _member_wait(lease: FencedLease, known: KnownRecord, now: int) -> int | Refusal:
    record = known.record
    if not understands(lease, record):
        return "incompatible"
    if lease.me in record.electorate or lease.mutations.outsider_contends:
        released = record.state == "released" and not lease.mutations.release_not_taken
        if released or lease.has_token(known) or _is_lone_after_reboot(lease, record):
            return now
        return _electorate_wait(lease, record)
    if lease.me in record.benched:
        if lease.mutations.token_for_benched and lease.has_token(known):
            return now
        return _bench_wait(lease, record, now)
    return "not-a-member"


def understands(lease: FencedLease, record: LeaseRecord) -> bool:
    """Whether this program may follow the holder's: it shares a protocol with it, or is its own."""
    if record.holder == lease.me or lease.build is None or record.build is None:
        return True
    return overlap(lease.build.protocol, record.build.protocol)


def _is_lone_after_reboot(lease: FencedLease, record: LeaseRecord) -> bool:
    """Rule 2: alone in the record there is nobody to wait for, but the swap must still be won."""
    alone = record.electorate == (lease.me,) and not record.benched and record.holder == lease.me
    return alone and record.incarnation != lease.incarnation


def _electorate_wait(lease: FencedLease, record: LeaseRecord) -> int:
    start = lease.first_seen or 0
    if lease.last_promise is not None and not lease.mutations.promise_not_waited_out:
        start = max(start, lease.last_promise)
    return start + _stretched(lease, record.ttl_ms)


def _bench_wait(lease: FencedLease, record: LeaseRecord, now: int) -> int:
    if record.state == "released" and lease.mutations.benched_takes_release:
        return now
    duration = record.ttl_ms if lease.mutations.benched_waits_short else record.bench_ttl_ms
    return (lease.first_seen or 0) + _stretched(lease, duration)


def _stretched(lease: FencedLease, duration_ms: int) -> int:
    micros = duration_ms * 1_000
    return micros if lease.mutations.no_margin else lease.timing.wait(micros)


def _may_open_moved(lease: FencedLease, known: KnownRecord, now: int) -> int | Refusal:
    """The lease moves to another hub: whoever closed the old register opens the new one at once, and
    after the usual wait anybody else who may contend, by compare-with-absent. Onto a machine's own disk
    only that machine can."""
    record = known.record
    if record.successor is not None:
        return now if record.successor == lease.me else "needs-the-baton"
    if record.holder == lease.me and record.incarnation == lease.incarnation:
        return now
    return now if lease.mutations.move_without_wait else _member_wait(lease, known, now)


def _may_reopen(lease: FencedLease, record: LeaseRecord, now: int) -> int | Refusal:
    """Embedded hub: only the holder's own machine may go on, after a restart or when its closing never
    left; a standby waits for the baton (``may_open``) or for a person (``force_record``)."""
    if record.holder != lease.me:
        return "needs-the-baton"
    if record.state == "closed" and not lease.mutations.reopen_closed:
        return "baton-passed"
    return "holds-lease" if lease.holding is not None else now
