"""Versions, who is held back, and the update under way, as people and scripts read them."""

from __future__ import annotations

from instar_node.api import types as t
from instar_node.api.durations import told
from instar_node.api.machine_view import awake_build, build_of, role_of
from instar_node.api.parts import Base, UpdateParts
from instar_node.errors import InstarError
from instar_node.updates.compatibility import held_back
from instar_node.updates.updater import RollOutcome, RollStep


async def updates_view(base: Base, parts: UpdateParts) -> t.Updates:
    """Everything about versions that this machine knows."""
    installed = await _installed(parts)
    machines = [_machine(base, member.machine_id, installed) for member in base.registry.active()]
    restart = parts.handshake.last
    return t.Updates(
        version=base.build.version,
        protocol=base.build.protocol,
        installed=installed,
        machines=machines,
        held_back=[machine.machine_id for machine in machines if machine.held_back],
        restart=None
        if restart is None
        else t.RestartView(
            restart.expected,
            restart.previous,
            restart.state,
            restart.attempts,
            restart.escalated,
            restart.at,
        ),
        running=parts.updater.running,
        steps=[_step(step) for step in parts.updater.steps],
    )


def update_result(outcome: RollOutcome) -> t.UpdateResult:
    """What an update came to."""
    return t.UpdateResult(outcome.outcome, outcome.reason, [_step(step) for step in outcome.steps])


def _step(step: RollStep) -> t.UpdateStep:
    return told(step, t.UpdateStep)


async def _installed(parts: UpdateParts) -> str | None:
    try:
        return (await parts.local.installed()).version
    except InstarError:
        return None


def _machine(base: Base, machine: str, installed: str | None) -> t.MachineVersion:
    member, build = base.registry.get(machine), build_of(base, machine)
    assert member is not None, "only members are asked about"
    return t.MachineVersion(
        machine_id=machine,
        nickname=member.nickname,
        is_self=machine == base.me,
        role=role_of(member, base.lease.snapshot(), base.me),
        online=machine == base.me or base.mesh.connected(machine),
        version="" if build is None else build.version,
        protocol=None if build is None else build.protocol,
        installed=installed if machine == base.me else None,
        held_back=held_back(build, awake_build(base)),
    )
