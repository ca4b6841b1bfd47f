"""``lease``: who is awake and on whose evidence, and ending a split brain."""

from __future__ import annotations

import click

from instar_node.api import types as t
from instar_node.errors import InstarError
from instar_tui.commands.base import Invocation, group, pass_invocation
from instar_tui.commands.roles import tell
from instar_tui.commands.words import evidence_rows, history_rows, hub_line, if_lost_line, lease_line
from instar_tui.exit_codes import ExitCode
from instar_tui.widgets.text import span


@group("lease", "instar lease", "instar lease --json", "instar lease heal")
@pass_invocation
@click.pass_context
def lease(ctx: click.Context, invocation: Invocation) -> None:
    """Show who holds the lease, on whose evidence, and every epoch before."""
    if ctx.invoked_subcommand is not None:
        return None
    view = invocation.api.lease()
    out = invocation.out
    if invocation.json:
        return out.json(view)
    out.fields(
        (
            ("state", view.state),
            ("lease", lease_line(view)),
            ("if lost", if_lost_line(view.if_lost)),
            ("hub", hub_line(view.hub)),
            ("ttl", f"{span(view.ttl_ms)}, a round every {span(view.round_ms)}"),
            ("renewed", span(view.renewed_ms_ago) + " ago" if view.renewed_ms_ago is not None else None),
        )
    )
    if view.evidence:
        out.line()
        out.table(*evidence_rows(view.evidence))
    out.line()
    return out.table(*history_rows(view.history), empty="no epochs yet")


@lease.command("heal", examples=("instar lease heal", "instar lease heal --yes"))
@click.option(
    "--yes",
    is_flag=True,
    help="Go on from here, and vouch that the unreachable machines are not running.",
)
@pass_invocation
def heal(invocation: Invocation, yes: bool) -> ExitCode:
    """End a split brain: this machine's line goes on, in a generation above every epoch that was seen."""
    api = invocation.api
    try:
        result = api.lease_heal(t.HealRequest())
    except InstarError as error:
        vouch = invocation.vouched(error, yes)
        result = api.lease_heal(t.HealRequest(confirm=True, vouch=vouch))
    return tell(invocation, result)
