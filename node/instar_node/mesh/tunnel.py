"""One live, authenticated connection to one peer.

Three tasks: a reader that never waits for a handler, a writer for what the socket does not take at once, and
a watch that pings, renews keys and notices silence. Whatever arrives that is not exactly the next sealed
message of the protocol ends the connection, and nothing else happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable

import msgspec
from aiohttp import WSMsgType

from instar_node.clock import MICROS_PER_SECOND, Clock
from instar_node.contracts import Lane, PeerError
from instar_node.mesh.channel import Channel, RekeyPolicy
from instar_node.mesh.frames import (
    MAX_FRAME,
    Control,
    Credit,
    DataPiece,
    Failure,
    Frame,
    FrameError,
    Hello,
    Notice,
    Ping,
    Pong,
    RekeyAnswer,
    RekeyDone,
    RekeyOpen,
    Request,
    Response,
    decode_frame,
    encode_frame,
    parse_piece,
)
from instar_node.mesh.lanes import Incoming, Queued
from instar_node.mesh.noise import NoiseError
from instar_node.mesh.opening import Socket
from instar_node.mesh.writer import Writer

log = logging.getLogger("instar.mesh")

CLOSE_WITHIN = 0.5
"""Seconds the closing of the WebSocket may take."""


class TunnelSettings(msgspec.Struct, frozen=True):
    """Times of a tunnel, seconds, and when its keys change."""

    ping_every: float = 1.0
    silent_after: float = 3.0
    """A peer silent for this long is taken for gone."""
    handshake_within: float = 5.0
    rekey: RekeyPolicy = RekeyPolicy()


class TunnelError(Exception):
    """Ends a tunnel; the text says why."""


Deliver = Callable[["Tunnel", Lane, Request | Notice], None]


class Tunnel:
    """A connection whose handshake is done.

    Args:
        socket: The WebSocket, owned from now on.
        channel: Its keys.
        peer: The other machine's id.
        dialler: Which of the two machines opened it.
        hello: What the peer said of itself.
        deliver: Called with each request and notice, in order; must not block.
        counters: Shared counters of the mesh.
    """

    def __init__(
        self,
        socket: Socket,
        channel: Channel,
        peer: str,
        dialler: str,
        hello: Hello,
        clock: Clock,
        settings: TunnelSettings,
        deliver: Deliver,
        counters: Counter[str],
    ) -> None:
        self.peer, self.dialler, self.hello = peer, dialler, hello
        self._socket, self._channel, self._clock, self._settings = socket, channel, clock, settings
        self._deliver, self._counters = deliver, counters
        self.since = self.last_heard = clock.now()
        self.rtt_us: int | None = None
        self.closed_because: str | None = None
        self.on_end: Callable[[Tunnel], None] | None = None
        """Called once, as soon as the tunnel is no longer usable."""
        self._writer, self._incoming = Writer(socket, channel, clock), Incoming()
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending: dict[int, asyncio.Future[Response | Failure]] = {}
        self._request_ids = 0
        self._pings = 0
        self._unanswered: tuple[int, int] | None = None

    # -- what the mesh uses --------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether messages can still be sent."""
        return self.closed_because is None

    @property
    def fresh(self) -> bool:
        """Alive and heard from lately: no sign of a broken path."""
        quiet = self._clock.now() - self.last_heard
        return self.alive and quiet < 1.5 * self._settings.ping_every * MICROS_PER_SECOND

    async def request(self, kind: str, body: bytes, within: float, lane: Lane) -> Response | Failure:
        """Ask and wait for the answer, at most ``within`` seconds. Raises ``PeerError``."""
        self._request_ids += 1
        number = self._request_ids
        frame = Request(number, kind, max(0, int(within * 1_000)), msgspec.Raw(body))
        queued = self._queue(frame, lane)
        answer: asyncio.Future[Response | Failure] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        try:
            async with asyncio.timeout(within):
                return await answer
        except TimeoutError:
            self._counters["requests_timed_out"] += 1
            raise PeerError("timeout", f"no answer within {within:g} s") from None
        finally:
            queued.abandoned = True
            self._pending.pop(number, None)

    def post(self, frame: Frame, lane: Lane) -> bool:
        """Queue a one-way frame or an answer; ``False`` when it cannot be sent. Never blocks."""
        try:
            self._queue(frame, lane)
        except PeerError as error:
            self._counters["frames_not_sent"] += 1
            log.debug("%s: %s not sent: %s", self.peer, type(frame).__name__, error.message)
            return False
        return True

    def close(self, reason: str) -> None:
        """End the tunnel now: waiting requests fail at once, the socket is closed behind."""
        if self.closed_because is not None:
            return
        self.closed_because = reason
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(PeerError("unreachable", f"the connection ended: {reason}"))
        if not self._end.done():
            self._end.set_result(None)
        if self.on_end is not None:
            self.on_end(self)

    async def run(self) -> None:
        """Serve the tunnel until it ends; the reason is in ``closed_because``."""
        tasks = [asyncio.create_task(part()) for part in (self._read, self._writer.run, self._watch)]
        try:
            await asyncio.wait({*tasks, self._end}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            self.close(self._why(results))
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(CLOSE_WITHIN):
                    await self._socket.close()

    # -- sending -------------------------------------------------------------------------------------------

    def _queue(self, frame: Frame, lane: Lane) -> Queued:
        if not self.alive:
            raise PeerError("unreachable", "the connection has ended")
        data = encode_frame(frame)
        if len(data) > MAX_FRAME[lane]:
            text = f"{len(data)} bytes are too many for lane {lane.name.lower()}"
            raise PeerError("refused", text, "message-too-large")
        entry = self._writer.post(lane, data)
        if entry is None:
            self._counters["queue_full"] += 1
            raise PeerError("overloaded", f"the queue to this machine is full ({lane.name.lower()})")
        return entry

    # -- receiving -----------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while self.alive:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY:
                self._received(message.data)
            elif message.type is WSMsgType.TEXT:
                raise FrameError("text on a binary connection")
            else:
                raise TunnelError("closed by the other side or the network")

    def _received(self, sealed: bytes) -> None:
        piece = parse_piece(self._channel.open(sealed))
        self.last_heard = self._clock.now()
        if not isinstance(piece, DataPiece):
            self._controlled(piece)
            return
        whole = self._incoming.feed(piece)
        if (credit := self._incoming.credit_due(piece.lane)) is not None:
            self._writer.post_control(credit)
        if whole is None:
            return
        frame = decode_frame(whole)
        if isinstance(frame, (Request, Notice)):
            self._deliver(self, piece.lane, frame)
        elif (answer := self._pending.get(frame.id)) is not None and not answer.done():
            answer.set_result(frame)
        else:
            self._counters["answers_too_late"] += 1

    def _controlled(self, message: Control) -> None:
        if isinstance(message, Ping):
            self.rtt_us = message.rtt_us
            self._writer.post_control(Pong(message.n))
        elif isinstance(message, Pong):
            self._pong(message)
        elif isinstance(message, Credit):
            self._writer.credit(message.lane, message.bytes)
        elif isinstance(message, (RekeyOpen, RekeyAnswer, RekeyDone)):
            reply = self._channel.rekey_step(message, self._clock.now())
            if reply is not None:
                self._writer.post_control(reply)
            if not isinstance(message, RekeyOpen):
                self._counters["rekeys"] += 1
        else:
            raise FrameError("second hello")

    # -- liveness ------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        limit = int(self._settings.silent_after * MICROS_PER_SECOND)
        while True:
            now = self._clock.now()
            waiting_since = self._unanswered[1] if self._unanswered else now
            if now - self.last_heard >= limit or now - waiting_since >= limit:
                raise TunnelError(f"silent for {self._settings.silent_after:g} s")
            if self._channel.worn_out(now):
                raise TunnelError("keys were not renewed in time")
            if self.dialler != self.peer and self._unanswered is None:
                self._pings += 1
                self._unanswered = (self._pings, now)
                self._writer.post_control(Ping(self._pings, self.rtt_us))
            if self._channel.rekey_due(now):
                self._writer.post_control(self._channel.begin_rekey())
            await self._clock.sleep(self._settings.ping_every)

    def _pong(self, message: Pong) -> None:
        """Smoothed round-trip time, as RFC 6298 section 2 has it."""
        if self._unanswered is None or message.n != self._unanswered[0]:
            raise FrameError("pong without a ping")
        sample = self._clock.now() - self._unanswered[1]
        self._unanswered = None
        self.rtt_us = sample if self.rtt_us is None else (7 * self.rtt_us + sample) // 8

    def _why(self, results: list[BaseException | None]) -> str:
        """The reason in what the tasks ended with; a breach of the protocol counts more than the rest."""
        failures = [
            result
            for result in results
            if result is not None and not isinstance(result, asyncio.CancelledError)
        ]
        for failure in failures:
            if isinstance(failure, (FrameError, NoiseError)):
                self._counters["frames_bad"] += 1
                log.warning("%s: connection ended: %s", self.peer, failure)
                return str(failure)
        for failure in failures:
            if not isinstance(failure, (TunnelError, OSError, RuntimeError)):
                log.error("%s: connection broke on an error of our own", self.peer, exc_info=failure)
        return str(failures[0]) if failures else "this machine closed it"
