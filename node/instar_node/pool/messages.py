"""What the pool says between machines."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from instar_node.contracts import RunRequest, RunResult

Key = Annotated[str, Meta(max_length=400)]


class RunOrder(msgspec.Struct, frozen=True, tag="pool.run"):
    """The holder to the owner: run this. The grant lasts ``ttl_us`` and is kept alive by ``RunKeep``.

    ``ownership`` is the topic's ownership epoch; with the request's ``(epoch, n)`` it makes the grant, and a
    result that carries another one is refused.
    """

    request: RunRequest
    ownership: tuple[int, int]
    ttl_us: Annotated[int, Meta(ge=1_000, le=3_600_000_000)]


class RunAccepted(msgspec.Struct, frozen=True, tag="pool.accepted"):
    """The owner has it: just begun, still at it from an earlier order, or finished long since."""

    state: Literal["started", "running", "finished"]


class RunKeep(msgspec.Struct, frozen=True, tag="pool.keep"):
    """The holder to the owner: the grant for this message goes on."""

    epoch: int
    key: Key


class RunAlive(msgspec.Struct, frozen=True, tag="pool.alive"):
    """The owner's answer: whether it still has the run or its result."""

    epoch: int
    key: Key
    held: bool


class RunCancel(msgspec.Struct, frozen=True, tag="pool.cancel"):
    """The holder to the owner: kill this run; its result will say ``cancelled``."""

    epoch: int
    key: Key


class RunDone(msgspec.Struct, frozen=True, tag="pool.done"):
    """The owner to the holder: what the run came to, under which grant."""

    key: Key
    epoch: int
    n: int
    ownership: tuple[int, int]
    result: RunResult


class RunDoneTaken(msgspec.Struct, frozen=True, tag="pool.done-taken"):
    """The holder has the result."""


class LoadNotice(msgspec.Struct, frozen=True, tag="pool.load"):
    """How busy a machine is: agents running, how many it can run side by side, and which kind of agent."""

    running: Annotated[int, Meta(ge=0)]
    slots: Annotated[int, Meta(ge=1)]
    agent: Annotated[str, Meta(max_length=40)] = ""
