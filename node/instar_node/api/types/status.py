"""The whole at a glance, the doctor and the settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from instar_node.api.types.base import Body, Model
from instar_node.api.types.conversation import LiveTail, TopicRow
from instar_node.api.types.lease import LeaseView
from instar_node.api.types.machines import Health, Machine, WhoAmI
from instar_node.api.types.roles import HandoffResult


class Status(Model):
    """One consistent picture of everything the header and the overview show."""

    me: WhoAmI
    health: Health
    lease: LeaseView
    machines: list[Machine]
    topics: list[TopicRow]
    livetail: LiveTail
    outbox: int
    handoff: HandoffResult
    at: str
    event: int
    """Number of the newest event contained in this picture."""


class Finding(Model):
    """One thing looked at; ``hint`` says how to mend it."""

    check: str
    state: Literal["ok", "warning", "problem"]
    message: str
    hint: str = ""


class Doctor(Model):
    """``healthy`` while no finding is a problem; a warning is none."""

    healthy: bool
    findings: list[Finding]


class ConfigView(Model):
    """Every setting, defaults included; secrets in it are hidden."""

    path: str
    settings: dict[str, Any]


class ConfigChange(Body):
    key: Annotated[str, Meta(min_length=1, max_length=120)]
    """Such as ``lease.ttl_ms``."""
    value: Any


class ConfigChanged(Model):
    key: str
    value: Any
    at_once: bool
    """Whether it counts already; otherwise from the node's next start."""
