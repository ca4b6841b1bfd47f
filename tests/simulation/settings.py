"""What kind of world a seed is: every choice in one readable line."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields

SECOND = 1_000_000
FAULTS = (
    "crash",
    "suspend",
    "one-way cut",
    "isolation",
    "hub away",
    "hub cut",
    "hub slow",
    "handoff",
    "release",
    "slow standby",
    "expel",
    "long crash",
    "race",
    "left to the bench",
)


@dataclass(frozen=True)
class Settings:
    """All parameters of one world; times in microseconds, probabilities per message."""

    seed: int
    machines: int
    hub: str
    """URL of the founding hub; empty: embedded, so the lease is a baton."""
    ttl: int
    bench_ttl: int
    drift: float
    loss: float
    repeats: float
    slow: float
    """Share of messages that take anything up to ``slowest``."""
    slowest: int
    pause: int
    """Mean time between two faults."""
    rows: int
    """Mean time between two messages of the conversation."""
    faults: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))


def settings_of(seed: int) -> Settings:
    """The world of a seed. Each takes a few kinds of faults only, so that some worlds go deep in one."""
    rng = random.Random(f"settings {seed}")
    embedded = rng.random() < 0.2
    faults = tuple(fault for fault in FAULTS if rng.random() < 0.45)
    if embedded and "handoff" not in faults:
        faults += ("handoff",)
    extra = [("move", 0.15), ("force", 0.12), ("rewind", 0.06)]
    faults += tuple(name for name, share in extra if rng.random() < share)
    ttl = rng.choice((3, 3, 6)) * SECOND
    return Settings(
        seed=seed,
        machines=rng.choice((1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 4, 4, 5)),
        hub="" if embedded else "hub0",
        ttl=ttl,
        bench_ttl=ttl * rng.choice((10, 10, 20)),
        drift=rng.choice((0.001, 0.01, 0.05)),
        loss=rng.choice((0.0, 0.0, 0.02, 0.1)),
        repeats=rng.choice((0.0, 0.05)),
        slow=rng.choice((0.0, 0.02, 0.1)),
        slowest=rng.choice((1, 4, 12)) * SECOND,
        pause=rng.choice((1, 2, 5)) * SECOND,
        rows=rng.choice((2, 6)) * SECOND,
        faults=faults,
    )
