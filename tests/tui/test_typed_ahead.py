"""Keys that arrive in one burst: what is typed into a line never runs as commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from textual import events
from textual.keys import _character_to_key
from textual.widgets import Input

from instar_node.api.blocking_client import BlockingNodeApi
from instar_node.storage.home import Home
from instar_tui import typed_ahead
from instar_tui.typed_ahead import TypedAhead
from instar_tui.widgets.transcript import Transcript
from tests.cluster.harness import wait_for
from tests.terminal import Terminal
from tests.tui.conftest import Centre, running
from tests.tui.fake_node import FakeNode

COMMANDS = "transfer zebra, dust and 2 more: naming :q"
"""Nearly every letter of it is a command on the conversation screen."""
REAL = "from instar_tui.cli import main_tui; main_tui()"


def burst(centre: Centre, *keys: str) -> None:
    """Put all of these into the app's queue at once, as a terminal does with what it reads in one piece."""
    for key in keys:
        if len(key) == 1:
            centre.app.post_message(events.Key(_character_to_key(key), key))
        else:
            centre.app.post_message(events.Key(key, "\r" if key == "enter" else None))


@pytest.fixture
async def talk(node: FakeNode) -> AsyncIterator[Centre]:
    """The conversation, its transcript in focus."""
    async with running(node) as centre:
        await centre.go("conversation")
        await centre.until(lambda: isinstance(centre.app.focused, Transcript))
        yield centre


def changes(node: FakeNode) -> set[str]:
    """What the node was asked to change."""
    return {"send", "transfer", "unpin", "reply", "wakeup", "handoff", "outbox_resolve"} & {
        name for name, _ in node.calls
    }


async def test_a_message_typed_in_one_burst_is_sent_whole_and_nothing_else_happens(talk: Centre) -> None:
    burst(talk, "i", *COMMANDS, "enter")
    await talk.until(lambda: talk.node.called("send"))
    assert [body.text for body in talk.node.called("send")] == [COMMANDS]
    await talk.pilot.pause()
    assert changes(talk.node) == {"send"}
    assert talk.app.current_mode == "conversation"
    assert len(talk.app.screen_stack) == 1


async def test_the_next_message_of_a_burst_begins_in_an_empty_line(talk: Centre) -> None:
    burst(talk, "i", *"one", "enter", *"two", "enter", *"left")
    await talk.until(lambda: len(talk.node.called("send")) == 2)
    assert [body.text for body in talk.node.called("send")] == ["one", "two"]
    await talk.until(lambda: talk.app.screen.query_one(Input).value == "left")


async def test_a_burst_goes_on_through_a_dialogue_and_another_screen(talk: Centre) -> None:
    burst(talk, "5", "n", *"tent", "enter", "i", *"t z d", "enter")
    await talk.until(lambda: talk.node.called("send"))
    assert [(body.topic, body.text) for body in talk.node.called("send")] == [("tent", "t z d")]
    assert changes(talk.node) == {"send"}


async def test_keys_after_escape_are_commands_again(talk: Centre) -> None:
    burst(talk, "i", *"5", "escape", "5")
    await talk.until(lambda: talk.app.current_mode == "topics")
    assert talk.node.called("send") == []


async def test_a_pasted_text_in_the_same_burst_lands_in_the_line(talk: Centre) -> None:
    burst(talk, "i")
    talk.app.post_message(events.Paste("transfer"))
    burst(talk, *" it", "enter")
    await talk.until(lambda: talk.node.called("send"))
    assert [body.text for body in talk.node.called("send")] == ["transfer it"]


async def test_keys_behind_a_busy_widget_wait_for_it(talk: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typed_ahead, "PATIENCE_S", 0.0)
    idle = asyncio.Event()
    talk.app.screen.query_one(Transcript).call_later(idle.wait)
    for key in ("i", *"tz", "enter"):
        burst(talk, key)
        await asyncio.sleep(0.01)  # each finds that the first takes long
    idle.set()
    await talk.until(lambda: talk.node.called("send"))
    assert [body.text for body in talk.node.called("send")] == ["tz"]
    assert changes(talk.node) == {"send"}


async def test_a_key_whose_widget_never_tells_that_it_is_through_does_not_stop_the_keyboard(
    talk: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(typed_ahead, "PATIENCE_S", 0.0)
    with monkeypatch.context() as silent:
        silent.setattr(TypedAhead, "_climb", lambda *_: None)  # as if it were taken down
        burst(talk, "i")
        await talk.until(lambda: isinstance(talk.app.focused, Input))
    burst(talk, *"tz", "enter")
    await talk.until(lambda: talk.node.called("send"))
    assert [body.text for body in talk.node.called("send")] == ["tz"]


def test_a_message_typed_in_one_burst_into_a_real_terminal_is_sent_whole(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    api = BlockingNodeApi(home)
    with Terminal("-c", REAL, "--home", str(home.path)) as terminal:
        terminal.read(b"AWAKE")
        terminal.type(b"5ntent\ri" + COMMANDS.encode() + b"\r")
        terminal.shows("tent", COMMANDS)
        wait_for(lambda: [m.text for m in api.messages("tent").messages] == [COMMANDS], 20.0)
        assert [row.pinned_to for row in api.topics().topics] == [None]
        terminal.type(b"\x11")
        assert terminal.ends() == 0
