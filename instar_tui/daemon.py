"""``instar-tui --daemon``: the node without a screen. Textual is never imported here."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal

import click

from instar_node.config import Config, NodeOptions
from instar_node.errors import InstarError
from instar_node.known_secrets import KnownSecrets
from instar_node.node import Node
from instar_node.node_log import node_log
from instar_node.storage.home import Home
from instar_tui.event_loop import loop_factory
from instar_tui.exit_codes import ExitCode

log = logging.getLogger("instar.daemon")


def run_daemon(home: Home, config: Config, options: NodeOptions) -> int:
    """Run the node until SIGTERM, SIGINT or SIGHUP; then hand off, release, and return 0.

    Writes one line to stdout, ``ready <api url> <machine id>``, when commands are answered. Raises
    ``InstarError`` when the node cannot start.
    """
    with node_log(home, config) as known, asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            runner.run(_serve(home, config, options, known))
        except InstarError as error:
            log.error("ended by %s: %s", error.code, error.message)
            raise
    return ExitCode.DONE


async def _serve(home: Home, config: Config, options: NodeOptions, known: KnownSecrets) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, ending.set)
    node = await Node.open(home, config, options, known)
    started = False
    try:
        await node.start()
        started = True
        gc.freeze()  # what start-up made stays for good: no need to look through it again and again
        gc.enable()
        click.echo(f"ready {node.api_url} {node.machine_id}")
        log.info("ready at %s", node.api_url)
        await ending.wait()
        log.info("stopping")
    finally:
        await node.stop(hand_off=started)
