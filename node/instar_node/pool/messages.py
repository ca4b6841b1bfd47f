"""What the pool says between machines."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from instar_node.contracts import RunRequest, RunResult

Key = Annotated[str, Meta(max_length=400)]


class RunTime(msgspec.Struct, frozen=True, tag="pool.time"):
    """The holder to the owner: what does your clock say? An order is about to come."""


class RunTimeIs(msgspec.Struct, frozen=True, tag="pool.time-is"):
    """The owner's clock, microseconds."""

    now: int


class RunOrder(msgspec.Struct, frozen=True, tag="pool.run"):
    """The holder to the owner: run this. The grant lasts ``ttl_us`` and is kept alive by ``RunKeep``.

    It lasts from ``since``, which the owner's own clock said before this was sent: an order or a keep-alive
    that arrives late (the owner was suspended, the network slow) gives no time the holder does not count.
    ``ownership`` is the topic's ownership epoch; with the request's ``(epoch, n)`` it makes the grant, and a
    result that carries another one is refused.
    """

    request: RunRequest
    ownership: tuple[int, int]
    ttl_us: Annotated[int, Meta(ge=1_000, le=3_600_000_000)]
    since: int


class RunAccepted(msgspec.Struct, frozen=True, tag="pool.accepted"):
    """The owner has it: just begun, still at it from an earlier order, or finished long since."""

    state: Literal["started", "running", "finished"]
    now: int
    """The owner's clock, for the next ``RunKeep``."""


class RunKeep(msgspec.Struct, frozen=True, tag="pool.keep"):
    """The holder to the owner: the grant for this message lasts anew from ``since``, as in ``RunOrder``."""

    epoch: int
    key: Key
    since: int


class RunAlive(msgspec.Struct, frozen=True, tag="pool.alive"):
    """The owner's answer: whether it still has the run or its result, and what its clock says."""

    epoch: int
    key: Key
    held: bool
    now: int


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
