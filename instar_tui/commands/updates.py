"""``update``: all machines to the installed version, one after the other."""

from __future__ import annotations

import time

import click

from instar_node.api import types as t
from instar_node.errors import InstarError
from instar_tui.commands.base import Invocation, command, pass_invocation
from instar_tui.commands.output import Output, note
from instar_tui.exit_codes import ExitCode
from instar_tui.widgets.text import span

BACK_WITHIN_S = 90.0
LOOK_EVERY_S = 0.2


@command("update", "instar update", "instar update --to 0.2.0", "instar update --status")
@click.option("--to", default="", metavar="VERSION", help="Refuse when another version is installed.")
@click.option("--status", is_flag=True, help="Only show versions, and who is held back.")
@pass_invocation
def update(invocation: Invocation, to: str, status: bool) -> ExitCode:
    """Restart every machine into the version that is installed on it: standbys first, then the awake role
    moves, the machine that was awake last. `[update] command` in config.toml installs it before."""
    api, out = invocation.api, invocation.out
    if status:
        _show(invocation, api.updates())
        return ExitCode.DONE
    before = api.updates()
    result = api.update(t.UpdateRequest(to))
    restart = _see_back(invocation, before) if result.outcome == "restarting" else None
    if invocation.json:
        out.json(result)
    else:
        for step in result.steps:
            out.line(f"{span(step.at_ms):>8}  {step.nickname}: {step.step} {step.note}".rstrip())
    if restart is not None and restart.state == "failed":
        note(f"error: the restart into {restart.expected} did not take")
        return ExitCode.REFUSED
    if result.outcome == "failed":
        note(f"error: {result.reason}")
        return ExitCode.REFUSED
    if not invocation.json:
        out.line(_closing(result))
    return ExitCode.DONE


def _see_back(invocation: Invocation, before: t.Updates) -> t.RestartView | None:
    """Wait while this machine restarts and tell what came of it; ``None`` when it is another one."""
    if not any(machine.is_self and machine.role == "awake" for machine in before.machines):
        return None
    deadline = time.monotonic() + BACK_WITHIN_S
    while time.monotonic() < deadline:
        try:
            restart = invocation.api.updates().restart
        except InstarError:  # it is just restarting
            restart = None
        if restart is not None and restart != before.restart and restart.state != "pending":
            return restart
        time.sleep(LOOK_EVERY_S)
    raise InstarError("not-back", f"this machine did not come back within {BACK_WITHIN_S:g} s", "see its log")


def _closing(result: t.UpdateResult) -> str:
    words = {
        "updated": "every machine that can be reached runs the installed version",
        "nothing-to-do": "every machine that can be reached runs what is installed on it",
        "restarting": "the others are updated; the machine that was awake restarts last",
    }
    return words[result.outcome] + (f" ({result.reason})" if result.reason else "")


def _show(invocation: Invocation, view: t.Updates) -> None:
    out = invocation.out
    if invocation.json:
        return out.json(view)
    _show_restart(out, view)
    return out.table(
        ("machine", "role", "version", "protocol", ""),
        [
            (
                machine.nickname + (" (this machine)" if machine.is_self else ""),
                machine.role if machine.online else "offline",
                machine.version or "not heard yet",
                "" if machine.protocol is None else "–".join(str(n) for n in dict.fromkeys(machine.protocol)),
                machine.held_back or "",
            )
            for machine in view.machines
        ],
    )


def _show_restart(out: Output, view: t.Updates) -> None:
    if view.installed is not None and view.installed != view.version:
        out.line(
            f"installed here: {view.installed}; running: {view.version}; `instar update` restarts into it"
        )
    if view.restart is not None and view.restart.state == "failed":
        out.line(f"the restart into {view.restart.expected} did not take: this is {view.version}")
