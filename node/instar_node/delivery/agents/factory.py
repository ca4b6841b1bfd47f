"""The agent that ``[agent]`` asks for."""

from __future__ import annotations

import shutil

from instar_node.clock import Clock
from instar_node.config import AgentSettings
from instar_node.delivery.agents.base import Agent
from instar_node.delivery.agents.command import CommandAgent
from instar_node.delivery.agents.echo import EchoAgent
from instar_node.delivery.agents.environment import SecretLookup
from instar_node.delivery.agents.leash import Until
from instar_node.delivery.agents.manual import ManualAgent
from instar_node.delivery.agents.reaper import RunRecords
from instar_node.errors import InstarError


def build_agent(
    settings: AgentSettings, records: RunRecords, secret: SecretLookup, until: Until, clock: Clock
) -> Agent:
    """Build the configured agent. Call ``records.reap()`` before its first run. ``until`` says how long the
    run of a message may go on.

    Raises:
        InstarError: ``bad-config`` when kind ``command`` names no program, or one that is not there.
    """
    if settings.kind == "echo":
        return EchoAgent()
    if settings.kind == "manual":
        return ManualAgent()
    if not settings.command:
        raise InstarError(
            "bad-config",
            "[agent] kind is command, but command is empty",
            'command = ["prog", "arg"]',
            status=400,
        )
    if shutil.which(settings.command[0]) is None:
        raise InstarError(
            "bad-config",
            f"[agent] command: no program {settings.command[0]} on this machine",
            "give its full path, or install it",
            status=400,
        )
    return CommandAgent(settings, records, secret, until, clock)
