"""Every machine as people see it: role, connection, whether it is in sync, and how far behind."""

from __future__ import annotations

from typing import Literal

from instar_node.api import types as t
from instar_node.api.durations import round_trip_ms
from instar_node.api.parts import Base, PoolParts
from instar_node.build import Build
from instar_node.clock import MICROS_PER_MS, MICROS_PER_SECOND, iso
from instar_node.contracts import Member, PeerInfo
from instar_node.coordination.lease_view import LeaseSnapshot
from instar_node.identity.keys import fingerprint
from instar_node.livetail.source import PeerLag
from instar_node.pool.machine_pool import PoolMachine
from instar_node.updates.compatibility import held_back

Standing = tuple[Literal["ok", "catching-up", "benched", "offline", "held-back", "joining", "removed"], str]
"""``Machine.status`` and ``status_text``."""


def role_of(member: Member, snapshot: LeaseSnapshot, me: str) -> t.Role:
    """What a machine is now. The holder is awake only while its lease is not known to have ended."""
    if member.removed:
        return "removed"
    if member.witness:
        return "witness"
    holds = snapshot.record is not None and snapshot.record.holder == member.machine_id
    valid = snapshot.acting if member.machine_id == me else snapshot.state == "observed"
    return "awake" if holds and valid else "standby"


def machine_rows(base: Base, pool: PoolParts | None, copies: list[PeerLag]) -> list[t.Machine]:
    """All members, and this machine even when it was removed, in order of admission."""
    snapshot = base.lease.snapshot()
    members = list(base.registry.active())
    own = base.registry.get(base.me)
    if own is not None and own not in members:
        members.append(own)
    lags = {copy.machine_id: t.Lag(copy.entries, copy.bytes, copy.ms) for copy in copies}
    # Once for all machines: it looks at every topic.
    works = {work.machine_id: work for work in pool.machines.machines()} if pool is not None else {}
    return [_row(base, works.get(member.machine_id), member, snapshot, lags) for member in members]


def _row(
    base: Base, work: PoolMachine | None, member: Member, snapshot: LeaseSnapshot, lags: dict[str, t.Lag]
) -> t.Machine:
    machine_id, is_self = member.machine_id, member.machine_id == base.me
    role = role_of(member, snapshot, base.me)
    info = base.mesh.info(machine_id)
    online = is_self or base.mesh.connected(machine_id)
    lag = None if role == "awake" else lags.get(machine_id)
    status, text = _standing(base, member, role, info, snapshot, lag)
    build = build_of(base, machine_id)
    seen_ms = _seen_ms(base, info, online, is_self)
    return t.Machine(
        machine_id=machine_id,
        nickname=member.nickname,
        fingerprint=fingerprint(member.signing_public),
        role=role,
        status=status,
        status_text=text,
        online=online,
        last_seen=None if seen_ms is None else iso(base.clock.wall() - seen_ms / 1_000),
        last_seen_ms=seen_ms,
        rtt_ms=None if info is None else round_trip_ms(info.rtt_us),
        version="" if build is None else build.version,
        protocol=None if build is None else build.protocol,
        electorate=snapshot.record is not None and machine_id in snapshot.record.electorate,
        lag=lag,
        topics=0 if work is None else work.topics,
        running=0 if work is None else work.running,
        urls=list(base.urls() if is_self else member.urls),
        is_self=is_self,
    )


def _seen_ms(base: Base, info: PeerInfo | None, online: bool, is_self: bool) -> int | None:
    if is_self:
        return 0
    if info is None or info.last_heard is None:
        return None
    return max(0, base.clock.now() - info.last_heard) // MICROS_PER_MS


def _standing(
    base: Base,
    member: Member,
    role: t.Role,
    info: PeerInfo | None,
    snapshot: LeaseSnapshot,
    lag: t.Lag | None,
) -> Standing:
    machine_id, record = member.machine_id, snapshot.record
    if member.removed:
        return "removed", "removed"
    if (reason := held_back(build_of(base, machine_id), awake_build(base))) is not None:
        return "held-back", reason
    if machine_id != base.me and not base.mesh.connected(machine_id):
        return "offline", _offline_text(base, info, machine_id)
    if role == "witness":
        return "ok", "keeps the register"
    if record is None or machine_id not in {*record.electorate, *record.benched}:
        return "joining", "joining: not in the lease yet"
    if machine_id in record.electorate:
        return "ok", "awake" if role == "awake" else "in sync"
    if lag is not None and lag.entries:
        return "catching-up", f"catching up: {lag.entries} entries behind"
    return "benched", "benched: not in sync yet"


def build_of(base: Base, machine_id: str) -> Build | None:
    """What a machine runs, or ran when it was last heard; ``None`` when it never was."""
    if machine_id == base.me:
        return base.build
    heard, known = base.heard.of(machine_id), base.lease.known
    if heard is not None or known is None or known.record.holder != machine_id:
        return heard
    return known.record.build


def awake_build(base: Base) -> Build | None:
    """What the awake machine runs: its record says so, also while it cannot be reached."""
    known = base.lease.known
    if known is None:
        return None
    return build_of(base, known.record.holder) or known.record.build


def _offline_text(base: Base, info: PeerInfo | None, machine_id: str) -> str:
    trouble = base.mesh.trouble(machine_id)
    if info is not None and info.last_heard is not None:
        seconds = (base.clock.now() - info.last_heard) // MICROS_PER_SECOND
        return f"offline: last heard {seconds} s ago"
    return f"offline: {trouble}" if trouble else "offline"
