"""What this machine shows of the change of holder under way, and of the last one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from instar_node.clock import Clock
from instar_node.contracts import Authority, Members
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.handoff.steps import (
    PLANS,
    Ending,
    HandoffOutcome,
    HandoffStep,
    Kind,
    StepName,
    Steps,
)

log = logging.getLogger("instar.handoff")


class HandoffBoard:
    """At most one change of holder at a time; each step is published as a ``handoff`` event.

    Both machines of a handoff keep one: the source's sentinel and the target's receiver write on it.
    """

    def __init__(
        self,
        authority: Authority,
        members: Members,
        clock: Clock,
        events: EventHub,
        ended: Callable[[HandoffOutcome], None] = lambda outcome: None,
    ) -> None:
        """``ended`` is called with every outcome, for the lease's history."""
        self._authority = authority
        self._members = members
        self._clock = clock
        self._events = events
        self._ended = ended
        self._steps: Steps | None = None
        self._source: str | None = None
        self._target: str | None = None
        self._over: asyncio.Future[HandoffOutcome] | None = None
        self.session = ""
        """Names the present or last one, on both machines."""

    @property
    def running(self) -> bool:
        """Whether one is under way."""
        return self._steps is not None and self._steps.ending is None

    @property
    def target(self) -> str | None:
        """Which machine is to be awake, in the present or last one."""
        return self._target

    @property
    def took(self) -> tuple[str, ...]:
        """The names of the steps taken so far."""
        return tuple(step.step for step in self._steps.taken) if self._steps is not None else ()

    def require_free(self) -> None:
        """Raises ``InstarError("handoff-running")`` while one is under way."""
        if self.running:
            raise InstarError(
                "handoff-running",
                f"a change of the awake machine is under way: {self._title()}",
                "wait until it is over: `instar lease` shows who is awake then",
                extra={"source": self._source, "target": self._target},
            )

    def begin(
        self, kind: Kind, source: str | None, target: str, session: str, began: int | None = None
    ) -> None:
        """Open a new one, which began now or at ``began`` (microseconds). Raises
        ``InstarError("handoff-running")``."""
        self.require_free()
        self._steps = Steps(kind, self._clock.now() if began is None else began)
        self._source, self._target, self.session = source, target, session
        self._over = asyncio.get_running_loop().create_future()
        self._tell(self._steps.taken[0])

    def awaits(self, source: str) -> bool:
        """Whether the one under way hands over from this machine to us."""
        steps = self._steps
        return self.running and steps is not None and (steps.kind, self._source) == ("handoff", source)

    def rename(self, session: str) -> None:
        """The same handoff goes by this name: its other machine had begun it already."""
        self.session = session

    def turn(self, kind: Kind) -> None:
        """What was asked of the holder is now taken by the rules; it began when it was asked for."""
        assert self._steps is not None
        self._steps.turn(kind)

    def step(self, step: StepName, note: str = "") -> HandoffStep:
        """Take the next step."""
        assert self._steps is not None
        taken = self._steps.advance(step, self._clock.now(), note)
        self._tell(taken)
        return taken

    def follow(self, step: str, note: str = "") -> None:
        """The other machine took a step."""
        if self._steps is not None:
            for taken in self._steps.reach(step, self._clock.now(), note):
                self._tell(taken)

    def finish(self, ending: Ending, reason: str = "") -> HandoffOutcome:
        """It is over; an ending ``awake`` implies every step. Does nothing when none is under way."""
        steps = self._steps
        if steps is None or steps.ending is not None:
            return self.view()
        if ending == "awake":
            self.follow(PLANS[steps.kind][-1])
        steps.end(ending, self._clock.now(), reason)
        outcome = self.view()
        text = f"{self._title()}: {self._closing_words(outcome)}"
        log.log(logging.INFO if ending == "awake" else logging.WARNING, "%s", text)
        self._publish(text, outcome=ending, reason=reason, took_ms=outcome.took_ms, epoch=outcome.epoch)
        assert self._over is not None
        self._over.set_result(outcome)
        self._ended(outcome)
        return outcome

    async def over(self) -> HandoffOutcome:
        """Wait until the present one has ended; at once when it has."""
        return self.view() if self._over is None else await asyncio.shield(self._over)

    def say(self, text: str, **data: object) -> None:
        """Something worth telling that is no step, such as a countdown."""
        self._publish(f"{self._title()}: {text}", **data)

    def view(self) -> HandoffOutcome:
        """The one under way (``running``), the last one, or ``none``."""
        steps, holder = self._steps, self._authority.holder
        nickname = self._members.nickname(holder) if holder is not None else None
        epoch = self._authority.epoch
        if steps is None:
            return HandoffOutcome("none", holder, nickname, epoch, 0.0)
        return HandoffOutcome(
            steps.ending or "running",
            holder,
            nickname,
            epoch,
            steps.elapsed_ms(self._clock.now()),
            tuple(steps.taken),
            steps.reason,
            steps.kind,
            self._source,
            self._target,
        )

    def already_awake(self) -> HandoffOutcome:
        """The answer to a wish that is fulfilled already."""
        authority = self._authority
        nickname = self._members.nickname(authority.me)
        return HandoffOutcome("already-awake", authority.me, nickname, authority.epoch, 0.0)

    # -- telling ----------------------------------------------------------------------------------------

    def _tell(self, taken: HandoffStep) -> None:
        note = f" ({taken.note})" if taken.note else ""
        text = f"{self._title()}: {taken.step}{note}"
        log.info("%s at %.1f ms", text, taken.at_ms)
        self._publish(text, step=taken.step, at_ms=taken.at_ms, note=taken.note)

    def _publish(self, text: str, **data: object) -> None:
        assert self._steps is not None
        kind = self._steps.kind
        self._events.publish(
            "handoff", text, what=kind, source=self._source, target=self._target, session=self.session, **data
        )

    def _title(self) -> str:
        target = self._members.nickname(self._target) if self._target is not None else "?"
        if self._steps is not None and self._steps.kind == "handoff" and self._source is not None:
            return f"{self._members.nickname(self._source)} → {target}"
        return f"{target} takes the lease"

    def _closing_words(self, outcome: HandoffOutcome) -> str:
        if outcome.outcome == "awake":
            return f"awake in epoch {outcome.epoch} after {outcome.took_ms:.0f} ms"
        return f"{outcome.outcome}, {outcome.reason}"
