"""Which home a program works on."""

from __future__ import annotations

import os
from pathlib import Path

from instar_node.storage.home import Home


def chosen_home(option: str | None = None) -> Home:
    """``--home``, else ``INSTAR_HOME``, else the folder of the operating system."""
    chosen = option or os.environ.get("INSTAR_HOME")
    return Home(Path(chosen).expanduser().absolute()) if chosen else Home.default()
