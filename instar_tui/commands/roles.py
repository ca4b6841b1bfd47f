"""``wakeup`` and ``handoff``: which machine is awake."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import click

from instar_node.api import types as t
from instar_node.api.blocking_client import BlockingNodeApi
from instar_node.coordination.record import epoch_text
from instar_node.errors import InstarError
from instar_tui.commands.base import Invocation, command, pass_invocation
from instar_tui.commands.output import note
from instar_tui.exit_codes import ExitCode
from instar_tui.widgets.text import span

LOOK_EVERY_S = 0.25


@command("wakeup", "instar wakeup", "instar wakeup --force", "instar wakeup --force --yes")
@click.option("--force", is_flag=True, help="Take over although machines cannot be reached.")
@click.option(
    "--yes", is_flag=True, help="With --force: vouch that the unreachable machines are not running."
)
@pass_invocation
def wakeup(invocation: Invocation, force: bool, yes: bool) -> ExitCode:
    """Make this machine the awake one: by handoff, or by the rules of the lease when the holder is gone."""
    api = invocation.api
    try:
        result = _follow(invocation, api, lambda: api.wakeup(t.WakeupRequest(force=force)))
    except InstarError as error:
        if not force:
            raise
        body = t.WakeupRequest(force=True, vouch=invocation.vouched(error, yes))
        result = _follow(invocation, api, lambda: api.wakeup(body))
    return tell(invocation, result)


@command("handoff", "instar handoff mini")
@click.argument("machine")
@pass_invocation
def handoff(invocation: Invocation, machine: str) -> ExitCode:
    """Make MACHINE (nickname or id) the awake one."""
    api = invocation.api
    return tell(invocation, _follow(invocation, api, lambda: api.handoff(t.HandoffRequest(machine))))


def _follow(
    invocation: Invocation, api: BlockingNodeApi, call: Callable[[], t.HandoffResult]
) -> t.HandoffResult:
    """Wait for the call; on a terminal its steps are shown on stderr while it runs."""
    if not invocation.out.rich or invocation.json:
        return call()
    before = api.handoff_view()
    told = 0
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending = pool.submit(call)
        while not pending.done():
            time.sleep(LOOK_EVERY_S)
            view = api.handoff_view()
            if view.outcome != "running" or view == before:
                continue
            for step in view.steps[told:]:
                note(_step(step))
            told = len(view.steps)
        return pending.result()


def _step(step: t.Step) -> str:
    return f"{span(step.at_ms):>8}  {step.step}" + (f": {step.note}" if step.note else "")


def tell(invocation: Invocation, result: t.HandoffResult) -> ExitCode:
    out = invocation.out
    done = result.outcome in ("awake", "already-awake")
    if invocation.json:
        out.json(result)
    else:
        for step in result.steps:
            out.line(_step(step))
    who = result.holder_nickname or result.holder or "nobody"
    if not done:
        why = result.reason or "no reason given"
        note(f"error: {result.outcome}: {why}; {who} is awake, epoch {epoch_text(result.epoch)}")
        return ExitCode.REFUSED
    if not invocation.json:
        already = "already " if result.outcome == "already-awake" else ""
        out.line(f"{who} is {already}awake, epoch {epoch_text(result.epoch)} ({span(result.took_ms)})")
    return ExitCode.DONE
