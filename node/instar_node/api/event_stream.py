"""``GET /events``: the node's events to one client, for as long as both want."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from instar_node.api.decoding import read_value
from instar_node.api.http_messages import Request, Stream
from instar_node.api.protocol import NodeApi
from instar_node.api.routes import Sequence
from instar_node.api.sse import KEEP_ALIVE, KEEP_ALIVE_S, encode_event
from instar_node.errors import bad_input
from instar_node.events import Event


def stream_events(api: NodeApi, request: Request) -> Stream:
    """Send events after ``?after=N`` or ``Last-Event-ID`` (which a reconnecting client sends, so it counts).

    The answer ends when the client was too slow for the node; it resumes with the last number it saw.
    """
    events = api.events(_resume_after(request))
    return Stream(_pieces(events), "text/event-stream", (("Cache-Control", "no-store"),))


def _resume_after(request: Request) -> int | None:
    for name in request.query:
        if name != "after":
            raise bad_input(name, "there is no such query parameter")
    last = request.headers.get("Last-Event-ID")
    if last is not None:
        return int(read_value("Last-Event-ID", last, Sequence))
    after = request.query.get("after")
    return None if after is None else int(read_value("after", after, Sequence))


async def _pieces(events: AsyncIterator[Event]) -> AsyncGenerator[bytes, None]:
    """Encoded events, and a keep-alive comment at first and when none came for a while.

    The pending ``anext`` is kept across keep-alives: a timeout that cancelled it would end the iterator.
    """
    pending: asyncio.Future[Event] | None = None
    yield KEEP_ALIVE
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(events))
            await asyncio.wait({pending}, timeout=KEEP_ALIVE_S)
            if not pending.done():
                yield KEEP_ALIVE
                continue
            try:
                event = pending.result()
            except StopAsyncIteration:
                return
            pending = None
            yield encode_event(event)
    finally:
        if pending is not None:
            pending.cancel()
