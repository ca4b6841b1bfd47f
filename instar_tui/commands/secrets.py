"""``secret``: keep what agents need and nobody else should see."""

from __future__ import annotations

import sys

import click

from instar_node.api import types as t
from instar_tui.commands.base import Invocation, group, pass_invocation
from instar_tui.commands.output import note
from instar_tui.exit_codes import ExitCode


@group(
    "secret",
    "instar secret set GITHUB_TOKEN",
    "instar secret set GITHUB_TOKEN < token.txt",
    "instar secret list",
)
@click.pass_context
def secret(ctx: click.Context) -> None:
    """Keep secrets for agents. config.toml hands them over: [agent] env_secrets = ["NAME"]."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@secret.command(
    "set", examples=("instar secret set GITHUB_TOKEN", "pass show token | instar secret set GITHUB_TOKEN")
)
@click.argument("name")
@pass_invocation
def set_(invocation: Invocation, name: str) -> None:
    """Keep a value under NAME, typed unseen or read from stdin (one line end at its end is left out)."""
    answer = invocation.api.set_secret(name, t.SecretValue(_value(name)))
    if invocation.json:
        return invocation.out.json(answer)
    invocation.out.line(f"{name} is kept")
    if isinstance(answer.note, str):
        note(answer.note)
    return None


def _value(name: str) -> str:
    """Never an argument: those are seen by every program on the computer."""
    if sys.stdin.isatty():
        typed: str = click.prompt(f"Value of {name}", hide_input=True, err=True)
        return typed
    return sys.stdin.read().removesuffix("\n").removesuffix("\r")


@secret.command("get", examples=("instar secret get GITHUB_TOKEN",))
@click.argument("name")
@pass_invocation
def get(invocation: Invocation, name: str) -> None:
    """Print the value of NAME, and nothing else."""
    found = invocation.api.secret(name)
    if invocation.json:
        return invocation.out.json(found)
    return click.echo(found.value)


@secret.command("list", examples=("instar secret list", "instar secret list --json"))
@pass_invocation
def list_(invocation: Invocation) -> None:
    """Show all names, who can read them, and what ought to be changed."""
    answer = invocation.api.secrets()
    if invocation.json:
        return invocation.out.json(answer)
    rows = [(row.name, row.set_at, ", ".join(row.readers), _advice(row)) for row in answer.secrets]
    return invocation.out.table(
        ("name", "set", "readable on", "to do"), rows, empty="no secrets: instar secret set NAME"
    )


def _advice(row: t.SecretRow) -> str:
    return f"change it: {', '.join(row.exposed_to)} could read it" if row.exposed_to else ""


@secret.command("rm", examples=("instar secret rm GITHUB_TOKEN", "instar secret rm GITHUB_TOKEN --yes"))
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def remove(invocation: Invocation, name: str, yes: bool) -> ExitCode:
    """Remove NAME on all machines."""
    if not invocation.sure(f"Remove the secret {name} on all machines?", yes):
        return ExitCode.CONFIRM
    answer = invocation.api.remove_secret(name)
    if invocation.json:
        invocation.out.json(answer)
    else:
        invocation.out.line(f"{name} is removed")
    return ExitCode.DONE
