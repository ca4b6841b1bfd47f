"""What one machine knows of the lease: what it must not forget, and its own records that may be current."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from instar_node.coordination.record import HubPlace, KnownRecord, LeaseRecord

SwapKind = Literal["contend", "renew", "release", "close"]

FOREVER = 1 << 62
"""A deadline that never comes (microseconds)."""


@dataclass(frozen=True)
class LeaseTiming:
    """Times of the lease, microseconds; ``drift`` is the largest clock-rate error ρ of any machine."""

    ttl: int
    round: int
    bench_ttl: int
    drift: float

    def wait(self, duration: int) -> int:
        """How long a contender waits on its own clock until ``duration`` is over on every other.

        Holder stops at real time ≤ s + d/(1−ρ), contender starts at ≥ s + w/(1+ρ): w ≥ d·(1+ρ)/(1−ρ).
        """
        return math.ceil(duration * (1 + self.drift) / (1 - self.drift))


class DurableLease(msgspec.Struct, frozen=True):
    """What a machine must not forget in a crash.

    ``newest`` is the newest record ever seen (rule 8: lower in the register means a rewound hub), ``ceased``
    the versions this machine gave up for good, ``evidence`` why it stopped acting until a person heals,
    ``proof`` the two records that contradict each other where it was records that did, ``disputed`` the
    highest epoch of the lines in question, ``declined`` closings this machine refused to open.
    """

    newest: KnownRecord | None = None
    ceased: tuple[str, ...] = ()
    declined: tuple[str, ...] = ()
    evidence: str | None = None
    proof: tuple[KnownRecord, ...] = ()
    disputed: int = 0


@dataclass(slots=True)
class Tenure:
    """One record of ours that is, or may be, the current value of the register.

    ``started`` is the instant before its swap was sent; ``proven`` the instant up to which it is known that
    nobody else may act before ``proven + ttl``. The rest is derived from the record.
    """

    record: LeaseRecord
    version: str | None
    started: int
    proven: int
    others: tuple[str, ...] = field(init=False)
    """The electorate without its holder: who must promise."""
    ttl: int = field(init=False)
    bench_end: int = field(init=False)
    """When a benched machine might contend, so that only a swap leads beyond it; ``FOREVER`` without one."""

    def __post_init__(self) -> None:
        record = self.record
        self.others = tuple(machine for machine in record.electorate if machine != record.holder)
        self.ttl = record.ttl_ms * 1_000
        self.bench_end = self.started + record.bench_ttl_ms * 1_000 if record.benched else FOREVER

    @property
    def deadline(self) -> int:
        """Until when this record alone lets its holder act, microseconds."""
        bound = self.proven + self.ttl if self.others else FOREVER
        return bound if bound < self.bench_end else self.bench_end


@dataclass(slots=True)
class OpenSwap(Tenure):
    """An own swap whose outcome is not known yet. ``expected`` is the version it replaces, ``hub`` the place
    of the register it goes to (``None``: the one of the founding)."""

    expected: str | None = None
    kind: SwapKind = "renew"
    hub: HubPlace | None = None
