"""Versions of the machines and rolling updates."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from instar_node.api.types.base import Body, Model, Role


class MachineVersion(Model):
    machine_id: str
    nickname: str
    is_self: bool
    role: Role
    online: bool
    version: str
    """Running there, or last heard of; empty when it was never heard."""
    protocol: tuple[int, int] | None
    installed: str | None
    """What its next start would run, where that is known."""
    held_back: str | None
    """Why nothing is handed to it, or taken over by it; ``None`` when it works with the awake machine."""


class RestartView(Model):
    """A restart into another version on this machine."""

    expected: str
    previous: str
    state: Literal["pending", "done", "failed"]
    attempts: int
    """Starts that came up with another version than the expected one."""
    escalated: bool
    at: str


class UpdateStep(Model):
    machine_id: str
    nickname: str
    step: str
    at_ms: int
    note: str = ""


class Updates(Model):
    version: str
    protocol: tuple[int, int]
    installed: str | None
    machines: list[MachineVersion]
    held_back: list[str]
    """Ids of the machines that are held back."""
    restart: RestartView | None
    """The last restart into another version on this machine."""
    running: bool
    """Whether an update of the mesh is under way, as far as this machine knows."""
    steps: list[UpdateStep]
    """Of the update under way, or the last one that this machine drove."""


class UpdateRequest(Body):
    to: Annotated[str, Meta(max_length=64)] = ""
    """The version every machine is to run; empty for whatever is installed on each."""


class UpdateResult(Model):
    """``restarting``: the others are done, and the machine that drove the update restarts now."""

    outcome: Literal["updated", "nothing-to-do", "restarting", "failed"]
    reason: str
    steps: list[UpdateStep]
