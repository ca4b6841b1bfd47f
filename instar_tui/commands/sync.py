"""``sync``: the state folder that all machines share."""

from __future__ import annotations

from collections.abc import Iterator

import click

from instar_node.api import types as t
from instar_tui.commands.base import Invocation, command, pass_invocation
from instar_tui.commands.output import Output
from instar_tui.widgets.text import clock, plural

STATES = {
    "empty": "nothing is shared yet",
    "in-sync": "in sync",
    "queued": "edits of this machine wait for the awake one",
    "unpushed": "written here, not yet on the hub",
    "behind": "cannot be written yet",
}


@command("sync", "instar sync", "instar sync --seen", "instar sync --json")
@click.option("--seen", is_flag=True, help="Forget the refusals and conflicts shown: you looked at them.")
@pass_invocation
def sync(invocation: Invocation, seen: bool) -> None:
    """Show the folder that all machines share: what waits, what was refused, what was left out."""
    view = invocation.api.sync_seen() if seen else invocation.api.sync()
    if invocation.json:
        return invocation.out.json(view)
    out = invocation.out
    out.fields(_facts(view))
    _section(out, ("waits", "edit", "since"), ((row.path, row.kind, clock(row.at)) for row in view.queued))
    _section(
        out, ("refused", "from", "why"), ((row.commit[:12], row.source, row.why) for row in view.refused)
    )
    _section(out, ("changed on two machines", "the other version"), _conflicts(view))
    _section(out, ("not shared", "because"), ((row.path, row.why) for row in view.left_out))
    _section(out, ("not up to date here", "because"), ((row.path, row.why) for row in view.unwritten))
    return None


def _facts(view: t.SyncView) -> Iterator[tuple[str, str | None]]:
    yield "folder", view.folder
    yield "state", STATES[view.state] + (f": {view.trouble}" if view.trouble else "")
    yield "files", plural(view.files, "file") if view.head else None
    yield "commit", view.head[:12] if view.head else None
    yield "last push", clock(view.last_push) if view.last_push else None
    yield "last pull", clock(view.last_pull) if view.last_pull else None
    yield "hub", f"does not answer: {view.hub_error}" if view.hub_error else None


def _conflicts(view: t.SyncView) -> Iterator[tuple[str, str]]:
    for row in view.conflicts:
        kept = row.kept_as or "(the deletion was not done)"
        yield row.path, f"{kept}, of {row.machine}"


def _section(out: Output, headers: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    found = list(rows)
    if found:
        out.line()
        out.table(headers, found)
