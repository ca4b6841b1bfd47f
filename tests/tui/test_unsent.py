"""What is typed and not sent when an update restarts the program around the person who types."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.widgets import Input

from instar_node.config import UiSettings
from instar_node.storage.atomic import read_json
from instar_tui import app as program
from instar_tui.app import InstarApp
from instar_tui.unsent import Unsent, keep
from tests.tui.fake_node import FakeConnection, FakeNode
from tests.tui.screenful import Screenful


@asynccontextmanager
async def centre(node: FakeNode, unsent_file: Path, *, read_only: bool = False) -> AsyncIterator[Screenful]:
    async def connect() -> FakeConnection:
        return FakeConnection(node)

    app = InstarApp(connect, UiSettings(), read_only=read_only, unsent_file=unsent_file)
    async with app.run_test(size=(120, 36), notifications=True) as pilot:
        screen = Screenful(app, pilot)
        await screen.until(lambda: app.mesh.status is not None)
        yield screen


async def restarts(screen: Screenful, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "UPDATE_NOTICE_S", 0.01)
    screen.app.leave_for_update()
    await screen.until(lambda: not screen.app.is_running)


async def test_an_unsent_answer_is_in_its_line_again_after_the_restart(
    node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "unsent.json"
    async with centre(node, file) as before:
        await before.go("conversation")
        await before.until("what is [red]this[/red]")
        await before.pilot.press("a", *"wait")
        await restarts(before, monkeypatch)
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_json(file, Unsent) == Unsent("42", "wait", "local:42:6")

    async with centre(node, file) as after:
        await after.until("answer to")
        assert after.app.current_mode == "conversation"
        assert not file.exists()
        await after.until(lambda: isinstance(after.app.focused, Input))
        await after.pilot.press("!", "enter")
        await after.until(lambda: node.called("reply"))
        assert [(body.reply_to, body.text) for body in node.called("reply")] == [("local:42:6", "wait!")]


async def test_nothing_is_kept_where_nothing_is_typed(
    node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "unsent.json"
    async with centre(node, file) as screen:
        await screen.go("conversation")
        await restarts(screen, monkeypatch)
    assert not file.exists()


async def test_an_answer_that_is_not_waited_for_any_more_is_said_to_be_a_message_now(
    node: FakeNode, tmp_path: Path
) -> None:
    file = tmp_path / "unsent.json"
    keep(file, Unsent("42", "wait", "local:42:5"))
    async with centre(node, file) as screen:
        await screen.until("does not wait any more")
        assert "answer to" not in screen.text()
        assert screen.app.screen.query_one(Input).value == "wait"


async def test_a_text_that_cannot_be_kept_is_left_in_the_terminal(
    node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with centre(node, tmp_path / "no-folder" / "unsent.json") as screen:
        await screen.go("conversation")
        await screen.pilot.press("i", *"wait")
        await restarts(screen, monkeypatch)
        assert "Not sent in 42: wait" in str(screen.app._exit_renderables)


async def test_a_damaged_file_stops_nothing_and_a_read_only_view_takes_nothing(
    node: FakeNode, tmp_path: Path
) -> None:
    file = tmp_path / "unsent.json"
    file.write_text("{")
    async with centre(node, file) as screen:
        assert screen.app.current_mode == "overview"
    keep(file, Unsent("42", "wait"))
    async with centre(node, file, read_only=True) as screen:
        assert screen.app.current_mode == "overview"
    assert file.exists()
