"""The program in a real pseudo-terminal: first frame, signals, colours."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from instar_node.api import types as t
from instar_node.api.blocking_client import BlockingNodeApi
from instar_node.build import SEAM
from instar_node.storage.home import Home
from tests.cluster.harness import wait_for
from tests.terminal import ROOT, Terminal, whole

PROGRAM = """
import asyncio, sys
from instar_node.config import UiSettings
from instar_tui.app import InstarApp
from tests.tui.fake_node import FakeConnection, FakeNode

async def connect():
    return FakeConnection(FakeNode())

async def main():
    app = InstarApp(connect, UiSettings())
    try:
        await app.run_async()
    finally:
        await app.mesh.close()
    return app.return_code or 0

sys.exit(asyncio.run(main()))
"""


REAL = "from instar_tui.cli import main_tui; main_tui()"
CRASHING = """
from instar_tui.screens.lease import LeaseScreen

def refresh_body(self, kinds):
    code = "MAPLE-" + "RIVER"
    raise ValueError("a defect of this screen")

LeaseScreen.refresh_body = refresh_body
"""


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back_and_exits_0(kind: signal.Signals) -> None:
    with Terminal("-c", PROGRAM) as terminal:
        terminal.read(b"quiet-river")
        assert b"\x1b[?1049h" in terminal.written
        terminal.process.send_signal(kind)
        assert terminal.ends() == 0
        assert terminal.is_whole()


def test_the_first_frame_is_drawn_whole_from_its_first_line_on() -> None:
    with Terminal("-c", PROGRAM) as terminal:
        terminal.read(b"Overview")
        before = terminal.written.partition(b"Overview")[0]
        assert re.findall(rb"\x1b\[(\d+);1H", before) == [b"1", b"2"]


def test_keys_typed_before_the_first_frame_are_not_lost_and_break_nothing() -> None:
    with Terminal("-c", PROGRAM) as terminal:
        terminal.type(b"2345")
        terminal.read(b"can you check")
        terminal.type(b"3")
        terminal.read(b"history")
        assert terminal.process.poll() is None


def test_q_leaves_a_whole_terminal_and_a_node_that_has_stopped(tmp_path: Path) -> None:
    with Terminal("-c", REAL, "--home", str(tmp_path / "home")) as terminal:
        terminal.read(b"AWAKE")
        terminal.type(b"q")
        assert terminal.ends() == 0
        assert terminal.is_whole()
        assert not (tmp_path / "home" / "api.json").exists(), "nothing runs there any more"


def test_closing_the_window_ends_the_program_and_the_node_in_it(tmp_path: Path) -> None:
    terminal = Terminal("-c", REAL, "--home", str(tmp_path / "home"))
    try:
        terminal.read(b"AWAKE", 30.0)
        terminal.hang_up()
        assert terminal.process.wait(30) == 0
        assert not (tmp_path / "home" / "api.json").exists(), "nothing runs there any more"
    finally:
        terminal.close()


def test_a_crash_in_a_screen_leaves_a_whole_terminal_a_log_and_a_node_that_has_stopped(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    with Terminal("-c", CRASHING + REAL, "--home", str(home)) as terminal:
        terminal.read(b"AWAKE")
        terminal.type(b"3")
        assert terminal.ends() == 1
        assert terminal.is_whole()
        assert b"a defect of this screen" in terminal.written
        assert b"MAPLE-RIVER" not in terminal.written, "values of variables are not shown"
        logged = [json.loads(line) for line in (home / "logs" / "tui.jsonl").read_text().splitlines()]
        assert "a defect of this screen" in str(logged[-1])
        assert not (home / "api.json").exists(), "nothing runs there any more"


@pytest.mark.parametrize(("term", "shows"), [("xterm-256color", b"AWAKE"), ("dumb", b"health")])
def test_an_update_starts_the_program_that_embeds_the_node_anew(
    tmp_path: Path, term: str, shows: bytes
) -> None:
    home, build = Home(tmp_path / "home"), tmp_path / "build.json"
    build.write_text('{"version": "1.0", "protocol": [1, 2]}')
    api = BlockingNodeApi(home)
    with Terminal("-c", REAL, "--home", str(home.path), TERM=term, **{SEAM: str(build)}) as terminal:
        terminal.read(shows)
        if term != "dumb":
            api.send(t.SendRequest("work", "hello"))
            terminal.type(b"6")
            terminal.read(b"hello")
            terminal.type(b"i")
            terminal.read(b"takes it")
            terminal.type(b"half a thought")
            terminal.shows("half a thought")
        build.write_text('{"version": "1.1", "protocol": [1, 2]}')
        assert api.update(t.UpdateRequest()).outcome == "restarting"

        def restarted() -> bool:
            terminal.read(None, 0.1)  # as a terminal does, all the time
            restart = api.updates().restart
            return restart is not None and (restart.state, restart.previous, restart.expected) == (
                "done",
                "1.0",
                "1.1",
            )

        wait_for(restarted, 60.0)
        assert terminal.process.poll() is None, "the same process, another program in it"
        if term == "dumb":
            return
        assert b"restarting into the version" in terminal.written
        again = terminal.written.rindex(b"\x1b[?1049h")  # the second program takes the screen
        assert whole(terminal.written[:again])
        terminal.written = terminal.written[again:]
        terminal.read(b"AWAKE")
        terminal.read(b"half a though")
        assert not home.unsent.exists(), "it is taken up once"
        terminal.type(b"\x11")
        assert terminal.ends() == 0


def test_no_color_sends_no_colour_at_all() -> None:
    with Terminal("-c", PROGRAM, NO_COLOR="1") as terminal:
        terminal.read(b"quiet-river")
        terminal.read(None, 0.5)
    coloured = [
        sequence
        for sequence in re.findall(rb"\x1b\[([0-9;]*)m", terminal.written)
        if re.search(rb"(^|;)(3[0-8]|4[0-8]|9[0-7]|10[0-7])(;|$)", sequence)
    ]
    assert coloured == []
    assert "◆ AWAKE".encode() in terminal.written, "glyph and word say it all"


@pytest.mark.parametrize("options", [(), ("--no-mouse",)])
def test_no_mouse_leaves_the_mouse_to_the_terminal(tmp_path: Path, options: tuple[str, ...]) -> None:
    with Terminal("-c", REAL, "--home", str(tmp_path / "home"), *options) as terminal:
        terminal.read(b"AWAKE")
        terminal.type(b"q")
        assert terminal.ends() == 0
    asked_for = {mode for mode in (b"1000", b"1002", b"1003") if b"\x1b[?" + mode + b"h" in terminal.written}
    assert (b"1003" in asked_for) if not options else (asked_for == set())


def test_the_app_loads_neither_the_node_nor_its_libraries_before_the_first_frame() -> None:
    code = (
        "import sys, instar_tui.app, instar_tui.screens.overview;"
        "heavy = {'aiohttp', 'pygit2', 'nacl', 'cryptography', 'msgspec', 'click'};"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & heavy),"
        "[m for m in sys.modules if m.startswith('instar_node.') and m != 'instar_node.errors'])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[] []"
