"""What the lease looks like from outside: snapshots for people, computed from the rules' own state."""

from __future__ import annotations

from typing import Literal

import msgspec

from instar_node.coordination.fenced_lease import FencedLease
from instar_node.coordination.lease_state import FOREVER
from instar_node.coordination.record import KnownRecord, LeaseRecord

State = Literal["held", "observed", "expired", "released", "closed", "split-brain", "none"]


class LeaseSnapshot(msgspec.Struct):
    """One consistent picture of the lease. ``_us`` values are microseconds, ages count from now."""

    record: LeaseRecord | None
    version: str | None
    acting: bool
    valid_for_us: int
    """Where nothing expires (embedded hub, or alone) this stays at the ttl and ``expires`` is false."""
    expires: bool
    state: State
    renewed_us_ago: int | None
    round_took_us: int | None
    medium: Literal["promise", "hub"]
    evidence: str | None
    promised_us_ago: dict[str, int]
    first_saw_us_ago: int | None
    contend_in_us: int | None
    """When this machine itself may contend; ``None`` = not without a person or a new record."""
    hub_reachable: bool
    hub_latency_us: int | None
    hub_error: str | None
    register_alarm: str | None
    """The hub answers, and shows no lease of this mesh."""
    seen: tuple[KnownRecord, ...]
    """With ``evidence``: the records that are the evidence, beside ``record``."""
    last_write_us_ago: int | None
    counters: dict[str, int]


def lease_state(lease: FencedLease, now: int) -> State:
    """The state in one word. A standby calls a lease ``expired`` once it might itself contend for it."""
    if lease.durable.evidence is not None:
        return "split-brain"
    known = lease.known
    if known is None:
        return "none"
    if lease.may_act(now):
        return "held"
    if known.record.state != "held":
        return known.record.state
    if lease.holding is not None:
        return "expired"
    due = lease.may_contend_at(now)
    return "expired" if isinstance(due, int) and due <= now else "observed"


def valid_for(lease: FencedLease, now: int) -> tuple[int, bool]:
    """``(microseconds left, whether it runs down)`` for the holder, as far as this machine can tell."""
    known = lease.known
    if known is None or known.record.state != "held":
        return 0, False
    ttl = known.record.ttl_ms * 1_000
    if lease.holding is not None:
        left = lease.deadline - now
        if left > FOREVER // 2:
            return ttl, False
        return max(0, left), True
    if lease.durable.evidence is not None:
        return 0, False
    if lease.baton:
        return ttl, False
    newest = max(lease.first_seen or 0, lease.last_promise or 0)
    return max(0, newest + ttl - now), True


def if_lost(
    lease: FencedLease, reachable: set[str], lacking: bool
) -> tuple[str | None, int | None, str | None]:
    """``(next machine, microseconds until it may act, why nobody could)`` if the holder died now.

    ``reachable`` are the other machines that are connected and compatible; ``lacking``: this machine has not
    the state that the lease vouches for, so it would not take over by itself.
    """
    known = lease.known
    if known is None:
        return None, None, "no lease exists yet"
    if lease.durable.evidence is not None:
        return None, None, "everybody stopped because of a split brain; a person decides"
    record = known.record
    in_sync = [machine for machine in record.electorate if machine != record.holder]
    ready = reachable if lacking else reachable | {lease.me}
    away = [machine for machine in record.benched if machine in ready]
    if not in_sync and not record.benched:
        return None, None, "there is no other machine yet"
    if lease.baton:
        return None, None, "the lease lies on the awake machine's own disk (embedded hub)"
    at_hand = [machine for machine in in_sync if machine in ready]
    if at_hand:
        return at_hand[0], lease.timing.wait(record.ttl_ms * 1_000), None
    if away:
        return away[0], lease.timing.wait(record.bench_ttl_ms * 1_000), None
    if lacking:
        return (
            None,
            None,
            f"state {record.state_head[:12]}, for which the lease vouches, has not arrived here",
        )
    return None, None, "no other machine can be reached"
