"""The receiver of the replies: a good one (it deduplicates and fences), now and then an unwell one."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from aiohttp import web

from tests.chaos.history import Attempt, History, Verdict

Mood = Literal["well", "slow-to-take", "slow-to-answer", "failing", "deaf", "busy"]
"""``slow-to-take`` waits before it takes a reply, ``slow-to-answer`` after; ``deaf`` takes it and hangs up
without an answer; ``failing`` answers 500 and ``busy`` 429, both without taking it."""

SLOW_S = 0.7


class Sink:
    """``POST /`` takes a reply, once for each ``Idempotency-Key``, never from an epoch that is over (409)."""

    def __init__(self, history: History) -> None:
        self.mood: Mood = "well"
        self._history = history
        self._taken: set[str] = set()
        self._answered: set[str] = set()
        self._highest = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen on loopback; returns the URL."""
        app = web.Application()
        app.router.add_post("/", self._receive)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/"

    async def stop(self) -> None:
        """Listen no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    def answered(self) -> set[str]:
        """Keys of the messages whose reply was taken. Only ever grows; safe to look into from any thread."""
        return self._answered

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        arrived = time.monotonic()
        epoch = int(request.headers["Instar-Epoch"])
        reply_id = request.headers["Idempotency-Key"]
        mood = self.mood
        if mood == "slow-to-take":
            await asyncio.sleep(SLOW_S)
        verdict = self._judge(epoch, reply_id, mood)
        if verdict == "accepted":
            self._answered.add(body["reply_to"])
        self._history.attempts.append(
            Attempt(
                arrived,
                time.monotonic(),
                reply_id,
                body["reply_to"],
                body["topic"],
                body["text"],
                epoch,
                body["machine_id"],
                verdict,
            )
        )
        if mood == "slow-to-answer":
            await asyncio.sleep(SLOW_S)
        if mood == "deaf" and request.transport is not None:
            request.transport.close()
        return self._answer(verdict, mood)

    def _judge(self, epoch: int, reply_id: str, mood: Mood) -> Verdict:
        """Decided and noted in one step, as a receiver with a database would in one transaction."""
        if epoch < self._highest:
            return "stale"
        self._highest = epoch
        if mood in ("failing", "busy"):
            return "turned-away"
        if reply_id in self._taken:
            return "duplicate"
        self._taken.add(reply_id)
        return "accepted"

    @staticmethod
    def _answer(verdict: Verdict, mood: Mood) -> web.Response:
        if verdict == "stale":
            return web.Response(status=409, text="a later epoch has begun")
        if verdict == "turned-away":
            return web.Response(status=500 if mood == "failing" else 429)
        return web.Response(text=verdict)
