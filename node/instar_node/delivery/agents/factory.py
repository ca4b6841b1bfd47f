"""The agent that ``[agent]`` asks for."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from msgspec.structs import replace

from instar_node.clock import Clock
from instar_node.config import AgentSettings
from instar_node.delivery.agents.base import Agent
from instar_node.delivery.agents.command import CommandAgent
from instar_node.delivery.agents.echo import EchoAgent
from instar_node.delivery.agents.environment import SecretLookup
from instar_node.delivery.agents.leash import Until
from instar_node.delivery.agents.manual import ManualAgent
from instar_node.delivery.agents.presets import PRESETS
from instar_node.delivery.agents.reaper import RunRecords
from instar_node.errors import InstarError


def build_agent(
    settings: AgentSettings,
    records: RunRecords,
    secret: SecretLookup,
    until: Until,
    clock: Clock,
    sessions: Path,
) -> Agent:
    """Build the configured agent. Call ``records.reap()`` before its first run. ``until`` says how long the
    run of a message may go on; ``sessions`` is the folder for what presets remember.

    Raises:
        InstarError: ``bad-config`` when kind ``command`` names no program, or one that is not there.
    """
    if settings.kind == "echo":
        return EchoAgent()
    if settings.kind == "manual":
        return ManualAgent()
    command = settings.command
    if settings.preset:
        command = command or (PRESETS[settings.preset].program,)
    if not command:
        raise InstarError(
            "bad-config",
            "[agent] kind is command, but command is empty",
            'command = ["prog", "arg"]',
            status=400,
        )
    if shutil.which(command[0]) is None:
        raise InstarError(
            "bad-config",
            f"[agent] command: no program {command[0]} on this machine",
            "give its full path, or install it",
            status=400,
        )
    if settings.preset:
        adapter = "instar_node.delivery.agents.preset_adapter"
        command = (sys.executable, "-m", adapter, settings.preset, str(sessions), *command)
    return CommandAgent(replace(settings, command=command), records, secret, until, clock)
