"""Drills, their results and the gates, as people and scripts read them."""

from __future__ import annotations

from collections.abc import Sequence

from instar_node.api import types as t
from instar_node.api.durations import told
from instar_node.api.parts import Base, VerificationParts
from instar_node.verification.components import COMPONENTS, USES, Component
from instar_node.verification.gates import SEVERITY
from instar_node.verification.report import DrillReport
from instar_node.verification.results import ResultStore
from instar_node.verification.verification import newest

NOBODY = "no other machine to try it with yet"


def drill_view(base: Base, reports: Sequence[DrillReport]) -> t.Drill:
    """One drill; the live handoff, if it came to that, stands in the place of its rehearsal."""
    first, last = reports[0], reports[-1]
    steps = {step.component: step for report in reports for step in report.steps}
    failed = next((report.failed for report in reports if report.failed is not None), None)
    unfinished = next((report.unfinished for report in reports if report.unfinished), "")
    return t.Drill(
        peer=first.peer,
        peer_nickname=base.registry.nickname(first.peer),
        signed_by=first.runner,
        signed_by_nickname=base.registry.nickname(first.runner),
        passed=all(report.passed for report in reports),
        live=last.live,
        failed=None if failed is None else failed.component,
        finding=failed.finding if failed is not None else unfinished,
        at=first.at,
        epoch=last.epoch,
        took_ms=round(sum(report.took_ms for report in reports)),
        versions=first.versions(),
        steps=[told(step, t.DrillStep) for step in steps.values()],
    )


def result_views(base: Base, store: ResultStore) -> list[t.E2EResult]:
    """The newest result of every component, machine that ran the drill, and peer; of members only."""
    members = {member.machine_id for member in base.registry.active()}
    return [
        t.E2EResult(
            component=step.component,
            peer=report.peer,
            peer_nickname=base.registry.nickname(report.peer),
            passed=step.passed,
            at=report.at,
            versions=report.versions(),
            signed_by=report.runner,
            signed_by_nickname=base.registry.nickname(report.runner),
            verified=store.is_authentic(report),
            finding=step.finding,
            took_ms=round(step.took_ms),
            live=report.live,
            epoch=report.epoch,
        )
        for report, step in newest(store.reports).values()
        if {report.runner, report.peer} <= members
    ]


def gate_views(base: Base, parts: VerificationParts) -> list[t.GateView]:
    """Every gate between the awake machine and the others: the same on every machine."""
    return [_gate(base, parts, component) for component in COMPONENTS]


def _gate(base: Base, parts: VerificationParts, component: Component) -> t.GateView:
    verification = parts.verification
    holder = base.lease.holder or base.me
    peers = []
    for member in base.registry.active():
        if member.witness or member.machine_id == holder:
            continue
        verdict = verification.verdict(component.name, holder, member.machine_id)
        peers.append(t.GatePeer(member.machine_id, member.nickname, verdict.state, verdict.why, verdict.at))
    override = verification.store.overrides.gates.get(component.name)
    worst = max(peers, key=lambda peer: SEVERITY.index(peer.state), default=None)
    return t.GateView(
        gate=component.name,
        state="unverified" if worst is None else worst.state,
        why=NOBODY if worst is None else f"{worst.nickname}: {worst.why}",
        shows=component.shows,
        guards=[words for use, words in USES.items() if use in component.guards],
        override=None if override is None else override.state,
        peers=peers,
    )
