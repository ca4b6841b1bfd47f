"""What a person should know, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from instar_node.api import types as t
from instar_node.api.lease_picture import NO_FAILOVER_HINT
from instar_node.api.machine_view import awake_build, build_of
from instar_node.api.parts import Base, NodeParts
from instar_node.api.sync_view import sync_alerts
from instar_node.api.verification_view import gate_views
from instar_node.coordination.lease_view import LeaseSnapshot
from instar_node.delivery.rows import Rank
from instar_node.livetail.redaction import Redactor
from instar_node.updates.compatibility import held_back

FACTS = frozenset({"no-failover", "port-moved", "secrets-exposed", "unknown-sender"})
"""Alerts that tell of a choice; the node is well all the same."""

ALARMS = frozenset({"split-brain", "hub-replaced", "update-stuck"})
"""Alerts that leave the mesh without its safety net until a person acts."""


def health_of(alerts: list[t.Alert]) -> Literal["ok", "degraded", "alarm"]:
    """The node's state in one word."""
    codes = {alert.code for alert in alerts} - FACTS
    if codes & ALARMS:
        return "alarm"
    return "degraded" if codes else "ok"


def alerts_of(parts: NodeParts) -> list[t.Alert]:
    """Every alert there is now, the worst first; no secret is in them, whatever name or error they quote."""
    blank = parts.base.known.blank
    return [t.Alert(alert.code, blank(alert.message), blank(alert.hint)) for alert in _alerts(parts)]


def _alerts(parts: NodeParts) -> list[t.Alert]:
    base = parts.base
    own = base.registry.get(base.me)
    if own is not None and own.removed:
        return [
            t.Alert(
                "removed",
                "this machine was removed from the mesh, or left it",
                "to come back it needs a new identity: use a fresh --home and `instar join`",
            )
        ]
    snapshot = base.lease.snapshot()
    return [
        *_split_brain(snapshot),
        *_holder(base, snapshot),
        *_hub(snapshot),
        *_undecided(parts),
        *_incomplete(parts),
        *(t.Alert(*trouble) for trouble in parts.delivery.delivery.channel_troubles()),
        *_machines(base, snapshot),
        *_secrets(base),
        *_restart(parts),
        *_gates(parts),
        *_surprises(base),
        *sync_alerts(parts),
        *base.warnings,
        *_no_failover(base),
    ]


def _split_brain(snapshot: LeaseSnapshot) -> Iterator[t.Alert]:
    if snapshot.evidence is not None:
        yield t.Alert(
            "split-brain",
            f"everybody stopped: {snapshot.evidence}",
            "choose the machine whose line is to go on and run `instar lease heal` there",
        )
    elif snapshot.register_alarm is not None:
        yield t.Alert(
            "hub-replaced",
            snapshot.register_alarm,
            "the awake machine goes on while its standbys promise, and nobody can take over: restore the "
            "hub, or run `instar lease heal` on the awake machine to write the lease anew",
        )


def _holder(base: Base, snapshot: LeaseSnapshot) -> Iterator[t.Alert]:
    record = snapshot.record
    if record is None:
        yield t.Alert("no-lease", "this machine has not heard of the lease yet", "start the awake machine")
    elif record.holder == base.me:
        if not snapshot.acting and snapshot.evidence is None:
            yield t.Alert(
                "not-acting", f"this machine holds the lease and may not act: it is {snapshot.state}"
            )
    elif not base.mesh.connected(record.holder):
        name = base.registry.nickname(record.holder)
        yield t.Alert(
            "holder-unreachable",
            f"{name} holds the lease and cannot be reached",
            f"check that {name} is on; `instar lease` says who takes over, and when",
        )


def _hub(snapshot: LeaseSnapshot) -> Iterator[t.Alert]:
    if not snapshot.hub_reachable:
        yield t.Alert(
            "hub-unreachable",
            f"the hub does not answer: {snapshot.hub_error}",
            "nobody can take over until it does; the awake machine goes on while its standbys promise",
        )


def _undecided(parts: NodeParts) -> Iterator[t.Alert]:
    count = sum(1 for row in parts.delivery.ledger.outbox() if row.rank is Rank.UNDECIDED)
    if count:
        yield t.Alert(
            "undecided",
            f"nobody can say whether {count} {'reply was' if count == 1 else 'replies were'} sent",
            "`instar outbox` shows them; `instar outbox resolve ID send|drop` decides",
        )


def _incomplete(parts: NodeParts) -> Iterator[t.Alert]:
    missing = parts.delivery.ledger.incomplete
    if missing:
        names = ", ".join(sorted(parts.base.registry.nickname(machine) for machine in missing))
        yield t.Alert(
            "incomplete",
            f"messages that only {names} holds may be missing here",
            f"they arrive when {names} is back",
        )


def _machines(base: Base, snapshot: LeaseSnapshot) -> Iterator[t.Alert]:
    benched = snapshot.record.benched if snapshot.record is not None else ()
    for member in base.registry.active():
        machine, name = member.machine_id, member.nickname
        if (reason := held_back(build_of(base, machine), awake_build(base))) is not None:
            yield t.Alert("held-back", f"{name} is {reason}", f"update instar-tui on {name}: `instar update`")
            continue
        if machine == base.me:
            continue
        if machine in benched and snapshot.acting:
            reached = base.mesh.connected(machine)
            yield t.Alert(
                "benched",
                f"{name} is not in sync" + ("" if reached else " and cannot be reached"),
                "it catches up by itself" if reached else f"start {name}, or check its network",
            )


def _secrets(base: Base) -> Iterator[t.Alert]:
    vault = base.vault
    exposed = {name: record.exposed_to for name in vault.names() if (record := vault.record(name))}
    for machine in sorted({machine for machines in exposed.values() for machine in machines}):
        names = ", ".join(name for name, machines in exposed.items() if machine in machines)
        yield t.Alert(
            "secrets-exposed",
            f"{base.registry.nickname(machine)}, which is out, could read {names}",
            "change them where they come from, then `instar secret set NAME`",
        )


def _restart(parts: NodeParts) -> Iterator[t.Alert]:
    restart = parts.updates.handshake.last
    if restart is None or restart.state != "failed":
        return
    often = f", {restart.attempts} times in a row" if restart.escalated else ""
    yield t.Alert(
        "update-stuck" if restart.escalated else "update-failed",
        f"the restart into version {restart.expected} did not take{often}: "
        f"this is {parts.base.build.version}",
        f"install {restart.expected} and run `instar update`, or run it as it is to stay with this version",
    )


def _gates(parts: NodeParts) -> Iterator[t.Alert]:
    for gate in gate_views(parts.base, parts.verification):
        if gate.state == "shut":
            yield t.Alert(
                "gate-shut",
                f"{gate.gate} is shut: {gate.why}",
                f"`instar verify` tries it again; `instar flags {gate.gate} open` overrides",
            )


def _surprises(base: Base) -> Iterator[t.Alert]:
    recent = base.surprises.recent()
    if recent:
        often = f"{len(recent)} times, lately: " if len(recent) > 1 else ""
        what = Redactor(base.known).redact(recent[-1].what)
        yield t.Alert(
            "unexpected-error",
            f"something failed that should not fail: {often}{what}",
            "logs/node.jsonl in the node's folder has the details; please report them",
        )


def _no_failover(base: Base) -> Iterator[t.Alert]:
    if base.lease.hub.kind == "embedded":
        yield t.Alert(
            "no-failover",
            "no automatic failover: the lease lies on the awake machine's own disk",
            NO_FAILOVER_HINT,
        )
