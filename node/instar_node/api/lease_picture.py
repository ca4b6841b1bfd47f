"""``LeaseView``: the lease as people see it, on the holder and on every standby."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from instar_node.api import types as t
from instar_node.api.durations import round_trip_ms
from instar_node.api.parts import Base
from instar_node.clock import MICROS_PER_MS
from instar_node.coordination.http_lease_transport import HistoryRow
from instar_node.coordination.hub import WITNESS, Hub
from instar_node.coordination.lease_view import LeaseSnapshot
from instar_node.coordination.record import epoch_text

_MACHINE = re.compile(r"m_[0-9a-f]{32}")
"""A machine in a record's reason, which is written where nicknames are not known."""
HISTORY = 200
STATE_BEHIND_HINT = (
    "start the machine that was awake before, or bring the hub back to what it had; if both are gone for "
    "good: `instar wakeup --force`"
)
NO_FAILOVER_HINT = (
    "for automatic failover: `instar hub URL` (a path that all machines see, a git URL, or witness:MACHINE)"
)


async def lease_view(base: Base) -> t.LeaseView:
    """One consistent picture of the lease."""
    lease, nickname = base.lease, base.registry.nickname
    snapshot, history = lease.snapshot(), epoch_rows(base, await lease.history())
    record, settings = snapshot.record, base.config.lease
    current = history[0] if history and record is not None and history[0].epoch == record.epoch else None
    return t.LeaseView(
        holder=record.holder if record is not None else None,
        holder_nickname=nickname(record.holder) if record is not None else None,
        epoch=lease.epoch,
        epoch_text=epoch_text(lease.epoch),
        is_self=snapshot.acting,
        valid_for_ms=snapshot.valid_for_us // MICROS_PER_MS,
        expires=snapshot.expires,
        ttl_ms=record.ttl_ms if record is not None else settings.ttl_ms,
        round_ms=settings.round_ms,
        electorate=list(record.electorate) if record is not None else [],
        benched=list(record.benched) if record is not None else [],
        medium=snapshot.medium,
        state=snapshot.state,
        since=current.at if current is not None else None,
        since_ms=None if current is None else _ms_between(current.at, base.clock.wall()),
        renewed_ms_ago=_ms(snapshot.renewed_us_ago),
        round_took_ms=round_trip_ms(snapshot.round_took_us),
        hub=hub_view(base, snapshot),
        history=history,
        evidence=_evidence(base, snapshot),
        if_lost=_if_lost(base),
        counters=snapshot.counters,
    )


def hub_name(base: Base, hub: Hub) -> str:
    """The URL as people write it: without a password, a witness by its nickname."""
    return WITNESS + base.registry.nickname(hub.witness) if hub.kind == "witness" else hub.shown


def hub_view(base: Base, snapshot: LeaseSnapshot) -> t.HubView:
    """Where the register lies and whether it answers."""
    return t.HubView(
        kind=base.lease.hub.kind,
        url=hub_name(base, base.lease.hub),
        reachable=snapshot.hub_reachable,
        latency_ms=round_trip_ms(snapshot.hub_latency_us),
        last_write_ms_ago=_ms(snapshot.last_write_us_ago),
        error=snapshot.hub_error,
    )


def epoch_rows(base: Base, rows: Sequence[HistoryRow]) -> list[t.EpochRow]:
    """The epochs, newest first; how long each lasted is by the wall clocks of their holders, for display."""
    shown: list[t.EpochRow] = []
    ended: float | None = None
    for row in rows[:HISTORY]:
        shown.append(
            t.EpochRow(
                epoch=row.epoch,
                epoch_text=epoch_text(row.epoch),
                holder=row.holder,
                holder_nickname=base.registry.nickname(row.holder),
                reason=row.reason,
                at=row.at,
                for_ms=None if ended is None else _ms_between(row.at, ended),
                took_ms=row.took_ms,
            )
        )
        ended = _unix(row.at)
    return shown


def split_brain(base: Base, snapshot: LeaseSnapshot) -> dict[str, object] | None:
    """What made everybody stop, with the records that tell it; ``None`` while nothing did."""
    if snapshot.evidence is None:
        return None
    records = [seen.record for seen in snapshot.seen]
    return {
        "evidence": snapshot.evidence,
        "way_out": "`instar lease heal` on the machine whose line is to go on",
        "seen": [
            {
                "epoch": record.epoch,
                "epoch_text": epoch_text(record.epoch),
                "serial": record.serial,
                "holder": record.holder,
                "holder_nickname": base.registry.nickname(record.holder),
                "reason": _MACHINE.sub(lambda found: base.registry.nickname(found[0]), record.reason),
                "at": record.at,
            }
            for record in records
        ],
    }


def _evidence(base: Base, snapshot: LeaseSnapshot) -> list[t.Evidence]:
    record = snapshot.record
    if record is None:
        return []
    others = [machine for machine in (*record.electorate, *record.benched) if machine != record.holder]
    return [
        t.Evidence(
            machine_id=machine,
            nickname=base.registry.nickname(machine),
            in_electorate=machine in record.electorate,
            benched=machine in record.benched,
            promised_ms_ago=_ms(snapshot.promised_us_ago.get(machine)),
            first_saw_ms_ago=_ms(snapshot.first_saw_us_ago) if machine == base.me else None,
            may_contend_in_ms=_ms(snapshot.contend_in_us) if machine == base.me else None,
        )
        for machine in others
    ]


def _if_lost(base: Base) -> t.IfLost:
    machine, after_ms, why_not = base.lease.if_lost()
    hint = ""
    if machine is None and base.lease.hub.kind == "embedded":
        hint = NO_FAILOVER_HINT
    elif machine is None and base.lease.lacks_state:
        hint = STATE_BEHIND_HINT
    return t.IfLost(
        next=machine,
        next_nickname=None if machine is None else base.registry.nickname(machine),
        after_ms=after_ms,
        why_not=why_not,
        hint=hint,
    )


def _ms(micros: int | None) -> int | None:
    return None if micros is None else micros // MICROS_PER_MS


def _unix(at: str) -> float | None:
    """A time as records carry it; ``None`` when another machine wrote something else."""
    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:
        return None


def _ms_between(at: str, end: float) -> int | None:
    begin = _unix(at)
    return None if begin is None else max(0, int((end - begin) * 1_000))
