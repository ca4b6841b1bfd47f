"""Starting and ending a node: as daemon, embedded on a thread, or attached to one that runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from instar_node.api.http_client import HttpNodeApi
from instar_node.config import Config, NodeOptions
from instar_node.errors import InstarError
from instar_node.known_secrets import KnownSecrets
from instar_node.storage.home import Home
from instar_tui.demo_agent import reply
from instar_tui.embedding import NodeThread, open_api
from instar_tui.program import instar_tui, run
from tests.unit.fake_api import ME, FakeNodeApi
from tests.unit.served import home_at, serving


class FakeNode:
    """Records its life; ``refusal`` is raised by ``start``."""

    opened: list[FakeNode]
    refusal: InstarError | None = None
    ready = threading.Event()

    def __init__(self, config: Config, options: NodeOptions) -> None:
        self.config = config
        self.options = options
        self.api = FakeNodeApi()
        self.api_url = "http://127.0.0.1:1"
        self.api_port = 1
        self.machine_id = ME
        self.superseded = asyncio.Event()
        self.stopped: list[bool] = []
        self.thread = threading.current_thread()

    @classmethod
    async def open(cls, home: Home, config: Config, options: NodeOptions, known: KnownSecrets) -> FakeNode:
        cls.opened.append(cls(config, options))
        return cls.opened[-1]

    async def start(self, api_port: int = 0) -> None:
        if self.refusal is not None:
            raise self.refusal
        asyncio.get_running_loop().call_later(0.05, self.ready.set)

    async def stop(self, *, hand_off: bool = True, keep_baton: bool | None = None) -> None:
        self.stopped.append(hand_off)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return home_at(tmp_path)


USERS = ("instar_tui.daemon", "instar_node.serving")
"""Modules that hold on to the class ``Node`` once they are loaded."""


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeNode]]:
    module = ModuleType("instar_node.node")
    module.Node = FakeNode  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "instar_node.node", module)
    for user in USERS:
        monkeypatch.delitem(sys.modules, user, raising=False)
    FakeNode.opened, FakeNode.refusal, FakeNode.ready = [], None, threading.Event()
    yield FakeNode
    for user in USERS:
        sys.modules.pop(user, None)


# -- the daemon -------------------------------------------------------------------------------------------


def signalled(number: signal.Signals, node: type[FakeNode]) -> threading.Thread:
    def send() -> None:
        assert node.ready.wait(10)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_daemon_says_one_line_and_hands_off_when_told_to_end(
    number: signal.Signals, node: type[FakeNode], home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    thread = signalled(number, node)
    line = [
        "--daemon",
        "--home",
        str(home.path),
        "--listen",
        "127.0.0.1:0",
        "--nickname",
        "desk",
        "--witness",
    ]
    assert run(instar_tui, line) == 0
    thread.join()
    assert capsys.readouterr().out == f"ready http://127.0.0.1:1 {ME}\n"
    (opened,) = node.opened
    asked = msgspec.structs.replace(opened.options, restart=None)
    assert asked == NodeOptions(listen="127.0.0.1:0", nickname="desk", witness=True)
    assert opened.stopped == [True]
    assert home.config.exists()
    assert '"ready at http://127.0.0.1:1"' in (home.logs / "node.jsonl").read_text()


def test_a_daemon_that_cannot_start_says_why_and_exits_1(
    node: type[FakeNode], home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    node.refusal = InstarError("port-in-use", "the port is taken", "choose another with --listen")
    assert run(instar_tui, ["--daemon", "--home", str(home.path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: the port is taken\nhint: choose another with --listen\n"
    assert node.opened[0].stopped == [False]


def test_bad_settings_keep_the_daemon_from_starting(
    node: type[FakeNode], home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    home.config.write_text("[lease]\nttl = 1\n")
    assert run(instar_tui, ["--daemon", "--home", str(home.path)]) == 1
    assert f"{home.config}:2: lease.ttl" in capsys.readouterr().err
    assert not node.opened


def test_a_listen_address_that_is_none_is_wrong_usage(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(instar_tui, ["--daemon", "--home", str(home.path), "--listen", "7707"]) == 2
    assert "not HOST:PORT" in capsys.readouterr().err


# -- embedded and attached --------------------------------------------------------------------------------


async def test_an_embedded_node_runs_on_its_own_thread_and_hands_off(
    node: type[FakeNode], home: Home
) -> None:
    connection = await open_api(home, Config(), NodeOptions(nickname="desk"))
    assert connection.embedded
    (opened,) = node.opened
    assert opened.thread is not threading.current_thread()
    assert opened.options.nickname == "desk"
    assert (await connection.api.whoami()).machine_id == ME
    await connection.close()
    assert opened.stopped == [True]
    assert not opened.thread.is_alive()


async def test_a_node_that_cannot_start_is_refused_to_the_caller(node: type[FakeNode], home: Home) -> None:
    node.refusal = InstarError("already-running", "pid 7 has it")
    with pytest.raises(InstarError, match="pid 7 has it"):
        await open_api(home, Config(), NodeOptions())
    assert node.opened[0].stopped == [False]
    assert not node.opened[0].thread.is_alive()


def test_before_it_has_started_there_is_no_api(home: Home) -> None:
    with pytest.raises(InstarError, match="not started"):
        _ = NodeThread(home, Config(), NodeOptions()).api


async def test_a_node_that_runs_is_attached_to_and_left_running(node: type[FakeNode], home: Home) -> None:
    with serving(FakeNodeApi(), home):
        connection = await open_api(home, Config(), NodeOptions())
        assert not connection.embedded
        assert isinstance(connection.api, HttpNodeApi)
        assert (await connection.api.whoami()).machine_id == ME
        await connection.close()
        assert home.api_json.exists()
    assert not node.opened


async def test_what_a_crashed_node_left_behind_is_not_attached_to(node: type[FakeNode], home: Home) -> None:
    with serving(FakeNodeApi(), home):
        left_behind = home.api_json.read_bytes()
    home.api_json.write_bytes(left_behind)
    connection = await open_api(home, Config(), NodeOptions())
    assert connection.embedded
    await connection.close()


def test_a_terminal_that_cannot_draw_gets_text(
    node: type[FakeNode], home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with serving(FakeNodeApi(), home):
        thread = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        thread.start()
        assert run(instar_tui, ["--home", str(home.path)]) == 0
        thread.join()
    assert capsys.readouterr().out.startswith("desk · awake · mesh quiet-river")


# -- the agent of the demo --------------------------------------------------------------------------------


def test_the_demo_agent_answers_the_same_message_the_same_way() -> None:
    request = {
        "message": {"key": "demo-1", "text": "Find a train on Friday morning"},
        "history": [{"role": "user", "text": "hello", "at": ""}, {"role": "agent", "text": "yes", "at": ""}],
    }
    assert reply(request) == reply(request)
    answers = {reply({**request, "message": {"key": f"demo-{n}", "text": "a b c?"}}) for n in range(40)}
    assert len(answers) == 5
    assert not any("{" in answer for answer in answers)
