"""Which agent ``[agent]`` gives, and what the in-process ones do."""

from __future__ import annotations

from pathlib import Path

import pytest

from instar_node.clock import SystemClock
from instar_node.config import AgentSettings
from instar_node.contracts import Provenance, RunRequest, RunResult
from instar_node.delivery.agents.base import Agent
from instar_node.delivery.agents.discreet import DiscreetAgent
from instar_node.delivery.agents.factory import build_agent
from instar_node.delivery.agents.reaper import RunRecords
from instar_node.errors import InstarError

REQUEST = RunRequest("local:t:k", "42", "hello", "ada", "", 1, 1, (), Provenance("m1", 1, None, True))


def build(tmp_path: Path, settings: AgentSettings) -> Agent:
    records = RunRecords(tmp_path / "runs.json")
    return build_agent(
        settings, records, lambda name: None, lambda key: 1 << 62, SystemClock(), Path("/nowhere")
    )


async def test_echo_answers_with_the_text(tmp_path: Path) -> None:
    agent = build(tmp_path, AgentSettings(kind="echo"))
    assert await agent.run(REQUEST) == RunResult("ok", ("hello",))


async def test_the_default_agent_leaves_the_message_to_a_person(tmp_path: Path) -> None:
    assert await build(tmp_path, AgentSettings()).run(REQUEST) == RunResult("waiting")


async def test_a_command_on_the_path_is_run(tmp_path: Path) -> None:
    agent = build(tmp_path, AgentSettings(kind="command", command=("echo", "pong")))
    assert await agent.run(REQUEST) == RunResult("ok", ("pong",))


def test_only_an_agent_that_runs_a_program_may_act_on_the_world(tmp_path: Path) -> None:
    program = build(tmp_path, AgentSettings(kind="command", command=("echo",)))
    assert program.acts("42")
    assert DiscreetAgent(program, str).acts("42")
    assert not build(tmp_path, AgentSettings(kind="echo")).acts("42")
    assert not build(tmp_path, AgentSettings(kind="manual")).acts("42")


@pytest.mark.parametrize("command", [(), ("no-such-program-anywhere",)])
def test_a_command_that_cannot_run_is_refused_at_start(tmp_path: Path, command: tuple[str, ...]) -> None:
    with pytest.raises(InstarError) as caught:
        build(tmp_path, AgentSettings(kind="command", command=command))
    assert caught.value.code == "bad-config"
    assert caught.value.hint
