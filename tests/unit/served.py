"""A scripted node served over real HTTP on a thread of its own, and commands run against it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from instar_node.api.http_server import ApiServer
from instar_node.storage.home import Home
from instar_tui.program import instar, run
from tests.unit.fake_api import FakeNodeApi


@dataclass
class Ran:
    """What one command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Cli:
    """Runs commands in this process, on one home."""

    def __init__(self, home: Home, capture: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self._capture = capture

    def __call__(self, *arguments: str) -> Ran:
        self._capture.readouterr()
        code = run(instar, ["--home", str(self.home.path), *arguments])
        out, err = self._capture.readouterr()
        return Ran(code, out, err)


@contextmanager
def serving(api: FakeNodeApi, home: Home) -> Iterator[asyncio.AbstractEventLoop]:
    """Serve ``api`` on ``home`` while the context lasts; gives the loop it runs on."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def on_loop(work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(10)

    server = ApiServer(api, home)
    on_loop(server.start())
    try:
        yield loop
    finally:
        on_loop(server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def home_at(folder: Path) -> Home:
    home = Home(folder / "home")
    home.prepare()
    return home
