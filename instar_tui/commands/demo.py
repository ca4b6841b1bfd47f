"""``demo``: try everything out on one computer."""

from __future__ import annotations

import click

from instar_node.config import NodeOptions, load_config
from instar_node.storage.home import Home
from instar_tui.commands.base import command
from instar_tui.commands.output import note


@command("demo", "instar-tui demo", "instar-tui demo --machines 3")
@click.option("--machines", type=click.IntRange(1, 8), default=3, show_default=True, help="How many nodes.")
def demo(machines: int) -> int:
    """Start a mesh of real nodes in a temporary folder, with a conversation going on, and open it."""
    from instar_tui.demo import run_demo
    from instar_tui.launch import show
    from instar_tui.renewal import Renewal

    def open_first(home: Home, options: NodeOptions) -> int:
        config = load_config(home.config)
        return show(home, config, options, read_only=False, mouse=True, renewal=Renewal())

    return run_demo(machines, open_first, note)
