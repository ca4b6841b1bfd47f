"""``verify`` and ``flags``: what works between the machines, and what may therefore be used."""

from __future__ import annotations

from typing import Literal

import click

from instar_node.api import types as t
from instar_tui.commands.base import Invocation, command, pass_invocation
from instar_tui.commands.output import Output, note
from instar_tui.exit_codes import ExitCode
from instar_tui.widgets.text import span

MARKS = {"open": "open", "shut": "SHUT", "unverified": "open, unverified", "overridden": "open by hand"}


@command("verify", "instar verify", "instar verify mini", "instar verify --rehearse --json")
@click.argument("machine", required=False, default="")
@click.option("--rehearse", is_flag=True, help="Do not move the awake role: only rehearse its handoff.")
@pass_invocation
def verify(invocation: Invocation, machine: str, rehearse: bool) -> ExitCode:
    """Run the live drill between the awake machine and MACHINE, or all others. The awake role goes there and
    back; no conversation is disturbed."""
    result = invocation.api.verify(t.VerifyRequest(machine, rehearse))
    out = invocation.out
    if invocation.json:
        out.json(result)
    else:
        for drill in result.drills:
            _show_drill(out, drill)
    if not result.passed:
        for drill in result.drills:
            if not drill.passed:
                where = f"{drill.failed}: " if drill.failed else "not finished: "
                note(f"error: {drill.peer_nickname}: {where}{drill.finding}")
    return ExitCode.DONE if result.passed else ExitCode.REFUSED


def _show_drill(out: Output, drill: t.Drill) -> None:
    how = "awake role moved there and back" if drill.live else "handoff rehearsed"
    word = "passed" if drill.passed else "FAILED" if drill.failed else "not finished"
    out.line(
        f"{drill.signed_by_nickname} with {drill.peer_nickname}: {word} in {span(drill.took_ms)} ({how})"
    )
    out.table(
        ("component", "", "took", "finding"),
        [
            (step.component, "works" if step.passed else "FAILED", span(step.took_ms), step.finding)
            for step in drill.steps
        ],
    )


@command("flags", "instar flags", "instar flags handoff open", "instar flags handoff auto")
@click.argument("gate", required=False)
@click.argument("state", required=False, type=click.Choice(["open", "shut", "auto"]))
@pass_invocation
def flags(invocation: Invocation, gate: str | None, state: Literal["open", "shut", "auto"] | None) -> None:
    """Show each gate and why it is open or shut; or open or shut GATE by hand, on the whole mesh."""
    if (gate is None) != (state is None):
        raise click.UsageError("give a GATE and open, shut or auto")
    api = invocation.api
    found = api.flags() if gate is None or state is None else api.set_flag(t.FlagChange(gate, state))
    if invocation.json:
        return invocation.out.json(found)
    return invocation.out.table(
        ("gate", "state", "why", "while shut, no"),
        [(g.gate, MARKS[g.state], g.why, ", ".join(g.guards)) for g in found.gates],
    )
