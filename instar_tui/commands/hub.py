"""``hub``: where the lease lies, and moving it."""

from __future__ import annotations

import os

import click

from instar_node.api import types as t
from instar_node.coordination.record import epoch_text
from instar_node.errors import InstarError
from instar_tui.commands.base import Invocation, command, pass_invocation
from instar_tui.commands.output import note
from instar_tui.widgets.text import span


@command(
    "hub",
    "instar hub",
    "instar hub /mnt/shared/hub.git",
    "instar hub git@example.net:me/mesh.git",
    "instar hub witness:nas",
    "instar hub embedded",
)
@click.argument("url", required=False)
@click.option("--force", is_flag=True, help="The present hub is dead: begin anew in the other one.")
@click.option(
    "--yes", is_flag=True, help="With --force: vouch that the unreachable machines are not running."
)
@pass_invocation
def hub(invocation: Invocation, url: str | None, force: bool, yes: bool) -> None:
    """Show where the lease lies, or move it to the hub at URL; every machine follows.

    URL is a path that all machines see, any git URL, witness:MACHINE, etcd://host:port, or `embedded` for the
    awake machine's own disk.
    """
    if url is None:
        _show(invocation, invocation.api.lease().hub)
    elif force:
        _tell(invocation, _forced(invocation, _absolute(url), yes))
    else:
        _tell(invocation, invocation.api.move_hub(t.HubRequest(_absolute(url))))


def _forced(invocation: Invocation, url: str, yes: bool) -> t.HubMoved:
    api = invocation.api
    try:
        return api.move_hub(t.HubRequest(url, force=True))
    except InstarError as error:
        vouch = invocation.vouched(error, yes)
    return api.move_hub(t.HubRequest(url, force=True, vouch=vouch))


def _absolute(url: str) -> str:
    """A path as the node, which runs elsewhere in the file system, has to be told it."""
    if url.startswith(("./", "../", "~")) or url in (".", ".."):
        return os.path.abspath(os.path.expanduser(url))
    return url


def _show(invocation: Invocation, view: t.HubView) -> None:
    if invocation.json:
        return invocation.out.json(view)
    return invocation.out.fields(
        (
            ("hub", f"{view.url} ({view.kind})"),
            ("answers", "yes" if view.reachable else f"no: {view.error}"),
            ("last write", None if view.last_write_ms_ago is None else f"{span(view.last_write_ms_ago)} ago"),
        )
    )


def _tell(invocation: Invocation, moved: t.HubMoved) -> None:
    if invocation.json:
        return invocation.out.json(moved)
    where = f"{moved.url} ({moved.kind})"
    if moved.outcome == "already-there":
        return invocation.out.line(f"the lease lies in {where} already")
    invocation.out.line(
        f"the lease lies in {where} now, epoch {epoch_text(moved.epoch)} ({span(moved.took_ms)})"
    )
    for machine in moved.unreachable:
        note(f"warning: {machine.nickname} could not confirm that it can use it: {machine.why}")
    return None
