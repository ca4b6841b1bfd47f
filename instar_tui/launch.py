"""Starting a node: with the screens, without them, or as plain text."""

from __future__ import annotations

import gc
import os

import msgspec

from instar_node.config import Config, NodeOptions, is_address, load_config
from instar_node.config_file import write_default_config
from instar_node.storage.home import Home
from instar_tui.exit_codes import ExitCode
from instar_tui.renewal import Renewal, become_the_installed_program


def launch(
    home: Home,
    *,
    daemon: bool = False,
    listen: str | None = None,
    hub: str | None = None,
    nickname: str | None = None,
    witness: bool = False,
    read_only: bool = False,
    no_mouse: bool = False,
) -> int:
    """Prepare the home and run until the person, or a signal, ends it. Returns the exit code.

    Raises ``InstarError`` when the home or its settings are refused, or the node cannot start.
    """
    if listen is not None and not is_address(listen):
        from click import UsageError

        raise UsageError(f"--listen: {listen!r} is not HOST:PORT")
    home.prepare()
    write_default_config(home.config)
    config = load_config(home.config)
    options = NodeOptions(listen=listen, hub=hub, nickname=nickname, witness=witness)
    if daemon:
        gc.disable()  # until the node is up: start-up makes a great many objects and hardly any garbage
        from instar_node.trust_on_use import trust_on_use

        with trust_on_use():
            from instar_tui.daemon import run_daemon
        return run_daemon(home, config, options)
    renewal = Renewal()
    options = msgspec.structs.replace(options, restart=renewal.ask)
    code = show(home, config, options, read_only=read_only, mouse=not no_mouse, renewal=renewal)
    if renewal.wanted and code == ExitCode.DONE:
        become_the_installed_program()
    return code


def show(
    home: Home, config: Config, options: NodeOptions, *, read_only: bool, mouse: bool, renewal: Renewal
) -> int:
    """The screens on a home; plain text on a terminal that cannot draw (``TERM=dumb``). They end by
    themselves when an update of an embedded node asks for a ``renewal``."""
    if os.environ.get("TERM") == "dumb":
        from instar_tui.plain import run_plain

        return run_plain(home, config, options, renewal)
    gc.disable()  # until the first frame: start-up makes no garbage worth looking for
    from instar_tui.app import run_tui

    return run_tui(home, config, options, read_only=read_only, mouse=mouse, renewal=renewal)
