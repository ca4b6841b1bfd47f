"""One client's connection to the local API: HTTP/1.1 (RFC 9112), read with the parser of aiohttp.

The server of that library would cost a message more than anything else the node does with it: its router,
its middlewares, and a good dozen objects for each request. Here a request is read whole (bodies are small),
handled, and answered with one write.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser, HttpVersion11, RawRequestMessage
from aiohttp.streams import StreamReader

from instar_node.api.http_messages import Answer, Request, Stream, chunk, too_large, unreadable
from instar_node.api.routes import MAX_BODY
from instar_node.errors import InstarError

log = logging.getLogger("instar.api")

Handler = Callable[[Request], Awaitable[Answer | Stream]]
"""Answers a request whatever happens: it raises nothing."""
Refusal = Callable[[InstarError], Answer]

LONGEST_LINE = 65_536
"""Bytes of a request line or header; a name that is too long is refused by its route, which can say so."""
LINGER_S = 5.0
"""How long a client may go on sending what is not read, so that it gets to read why."""


class Connection(BaseProtocol):
    """Requests are handled one after the other, in order, whether or not the client waits for the answers.

    There is no limit on how long a connection may rest: its other end is on this computer, and the system
    tells when that goes away. What is under way is done although the client has gone; only a stream ends.
    """

    __slots__ = ("_arrived", "_handle", "_keep", "_open", "_refuse", "_refused", "_streaming", "task")

    def __init__(self, handle: Handler, refuse: Refusal, connections: set[Connection]) -> None:
        """``refuse`` words what cannot be read at all; ``connections`` are all that are open."""
        loop = asyncio.get_running_loop()
        super().__init__(loop)
        self._parser = HttpRequestParser(
            self, loop, MAX_BODY, max_line_size=LONGEST_LINE, max_field_size=LONGEST_LINE
        )
        self._handle = handle
        self._refuse = refuse
        self._open = connections
        self._arrived: deque[tuple[RawRequestMessage, StreamReader]] = deque()
        """Requests not handled yet; the body of the last one may still be on its way."""
        self._refused: InstarError | None = None
        """Why nothing further is read."""
        self._keep = True
        """Whether the connection outlives the answer under way."""
        self._streaming = False
        self.task: asyncio.Task[None] | None = None
        """Handles what has arrived; ``None`` while nothing has."""

    def end(self) -> None:
        """Take no further request, and close as soon as the one under way is answered. A stream ends now."""
        self._keep = False
        if self.task is None:
            self._close()
        elif self._streaming:
            self.task.cancel()

    def drop(self) -> None:
        """Close now, whatever may still come."""
        if self.transport is not None:
            self.transport.close()

    # -- called by the transport --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._open.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._open.discard(self)
        if self._streaming and self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._refused is not None or not self._keep:
            return
        assert self._parser is not None
        assert self.transport is not None
        begun = len(self._arrived)
        try:
            self._arrived += self._parser.feed_data(data)[0]
        except HttpProcessingError:
            self._refused = unreadable()
        if self._arrived and self._refused is None:
            self._look_at(self._arrived[-1][1])
        if self.task is not None:
            self.transport.pause_reading()  # who does not wait for answers waits to be read
        elif self._ready():
            self.task = self._loop.create_task(self._work())
        elif len(self._arrived) > begun and _hesitates(self._arrived[-1][0]):
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # -- called by the parser, of the body on its way -----------------------------------------------------

    def pause_reading(self) -> None:
        """More of it is held than it may have: what it was compressed from is unpacked no further."""
        super().pause_reading()
        self._refused = too_large()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """It was read, or has ended: no reason to do anything, since it is only ever read whole."""

    # -- one request after the other ----------------------------------------------------------------------

    def _look_at(self, payload: StreamReader) -> None:
        """Refuse a body as soon as it can be seen that it will not do."""
        if payload.exception() is not None:  # chunks or compression that are none
            self._refused = unreadable()
        elif payload.total_bytes > MAX_BODY:
            self._refused = too_large()

    def _ready(self) -> bool:
        """Whether there is something to answer: a whole request, or what will never be one."""
        return self._refused is not None or bool(self._arrived and self._arrived[0][1].is_eof())

    async def _work(self) -> None:
        try:
            while self._keep and self._ready():
                if self._arrived:
                    await self._answer(*self._arrived.popleft())
                elif self._refused is not None:
                    self._keep = False
                    self._write(self._refuse(self._refused).encode("close", bodiless=False))
        except ConnectionError:
            self._keep = False  # the client has gone; nobody is left to tell
        except Exception:
            log.exception("an answer broke off")  # by closing the client learns that it is not whole
            self._keep = False
        finally:
            self.task = None
            if not self._keep:
                self._close()
            elif self.transport is not None:
                self.transport.resume_reading()

    async def _answer(self, head: RawRequestMessage, payload: StreamReader) -> None:
        body = self._body(payload)
        answer = await self._handle(Request(head, body))
        if head.should_close or head.upgrade or isinstance(body, InstarError):
            self._keep = False
        current = head.version >= HttpVersion11
        connection = "close" if not self._keep else "" if current else "keep-alive"
        if isinstance(answer, Stream):
            await self._stream(answer, connection, chunked=current)
            return
        self._write(answer.encode(connection, bodiless=head.method == "HEAD"))
        if self.writing_paused:
            await self._drain_helper()

    def _body(self, payload: StreamReader) -> bytes | InstarError:
        if payload.is_eof() and payload.exception() is None and payload.total_bytes <= MAX_BODY:
            return payload.read_nowait()
        return self._refused or unreadable()

    async def _stream(self, stream: Stream, connection: str, *, chunked: bool) -> None:
        self._streaming, self._keep = True, self._keep and chunked
        async with aclosing(stream.pieces) as pieces:
            self._write(stream.head(connection, chunked=chunked))
            async for piece in pieces:
                self._write(chunk(piece) if chunked else piece)
                await self._drain_helper()
        if chunked:
            self._write(chunk(b""))
        self._streaming = False

    def _write(self, data: bytes) -> None:
        if self.transport is None:
            raise ConnectionResetError("the client has gone")
        self.transport.write(data)

    def _close(self) -> None:
        """When everything is written. If the client may still be sending, that is read over for a while:
        the system would take a closed connection's last answer from a client that has not read it yet."""
        if self.transport is None:
            return
        if self._refused is None:
            self.transport.close()
        elif self.transport.can_write_eof():
            self.transport.write_eof()
            self.transport.resume_reading()
            self._loop.call_later(LINGER_S, self.transport.close)


def _hesitates(head: RawRequestMessage) -> bool:
    """Whether the client sends the body only when told to (RFC 9110, 10.1.1)."""
    return head.headers.get("Expect", "").lower() == "100-continue"
