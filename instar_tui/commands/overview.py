"""``status`` and ``lease``: who is awake and how well the mesh is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import click

from instar_node.api import types as t
from instar_node.api.blocking_client import BlockingNodeApi
from instar_tui.commands.base import Invocation, command, pass_invocation
from instar_tui.commands.output import Output
from instar_tui.commands.words import (
    hub_line,
    if_lost_line,
    lease_line,
    machine_rows,
    topic_rows,
)
from instar_tui.widgets.text import clock, span


@command("status", "instar status", "instar status --watch", "instar status --json")
@click.option("--watch", "watching", is_flag=True, help="Show it again whenever something changes.")
@pass_invocation
def status(invocation: Invocation, watching: bool) -> None:
    """Show the whole mesh on one page. With --watch and --json: one document a line."""
    out = invocation.out
    if watching:
        watch(invocation.api, out)
    elif invocation.json:
        out.json(invocation.api.status())
    else:
        write_status(out, invocation.api.status())


def watch(api: BlockingNodeApi, out: Output) -> None:
    """Write the status now and at every change, until interrupted or the node stops.

    On a terminal the page is redrawn once a second, times running; elsewhere (and for screen readers, which
    set ``TERM=dumb``) a new page follows the old one, only when something happened.
    """
    for _ in _moments(api, every_second=out.rich and not out.as_json):
        picture = api.status()
        if out.as_json:
            out.json_line(picture)
            continue
        if out.rich:
            click.clear()
        write_status(out, picture)
        out.line()
        sys.stdout.flush()


def _moments(api: BlockingNodeApi, *, every_second: bool) -> Iterator[None]:
    """Now, and then whenever the page is out of date; what happens within a second counts as one change."""
    yield
    changed, shown_at = False, time.monotonic()
    for event in api.events(tick=1.0):
        changed = changed or (event is not None and event.kind != "pulse")
        if (changed or every_second) and time.monotonic() - shown_at >= 1.0:
            yield
            changed, shown_at = False, time.monotonic()


def write_status(out: Output, picture: t.Status) -> None:
    """The page."""
    me, lease = picture.me, picture.lease
    out.line(f"{me.nickname} · {me.role} · mesh {me.mesh_name or '–'} · {clock(picture.at)}")
    out.fields(
        (
            ("health", picture.health.status),
            ("lease", lease_line(lease)),
            ("if lost", if_lost_line(lease.if_lost)),
            ("hub", hub_line(lease.hub)),
            ("copies", _copies(picture.livetail)),
            ("outbox", f"{picture.outbox} undelivered" if picture.outbox else None),
        )
    )
    for alert in picture.health.alerts:
        out.line(f"! {alert.message}" + (f" — {alert.hint}" if alert.hint else ""))
    out.line()
    out.table(*machine_rows(picture.machines))
    out.line()
    out.table(*topic_rows(picture.topics), empty="no conversations yet: instar send work hello")


def _copies(tail: t.LiveTail) -> str | None:
    peers = [peer for peer in tail.peers if peer.topic is None]
    texts = [
        f"{peer.nickname} {span(peer.behind.ms)} behind (entries: {peer.behind.entries})"
        if peer.behind.entries
        else f"{peer.nickname} up to date"
        for peer in peers
    ]
    return ", ".join(texts) or None
