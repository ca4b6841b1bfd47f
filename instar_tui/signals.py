"""Signals that ask the program to end, turned into an ordinary way out of the main thread."""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ending_in_order() -> Iterator[None]:
    """While the context lasts SIGTERM and SIGHUP raise ``SystemExit(0)``, so that ``finally`` runs."""
    before = {number: signal.signal(number, _end) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """While the context lasts (a clean-up) none of the signals that end a program does."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (*ENDING, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def let_go_of_a_lost_terminal() -> None:
    """When the terminal's window was closed: read and write nowhere instead. Textual's writer dies of a write
    that fails, and then waits for itself for ever, with the node inside."""
    try:
        termios.tcgetattr(1)
    except termios.error:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nowhere, number)
        os.close(nowhere)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
