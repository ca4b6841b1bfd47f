"""``python -m benchmarks.tui``: how quick and how light the control centre is, against its targets.

First paint is measured in a pseudo-terminal, in turns with an empty Textual app, so that a busy computer
slows both alike: the ratio counts. Then the program is attached to a real daemon with 1,000 topics that takes
200 messages a second, keys are pressed, and what it needs is read from the operating system.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from benchmarks.compiled import compiled_in
from instar_node.api import types as t
from instar_node.api.http_client import HttpNodeApi
from instar_node.storage.home import Home
from instar_tui.daemon_process import DaemonProcess
from tests.terminal import Terminal

SIZE = (120, 40)
TOPICS, MESSAGES_PER_S, KEYS = 1_000, 200, 60
EMPTY = """
from textual.app import App
from textual.widgets import Static

class Empty(App):
    def compose(self):
        yield Static("an empty app")

Empty().run()
"""
PROGRAM = "import sys; sys.argv[:] = ['instar-tui']; from instar_tui.cli import main_tui; main_tui()"
"""As a person starts it; where its home is says the environment."""
TARGETS = {
    "first_paint_ratio": 1.2,
    "key_to_paint_p95_ms": 50.0,
    "busy_ui_cpu_percent": 25.0,
    "embedded_idle_cpu_percent": 1.0,
    "embedded_rss_mb": 100.0,
    "attached_rss_mb": 60.0,
}


def first_paint(rounds: int, folder: Path) -> dict[str, float]:
    """Medians in milliseconds, and the median of the ratios of neighbours; homes are fresh."""
    empty, ours, awake = [], [], []
    for number in range(rounds + 1):  # the first of each compiles what the others load, and does not count
        with running("-c", EMPTY) as terminal:
            empty.append(terminal.seconds_to([b"an empty app"]) * 1e3)
        with running("-c", PROGRAM, INSTAR_HOME=str(folder / f"fresh{number}")) as terminal:
            ours.append(terminal.seconds_to([b"Overview"]) * 1e3)
            awake.append(terminal.seconds_to([b"AWAKE"]) * 1e3)
    return {
        "empty_app_ms": statistics.median(empty[1:]),
        "first_paint_ms": statistics.median(ours[1:]),
        "first_paint_ratio": statistics.median(o / e for o, e in list(zip(ours, empty, strict=True))[1:]),
        "node_awake_ms": statistics.median(awake[1:]),
    }


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[Terminal]:
    """A program in a terminal, ended in order afterwards."""
    terminal = Terminal(*arguments, size=SIZE, **environment)
    try:
        yield terminal
        terminal.process.terminate()
        terminal.read(None)
    finally:
        terminal.close()


def alone(folder: Path) -> dict[str, float]:
    """The node embedded, nothing to do: memory and idle work."""
    with running("-c", PROGRAM, INSTAR_HOME=str(folder / "alone")) as terminal:
        terminal.seconds_to([b"AWAKE"])
        terminal.read(None, 4.0)
        idle = cpu_percent(terminal, 20.0)  # of a core, in steps of 10 ms: a short look says little
        return {"embedded_idle_cpu_percent": idle, "embedded_rss_mb": rss_mb(terminal)}


def busy(folder: Path) -> dict[str, float]:
    """Attached to a daemon with many topics and much to tell."""
    home, ending = Home(folder / "busy"), Event()
    home.prepare()
    home.config.write_text('[agent]\nkind = "echo"\n', encoding="utf-8")
    daemon = DaemonProcess(home, "--listen", "127.0.0.1:0")
    daemon.start()
    talker = Thread(target=lambda: asyncio.run(talk(home, ending)))
    try:
        asyncio.run(fill(home))
        talker.start()
        with running("-c", PROGRAM, INSTAR_HOME=str(home.path)) as terminal:
            terminal.seconds_to([b"AWAKE"])
            terminal.type(b"5")
            terminal.read(b"last message")
            terminal.type(b"sg")  # ordered by name, so that the next row is known
            delays = key_delays(terminal)
            percent = cpu_percent(terminal, 5.0, main_thread=True)
            rss = rss_mb(terminal)
    finally:
        ending.set()
        talker.join()
        daemon.stop()
    delays.sort()
    return {
        "key_to_paint_p50_ms": statistics.median(delays),
        "key_to_paint_p95_ms": delays[int(len(delays) * 0.95)],
        "busy_ui_cpu_percent": percent,
        "attached_rss_mb": rss,
    }


def key_delays(terminal: Terminal) -> list[float]:
    """Milliseconds from a key to the name of the newly selected topic at the foot of the table."""
    terminal.read(b" t0000 ")  # in the table names have no space before them
    delays = []
    for number in range(1, KEYS + 1):
        terminal.written = b""
        begun = time.perf_counter()
        terminal.type(b"j")
        terminal.read(f" t{number:04d} ".encode())
        delays.append((time.perf_counter() - begun) * 1e3)
        terminal.read(None, 0.1)
    return delays


async def fill(home: Home) -> None:
    """Every topic gets its first message."""
    api, gate = HttpNodeApi(home), asyncio.Semaphore(32)

    async def say(number: int) -> None:
        async with gate:
            await api.send(t.SendRequest(f"t{number:04d}", "hello", f"first-{number}"))

    try:
        await asyncio.gather(*map(say, range(TOPICS)))
    finally:
        await api.close()


async def talk(home: Home, ending: Event) -> None:
    """Messages at an even pace to all topics in turn; what is late is not made up for."""
    api, number = HttpNodeApi(home), 0
    tasks: set[asyncio.Task[t.SendResult]] = set()
    try:
        while not ending.is_set():
            topic = f"t{number * 7 % TOPICS:04d}"
            task = asyncio.create_task(api.send(t.SendRequest(topic, f"word {number}", f"n-{number}")))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
            await asyncio.sleep(1 / MESSAGES_PER_S)
        await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await api.close()


def cpu_percent(terminal: Terminal, seconds: float, *, main_thread: bool = False) -> float:
    """Of one core, over some seconds in which the terminal is read."""
    before = _cpu_ms(terminal.process.pid, main_thread)
    terminal.read(None, seconds)
    return (_cpu_ms(terminal.process.pid, main_thread) - before) / seconds / 10


def _cpu_ms(pid: int, main_thread: bool) -> float:
    path = Path(f"/proc/{pid}/task/{pid}/stat" if main_thread else f"/proc/{pid}/stat")
    fields = path.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1_000 / os.sysconf("SC_CLK_TCK")


def rss_mb(terminal: Terminal) -> float:
    """Resident memory of the program."""
    status = Path(f"/proc/{terminal.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1_024


def main() -> int:
    """Measure; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="first paints of each program")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="instar-bench-") as name, compiled_in(Path(name) / "compiled"):
        folder = Path(name)
        measured = {**first_paint(arguments.rounds, folder), **alone(folder), **busy(folder)}
    missed = [name for name, target in TARGETS.items() if measured[name] > target]
    rounded = {name: round(value, 2) for name, value in measured.items()}
    json.dump({**rounded, "load_average": os.getloadavg()[0], "missed": missed}, sys.stdout, indent=1)
    print()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
