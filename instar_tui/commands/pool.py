"""``placement``, ``transfer``, ``unpin``, ``nickname``: where topics run."""

from __future__ import annotations

import click

from instar_node.api import types as t
from instar_node.errors import InstarError
from instar_tui.commands.base import Invocation, command, pass_invocation
from instar_tui.exit_codes import ExitCode
from instar_tui.widgets.text import span


@command("placement", "instar placement work", "instar placement work --json")
@click.argument("topic")
@pass_invocation
def placement(invocation: Invocation, topic: str) -> None:
    """Show where TOPIC runs, and why."""
    _show(invocation, invocation.api.placement(topic))


@command("unpin", "instar unpin work")
@click.argument("topic")
@pass_invocation
def unpin(invocation: Invocation, topic: str) -> None:
    """Let TOPIC run on any machine again."""
    _show(invocation, invocation.api.unpin(t.UnpinRequest(topic)))


def _show(invocation: Invocation, view: t.PlacementView) -> None:
    out = invocation.out
    if invocation.json:
        return out.json(view)
    here = " (this machine)" if view.is_this_machine else ""
    return out.fields(
        (
            ("topic", view.topic),
            ("runs on", f"{view.owner_nickname}{here}" if view.owner else "nowhere yet"),
            ("why", view.reason),
            ("pinned to", view.pinned_to and f"{view.pinned_to} ({view.pin_state})"),
            ("waits for", view.pending_reason),
            ("awake", view.lease_holder_nickname),
        )
    )


@command(
    "transfer", "instar transfer work mini", "instar transfer work mini --yes", "instar transfer work --undo"
)
@click.argument("topic")
@click.argument("machine", required=False)
@click.option("--undo", is_flag=True, help="Take the last transfer of the topic back.")
@click.option("--yes", is_flag=True, help="Go on where the node asks for confirmation.")
@pass_invocation
def transfer(invocation: Invocation, topic: str, machine: str | None, undo: bool, yes: bool) -> ExitCode:
    """Move TOPIC to MACHINE (nickname or id)."""
    if (machine is None) != undo:
        raise click.UsageError("give a MACHINE, or --undo")
    body = t.TransferRequest(topic=topic, to=machine or "", undo=undo)
    try:
        result = invocation.api.transfer(body)
    except InstarError as error:
        token = error.extra.get("confirm")
        if error.code != "needs-confirmation" or token is None or not invocation.agreed(error, yes):
            raise
        body.confirm = str(token)
        result = invocation.api.transfer(body)
    _tell(invocation, result)
    return ExitCode.DONE


def _tell(invocation: Invocation, result: t.TransferResult) -> None:
    out = invocation.out
    if invocation.json:
        return out.json(result)
    owner = result.owner_nickname or result.owner or "nowhere"
    texts = {
        "moved": f"{result.topic} runs on {owner} now ({span(result.took_ms)})",
        "queued": f"{result.topic} moves when it can: {result.pending_reason or 'it is busy'}",
        "noop": f"{result.topic} already runs on {owner}",
    }
    return out.line(texts[result.outcome])


@command("nickname", "instar nickname desk", "instar nickname attic --machine mini")
@click.argument("name")
@click.option("--machine", help="Another machine than this one (nickname or id).")
@pass_invocation
def nickname(invocation: Invocation, name: str, machine: str | None) -> None:
    """Call this machine NAME, on every machine of the mesh."""
    api = invocation.api
    renamed = api.rename(machine or api.whoami().machine_id, t.RenameRequest(name))
    if invocation.json:
        return invocation.out.json(renamed)
    return invocation.out.line(f"{renamed.machine_id} is called {renamed.nickname} now")
