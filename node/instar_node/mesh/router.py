"""From tag to handler: what this machine answers, and how refusals travel back."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from instar_node.contracts import Lane, PeerError, Req
from instar_node.errors import InstarError
from instar_node.mesh.frames import MALFORMED, MAX_CODE, Failure, Frame, Notice, Request, Response
from instar_node.mesh.tunnel import Tunnel

log = logging.getLogger("instar.mesh")

MAX_RUNNING = 256
"""Requests of one peer and lane answered at once; more are refused as ``overloaded``, so that a handler that
hangs costs its own lane and no other."""

OVERLOADED = "overloaded"


class Router:
    """Decodes requests and notices, runs their handlers, sends answers on the lane of the question.

    A handler is not cancelled when the caller's deadline passes: half-done work is worse than a late answer,
    which the caller's side drops and counts.
    """

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._requests: dict[str, tuple[_Decoder, _Handler]] = {}
        self._notices: dict[str, tuple[_Decoder, Callable[[str, Any], None]]] = {}
        self._running: Counter[tuple[str, Lane]] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def on_request(
        self, request: type[Req], handler: Callable[[str, Req], Awaitable[msgspec.Struct]]
    ) -> None:
        """Answer requests of this type with ``handler``."""
        self._requests[_new_tag(request, self._requests)] = (msgspec.msgpack.Decoder(request), handler)

    def on_notice(self, notice: type[Req], handler: Callable[[str, Req], None]) -> None:
        """Hand one-way messages of this type to ``handler``."""
        self._notices[_new_tag(notice, self._notices)] = (msgspec.msgpack.Decoder(notice), handler)

    def deliver(self, tunnel: Tunnel, lane: Lane, frame: Request | Notice) -> None:
        """Take what a tunnel received; never blocks."""
        if isinstance(frame, Notice):
            self._notice(tunnel.peer, frame)
            return
        key = (tunnel.peer, lane)
        if self._running[key] >= MAX_RUNNING:
            self._counters["requests_refused"] += 1
            tunnel.post(Failure(frame.id, OVERLOADED, "too many requests at once", {}), lane)
            return
        self._running[key] += 1
        task = asyncio.create_task(self._answer(tunnel, lane, frame))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._finished(done, key))

    async def stop(self) -> None:
        """Cancel the handlers still running and wait for their end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _finished(self, task: asyncio.Task[None], key: tuple[str, Lane]) -> None:
        self._tasks.discard(task)
        self._running[key] -= 1
        if not self._running[key]:
            del self._running[key]

    def _notice(self, peer: str, frame: Notice) -> None:
        entry = self._notices.get(frame.kind)
        if entry is None:
            self._counters["notices_unknown"] += 1
            return
        decoder, handler = entry
        try:
            handler(peer, decoder.decode(frame.body))
        except Exception:
            self._counters["notices_failed"] += 1
            log.exception("%s: notice %s failed", peer, frame.kind)

    async def _answer(self, tunnel: Tunnel, lane: Lane, frame: Request) -> None:
        answer = await self._run(tunnel.peer, frame)
        self._counters["requests_refused" if isinstance(answer, Failure) else "requests_answered"] += 1
        if not tunnel.post(answer, lane) and not isinstance(answer, Failure):
            tunnel.post(Failure(frame.id, "reply-not-sent", "the reply could not be queued", {}), lane)

    async def _run(self, peer: str, frame: Request) -> Frame:
        entry = self._requests.get(frame.kind)
        if entry is None:
            text = f"this machine's version does not know {frame.kind!r}"
            return Failure(frame.id, "unknown-request", text, {})
        decoder, handler = entry
        try:
            message = decoder.decode(frame.body)
        except MALFORMED as error:
            return Failure(frame.id, "bad-request", f"{frame.kind}: {error}", {})
        try:
            reply = await handler(peer, message)
            return Response(frame.id, msgspec.Raw(msgspec.msgpack.encode(reply)))
        except InstarError as error:
            return _refusal(frame, error.code, error.message, {**error.to_json(), "status": error.status})
        except PeerError as error:  # the handler asked a third machine in turn
            return _refusal(frame, error.code or f"peer-{error.reason}", error.message, error.detail)
        except Exception:
            log.exception("%s: request %s failed", peer, frame.kind)
            return Failure(frame.id, "internal", f"{frame.kind} failed on the other machine; see its log", {})


_Decoder = msgspec.msgpack.Decoder[Any]
_Handler = Callable[[str, Any], Awaitable[msgspec.Struct]]


def tag_of(message: type[msgspec.Struct]) -> str:
    """The tag a message type is routed by. Raises ``TypeError`` for a struct without one."""
    tag = message.__struct_config__.tag
    if not isinstance(tag, str):
        raise TypeError(f"{message.__name__} needs a string tag to travel between machines")
    return tag


def _new_tag(message: type[msgspec.Struct], known: dict[str, Any]) -> str:
    tag = tag_of(message)
    if tag in known:
        raise ValueError(f"{tag!r} has a handler already")
    return tag


def _refusal(frame: Request, code: str, message: str, detail: dict[str, Any]) -> Failure:
    """A refusal msgpack can carry: what it has no type for travels as text."""
    plain: dict[str, Any] = msgspec.to_builtins(detail, enc_hook=str)
    return Failure(frame.id, code[:MAX_CODE], message, plain)
