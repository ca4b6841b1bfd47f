"""Presets for agent CLIs: the conversation travels, a session is gone on with only while it knows all of it.

The real programs need an account; stand-ins speak their formats and write down how they were asked.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import pytest

from instar_node.clock import SystemClock
from instar_node.config import AgentSettings
from instar_node.contracts import HistoryItem, Provenance, RunRequest, RunResult
from instar_node.delivery.agents.base import Agent
from instar_node.delivery.agents.factory import build_agent
from instar_node.delivery.agents.presets import PRESETS, PresetName
from instar_node.delivery.agents.reaper import RunRecords
from instar_node.errors import InstarError

STAND_IN = r"""
import json, pathlib, sys
here = pathlib.Path(__file__).parent
asked = {"argv": sys.argv[1:], "stdin": sys.stdin.read()}
with open(here / "asked.jsonl", "a") as file:
    file.write(json.dumps(asked) + "\n")
number = len((here / "asked.jsonl").read_text().splitlines())
text, argv = f"answer {number}", sys.argv[1:]
if (here / "forget").exists() and ("--resume" in argv or "resume" in argv):
    sys.exit("No conversation found")
if (here / "fail").exists():
    sys.stderr.write("not logged in")
    sys.exit(3)
if (here / "garbage").exists():
    print("Welcome!")
elif "exec" in argv:
    print(json.dumps({"type": "thread.started", "thread_id": "T1"}))
    print(json.dumps({"type": "turn.started"}))
    print(json.dumps({"type": "item.completed", "item": {"id": "0", "type": "reasoning", "text": "hm"}}))
    print(json.dumps({"type": "item.completed", "item": {"id": "1", "type": "agent_message", "text": text}}))
    print(json.dumps({"type": "turn.completed", "usage": {"input_tokens": 1}}))
elif "-p" in argv:
    print(json.dumps({"type": "result", "is_error": False, "result": text, "session_id": "S1", "cost": 1}))
else:
    print(json.dumps({"response": text, "stats": {}}))
"""


class Cli:
    """A stand-in, the agent that runs it, and what the stand-in was asked."""

    def __init__(self, folder: Path, preset: PresetName) -> None:
        self.folder = folder
        script = folder / "cli.py"
        script.write_text(STAND_IN)
        settings = AgentSettings(kind="command", preset=preset, command=(sys.executable, str(script)))
        self.agent: Agent = build_agent(
            settings,
            RunRecords(folder / "runs.json"),
            lambda name: None,
            lambda key: 1 << 62,
            SystemClock(),
            folder / "sessions",
        )

    async def ask(self, text: str, *history: HistoryItem, topic: str = "t") -> RunResult:
        provenance = Provenance("m1", 7, None, True)
        return await self.agent.run(
            RunRequest(f"local:{topic}:{text}", topic, text, "ada", "now", 7, 1, history, provenance)
        )

    @property
    def asked(self) -> list[dict[str, list[str] | str]]:
        return [json.loads(line) for line in (self.folder / "asked.jsonl").read_text().splitlines()]


def user(text: str) -> HistoryItem:
    return HistoryItem("user", text, "t0")


def said(text: str) -> HistoryItem:
    return HistoryItem("agent", text, "t1")


@pytest.mark.parametrize("preset", PRESETS)
async def test_the_message_goes_in_and_the_answer_alone_comes_out(tmp_path: Path, preset: PresetName) -> None:
    cli = Cli(tmp_path, preset)
    assert await cli.ask("hello") == RunResult("ok", ("answer 1",))
    [asked] = cli.asked
    assert asked["argv"] == list(PRESETS[preset].fresh)
    assert asked["stdin"] == "hello"


@pytest.mark.parametrize(("preset", "session"), [("claude", "S1"), ("codex", "T1")])
async def test_a_session_that_knows_the_conversation_is_told_only_what_is_new(
    tmp_path: Path, preset: PresetName, session: str
) -> None:
    cli = Cli(tmp_path, preset)
    await cli.ask("one")
    history = (user("one"), said("answer 1"), user("nobody answered this"))
    assert await cli.ask("two", *history) == RunResult("ok", ("answer 2",))
    asked = cli.asked[1]
    assert asked["argv"] == [part.replace("{session}", session) for part in PRESETS[preset].resume]
    assert "nobody answered this" in asked["stdin"]
    assert "answer 1" not in asked["stdin"]
    assert str(asked["stdin"]).endswith("two")


@pytest.mark.parametrize("preset", PRESETS)
async def test_a_conversation_that_went_on_elsewhere_is_told_in_a_new_session(
    tmp_path: Path, preset: PresetName
) -> None:
    cli = Cli(tmp_path, preset)
    await cli.ask("one")
    elsewhere = (user("one"), said("answer 1"), user("two"), said("said on another machine"))
    await cli.ask("three", *elsewhere)
    asked = cli.asked[1]
    assert asked["argv"] == list(PRESETS[preset].fresh)
    for text in ("one", "answer 1", "two", "said on another machine", "three"):
        assert text in asked["stdin"]


async def test_topics_have_sessions_of_their_own(tmp_path: Path) -> None:
    cli = Cli(tmp_path, "claude")
    await cli.ask("one", topic="tg:-1:2")
    await cli.ask("two", user("one"), said("answer 1"), topic="other")
    assert "--resume" not in cli.asked[1]["argv"]
    await cli.ask("three", user("one"), said("answer 1"), topic="tg:-1:2")
    assert "--resume" in cli.asked[2]["argv"]


async def test_a_session_the_cli_forgot_gives_way_to_a_new_one_with_the_history(tmp_path: Path) -> None:
    cli = Cli(tmp_path, "claude")
    await cli.ask("one")
    (tmp_path / "forget").touch()
    assert (await cli.ask("two", user("one"), said("answer 1"))).outcome == "ok"
    assert "--resume" not in cli.asked[2]["argv"]
    assert "answer 1" in cli.asked[2]["stdin"]


@pytest.mark.parametrize("preset", PRESETS)
async def test_a_cli_that_fails_says_why_in_its_own_words(tmp_path: Path, preset: PresetName) -> None:
    cli = Cli(tmp_path, preset)
    (tmp_path / "fail").touch()
    result = await cli.ask("hello")
    assert result.outcome == "failed"
    assert "not logged in" in result.error
    assert "exit status 3" in result.error


@pytest.mark.parametrize("preset", PRESETS)
async def test_output_in_another_format_is_no_answer(tmp_path: Path, preset: PresetName) -> None:
    cli = Cli(tmp_path, preset)
    (tmp_path / "garbage").touch()
    result = await cli.ask("hello")
    assert result.outcome == "failed"
    assert "Welcome!" in result.error


async def test_a_damaged_session_file_costs_the_session_only(tmp_path: Path) -> None:
    cli = Cli(tmp_path, "claude")
    await cli.ask("one")
    (tmp_path / "sessions" / "t.json").write_text("{")
    assert (await cli.ask("two", user("one"), said("answer 1"))).outcome == "ok"
    assert "--resume" not in cli.asked[1]["argv"]


def test_a_preset_whose_program_is_not_there_is_refused_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    settings = msgspec.convert({"kind": "command", "preset": "gemini"}, AgentSettings)
    with pytest.raises(InstarError, match="no program gemini"):
        build_agent(
            settings,
            RunRecords(tmp_path / "runs.json"),
            lambda name: None,
            lambda key: 0,
            SystemClock(),
            tmp_path,
        )
