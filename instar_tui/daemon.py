"""``instar-tui --daemon``: the node without a screen. Textual is never imported here."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys

import click
import msgspec

from instar_node.config import Config, NodeOptions
from instar_node.errors import InstarError
from instar_node.known_secrets import KnownSecrets
from instar_node.node import Node
from instar_node.node_log import node_log
from instar_node.serving import serve
from instar_node.storage.home import Home
from instar_tui.event_loop import loop_factory
from instar_tui.exit_codes import ExitCode
from instar_tui.renewal import become_the_installed_program

log = logging.getLogger("instar.daemon")

GC_THRESHOLDS = (20_000, 20, 20)
"""Of the garbage collector: a message makes many small objects and hardly ever a cycle."""
SWITCH_S = 0.001
"""How long the event loop may keep the database's threads from their turn; Python's own 5 ms are longer than
a sync of the disk takes."""
READY_TOLD = "INSTAR_READY_TOLD"
"""Set in the environment of a program that replaced itself: its ``ready`` line was written before."""


def run_daemon(home: Home, config: Config, options: NodeOptions) -> int:
    """Run the node until SIGTERM, SIGINT or SIGHUP; then hand off, release, and return 0.

    Writes one line to stdout, ``ready <api url> <machine id>``, when commands are answered. An update ends
    the node in the same way, and starts the installed program in this process, which then keeps its pid.
    Raises ``InstarError`` when the node cannot start.
    """
    with node_log(home, config) as known, asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            again = runner.run(_serve(home, config, options, known))
        except InstarError as error:
            log.error("ended by %s: %s", error.code, error.message)
            raise
    if again:
        os.environ[READY_TOLD] = "1"
        become_the_installed_program()
    return ExitCode.DONE


async def _serve(home: Home, config: Config, options: NodeOptions, known: KnownSecrets) -> bool:
    """Run until told to end; ``True`` when the node wants to be started anew."""
    ending, again = asyncio.Event(), asyncio.Event()

    def restart() -> None:
        again.set()
        ending.set()

    options = msgspec.structs.replace(options, restart=restart)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, ending.set)
    told = os.environ.pop(READY_TOLD, None) is not None

    def ready(node: Node) -> None:
        """Called again by the node that follows when the home joined another mesh."""
        nonlocal told
        gc.freeze()  # what start-up made stays for good: no need to look through it again and again
        gc.set_threshold(*GC_THRESHOLDS)
        sys.setswitchinterval(SWITCH_S)
        gc.enable()
        if not told:  # whoever waited for it has gone on; after that line stdout stays silent
            told = True
            click.echo(f"ready {node.api_url} {node.machine_id}")
        log.info("ready at %s", node.api_url)

    await serve(home, config, options, known, ready=ready, ending=ending)
    return again.is_set()
