"""Messages, topics, undecided replies and the live tail."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from instar_node.api.types.base import Body, Key, Model, Topic
from instar_node.api.types.machines import Lag


class SendRequest(Body):
    topic: Topic
    text: Annotated[str, Meta(min_length=1, max_length=200_000)]
    key: Key | None = None
    sender: Annotated[str, Meta(max_length=200)] | None = None


class SendResult(Model):
    key: str
    state: str
    seq: int
    topic: str
    handled_by: str
    duplicate: bool = False


class Message(Model):
    seq: int
    role: Literal["user", "agent"]
    text: str
    at: str
    key: str
    reply_to: str | None
    epoch: int
    machine_id: str
    machine: str
    """Nickname of ``machine_id``."""
    state: str | None = None
    """Delivery state of a user message: ``received``, ``processing``, ``waiting``, ``reserved``,
    ``committed``, ``cursor_advanced``, ``abandoned``, ``rejected``, ``undecided``."""


class Messages(Model):
    topic: str
    messages: list[Message]


class TopicRow(Model):
    topic: str
    owner: str | None
    owner_nickname: str | None
    reason: Literal["pinned", "placed", "unowned"]
    pinned_to: str | None
    pending_reason: str | None
    last_at: str | None
    last_at_ms: int | None
    last_text: str
    last_role: str | None
    unread: int
    queued: int
    running: bool
    moving_to: str | None = None


class Topics(Model):
    topics: list[TopicRow]


class ReplyRequest(Body):
    reply_to: Annotated[str, Meta(min_length=1, max_length=200)]
    text: Annotated[str, Meta(min_length=1, max_length=200_000)]


class OutboxItem(Model):
    id: str
    reply_id: str
    topic: str
    state: str
    epoch: int
    reason: str
    text: str


class Outbox(Model):
    items: list[OutboxItem]


class OutboxAction(Body):
    action: Literal["send", "drop"]


class TailPeer(Model):
    machine_id: str
    nickname: str
    topic: str | None
    behind: Lag
    acked_seq: int
    head_seq: int
    last_ack_ms: int | None


class LiveTail(Model):
    role: Literal["source", "standby"]
    source: str | None
    peers: list[TailPeer]
