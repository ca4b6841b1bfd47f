"""Where a topic runs, and moving it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from instar_node.api.types.base import Body, Model, Topic
from instar_node.api.types.machines import Machine
from instar_node.api.types.roles import Step


class PoolRouter(Model):
    holder: str | None
    epoch: int


class PoolTopics(Model):
    count: int
    pinned: int
    placed: int
    unowned: int


class PoolView(Model):
    enabled: bool
    router: PoolRouter
    machines: list[Machine]
    topics: PoolTopics


class PlacementView(Model):
    topic: str
    owner: str | None
    owner_nickname: str | None
    reason: Literal["pinned", "placed", "unowned"]
    pinned_to: str | None
    lease_holder: str | None
    lease_holder_nickname: str | None
    pin_state: Literal["actuated", "pending", "none"]
    is_this_machine: bool
    answered_by: Literal["local", "holder"]
    pending_reason: str | None = None
    ownership_epoch: tuple[int, int] | None = None


class TransferRequest(Body):
    topic: Topic
    to: Annotated[str, Meta(max_length=64)] = ""
    confirm: str | None = None
    undo: bool = False


class TransferResult(Model):
    outcome: Literal["moved", "queued", "noop"]
    topic: str
    owner: str | None
    owner_nickname: str | None
    source: str | None
    ownership_epoch: tuple[int, int] | None
    took_ms: int
    steps: list[Step] = msgspec.field(default_factory=list)
    pending_reason: str | None = None


class UnpinRequest(Body):
    topic: Topic


class RenameRequest(Body):
    nickname: Annotated[str, Meta(min_length=1, max_length=40)]
