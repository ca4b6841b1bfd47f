"""What the outside saw of a run: plain records of the client, the receiver, the agents and the nemesis.

All instants are seconds on the one monotonic clock of the test computer.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["accepted", "duplicate", "stale", "turned-away"]


class Sent(msgspec.Struct, frozen=True):
    """A message of the client that was acknowledged: ``number`` is its place in the topic.

    ``duplicate`` is what the node said; ``repeated`` that the client knew it was acknowledged before.
    """

    at: float
    key: str
    topic: str
    number: int
    machine: str
    duplicate: bool
    repeated: bool = False


class Attempt(msgspec.Struct, frozen=True):
    """One request that reached the receiver (``arrived``), and what the receiver made of it (``at``).

    ``accepted`` is the one effective delivery of a reply id, ``duplicate`` a repeat of it, ``stale`` came
    with an epoch below one seen before, ``turned-away`` got an error because the receiver was unwell.
    """

    arrived: float
    at: float
    reply_id: str
    reply_to: str
    topic: str
    text: str
    epoch: int
    machine: str
    verdict: Verdict


class Beat(msgspec.Struct, frozen=True):
    """A sign of life of an agent: ``run`` names the process; it was told ``machine`` and ``epoch``."""

    at: float
    key: str
    topic: str
    run: str
    machine: str
    epoch: int


class Line(msgspec.Struct, frozen=True):
    """One line of a conversation as a machine shows it; ``key`` is the message, or the one answered."""

    topic: str
    seq: int
    role: str
    key: str
    text: str


class Copy(msgspec.Struct, frozen=True):
    """What one machine holds at the end: its log entries (``epoch.seq kind hash``), its message rows by key
    (a digest of each), the conversation it shows, and who held each epoch as far as it knows."""

    machine: str
    log: list[str]
    rows: dict[str, str]
    lines: list[Line]
    holders: dict[int, str]


class Deed(msgspec.Struct, frozen=True):
    """Something the nemesis did."""

    at: float
    what: str


class History(msgspec.Struct):
    """A whole run. Lists only grow, and ``append`` is safe from every thread."""

    seed: int
    sent: list[Sent] = []
    attempts: list[Attempt] = []
    beats: list[Beat] = []
    deeds: list[Deed] = []
    unanswered: list[str] = []
    """Keys that the client could not get acknowledged although everything was healed."""
    copies: list[Copy] = []
    register: dict[int, list[str]] = {}
    """Epoch -> holders that the hub's ref log names."""
