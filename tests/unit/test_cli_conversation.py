"""``send --wait`` ends with the reply or with the reason there is none; ``log`` shows all there is."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from instar_node.storage.home import Home
from instar_tui.commands import conversation
from tests.unit.fake_api import FakeNodeApi
from tests.unit.served import Cli, home_at, serving


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return home_at(tmp_path)


@pytest.fixture
def cli(home: Home, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(home, capsys)


@pytest.fixture
def api(home: Home) -> Iterator[FakeNodeApi]:
    api = FakeNodeApi()
    with serving(api, home) as loop:
        api.loop = loop  # type: ignore[attr-defined]
        yield api


def test_send_waits_for_the_reply_and_prints_it(cli: Cli, api: FakeNodeApi) -> None:
    ran = cli("send", "work", "hi\nthere", "--wait")
    assert (ran.code, ran.out) == (0, "echo: hi\nthere\n")


def test_the_event_ends_the_wait_not_the_timeout(
    cli: Cli, api: FakeNodeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.slow = 0.3
    monkeypatch.setattr(conversation, "min", lambda *_: 60, raising=False)
    assert cli("send", "work", "hi", "--wait", "--timeout", "60").out == "echo: hi\n"


def test_the_reply_to_another_message_does_not_count(cli: Cli, api: FakeNodeApi) -> None:
    api.rows += []
    cli("send", "work", "first", "--key", "k1")
    ran = cli("send", "work", "second", "--key", "k2", "--wait", "--json")
    assert [reply["reply_to"] for reply in ran.json["replies"]] == ["k2"]
    assert ran.json["sent"]["key"] == "k2"


def test_no_reply_in_time_exits_1_and_says_the_message_is_safe(cli: Cli, api: FakeNodeApi) -> None:
    api.answers = False
    ran = cli("send", "work", "hi", "--key", "k1", "--wait", "--timeout", "0.2")
    assert ran.code == 1
    assert "no reply to k1 within 0.2 s; the message is safe" in ran.err
    assert "instar log work --follow" in ran.err


def test_who_waits_for_a_person_is_told_so_once(cli: Cli, api: FakeNodeApi) -> None:
    api.answers = False

    async def soon() -> None:
        while not (api.rows and api.hub.watched):
            await asyncio.sleep(0.005)
        api.rows[0].state = "waiting"
        api.hub.publish("message", "waiting")

    asyncio.run_coroutine_threadsafe(soon(), api.loop)  # type: ignore[attr-defined]
    ran = cli("send", "work", "hi", "--wait", "--timeout", "1.2")
    assert ran.err.count("waits for a person to answer it") == 1


@pytest.mark.parametrize(
    ("state", "says"), [("abandoned", "every try of the agent failed"), ("undecided", "instar outbox")]
)
def test_a_message_that_will_get_no_reply_ends_the_wait(
    state: str, says: str, cli: Cli, api: FakeNodeApi
) -> None:
    api.answers = False

    def give_up() -> None:
        api.rows[0].state = state
        api.hub.publish("message", state)

    async def soon() -> None:
        while not (api.rows and api.hub.watched):
            await asyncio.sleep(0.005)
        give_up()

    asyncio.run_coroutine_threadsafe(soon(), api.loop)  # type: ignore[attr-defined]
    ran = cli("send", "work", "hi", "--wait", "--timeout", "30")
    assert ran.code == 1
    assert says in ran.err


def test_a_dash_reads_the_text_from_stdin(
    cli: Cli, api: FakeNodeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe\n"))
    assert cli("send", "work", "-").code == 0
    assert api.calls[0][1][0].text == "from a pipe\n"


def test_control_characters_of_messages_are_shown_not_obeyed(cli: Cli, api: FakeNodeApi) -> None:
    assert cli("send", "work", "a\x1b[31mb", "--wait").out == "echo: a␛[31mb\n"
    assert "\x1b" not in cli("log", "work").out
    assert cli("log", "work", "--json").json["messages"][0]["text"] == "a\x1b[31mb"


def test_the_log_shows_every_page(cli: Cli, api: FakeNodeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "PAGE", 2)
    api.answers = False
    for n in range(5):
        cli("send", "work", f"message {n}")
    lines = cli("log", "work").out.splitlines()
    assert [line.split("user ")[1].strip() for line in lines] == [
        f"message {n}  [received]" for n in range(5)
    ]
    assert "desk·7" in lines[0]
    assert len(cli("log", "work", "--tail", "2").out.splitlines()) == 2
    assert cli("log", "work", "--tail", "0").out == ""


def test_follow_goes_on_with_what_comes(cli: Cli, api: FakeNodeApi, home: Home) -> None:
    """Ends when the node goes away, which is an error, and has shown the row that came meanwhile."""
    api.answers = False
    cli("send", "work", "before")

    async def later() -> None:
        while not api.hub.watched:
            await asyncio.sleep(0.005)
        await api.send(conversation.t.SendRequest("work", "after"))
        api.hub.publish("message")
        async with asyncio.timeout(5):
            while ("messages", ("work", 2, conversation.PAGE)) not in api.calls:
                api.hub.publish("pulse")
                await asyncio.sleep(0.01)
        home.api_token.unlink()

    asyncio.run_coroutine_threadsafe(later(), api.loop)  # type: ignore[attr-defined]
    ran = cli("log", "work", "--follow", "--json")
    assert ran.code == 3
    rows = [json.loads(line) for line in ran.out.split("\n{\n")[0].splitlines() if line.startswith('{"')]
    assert [row["text"] for row in rows] == ["before", "after"]


def test_watch_writes_a_page_now_and_one_after_a_change(cli: Cli, api: FakeNodeApi, home: Home) -> None:
    stop = threading.Event()

    async def later() -> None:
        while not api.hub.watched:
            await asyncio.sleep(0.005)
        api.hub.publish("lease", "something changed")
        async with asyncio.timeout(10):
            while [name for name, _ in api.calls].count("status") < 2:
                await asyncio.sleep(0.01)
        home.api_token.unlink()
        api.hub.publish("lease", "and again")
        stop.set()

    asyncio.run_coroutine_threadsafe(later(), api.loop)  # type: ignore[attr-defined]
    ran = cli("status", "--watch")
    assert stop.is_set()
    assert ran.code == 3
    assert ran.out.count("desk · awake · mesh quiet-river") == 2
