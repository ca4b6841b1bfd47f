"""Moving the awake role, healing a split brain, moving the hub."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from instar_node.api.types.base import Body, Model


class WakeupRequest(Body):
    force: bool = False
    vouch: list[str] = msgspec.field(default_factory=list)
    """With ``force``: the unreachable machines the person vouches are not acting."""


class HealRequest(Body):
    confirm: bool = False
    """Go on from this machine's line; without it the answer tells what was seen and what would follow."""
    vouch: list[str] = msgspec.field(default_factory=list)
    """The unreachable machines the person vouches are not acting."""


class HandoffRequest(Body):
    to: Annotated[str, Meta(min_length=1, max_length=64)]


class Step(Model):
    step: str
    at_ms: int
    """Milliseconds since the operation began."""
    note: str = ""


class HandoffResult(Model):
    outcome: Literal["awake", "already-awake", "aborted", "failed", "running", "none"]
    holder: str | None
    holder_nickname: str | None
    epoch: int
    took_ms: int
    steps: list[Step]
    reason: str = ""
    kind: str = ""
    """``handoff``, ``takeover``, ``force`` or ``heal``."""
    source: str | None = None
    target: str | None = None


class HubRequest(Body):
    url: Annotated[str, Meta(min_length=1, max_length=2_048)]
    """As ``hub.url`` in the settings; ``embedded`` for the awake machine's own disk."""
    force: bool = False
    """The present hub is dead: this machine begins a new generation in the other one."""
    vouch: list[str] = msgspec.field(default_factory=list)
    """With ``force``: the unreachable machines the person vouches are not acting."""


class HubMoved(Model):
    """Where the lease lies after a move; ``unreachable`` machines are benched until they can use the hub."""

    outcome: Literal["moved", "already-there"]
    kind: Literal["embedded", "path", "remote", "witness", "etcd"]
    url: str
    epoch: int
    took_ms: int
    unreachable: list[HubTrouble]


class HubTrouble(Model):
    """A machine that cannot use the new hub, or was not there to say."""

    machine_id: str
    nickname: str
    why: str
