"""The side that mints the code and admits: the rules of ``POST /api/pair`` and what people see meanwhile."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from instar_node.clock import MICROS_PER_MS, MICROS_PER_SECOND, Clock
from instar_node.contracts import Members
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.pairing import refusals
from instar_node.pairing.exchange import HostExchange, WrongGuessError
from instar_node.pairing.run import Reply, Run, observed
from instar_node.pairing.session import SeenJoiner, State, require_open
from instar_node.pairing.session_store import PairingSessionStore
from instar_node.pairing.view import PairState, view_of
from instar_node.pairing.wire import (
    Finish,
    Finished,
    HubTerms,
    JoinerInfo,
    PairingGrant,
    Refusal,
    Start,
    Started,
    Terms,
    Verdict,
    decode_joiner,
    decode_request,
    malformed,
)
from instar_node.pairing.words import new_code

log = logging.getLogger("instar.pairing")

RATE_LIMIT = 20
RATE_WINDOW_US = 10 * MICROS_PER_SECOND


class PairingHost:
    """Mints codes, answers ``POST /api/pair`` and lets ``admit`` take in whoever proved the code.

    Args:
        admit: Makes the joiner a standby member (lease swap and registry) and returns what it needs. Its
            ``InstarError`` reaches the joiner; it must leave nothing half-registered.
        members: Who is a member already.
        urls: This machine's addresses for peers, as they are now.
        hub: The present hub if the joiner has to reach it, else ``None``. It is shown to the joiner first,
            and nothing is admitted until that machine says that it can use it.
    """

    def __init__(
        self,
        store: PairingSessionStore,
        machine_id: str,
        clock: Clock,
        events: EventHub,
        *,
        members: Members,
        urls: Callable[[], Iterable[str]],
        admit: Callable[[JoinerInfo], Awaitable[PairingGrant]],
        hub: Callable[[], HubTerms | None] = lambda: None,
    ) -> None:
        self._store = store
        self._machine_id = machine_id
        self._clock = clock
        self._events = events
        self._members = members
        self._urls = urls
        self._admit = admit
        self._hub = hub
        self._runs: dict[str, Run] = {}
        self._confirming: Run | None = None
        self._starts: deque[int] = deque()
        self._watch: asyncio.Task[None] | None = None

    # -- for people on this machine ---------------------------------------------------------------------

    def mint(self, sas: bool = False) -> PairState:
        """Open a new code; an older one is void. ``sas``: people compare the short string on both sides."""
        self._runs, self._confirming = {}, None
        self._store.mint(new_code(), sas)
        self._publish("a pairing code is open")
        self._watch_expiry()
        return self.view()

    def view(self) -> PairState:
        """The code, the countdown, the attempts left, and who joined."""
        return view_of(self._store.current(), self._store.remaining_us(), self._urls())

    def cancel(self, why: str = "cancelled on this machine") -> PairState:
        """Void an open code or a comparison under way; harmless otherwise."""
        if self._store.current().state in ("open", "confirming"):
            self._store.end("cancelled", why)
            self._publish(f"the pairing code is void: {why}")
        return self.view()

    def confirm(self, accept: bool) -> PairState:
        """The person here says whether both machines show the same short string.

        Raises ``InstarError("nothing-to-confirm")`` when no comparison is under way.
        """
        run = self._confirming
        if run is None or self._store.current().state != "confirming":
            raise InstarError("nothing-to-confirm", "no machine is waiting to be confirmed")
        if accept:
            run.accepted_here = True
            self._admit_if_agreed(run)
        else:
            self._store.end("cancelled", "declined on this machine")
            self._publish("the joining machine was declined here")
        return self.view()

    async def close(self) -> None:
        """Stop the countdown and end an admission under way. An open code is void after the next start."""
        running: list[asyncio.Task[Any]] = [self._watch] if self._watch is not None else []
        for run in self._runs.values():
            running += [task for task in (run.answer, run.admission) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    # -- for the joining machine ------------------------------------------------------------------------

    async def handle(self, body: bytes, remote: str) -> Reply:
        """Answer one request of ``POST /api/pair``: status and JSON body.

        ``remote`` is the caller's address, for people to see; attempts are counted for the code, whatever
        address they come from.
        """
        try:
            request = decode_request(body)
            if isinstance(request, Start):
                return self._on_start(request)
            if isinstance(request, Finish):
                return await self._on_finish(request, remote)
            return await self._on_verdict(request)
        except InstarError as error:
            return error.status, msgspec.json.encode(Refusal(error.to_json()))

    def _on_start(self, start: Start) -> Reply:
        code = require_open(self._store.current())
        self._limit_rate()
        member = self._members.get(start.machine_id)
        if member is not None:
            raise refusals.already_member(member.removed)
        session = self._clock.token_hex(16)
        exchange = HostExchange(code, session, self._machine_id, start.machine_id, start.commitment)
        self._runs[session] = Run(exchange)
        return 200, msgspec.json.encode(Started(session, self._machine_id, exchange.share))

    async def _on_finish(self, finish: Finish, remote: str) -> Reply:
        run = self._run_of(finish.session)
        if run.answer is None:
            run.finish = finish
            run.answer = observed(self._judge(run, finish, remote))
        elif run.finish != finish:
            raise refusals.exchange_over()
        return await asyncio.shield(run.answer)  # a repeated request gets the same answer, at no cost

    async def _on_verdict(self, verdict: Verdict) -> Reply:
        run = self._run_of(verdict.session)
        if run.keys is None:
            raise refusals.exchange_over()
        if not hmac.compare_digest(run.keys.verdict(verdict.accept), verdict.proof):
            raise malformed("the verdict does not come from the joiner of this exchange")
        if verdict.accept:
            run.accepted_there = True
            self._admit_if_agreed(run)
        elif self._waits_for(run):
            self._store.end("cancelled", "declined on the joining machine")
            self._publish("the join was declined on the joining machine")
        return await self._outcome(run)

    # -- the guess --------------------------------------------------------------------------------------

    async def _judge(self, run: Run, finish: Finish, remote: str) -> Reply:
        if self._runs.get(run.exchange.session) is not run:  # a newer code was minted a moment ago
            raise refusals.exchange_over()
        self._store.spend()  # on disk before anything is known: a crash must not give the attempt back
        try:
            keys = run.exchange.receive(finish.share, finish.confirm)
            payload = keys.unseal("joiner", finish.sealed)
        except WrongGuessError:
            raise self._wrong_guess(remote) from None
        joiner = self._decode(run, payload)
        compare = joiner.sas or self._store.current().sas
        seen = SeenJoiner(joiner.identity.machine_id, joiner.nickname, joiner.identity.fingerprint)
        self._store.prove(seen, keys.short_string(), compare)
        run.keys, run.joiner = keys, joiner
        if compare:
            self._confirming = run
            self._publish(f"{joiner.nickname} proved the code: compare the short string", remote=remote)
            self._watch_expiry()
        else:
            run.accepted_here = True
            run.accepted_there = self._hub() is None
            self._admit_if_agreed(run)
        return await self._outcome(run)

    def _wrong_guess(self, remote: str) -> InstarError:
        left = self._store.current().attempts_left
        why = f"wrong guess from {remote}, {left} {'attempt' if left == 1 else 'attempts'} left"
        self._store.miss(why)
        self._publish(why, remote=remote)
        return refusals.wrong_code(left)

    def _decode(self, run: Run, payload: bytes) -> JoinerInfo:
        try:
            joiner = decode_joiner(payload)
            if joiner.identity.machine_id != run.exchange.joiner_id:
                raise malformed("the identity is not the one that the exchange was for")
        except InstarError as error:  # the code was right, so it is used up
            self._store.end("consumed", error.message)
            self._publish(f"a machine that proved the code was refused: {error.message}")
            raise
        return joiner

    # -- the admission ----------------------------------------------------------------------------------

    def _admit_if_agreed(self, run: Run) -> None:
        if run.joiner is None or run.admission is not None or not (run.accepted_here and run.accepted_there):
            return
        if self._store.current().state in ("confirming", "consumed"):
            self._end(run, "consumed")
            run.admission = observed(self._admission(run, run.joiner))

    async def _admission(self, run: Run, joiner: JoinerInfo) -> PairingGrant:
        try:
            grant = await self._admit(joiner)
        except InstarError as error:
            self._end(run, "consumed", f"{joiner.nickname} was not admitted: {error.message}")
            raise
        except Exception as error:
            log.exception("admitting %s failed", joiner.identity.machine_id)
            self._end(run, "consumed", f"{joiner.nickname} was not admitted: {error}")
            raise refusals.admission_failed() from error
        self._end(run, "joined")
        return grant

    async def _outcome(self, run: Run) -> Reply:
        assert run.keys is not None
        confirm = run.keys.confirmation("host")
        if run.admission is not None:
            grant = await asyncio.shield(run.admission)
            sealed = run.keys.seal("host", msgspec.json.encode(grant))
            return 200, msgspec.json.encode(Finished(confirm, sealed))
        session = self._store.current()
        if self._waits_for(run):
            return 202, msgspec.json.encode(Finished(confirm, terms=self._terms(run)))
        if session.state == "cancelled":
            raise refusals.declined(session.last_refusal or "the join was declined")
        raise refusals.exchange_over()

    def _waits_for(self, run: Run) -> bool:
        """Whether somebody has still to say yes or no to this exchange."""
        if run.admission is not None or self._runs.get(run.exchange.session) is not run:
            return False
        state = self._store.current().state
        return (state == "confirming" and self._confirming is run) or (
            state == "consumed" and run.accepted_here and not run.accepted_there
        )

    def _terms(self, run: Run) -> bytes:
        hub = self._hub()
        if hub is None:
            return b""
        assert run.keys is not None
        return run.keys.seal("terms", msgspec.json.encode(Terms(*hub, self._confirming is run)))

    def _end(self, run: Run, state: State, why: str | None = None) -> None:
        """Move the session on, unless a newer code has taken its place meanwhile."""
        if self._runs.get(run.exchange.session) is not run:
            return
        self._store.end(state, why)
        if why is not None or state == "joined":
            nickname = run.joiner.nickname if run.joiner else "a machine"
            self._publish(why or f"{nickname} joined")

    # -- inside -----------------------------------------------------------------------------------------

    def _run_of(self, session: str) -> Run:
        run = self._runs.get(session)
        if run is None:
            require_open(self._store.current())
            raise refusals.exchange_over()
        return run

    def _limit_rate(self) -> None:
        now = self._clock.now()
        while self._starts and self._starts[0] <= now - RATE_WINDOW_US:
            self._starts.popleft()
        if len(self._starts) >= RATE_LIMIT:
            wait_ms = (self._starts[0] + RATE_WINDOW_US - now) // MICROS_PER_MS + 1
            raise refusals.too_many(wait_ms)
        self._starts.append(now)

    def _watch_expiry(self) -> None:
        if self._watch is None or self._watch.done():
            self._watch = observed(self._expire())

    async def _expire(self) -> None:
        """End the session on time even if nobody looks, so that screens hear of it and the file is empty."""
        while (remaining := self._store.remaining_us()) > 0:
            await self._clock.sleep(remaining / MICROS_PER_SECOND)
        if self._store.current().state == "expired":
            self._publish("the pairing code expired")

    def _publish(self, text: str, **data: Any) -> None:
        """Tell the screens. Never the code: events are logged."""
        session = self._store.current()
        self._events.publish(
            "pair",
            text,
            state=session.state,
            attempts_left=session.attempts_left,
            expires_in_ms=self._store.remaining_us() // MICROS_PER_MS,
            joiner=session.joiner.nickname if session.joiner else None,
            **data,
        )
