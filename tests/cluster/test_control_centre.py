"""The program that people start, in a terminal of its own, over real nodes."""

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyte

from instar_node.api.blocking_client import BlockingNodeApi
from instar_node.storage.home import Home
from tests.cluster.harness import Cluster, wait_for

COLUMNS, LINES = 100, 30


class ControlCentre:
    """``instar-tui`` on a home, and what its terminal shows."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.before = termios.tcgetattr(side)
        self._side = side
        self.process = subprocess.Popen(
            [sys.executable, "-m", "instar_tui", "--home", str(home), *arguments],
            stdin=side,
            stdout=side,
            stderr=side,
            env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        self.written = b""
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)

    def text(self) -> str:
        """The screen as it is now."""
        while select.select([self._main], [], [], 0)[0]:
            try:
                read = os.read(self._main, 65_536)
            except OSError:
                break
            self.written += read
            self._stream.feed(read)
        return "\n".join(self._screen.display)

    def shows(self, *texts: str, within: float = 30.0) -> None:
        """Wait until the screen shows all of these."""
        end = time.monotonic() + within
        while not all(text in self.text() for text in texts):
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < end, f"not all of {texts}:\n{self.text()}"
            select.select([self._main], [], [], 0.05)

    def ends(self, within: float = 20.0) -> int:
        """Wait for its end, reading on, for a full terminal would hold it up."""
        end = time.monotonic() + within
        while self.process.poll() is None and time.monotonic() < end:
            self.text()
            time.sleep(0.02)
        self.text()
        return self.process.wait(0)

    def is_whole(self) -> bool:
        """Whether the terminal is as it was: main screen, cursor, no mouse, line discipline."""
        left = self.written.rindex(b"\x1b[?1049l") > self.written.rindex(b"\x1b[?1049h")
        quiet = self.written.rindex(b"\x1b[?1000l") > self.written.rindex(b"\x1b[?1000h")
        shown = self.written.rindex(b"\x1b[?25h") > self.written.rindex(b"\x1b[?25l")
        return left and quiet and shown and termios.tcgetattr(self._side) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._main)
        os.close(self._side)


@contextmanager
def started(home: Path, *arguments: str) -> Iterator[ControlCentre]:
    centre = ControlCentre(home, *arguments)
    try:
        yield centre
    finally:
        centre.close()


def test_a_fresh_home_is_awake_at_epoch_1_and_tells_the_steps_to_a_second_machine(tmp_path: Path) -> None:
    with started(tmp_path / "home", "--listen", "127.0.0.1:0") as centre:
        centre.shows(
            "AWAKE", "epoch 1", "Three steps to the second machine", "press p", "instar join http://"
        )
        centre.shows("Only this computer reaches this address", "instar-tui --listen 0.0.0.0:7707")
        api = BlockingNodeApi(Home(tmp_path / "home"))
        assert (api.health().role, api.health().epoch) == ("awake", 1)
        assert api.lease().hub.kind == "embedded"
        centre.process.send_signal(signal.SIGTERM)
        assert centre.ends() == 0
        assert centre.is_whole()
    assert not Home(tmp_path / "home").api_json.exists()


def test_sigterm_to_a_control_centre_that_embeds_the_awake_node_hands_over(cluster: Cluster) -> None:
    desk, mini = cluster.machine("desk", hub=None).start(), cluster.machine("mini", hub=None)
    wait_for(desk.is_awake)
    cluster.join(desk, mini)
    mini.start()
    cluster.wait_in_sync(desk, [mini])
    assert mini.cli("wakeup").returncode == 0
    assert desk.stop() == 0
    with started(desk.home.path) as centre:
        centre.shows("mini", "standby")
        wait_for(lambda: desk.id in mini.api.lease().electorate)
        assert desk.cli("wakeup").returncode == 0
        centre.shows("AWAKE", "epoch 3")
        centre.process.send_signal(signal.SIGTERM)
        assert centre.ends() == 0
        assert centre.is_whole()
    wait_for(mini.is_awake)
    assert mini.api.health().epoch == 4


def test_a_control_centre_beside_a_daemon_attaches_and_leaves_it_running(cluster: Cluster) -> None:
    desk = cluster.machine("desk", hub=None).start()
    wait_for(desk.is_awake)
    with started(desk.home.path) as centre:
        centre.shows("AWAKE", "attached")
        centre.process.send_signal(signal.SIGTERM)
        assert centre.ends() == 0
        assert centre.is_whole()
    assert desk.is_awake()
