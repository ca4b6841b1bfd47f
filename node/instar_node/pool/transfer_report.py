"""What is asked of a transfer, what it answers, and its steps as they happen."""

from __future__ import annotations

from typing import Literal

import msgspec

from instar_node.clock import MICROS_PER_MS, Clock
from instar_node.events import EventHub


class TransferRequest(msgspec.Struct, frozen=True):
    """A wish to move a topic: ``to`` a nickname or id, or ``undo`` of the last move."""

    topic: str
    to: str = ""
    confirm: str | None = None
    undo: bool = False


class TransferStep(msgspec.Struct, frozen=True):
    """One step, ``at_ms`` after the beginning."""

    step: str
    at_ms: float
    note: str = ""


class TransferResult(msgspec.Struct, frozen=True):
    """What came of it: the same fields as the API's."""

    outcome: Literal["moved", "queued", "noop"]
    topic: str
    owner: str | None
    owner_nickname: str | None
    source: str | None
    ownership_epoch: tuple[int, int] | None
    took_ms: float
    steps: tuple[TransferStep, ...]
    pending_reason: str | None


class Progress:
    """The steps of one transfer, published as they happen."""

    def __init__(self, topic: str, target: str, clock: Clock, events: EventHub) -> None:
        self._topic, self._target, self._clock, self._events = topic, target, clock, events
        self._began = clock.now()
        self.steps: list[TransferStep] = []

    def elapsed_ms(self) -> float:
        return (self._clock.now() - self._began) / MICROS_PER_MS

    def step(self, name: str, note: str = "") -> None:
        step = TransferStep(name, self.elapsed_ms(), note)
        self.steps.append(step)
        text = f"topic {self._topic} → {self._target}: {name}" + (f" ({note})" if note else "")
        self._events.publish(
            "transfer", text, topic=self._topic, to=self._target, step=name, at_ms=step.at_ms, note=note
        )
