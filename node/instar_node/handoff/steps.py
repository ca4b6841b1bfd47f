"""The steps of a change of holder, as a pure state machine.

A handoff may turn back at any point before ``yielded``: until then the outgoing machine still holds the lease
and only has to go on. From ``yielded`` on it has given up for good, and only the new epoch ends the handoff.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from instar_node.clock import MICROS_PER_MS

Kind = Literal["handoff", "takeover", "force", "heal"]
StepName = Literal["prepare", "tail_synced", "ingress_fenced", "drained", "waiting", "yielded", "committed"]
Ending = Literal["awake", "aborted", "failed"]

PLANS: dict[Kind, tuple[StepName, ...]] = {
    "handoff": ("prepare", "tail_synced", "ingress_fenced", "drained", "yielded", "committed"),
    "takeover": ("prepare", "waiting", "committed"),
    "force": ("prepare", "committed"),
    "heal": ("prepare", "committed"),
}
"""The steps of each kind, in the only order in which they may happen."""


class HandoffStep(msgspec.Struct, frozen=True):
    """One step, ``at_ms`` after the beginning."""

    step: str
    at_ms: float
    note: str = ""


class HandoffOutcome(msgspec.Struct, frozen=True):
    """A change of holder, under way or over.

    ``awake``: the target holds the lease. ``aborted``: the source stays awake, nothing changed. ``failed``:
    the source is not awake any more and the target has not been seen to be. ``holder`` and ``epoch`` are what
    this machine knows now.
    """

    outcome: Literal["awake", "already-awake", "aborted", "failed", "running", "none"]
    holder: str | None
    holder_nickname: str | None
    epoch: int
    took_ms: float
    steps: tuple[HandoffStep, ...] = ()
    reason: str = ""
    kind: str = ""
    source: str | None = None
    target: str | None = None


class OutOfOrder(Exception):  # noqa: N818 - names what is wrong with the step
    """A step was claimed that does not follow: a mistake of the caller, never of a peer."""


class Steps:
    """How far one change of holder has come. Times are microseconds on this machine's clock.

    The beginning is the first step of the plan; ``ending`` is ``None`` until it is over.
    """

    def __init__(self, kind: Kind, began: int) -> None:
        self.kind = kind
        self.began = began
        self.ended: int | None = None
        self.ending: Ending | None = None
        self.reason = ""
        self.taken: list[HandoffStep] = [HandoffStep(PLANS[kind][0], 0.0)]

    @property
    def at(self) -> str:
        """The last step taken."""
        return self.taken[-1].step

    def advance(self, step: StepName, now: int, note: str = "") -> HandoffStep:
        """Take the next step of the plan. Raises ``OutOfOrder`` for any other, and after the end."""
        plan = PLANS[self.kind]
        if self.ending is not None or len(self.taken) == len(plan) or plan[len(self.taken)] != step:
            raise OutOfOrder(f"{step} does not follow {self.ending or self.at}")
        taken = HandoffStep(step, self.elapsed_ms(now), note)
        self.taken.append(taken)
        return taken

    def reach(self, step: str, now: int, note: str = "") -> list[HandoffStep]:
        """Follow somebody else's steps: take all up to this one; the new ones. A step taken already, one that
        is not in the plan, or any after the end adds nothing."""
        plan = PLANS[self.kind]
        new: list[HandoffStep] = []
        if step in plan and self.ending is None:
            for name in plan[len(self.taken) : plan.index(step) + 1]:
                new.append(self.advance(name, now, note if name == step else ""))
        return new

    def turn(self, kind: Kind) -> None:
        """Go on as another kind, from the first step of its plan; the time counts from the old beginning."""
        self.kind = kind
        self.taken = [HandoffStep(PLANS[kind][0], 0.0)]

    def end(self, ending: Ending, now: int, reason: str = "") -> None:
        """It is over. ``awake`` only after the last step. Raises ``OutOfOrder``."""
        complete = len(self.taken) == len(PLANS[self.kind])
        if self.ending is not None or (ending == "awake") != complete:
            raise OutOfOrder(f"{ending} does not follow {self.ending or self.at}")
        self.ending, self.ended, self.reason = ending, now, reason

    def elapsed_ms(self, now: int) -> float:
        """Milliseconds since the beginning, or from beginning to end."""
        return ((now if self.ended is None else self.ended) - self.began) / MICROS_PER_MS
