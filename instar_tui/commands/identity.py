"""``whoami``, ``machines``, ``leave``: who belongs to the mesh."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TypeVar

import click

from instar_node.api import types as t
from instar_node.errors import InstarError
from instar_tui.commands.base import Invocation, command, group, pass_invocation
from instar_tui.exit_codes import ExitCode

T = TypeVar("T")


def _live_or_stored(invocation: Invocation, live: Callable[[], T], stored: str) -> T:
    """The node's answer, or what the files of the home say while none runs (a function of ``offline``).

    Each way imports only what it needs; these commands are the ones that scripts and prompts run most.
    """
    if invocation.home.api_json.exists():
        try:
            return live()
        except InstarError as error:
            if error.code != "node-not-running":
                raise
    answer: T = getattr(import_module("instar_tui.offline"), stored)(invocation.home)
    return answer


@command("whoami", "instar whoami", "instar whoami --json")
@pass_invocation
def whoami(invocation: Invocation) -> None:
    """Show this machine: id, nickname, fingerprint, role. Works without a running node."""
    me = _live_or_stored(invocation, lambda: invocation.api.whoami(), "stored_whoami")
    out = invocation.out
    if invocation.json:
        return out.json(me)
    mesh = f"{me.mesh_name}  ({me.mesh_id})" if me.mesh_id else "none yet: start instar-tui, or join one"
    return out.fields(
        (
            ("nickname", me.nickname or "–"),
            ("machine", me.machine_id),
            ("fingerprint", me.fingerprint),
            ("role", me.role or "not known: no node runs here"),
            ("mesh", mesh),
            ("reached at", ", ".join(me.urls) or None),
            ("hub", me.hub),
            ("version", me.version),
        )
    )


@group("machines", "instar machines", "instar machines --json", "instar machines remove mini")
@pass_invocation
@click.pass_context
def machines(ctx: click.Context, invocation: Invocation) -> None:
    """List all machines of the mesh. Works without a running node."""
    if ctx.invoked_subcommand is not None:
        return
    from instar_tui.commands.words import machine_rows

    answer = _live_or_stored(invocation, lambda: invocation.api.machines(), "stored_machines")
    out = invocation.out
    if invocation.json:
        out.json(answer)
    else:
        out.table(*machine_rows(answer.machines), empty="no machines yet: start instar-tui to found a mesh")


@machines.command("remove", examples=("instar machines remove mini", "instar machines remove mini --yes"))
@click.argument("machine")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def remove(invocation: Invocation, machine: str, yes: bool) -> ExitCode:
    """Remove MACHINE (nickname or id) for good. To come back it needs a new identity."""
    if not invocation.sure(f"Remove {machine} from the mesh for good?", yes):
        return ExitCode.CONFIRM
    answer = invocation.api.remove_machine(machine)
    _done(invocation, answer, f"{machine} is removed")
    return ExitCode.DONE


@command("leave", "instar leave", "instar leave --yes")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def leave(invocation: Invocation, yes: bool) -> ExitCode:
    """Take this machine out of the mesh for good. Its conversations stay with the others."""
    if not invocation.sure("Take this machine out of the mesh for good?", yes):
        return ExitCode.CONFIRM
    _done(invocation, invocation.api.leave(), "this machine has left the mesh")
    return ExitCode.DONE


def _done(invocation: Invocation, answer: t.Ok, text: str) -> None:
    out = invocation.out
    if invocation.json:
        out.json(answer)
        return
    out.line(text)
    if isinstance(answer.note, str):
        out.line(answer.note)
