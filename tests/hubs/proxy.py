"""A TCP proxy on loopback that can lose the answers of the server behind it."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType


class Proxy:
    """Passes connections on to a port of this host; use as an async context manager.

    ``lose_answers_to``: requests that contain these bytes reach the server, and their connection breaks when
    the answer is on its way back. ``away``: connections end before anything is passed on.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        self.lose_answers_to: bytes | None = None
        self.away = False
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._open |= {writer, inner_writer}
        state = _Connection()
        try:
            await asyncio.gather(
                self._forward(reader, inner_writer, state), self._back(inner_reader, writer, state)
            )
        finally:
            for end in (writer, inner_writer):
                end.close()
                self._open.discard(end)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: _Connection
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                if self.away:
                    break
                if self.lose_answers_to is not None and self.lose_answers_to in data:
                    state.doomed = True
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: _Connection
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                if state.doomed:
                    break
                writer.write(data)
                await writer.drain()
        writer.close()


class _Connection:
    """``doomed``: the answer that comes next is lost, and the connection with it."""

    doomed = False
