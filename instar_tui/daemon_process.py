"""A node as a process of its own: start it, wait until it is ready, stop or kill it."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import IO

from instar_node.errors import InstarError
from instar_node.storage.home import Home

READY_WITHIN_S = 20.0
STOPPED_WITHIN_S = 10.0


class DaemonProcess:
    """``instar-tui --daemon`` on one home, in a process group of its own (its agents are children of it)."""

    def __init__(self, home: Home, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.home = home
        self._arguments = arguments
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self.machine_id = ""

    @property
    def pid(self) -> int:
        """Of the running process. Raises ``not-started`` before ``start``."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, within: float = READY_WITHIN_S) -> None:
        """Start it and wait for its ``ready`` line.

        Raises ``daemon-failed`` with what it wrote to stderr when it ends, or is not ready in time.
        """
        self.home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        errors = self.home.path / "daemon.stderr"
        command = [sys.executable, "-m", "instar_tui", "--daemon", "--home", str(self.home.path)]
        with errors.open("w", encoding="utf-8") as stderr:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [*command, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=self._env,
                start_new_session=True,
                text=True,
            )
        assert self._process.stdout is not None
        line = _first_line(self._process.stdout, within)
        words = line.split()
        if len(words) != 3 or words[0] != "ready":
            self.kill()
            said = errors.read_text(encoding="utf-8", errors="replace").strip()[-2_000:]
            raise InstarError(
                "daemon-failed", f"the node on {self.home.path} did not start: {line or said}", said
            )
        _, self.url, self.machine_id = words

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the node alone."""
        self._running().send_signal(number)

    def stop(self, within: float = STOPPED_WITHIN_S) -> int:
        """SIGTERM, and wait while it hands off; killed when overdue. Returns its exit code."""
        process = self._running()
        process.terminate()
        try:
            return process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            return process.wait()
        finally:
            self._close()

    def kill(self) -> None:
        """SIGKILL the node with its whole group: a crash."""
        process = self._running()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._close()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise InstarError("not-started", f"no process was started on {self.home.path}")
        return self._process

    def _close(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()


def _first_line(stream: IO[str], within: float) -> str:
    """The first line, or what came of it in time; empty when the process has ended."""
    deadline = time.monotonic() + within
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        if not selector.select(max(0.0, deadline - time.monotonic())):
            return ""
    return stream.readline().strip()
