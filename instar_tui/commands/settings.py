"""``config``: read and change settings. Works without a running node."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from instar_node.api import types as t
from instar_node.api.settings_view import change_config
from instar_node.config import known_keys, load_config
from instar_node.errors import InstarError
from instar_tui.commands.base import Invocation, command, group, pass_invocation


@group("config", "instar config get", "instar config set lease.ttl_ms 9000", "instar config path")
@click.pass_context
def config(ctx: click.Context) -> None:
    """Read and change config.toml; comments are kept and nothing invalid is written."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@config.command("get", examples=("instar config get", "instar config get lease.ttl_ms"))
@click.argument("key", required=False)
@pass_invocation
def get(invocation: Invocation, key: str | None) -> None:
    """Show KEY, or every setting, with the value in force."""
    from instar_node.config_file import get_setting, parse_key

    settings = load_config(invocation.home.config)
    out = invocation.out
    if key is not None:
        value = get_setting(settings, parse_key(key))
        return out.json({key: value}) if invocation.json else out.line(_text(value))
    if invocation.json:
        return out.json(settings)
    return out.fields((".".join(path), _text(get_setting(settings, path))) for path in known_keys())


@config.command(
    "set",
    examples=("instar config set agent.kind echo", """instar config set agent.command '["claude", "-p"]'"""),
)
@click.argument("key")
@click.argument("value")
@pass_invocation
def set_(invocation: Invocation, key: str, value: str) -> None:
    """Change KEY to VALUE. It counts from the node's next start."""
    from instar_node.config_file import parse_key, set_setting

    home = invocation.home
    path = parse_key(key)
    home.prepare()
    written = set_setting(home.config, path, value)
    if invocation.json:
        return invocation.out.json({key: written})
    return invocation.out.line(f"{key} = {_text(written)}  (from the node's next start)")


@config.command("path", examples=('$EDITOR "$(instar config path)"',))
@pass_invocation
def path(invocation: Invocation) -> None:
    """Show where config.toml is."""
    place = str(invocation.home.config)
    if invocation.json:
        invocation.out.json({"path": place})
    else:
        invocation.out.line(place)


@command("log-level", "instar log-level", "instar log-level debug")
@click.argument("level", required=False, type=click.Choice(["debug", "info", "warning", "error"]))
@pass_invocation
def log_level(invocation: Invocation, level: str | None) -> None:
    """Show how much goes to logs/node.jsonl, or change it: at once if a node runs, and for later starts."""
    if level is not None:
        change = t.ConfigChange("node.log_level", level)
        try:
            invocation.api.set_config(change)
        except InstarError as error:
            if error.code != "node-not-running":
                raise
            invocation.home.prepare()
            change_config(invocation.home, change)
    level = load_config(invocation.home.config).node.log_level
    if invocation.json:
        invocation.out.json({"log_level": level})
    else:
        invocation.out.line(level)


def _text(value: Any) -> str:
    """A value as it is typed after ``config set``."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
