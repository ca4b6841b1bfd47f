"""Which bytes go next, and putting them together again. Pure: no sockets, no time.

Each lane is a queue with a bound. Sending always takes the next piece of the most urgent lane that may send.
Lanes other than ``LEASE`` also have a window: bytes on the way that the other side has not yet taken in. It
keeps buffers along the path (ours, the proxy's, the modem's) from filling up with bulk that urgent traffic
would then have to wait behind.
"""

from __future__ import annotations

from collections import deque

from instar_node.contracts import Lane
from instar_node.mesh.frames import MAX_FRAME, PIECE, Credit, DataPiece, FrameError, data_piece

WINDOW = 256 * 1024
"""Bytes of one lane that may be on the way unacknowledged."""

CREDIT_EVERY = WINDOW // 4
"""The receiver acknowledges after taking in this many bytes of a lane."""

MAX_QUEUED: dict[Lane, int] = {Lane.LEASE: 1 << 20, Lane.NORMAL: 16 << 20, Lane.BULK: 64 << 20}
"""Bytes that may wait in a lane's queue."""

MAX_QUEUED_FRAMES = 4_096
"""Frames that may wait in a lane's queue."""


class Queued:
    """One frame waiting to be sent."""

    __slots__ = ("abandoned", "data", "sent")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sent = 0
        self.abandoned = False
        """Set when nobody wants it sent any more; honoured until its first piece has left."""


class Outgoing:
    """The queues of one tunnel, most urgent first."""

    def __init__(self) -> None:
        self._queues: dict[Lane, deque[Queued]] = {lane: deque() for lane in Lane}
        self._queued: dict[Lane, int] = dict.fromkeys(Lane, 0)
        self._on_the_way: dict[Lane, int] = dict.fromkeys(Lane, 0)

    def push(self, lane: Lane, data: bytes) -> Queued | None:
        """Queue a frame; ``None`` when the lane is full."""
        queue = self._queues[lane]
        if self._queued[lane] + len(data) > MAX_QUEUED[lane] or len(queue) >= MAX_QUEUED_FRAMES:
            self._drop_abandoned(lane)
            if self._queued[lane] + len(data) > MAX_QUEUED[lane] or len(queue) >= MAX_QUEUED_FRAMES:
                return None
        entry = Queued(data)
        queue.append(entry)
        self._queued[lane] += len(data)
        return entry

    def credit(self, lane: Lane, count: int) -> None:
        """The other side took in ``count`` bytes. Raises ``FrameError`` if they were never sent."""
        if count > self._on_the_way[lane]:
            raise FrameError("credit for bytes never sent")
        self._on_the_way[lane] -= count

    def next_piece(self) -> bytes | None:
        """The piece to send now, or ``None`` when nothing may be sent."""
        for lane, queue in self._queues.items():
            while queue and queue[0].abandoned and not queue[0].sent:
                self._queued[lane] -= len(queue.popleft().data)
            if queue and (lane is Lane.LEASE or self._on_the_way[lane] < WINDOW):
                return self._cut(lane, queue)
        return None

    def _cut(self, lane: Lane, queue: deque[Queued]) -> bytes:
        entry = queue[0]
        part = memoryview(entry.data)[entry.sent : entry.sent + PIECE]
        entry.sent += len(part)
        last = entry.sent == len(entry.data)
        if last:
            queue.popleft()
        self._queued[lane] -= len(part)
        if lane is not Lane.LEASE:
            self._on_the_way[lane] += len(part)
        return data_piece(lane, last, part)

    def _drop_abandoned(self, lane: Lane) -> None:
        queue = self._queues[lane]
        kept = [entry for entry in queue if entry.sent or not entry.abandoned]
        self._queued[lane] -= sum(len(entry.data) for entry in queue if entry.abandoned and not entry.sent)
        queue.clear()
        queue.extend(kept)


class Incoming:
    """Puts frames together from pieces, one at a time in each lane, and says when credit is due."""

    def __init__(self) -> None:
        self._parts: dict[Lane, bytearray] = {lane: bytearray() for lane in Lane}
        self._taken: dict[Lane, int] = dict.fromkeys(Lane, 0)

    def feed(self, piece: DataPiece) -> bytes | None:
        """The whole frame, if this piece completed one.

        Raises:
            FrameError: The frame is larger than its lane allows, or the piece is empty.
        """
        parts = self._parts[piece.lane]
        if not piece.data or len(parts) + len(piece.data) > MAX_FRAME[piece.lane]:
            raise FrameError("empty piece or frame too large")
        if piece.lane is not Lane.LEASE:
            self._taken[piece.lane] += len(piece.data)
        if not piece.last:
            parts += piece.data
            return None
        if not parts:
            return piece.data
        whole = bytes(parts) + piece.data
        parts.clear()
        return whole

    def credit_due(self, lane: Lane) -> Credit | None:
        """The acknowledgement to send now, if enough has been taken in."""
        taken = self._taken[lane]
        if taken < CREDIT_EVERY:
            return None
        self._taken[lane] = 0
        return Credit(lane, taken)
