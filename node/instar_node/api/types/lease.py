"""The lease as it is shown: holder, evidence, history, and the hub it lies on."""

from __future__ import annotations

from typing import Literal

from instar_node.api.types.base import Model


class EpochRow(Model):
    epoch: int
    epoch_text: str
    """``7``, or ``1·3`` for the third epoch of generation 1."""
    holder: str
    holder_nickname: str
    reason: str
    at: str
    for_ms: int | None
    took_ms: int | None = None


class Evidence(Model):
    """What one other machine contributes to the holder's validity (holder's view) or to ours."""

    machine_id: str
    nickname: str
    in_electorate: bool
    benched: bool
    promised_ms_ago: int | None
    first_saw_ms_ago: int | None
    may_contend_in_ms: int | None


class IfLost(Model):
    """What would happen if the holder died now."""

    next: str | None
    next_nickname: str | None
    after_ms: int | None
    why_not: str | None
    hint: str = ""


class LeaseView(Model):
    holder: str | None
    holder_nickname: str | None
    epoch: int
    epoch_text: str
    is_self: bool
    valid_for_ms: int
    """Time left in which the holder may act. Where nothing expires (embedded hub) it stays at ``ttl_ms``."""
    expires: bool
    """False while the validity needs no renewal (embedded hub, or alone)."""
    ttl_ms: int
    round_ms: int
    electorate: list[str]
    benched: list[str]
    medium: Literal["promise", "hub"]
    state: Literal["held", "observed", "expired", "released", "closed", "split-brain", "none"]
    since: str | None
    since_ms: int | None
    renewed_ms_ago: int | None
    round_took_ms: int | None
    hub: HubView
    history: list[EpochRow]
    evidence: list[Evidence]
    if_lost: IfLost
    counters: dict[str, int]


class HubView(Model):
    kind: Literal["embedded", "path", "remote", "witness", "etcd"]
    url: str
    reachable: bool
    latency_ms: int | None
    last_write_ms_ago: int | None
    error: str | None = None
