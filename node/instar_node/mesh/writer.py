"""Writes the frames of one tunnel to its socket, sealed, the most urgent first."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine, Generator
from typing import Any

from instar_node.clock import Clock
from instar_node.contracts import Lane
from instar_node.mesh.channel import Channel
from instar_node.mesh.frames import Control
from instar_node.mesh.lanes import Outgoing, Queued
from instar_node.mesh.opening import Socket


class Writer:
    """What a tunnel sends.

    Control messages and all frames but bulk leave in the very step of the event loop in which they are
    posted, if nothing waits before them: a task that is woken for them would have its turn only after all
    that the same step set going, which on a busy holder takes milliseconds, and on the standby nothing
    happens meanwhile. Bulk, and everything from when the socket takes no more, is left to ``run``.
    """

    def __init__(self, socket: Socket, channel: Channel, clock: Clock) -> None:
        self._socket, self._channel, self._clock = socket, channel, clock
        self._outgoing = Outgoing()
        self._control: deque[Control] = deque()
        self._wake = asyncio.Event()
        self._idle = False
        """Whether ``run`` waits for something to do, so that nothing of it is on its way to the socket."""
        self._under_way: _Begun | None = None
        self._failure: Exception | None = None

    def post(self, lane: Lane, frame: bytes) -> Queued | None:
        """Send an encoded frame; ``None`` when the queue of its lane is full."""
        entry = self._outgoing.push(lane, frame)
        if entry is not None:
            self._go_on(at_once=lane is not Lane.BULK)
        return entry

    def post_control(self, message: Control) -> None:
        """Send a message about the tunnel itself."""
        self._control.append(message)
        self._go_on(at_once=True)

    def credit(self, lane: Lane, count: int) -> None:
        """The other side took in ``count`` bytes. Raises ``FrameError`` if they were never sent."""
        self._outgoing.credit(lane, count)
        self._go_on(at_once=False)

    async def run(self) -> None:
        """Write what cannot be written at once; runs until cancelled, or until the socket fails."""
        try:
            while self._failure is None:
                if self._under_way is not None:
                    await self._under_way
                    self._under_way = None
                while (sealed := self._next_sealed()) is not None:
                    await self._socket.send_bytes(sealed)
                self._wake.clear()
                self._idle = True
                await self._wake.wait()
            raise self._failure
        finally:
            self._idle = False  # nothing leaves any more
            if self._under_way is not None:
                self._under_way.drop()

    def _go_on(self, at_once: bool) -> None:
        if not self._idle:
            return  # it will come to it
        if at_once:
            self._write_at_once()
        else:
            self._leave_to_run()

    def _write_at_once(self) -> None:
        try:
            while (sealed := self._next_sealed()) is not None:
                sending = _Begun(self._socket.send_bytes(sealed))
                if not sending.done:
                    self._under_way = sending
                    self._leave_to_run()
                    return
        except Exception as error:  # the connection is gone; ``run`` says so to whoever runs the tunnel
            self._failure = error
            self._leave_to_run()

    def _leave_to_run(self) -> None:
        self._idle = False
        self._wake.set()

    def _next_sealed(self) -> bytes | None:
        if not self._control and self._channel.rekey_due(self._clock.now()):
            self._control.append(self._channel.begin_rekey())
        if self._control:
            return self._channel.seal_control(self._control.popleft(), self._clock.now())
        piece = self._outgoing.next_piece()
        return None if piece is None else self._channel.seal(piece)


class _Begun:
    """A coroutine taken to its first wait at once, as eager tasks are (Python 3.12 has those). Await the
    rest, if it is not done."""

    def __init__(self, coroutine: Coroutine[Any, None, None]) -> None:
        self._coroutine = coroutine
        self._waits_for: asyncio.Future[Any] | None = None
        """``None`` also when it only gave others a turn."""
        self.done = False
        try:
            self._waits_for = coroutine.send(None)
        except StopIteration:
            self.done = True
        if self._waits_for is not None:
            # Taken note of, as a task does at once: until then nobody else could wait for it.
            self._waits_for._asyncio_future_blocking = False

    def drop(self) -> None:
        """Nobody awaits the rest, nor what it waits for."""
        self._coroutine.close()
        if self._waits_for is not None:
            self._waits_for.cancel()

    def __await__(self) -> Generator[Any, Any, None]:
        if self._waits_for is None:
            yield
        else:
            with contextlib.suppress(Exception):  # what became of it, the coroutine finds out itself
                yield from self._waits_for
        yield from self._coroutine.__await__()
