"""A program in a pseudo-terminal, and all it wrote: as a person's terminal sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class Terminal:
    """Runs ``python …`` in a pseudo-terminal; ``close`` ends it whatever it does."""

    def __init__(self, *arguments: str, size: tuple[int, int] = (100, 30), **environment: str) -> None:
        self._main, side = pty.openpty()
        self.resize(size)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("TEXTUAL", "NO_COLOR"))}
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=side,
            stdout=side,
            stderr=side,
            cwd=ROOT,
            env={**clean, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environment},
            start_new_session=True,
        )
        os.close(side)
        self.written = b""

    def resize(self, size: tuple[int, int]) -> None:
        """Columns and lines; a running program is told."""
        columns, lines = size
        fcntl.ioctl(self._main, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        """Send keys."""
        os.write(self._main, keys)

    def read(self, until: bytes | None, seconds: float = 10.0) -> None:
        """Collect what is written, until a text or the end. Raises ``AssertionError`` without the text."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if until is not None and until in self.written:
                return
            if select.select([self._main], [], [], 0.05)[0]:
                try:
                    self.written += os.read(self._main, 65_536)
                except OSError:
                    break
        assert until is None or until in self.written, f"{until!r} was not written: {self.written[-2_000:]!r}"

    def seconds_to(self, texts: Sequence[bytes], seconds: float = 30.0) -> float:
        """Time from the start of the process until all of these are on the screen."""
        for text in texts:
            self.read(text, seconds)
        return time.monotonic() - self.began

    def close(self) -> None:
        """End the program and let go of the terminal."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._main)
