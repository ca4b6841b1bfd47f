"""A program in a pseudo-terminal: all it wrote, and the screen as a person sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyte

ROOT = Path(__file__).resolve().parents[1]


class Terminal:
    """Runs ``python …`` in a pseudo-terminal; leaving the context ends it whatever it does.

    ``read`` waits for bytes as they are written, ``shows`` for words on the screen that they make.
    """

    def __init__(self, *arguments: str, size: tuple[int, int] = (100, 30), **environment: str) -> None:
        self._main, side = pty.openpty()
        self._size = size
        self.resize(size)
        self._before = termios.tcgetattr(self._main)
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
        self._drawn = 0
        self._screen: pyte.Screen | None = None
        self._stream: pyte.ByteStream | None = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def resize(self, size: tuple[int, int]) -> None:
        """Columns and lines; a running program is told."""
        columns, lines = size
        fcntl.ioctl(self._main, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        """Send keys."""
        os.write(self._main, keys)

    # -- what was written ---------------------------------------------------------------------------------

    def _take(self, within: float) -> bool:
        """Take up what is written within a time; ``False`` when the program has let go of the terminal."""
        if select.select([self._main], [], [], within)[0]:
            try:
                self.written += os.read(self._main, 65_536)
            except OSError:
                return False
        return True

    def read(self, until: bytes | None, seconds: float = 30.0) -> None:
        """Collect what is written, until a text or the end. Raises ``AssertionError`` without the text."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if until is not None and until in self.written:
                return
            if not self._take(0.05):
                break
        assert until is None or until in self.written, f"{until!r} was not written: {self.written[-2_000:]!r}"

    def seconds_to(self, texts: Sequence[bytes], seconds: float = 30.0) -> float:
        """Time from the start of the process until all of these are on the screen."""
        for text in texts:
            self.read(text, seconds)
        return time.monotonic() - self.began

    # -- what is seen -------------------------------------------------------------------------------------

    def text(self) -> str:
        """The screen, as far as it was taken up."""
        if self._screen is None or self._stream is None:
            import pyte  # not needed by those who only measure

            self._screen = pyte.Screen(*self._size)
            self._stream = pyte.ByteStream(self._screen)
        self._stream.feed(self.written[self._drawn :])
        self._drawn = len(self.written)
        return "\n".join(self._screen.display)

    def shows(self, *texts: str, no: str | None = None, within: float = 30.0) -> None:
        """Wait until the screen shows all of these, and ``no`` longer that one.

        Raises ``AssertionError`` with the screen.
        """
        end = time.monotonic() + within
        while not all(text in self.text() for text in texts) or (no is not None and no in self.text()):
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < end, f"not all of {texts}, or still {no}:\n{self.text()}"
            self._take(0.05)

    # -- the end ------------------------------------------------------------------------------------------

    def ends(self, within: float = 20.0) -> int:
        """Wait for its end, reading on, for a full terminal would hold it up. Returns the exit code."""
        self.read(None, within)
        return self.process.wait(within)

    def is_whole(self) -> bool:
        """Whether the terminal is as it was before: what was switched on is off, and the line discipline."""
        return whole(self.written) and termios.tcgetattr(self._main) == self._before

    def hang_up(self) -> None:
        """Close the window: the terminal is gone, and the program is told as the kernel does."""
        os.close(self._main)
        self._main = -1
        for kind in (signal.SIGHUP, signal.SIGCONT):
            self.process.send_signal(kind)

    def close(self) -> None:
        """End the program and let go of the terminal."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._main != -1:
            os.close(self._main)


def whole(written: bytes) -> bool:
    """Whether a program that has written this has left the main screen, no mouse reports and a cursor."""
    pairs = (
        (b"\x1b[?1049l", b"\x1b[?1049h"),
        (b"\x1b[?1000l", b"\x1b[?1000h"),
        (b"\x1b[?25h", b"\x1b[?25l"),
    )
    return all(written.rindex(after) > written.rindex(before) for after, before in pairs)
