"""The person on the joining machine, asked whether both machines show the same short string."""

from __future__ import annotations

import asyncio

from instar_node.clock import MICROS_PER_MS, Clock
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.pairing.sas import ShortString
from instar_node.pairing.session import LIFETIME_US, MAX_ATTEMPTS
from instar_node.pairing.view import PairState


class Comparison:
    """One question at a time; it is shown as a pairing that waits to be confirmed."""

    def __init__(self, clock: Clock, events: EventHub) -> None:
        self._clock = clock
        self._events = events
        self._short: ShortString | None = None
        self._until = 0
        self._answer: asyncio.Future[bool] | None = None

    async def ask(self, short: ShortString) -> bool:
        """Show the string and wait for the answer; no answer in time is a no."""
        self._short, self._until = short, self._clock.now() + LIFETIME_US
        self._answer = asyncio.get_running_loop().create_future()
        self._events.publish("pair", "the code is right: compare the short string", state="confirming")
        try:
            async with asyncio.timeout(LIFETIME_US / 1e6):
                return await self._answer
        except TimeoutError:
            return False
        finally:
            self._short = self._answer = None

    def view(self) -> PairState | None:
        """What people see while the question is open."""
        if self._short is None:
            return None
        return PairState(
            state="confirming",
            code=None,
            url=None,
            join_command=None,
            expires_in_ms=max(0, self._until - self._clock.now()) // MICROS_PER_MS,
            lifetime_ms=LIFETIME_US // MICROS_PER_MS,
            attempts_left=0,
            attempts_max=MAX_ATTEMPTS,
            sas=self._short,
            joiner=None,
            last_refusal=None,
            warning=None,
        )

    def answer(self, accept: bool) -> PairState:
        """The person's answer. Raises ``nothing-to-confirm``."""
        shown = self.view()
        if shown is None or self._answer is None or self._answer.done():
            raise InstarError("nothing-to-confirm", "no comparison is under way")
        self._answer.set_result(accept)
        return shown
