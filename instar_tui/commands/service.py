"""``service``: the daemon as a service of the person's own session: systemd on Linux, launchd on macOS."""

from __future__ import annotations

import click

from instar_tui.commands.base import Invocation, group, pass_invocation
from instar_tui.service_manager import ServiceState, manager_for


@group("service", "instar service install", "instar service status", "instar service uninstall")
@click.pass_context
def service(ctx: click.Context) -> None:
    """Let the node of this home start when you log in, and again when it fails."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@service.command("install", examples=("instar service install",))
@pass_invocation
def install(invocation: Invocation) -> None:
    """Write the service of this home, and start it now and at each login."""
    invocation.home.prepare()
    _tell(invocation, manager_for(invocation.home).install())


@service.command("uninstall", examples=("instar service uninstall",))
@pass_invocation
def uninstall(invocation: Invocation) -> None:
    """Stop the service and take it away. The home stays as it is."""
    _tell(invocation, manager_for(invocation.home).uninstall())


@service.command("status", examples=("instar service status --json",))
@pass_invocation
def status(invocation: Invocation) -> None:
    """Whether the service is installed, and whether it runs."""
    _tell(invocation, manager_for(invocation.home).status())


def _tell(invocation: Invocation, state: ServiceState) -> None:
    out = invocation.out
    if invocation.json:
        return out.json(state)
    if not state.installed:
        return out.line(f"not installed ({state.file})")
    return out.line(f"{state.name}: installed, {'runs' if state.running else 'does not run'}  {state.file}")
