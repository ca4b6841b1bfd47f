"""Has the agent answer one message: grants, retries, and what a run's outcome means."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from instar_node.clock import Clock
from instar_node.contracts import AgentRunner, Authority, HistoryItem, Provenance, RunRequest, RunResult
from instar_node.delivery.contract import Publish
from instar_node.delivery.ledger import MessageProcessingLedger
from instar_node.delivery.outbox import FencedOutbox
from instar_node.delivery.rows import Grant, MessageRow, Rank
from instar_node.errors import InstarError

log = logging.getLogger("instar.delivery")

ATTEMPTS = 3
"""Failed runs after which a message is abandoned."""
RETRY_S = 0.5
AGAIN_S = 0.05
"""Pause after a cancelled run, so that a runner that always cancels does not spin."""
NO_ROOM_S = 2.0
"""Pause after a run that the machine had no room to begin: a full disk must not cost anybody an answer."""

_OUTCOMES = {"already-running": "cancelled", "disk-full": "unable"}
"""What is not the agent's failure: an earlier run of it that was told to stop may not have ended yet."""


class Runs:
    """Runs of the agent on behalf of the holder."""

    def __init__(
        self,
        ledger: MessageProcessingLedger,
        outbox: FencedOutbox,
        runner: AgentRunner,
        authority: Authority,
        history: Callable[[str, int, int], Awaitable[tuple[HistoryItem, ...]]],
        clock: Clock,
        publish: Publish,
        history_limit: int,
    ) -> None:
        self._ledger = ledger
        self._outbox = outbox
        self._runner = runner
        self._authority = authority
        self._history = history
        self._clock = clock
        self._publish = publish
        self._history_limit = history_limit

    async def run(self, row: MessageRow, ready: Callable[[MessageRow], Awaitable[None]]) -> None:
        """Have a message answered and the answer delivered, or leave it to a person, or abandon it.

        ``ready`` returns when an attempt may begin; each asks anew, since the topic may have moved. Every
        attempt has a fresh grant; a result under an older one is refused with ``stale-grant``.
        """
        failures, grant = 0, self._ledger.newest_grant(row)
        while (current := await self._when_ready(row.key, grant, ready)) is not None:
            row, grant = current, self._ledger.begin(current)
            result = await self._attempt(row, grant)
            if result.outcome == "ok":
                await self._outbox.answer(row.key, grant, result.replies, result.machine)
                return
            if result.outcome == "waiting":
                await self._ledger.wait_for_person(row.key, grant)
                return
            if result.outcome == "cancelled":
                await self._clock.sleep(AGAIN_S)
            elif result.outcome == "unable":
                self._tell(row, f"no room to begin, tried again: {result.error}", result.error)
                await self._clock.sleep(NO_ROOM_S)
            else:
                failures += 1
                self._tell(row, f"the agent failed ({failures} of {ATTEMPTS}): {result.error}", result.error)
                if failures >= ATTEMPTS:
                    await self._ledger.abandon(row.key, grant, result.error)
                    return
                await self._clock.sleep(RETRY_S * failures)

    async def _when_ready(
        self, key: str, newest: Grant, ready: Callable[[MessageRow], Awaitable[None]]
    ) -> MessageRow | None:
        """The message when the next attempt may begin; ``None`` if somebody else has answered it by then, or
        is about to: under a newer grant than this."""
        row = self._ledger.current(key, newest)
        if row is not None:
            await ready(row)
            row = self._ledger.current(key, newest)
        return row

    async def _attempt(self, row: MessageRow, grant: Grant) -> RunResult:
        request = await self._request(row, grant)
        try:
            return await self._runner.run(request)
        except InstarError as error:
            outcome = _OUTCOMES.get(error.code, "failed")
            return RunResult(outcome, error=error.message)
        except Exception as error:
            log.exception("the run of %s failed", row.key)
            return RunResult("failed", error=f"{type(error).__name__}: {error}")

    async def _request(self, row: MessageRow, grant: Grant) -> RunRequest:
        origin = row.origin
        assert origin is not None
        history: tuple[HistoryItem, ...] = ()
        if self._history_limit > 0 and self._runner.needs_history(origin.topic):
            history = await self._history(origin.topic, origin.seq, self._history_limit)
        head = self._ledger.topics().get(origin.topic)
        answered_by = head.answered_by if head is not None else ""
        me = self._authority.me
        provenance = Provenance(
            me,
            grant.epoch,
            answered_by or None,
            complete=not self._ledger.incomplete,
        )
        return RunRequest(
            row.key,
            origin.topic,
            origin.text,
            origin.sender,
            origin.at,
            grant.epoch,
            grant.n,
            history,
            provenance,
            origin.machine,
            begun_before=row.rank is Rank.PROCESSING or origin.epoch < grant.epoch,
        )

    def _tell(self, row: MessageRow, what: str, error: str) -> None:
        topic = row.origin.topic if row.origin is not None else ""
        self._publish("message", f"{topic}: {what}", topic=topic, key=row.key, state="failed", error=error)
