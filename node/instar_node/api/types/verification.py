"""Drills between machines, and the gates their results open."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from instar_node.api.types.base import Body, Model


class VerifyRequest(Body):
    machine: Annotated[str, Meta(max_length=64)] = ""
    """Nickname or id; empty for every machine that can be reached."""
    rehearse: bool = False
    """Rehearse the handoff up to the acknowledgement, so that the awake role does not move."""


class DrillStep(Model):
    """One component tried out between two machines."""

    component: str
    passed: bool
    finding: str
    """What was found: evidence when it passed, what is wrong when it did not."""
    took_ms: int


class Drill(Model):
    """All components tried out with one machine, in order, signed by the machine that ran it."""

    peer: str
    peer_nickname: str
    signed_by: str
    signed_by_nickname: str
    passed: bool
    live: bool
    """Whether the awake role really went there and back."""
    failed: str | None
    """The first component that failed, if any."""
    finding: str
    """What failed, or why the drill did not come to its end; empty when it passed."""
    at: str
    epoch: int
    took_ms: int
    versions: dict[str, str]
    """Machine id -> version that ran."""
    steps: list[DrillStep]


class VerifyResult(Model):
    passed: bool
    drills: list[Drill]


class E2EResult(Model):
    """The newest result of one component between two machines."""

    component: str
    peer: str
    peer_nickname: str
    passed: bool
    at: str
    versions: dict[str, str]
    signed_by: str
    signed_by_nickname: str
    verified: bool
    """Whether the signature holds; a result without a good one counts for nothing."""
    finding: str
    took_ms: int
    live: bool
    epoch: int


class E2EResults(Model):
    results: list[E2EResult]


GateState = Literal["open", "shut", "unverified", "overridden"]


class GatePeer(Model):
    """A gate towards one machine."""

    machine_id: str
    nickname: str
    state: GateState
    why: str
    at: str | None


class GateView(Model):
    """One component: whether it may be used, and why. ``state`` is the worst of its peers."""

    gate: str
    state: GateState
    why: str
    shows: str
    """What the drill does to show that it works."""
    guards: list[str]
    """What is refused while it is shut."""
    override: Literal["open", "shut"] | None
    peers: list[GatePeer]


class Flags(Model):
    gates: list[GateView]


class FlagChange(Body):
    gate: Annotated[str, Meta(min_length=1, max_length=40)]
    state: Literal["open", "shut", "auto"]
    """``auto`` lets the drills decide again."""
