"""The far ends of channels, on loopback: they record what arrives and misbehave as told.

``WebhookSink`` refuses an ``Instar-Epoch`` below the highest seen and drops repeated keys. ``BotApiServer``
is strict about what the Bot API promises and the usual emulators leave out: offsets confirm, polls are held,
one poll at a time, limits of ``sendMessage``, 429 with ``retry_after``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from aiohttp import web
from aiohttp.test_utils import TestServer

Mischief = Literal["fail", "busy", "refuse", "lose-answer", "stall", "late"]
TOKEN = "4242:AAsecretsecretsecret"


class Misbehaving:
    """A server whose next answers may go wrong; what it takes it remembers in ``texts``."""

    def __init__(self) -> None:
        self.mischief: list[Mischief] = []
        self.texts: list[str] = []
        self.gate = asyncio.Event()
        """Lets go what is stalled or late."""

    async def play(self, request: web.Request, take: Callable[[], Any]) -> bool:
        """Do what the next mischief says; whether the request was dealt with."""
        match self.mischief.pop(0) if self.mischief else None:
            case "lose-answer":
                take()
                assert request.transport is not None
                request.transport.close()
                return True
            case "stall":
                await self.gate.wait()
                return True
            case "late":
                take()
                await self.gate.wait()
                return True
        return False

    def fault(self) -> Mischief | None:
        """The next mischief, if it is one that the server says aloud."""
        if self.mischief and self.mischief[0] in ("fail", "busy", "refuse"):
            return self.mischief.pop(0)
        return None


class WebhookSink(Misbehaving):
    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0
        self.keys: list[str] = []
        self.attempts: list[str] = []
        self.url = ""

    async def hook(self, request: web.Request) -> web.Response:
        body, key, epoch = (
            await request.json(),
            request.headers["Idempotency-Key"],
            int(request.headers["Instar-Epoch"]),
        )
        self.attempts.append(body["text"])
        if (fault := self.fault()) is not None:
            status = {"fail": 500, "busy": 429, "refuse": 422}[fault]
            return web.Response(status=status, headers={"Retry-After": "3"}, text=fault)
        if await self.play(request, lambda: self._take(key, epoch, body["text"])):
            return web.Response()
        if epoch < self.epoch:
            return web.Response(status=409, text=f"epoch {self.epoch} was here")
        self._take(key, epoch, body["text"])
        return web.Response()

    def _take(self, key: str, epoch: int, text: str) -> None:
        self.epoch = max(self.epoch, epoch)
        if key not in self.keys:
            self.keys.append(key)
            self.texts.append(text)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[WebhookSink]:
        application = web.Application()
        application.router.add_post("/hook", self.hook)
        async with TestServer(application) as server:
            self.url = str(server.make_url("/hook"))
            yield self
            self.gate.set()


class BotApiServer(Misbehaving):
    def __init__(self) -> None:
        super().__init__()
        self.url = ""
        self.sent: list[dict[str, Any]] = []
        self.pending: list[dict[str, Any]] = []
        self.confirmed = 0
        """Updates below this are forgotten for good."""
        self.polls: list[dict[str, Any]] = []
        self.webhook_is_set = False
        self.hold_s = 60.0
        """How long a poll is held at most."""
        self._next_update, self._next_message = 1_000, 1
        self._arrived = asyncio.Condition()
        self._polling: asyncio.Task[Any] | None = None

    async def say(
        self, text: str | None, user: int = 7, chat: int = 7, thread: int | None = None, **more: Any
    ) -> int:
        """A person writes; returns the message's number."""
        message: dict[str, Any] = {
            "message_id": self._next_message,
            "date": 1,
            "chat": {"id": chat, "type": "private" if chat > 0 else "supergroup"},
            "from": {"id": user, "is_bot": False, "first_name": "Ada", "username": "ada"},
        }
        if text is not None:
            message["text"] = text
        if thread is not None:
            message |= {"message_thread_id": thread, "is_topic_message": True}
        await self.push({"message": message | more})
        self._next_message += 1
        return int(message["message_id"])

    async def push(self, update: dict[str, Any]) -> None:
        """Any update."""
        async with self._arrived:
            self.pending.append({"update_id": self._next_update} | update)
            self._next_update += 1
            self._arrived.notify_all()

    async def get_updates(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.polls.append(asked)
        if (fault := self.fault()) is not None:
            return _error(fault)
        if self.webhook_is_set:
            return _problem(409, "Conflict: can't use getUpdates method while webhook is active")
        me, other = asyncio.current_task(), self._polling
        if other is not None and not other.done():
            other.cancel()
        self._polling = me
        self.confirmed = max(self.confirmed, asked.get("offset", 0))
        try:
            async with asyncio.timeout(min(asked.get("timeout", 0), self.hold_s)), self._arrived:
                self.pending = [u for u in self.pending if u["update_id"] >= self.confirmed]
                await self._arrived.wait_for(lambda: self.pending)
        except TimeoutError:
            return _result([])
        return _result(self.pending[: asked.get("limit", 100)])

    async def send_message(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if (fault := self.fault()) is not None:
            return _error(fault)
        if not str(asked.get("text", "")).strip():
            return _problem(400, "Bad Request: message text is empty")
        if len(asked["text"].encode("utf-16-le")) > 2 * 4_096:
            return _problem(400, "Bad Request: message is too long")
        if not await self.play(request, lambda: self._take(asked)):
            self._take(asked)
        return _result({"message_id": len(self.sent), "date": 1, "chat": {"id": asked["chat_id"]}})

    def _take(self, asked: dict[str, Any]) -> None:
        self.sent.append(asked)
        self.texts.append(asked["text"])

    async def unknown(self, _: web.Request) -> web.Response:
        return _problem(401, "Unauthorized")

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[BotApiServer]:
        application = web.Application()
        application.router.add_post(f"/bot{TOKEN}/getUpdates", self.get_updates)
        application.router.add_post(f"/bot{TOKEN}/sendMessage", self.send_message)
        application.router.add_post("/{path:.*}", self.unknown)
        async with TestServer(application) as server:
            self.url = str(server.make_url("/"))
            yield self
            self.gate.set()


def _result(result: Any) -> web.Response:
    return web.json_response({"ok": True, "result": result})


def _problem(code: int, description: str, **parameters: Any) -> web.Response:
    body = {"ok": False, "error_code": code, "description": description, "parameters": parameters}
    return web.json_response(body, status=code)


def _error(fault: Mischief) -> web.Response:
    if fault == "busy":
        return _problem(429, "Too Many Requests: retry after 3", retry_after=3)
    return _problem(500 if fault == "fail" else 403, f"{fault}: bot was blocked by the user")
