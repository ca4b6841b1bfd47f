"""Making room for the program that is installed now: how an update restarts the process it runs in."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn


class Renewal:
    """The wish of a node inside this process that the whole program starts anew.

    ``leave`` ends the program in order; it is called on the node's thread, whoever runs the program sets it.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.leave: Callable[[], object] = lambda: None

    def ask(self) -> None:
        """End this program, to become the installed one when all is closed."""
        self.wanted = True
        self.leave()


def become_the_installed_program() -> NoReturn:
    """Replace this program by itself as it is installed now, with the same arguments; the pid stays."""
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own program
