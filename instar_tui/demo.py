"""``instar-tui demo``: a living mesh of real nodes on this computer, in a folder that is gone afterwards."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from instar_node.api import types as t
from instar_node.api.blocking_client import BlockingNodeApi
from instar_node.config import NodeOptions, load_config
from instar_node.errors import InstarError
from instar_node.storage.home import Home
from instar_tui import demo_agent
from instar_tui.daemon_process import DaemonProcess
from instar_tui.signals import ending_in_order, undisturbed

log = logging.getLogger("instar.demo")

NICKNAMES = ("desk", "mini", "attic", "server", "lab", "studio", "barn", "boat")
TALK_EVERY_S = 2.5
CONVERSATION = (
    ("work", "What is on today?"),
    ("release-2.0", "Which tests are still red?"),
    ("garden", "Remind me to water the tomatoes"),
    ("work", "Draft a reply to the invitation"),
    ("release-2.0", "Write the changelog"),
    ("travel", "Find a train on Friday morning"),
    ("work", "Move the review to tomorrow"),
    ("garden", "What should I plant in autumn?"),
    ("travel", "And one back on Sunday"),
)
_CONFIG = """\
[lease]
ttl_ms = 3000
round_ms = 1000
bench_ttl_ms = 30000

[agent]
kind = "command"
command = {command}
"""


def run_demo(machines: int, show: Callable[[Home, NodeOptions], int], tell: Callable[[str], None]) -> int:
    """Start ``machines`` nodes, talk to them, ``show`` the first, and leave nothing behind.

    However it ends (the person leaves, SIGTERM, SIGHUP, an error), all processes are stopped and the folder
    is removed. ``tell`` gets a line for each step of the start. Returns what ``show`` returned.
    """
    with ending_in_order(), demo_mesh(machines, tell) as daemons:
        ending = threading.Event()
        talker = threading.Thread(target=_talk, args=([daemon.home for daemon in daemons], ending))
        talker.start()
        try:
            return show(daemons[0].home, NodeOptions())
        finally:
            ending.set()
            talker.join()


@contextmanager
def demo_mesh(machines: int, tell: Callable[[str], None]) -> Iterator[list[DaemonProcess]]:
    """A mesh of paired nodes with a common hub, the first one awake. Raises ``InstarError``."""
    folder = Path(tempfile.mkdtemp(prefix="instar-demo-"))
    daemons: list[DaemonProcess] = []
    try:
        for nickname in NICKNAMES[:machines]:
            tell(f"starting {nickname}")
            home = _prepare(folder / nickname)
            if daemons:
                _join(daemons[0].home, home, nickname)
            place = ("--hub", str(folder / "hub.git"), "--listen", f"127.0.0.1:{free_port()}")
            daemon = DaemonProcess(home, *place, "--nickname", nickname)
            daemons.append(daemon)
            daemon.start()
        yield daemons
    finally:
        with undisturbed():
            _stop(daemons)
            shutil.rmtree(folder, ignore_errors=True)


def _prepare(folder: Path) -> Home:
    home = Home(folder)
    home.prepare()
    command = [sys.executable, "-I", str(Path(demo_agent.__file__))]
    home.config.write_text(_CONFIG.format(command=command), encoding="utf-8")
    load_config(home.config)
    return home


def _join(host: Home, home: Home, nickname: str) -> None:
    """Pair in the way people do: a code from the one, typed into the other."""
    from instar_node.joining import join_home

    view = BlockingNodeApi(host).pair(t.PairRequest())
    assert view.url is not None
    assert view.code is not None
    asyncio.run(join_home(home, view.url, view.code, nickname))


def _stop(daemons: list[DaemonProcess]) -> None:
    """Stop all at once: one after the other they would hand the lease down the line, two seconds each."""
    living = [daemon for daemon in daemons if daemon.alive]
    if living:
        with ThreadPoolExecutor(max_workers=len(living)) as pool:
            list(pool.map(DaemonProcess.stop, living))


def _talk(homes: list[Home], ending: threading.Event) -> None:
    """Say the lines of the conversation, over and over, to whichever machine takes them."""
    for n in count():
        topic, text = CONVERSATION[n % len(CONVERSATION)]
        for home in homes:
            try:
                BlockingNodeApi(home).send(t.SendRequest(topic, text, f"demo-{n}", "demo"))
                break
            except InstarError as error:
                log.warning("message %d was not taken by %s: %s", n, home.path.name, error.message)
        if ending.wait(TALK_EVERY_S):
            return


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
