"""For terminals that cannot draw, and for screen readers: the status as plain text, kept current."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from functools import partial

from instar_node.api.blocking_client import BlockingNodeApi
from instar_node.config import Config, NodeOptions
from instar_node.errors import InstarError
from instar_node.storage.home import Home
from instar_tui.commands.output import Output
from instar_tui.commands.overview import watch
from instar_tui.embedding import NodeThread
from instar_tui.exit_codes import ExitCode
from instar_tui.renewal import Renewal
from instar_tui.signals import ending_in_order


def run_plain(home: Home, config: Config, options: NodeOptions, renewal: Renewal) -> int:
    """``instar status --watch`` on the running node, or on one started here; ends with ctrl+c, or when an
    update asks for a ``renewal``."""
    # Not SIGINT: a shell that starts a program in the background has it ignored from then on.
    renewal.leave = partial(signal.pthread_kill, threading.get_ident(), signal.SIGTERM)
    api = BlockingNodeApi(home)
    thread = None if _runs(api) else NodeThread(home, config, options)
    with ending_in_order():
        if thread is not None:
            thread.start()
        try:
            with suppress(KeyboardInterrupt):
                watch(api, Output(as_json=False))
        except SystemExit:
            if not renewal.wanted:
                raise
        finally:
            if thread is not None:
                thread.stop()
    return ExitCode.DONE


def _runs(api: BlockingNodeApi) -> bool:
    try:
        api.health()
    except InstarError as error:
        if error.code != "node-not-running":
            raise
        return False
    return True
