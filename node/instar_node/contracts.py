"""What the parts of the node expect of each other.

Parts (coordination, delivery, handoff, pool, …) never import one another; they know these protocols, and
``instar_node.node`` wires the real objects together. Everything here is a shape, nothing is behaviour.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")
Req = TypeVar("Req", bound=msgspec.Struct)
Rep = TypeVar("Rep", bound=msgspec.Struct)


class Lane(IntEnum):
    """Priority inside a tunnel: lease traffic goes ahead of everything, bulk goes last."""

    LEASE = 0
    NORMAL = 1
    BULK = 2


class PeerError(Exception):
    """A request to a peer failed.

    Attributes:
        reason: ``unreachable`` (no tunnel, or it broke), ``timeout``, ``refused`` (the peer answered with an
            error; ``code`` and the text are its own) or ``overloaded`` (our queue to it is full).
    """

    def __init__(
        self, reason: str, message: str, code: str = "", detail: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.code = code
        self.detail = detail or {}
        """For ``refused``: the whole error object of the peer (code, message, hint, status, …)."""


class PeerInfo(msgspec.Struct, frozen=True):
    """What is known of one peer's connection. Times are microseconds on our own clock."""

    machine_id: str
    connected: bool
    since: int | None
    last_heard: int | None
    rtt_us: int | None
    version: str
    protocol: tuple[int, int]
    incarnation: str
    compatible: bool


class Mesh(Protocol):
    """Requests and one-way messages to paired machines through Noise tunnels.

    Messages are tagged ``msgspec.Struct``s (``class Ask(Struct, tag="part.ask")``); the tag routes them.
    All callbacks run on the node's event loop.
    """

    @property
    def me(self) -> str:
        """This machine's id."""

    def on_request(
        self, request: type[Req], handler: Callable[[str, Req], Awaitable[msgspec.Struct]]
    ) -> None:
        """Answer requests of this type. ``InstarError`` raised by the handler reaches the caller as
        ``PeerError("refused", …)``; any other exception is logged and refused as ``internal``."""

    def on_notice(self, notice: type[Req], handler: Callable[[str, Req], None]) -> None:
        """Receive one-way messages of this type. The handler must not block."""

    def on_peer(self, callback: Callable[[str, bool], None]) -> None:
        """Be told when a peer's tunnel comes up (``True``) or goes down (``False``)."""

    async def request(
        self,
        peer: str,
        message: msgspec.Struct,
        reply: type[Rep],
        *,
        within: float,
        lane: Lane = Lane.NORMAL,
    ) -> Rep:
        """Send and wait for the answer. Raises ``PeerError``; never waits longer than ``within`` seconds."""

    def send(self, peer: str, message: msgspec.Struct, lane: Lane = Lane.NORMAL) -> bool:
        """One-way; ``False`` when there is no tunnel or its queue is full. Never blocks."""

    def connected(self, peer: str) -> bool:
        """Whether a tunnel to this peer is up now."""

    def info(self, peer: str) -> PeerInfo | None:
        """What is known of this peer's connection; ``None`` for a machine that is not paired."""


class Member(msgspec.Struct, frozen=True):
    """One machine of the mesh as the signed registry has it."""

    machine_id: str
    nickname: str
    signing_public: bytes
    encryption_public: bytes
    urls: tuple[str, ...]
    joined_at: str
    admitted_by: str
    witness: bool = False
    removed: bool = False


class Members(Protocol):
    """The folded machine registry."""

    @property
    def mesh_id(self) -> str: ...

    def get(self, machine_id: str) -> Member | None:
        """A member, also a removed one; ``None`` for an id never admitted."""

    def active(self) -> tuple[Member, ...]:
        """Members neither removed nor left, this machine included, in order of admission."""

    def nickname(self, machine_id: str) -> str:
        """The nickname, or the id itself when it is not known."""

    def resolve(self, name: str) -> Member | None:
        """An active member by nickname (case-insensitive) or id."""


class Authority(Protocol):
    """What the lease allows at this instant. Read it immediately before every effect; never cache it."""

    @property
    def me(self) -> str: ...

    @property
    def epoch(self) -> int:
        """Highest epoch this machine knows of."""

    @property
    def holder(self) -> str | None:
        """Holder of the newest record known (valid or not)."""

    def acting_epoch(self) -> int | None:
        """The epoch this machine may act in *now*, or ``None``: the fencing token of every effect."""

    def ack_set(self) -> frozenset[str]:
        """Other machines whose durable copy an acknowledgement needs now: the union of the electorates of
        every record that may be current, without this machine."""

    def on_change(self, callback: Callable[[], None]) -> None:
        """Be called after holder, epoch, acting state or electorate changed."""


class StateVoucher(Protocol):
    """The state repository, as lease records vouch for it (``state_head``)."""

    @property
    def vouched(self) -> str:
        """The commit a record of ours may vouch for: written by us in this epoch, and on the hub (or, without
        a git hub, on every machine of the electorate). Empty for none."""

    @property
    def head(self) -> str | None:
        """The newest verified commit here."""

    @property
    def current(self) -> bool:
        """Whether the verified line here has the commit that the newest lease record vouches for."""

    def on_current(self, callback: Callable[[], None]) -> None:
        """Be called when ``current`` may have become true."""


class Checkpoints(Protocol):
    """What was answered, without any text, for machines that get no rows (the bench)."""

    async def blocks(self) -> dict[str, bytes]:
        """The newest markers, by block name."""

    async def take_in(self, machine: str, blocks: Mapping[str, bytes]) -> int:
        """Join the markers that ``machine`` left when it was awake; how many told something new. Raises
        ``InstarError``."""


class Database(Protocol):
    """SQLite with one writer thread and group commit (``synchronous=FULL``)."""

    async def write(self, job: Callable[[sqlite3.Connection], T], within_s: float = 0.0) -> T:
        """Run ``job`` on the writer; resolves after its group's fsync. An exception in the job undoes that
        job alone and is raised here. ``within_s``: how long it may wait for another write with which to share
        the fsync."""

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read-only job on a reader thread, against the last committed state."""


class RunRequest(msgspec.Struct, frozen=True):
    """One grant to run the agent for one message.

    ``(epoch, n)`` is the grant; a result carrying any other is refused. ``history`` is oldest first.
    """

    key: str
    topic: str
    text: str
    sender: str
    at: str
    epoch: int
    n: int
    history: tuple[HistoryItem, ...]
    provenance: Provenance
    via: str = ""
    """The machine on which the message arrived; empty when that is not known."""
    begun_before: bool = False
    """Whether its agent may have been started under an earlier lease, by another machine or by ourselves."""


class HistoryItem(msgspec.Struct, frozen=True):
    """One earlier line of the conversation; ``role`` is ``user`` or ``agent``."""

    role: str
    text: str
    at: str


class Provenance(msgspec.Struct, frozen=True):
    """Where the agent runs and whether its history is whole."""

    machine: str
    epoch: int
    previous_machine: str | None
    """Where the topic's last answer was made; the agent is told when that was another machine."""
    complete: bool


class RunResult(msgspec.Struct, frozen=True):
    """What a run came to: ``ok`` with the reply texts, ``failed`` (may be retried), ``unable`` (the machine
    had no room to begin it, which is not the agent's failure), ``cancelled`` (killed by fence, transfer or
    person: run again elsewhere) or ``waiting`` (a person will answer)."""

    outcome: str
    replies: tuple[str, ...] = ()
    error: str = ""
    machine: str = ""
    """Where the agent ran; empty for the machine that asked."""


class AgentRunner(Protocol):
    """Runs the agent for one message, here or on the topic's machine."""

    async def run(self, request: RunRequest) -> RunResult: ...

    def needs_history(self, topic: str) -> bool:
        """Whether a request for this topic is to carry the conversation before it; reading it costs."""

    def acts(self, topic: str) -> bool:
        """Whether what answers this topic may act on the world, so that it starts only on what no other
        machine can take up unaware. What merely comes up with a text may start earlier."""

    def cancel(self, key: str) -> bool:
        """Kill the run of this message; ``True`` if there was one."""

    def running(self, topic: str | None = None) -> Iterable[str]:
        """Keys of messages running now (of one topic, if given)."""


Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
"""What SQLite can hold, and count on from. A greater one is refused where it arrives: further on it would
keep from the disk what came with it."""


class LogPosition(msgspec.Struct, frozen=True, order=True):
    """A place in the replicated log; ordered by epoch, then sequence."""

    epoch: Number
    seq: Number


class Placement(msgspec.Struct, frozen=True):
    """Where a topic runs. ``(epoch, n)`` is the ownership epoch; a result of an older one is refused."""

    topic: str
    owner: str | None
    epoch: int
    n: int
    reason: str
    """``pinned``, ``placed`` or ``unowned``."""
    pinned_to: str | None = None
    holder: str = ""
    """Who wrote it: the holder of ``epoch``."""
    signature: bytes = b""
