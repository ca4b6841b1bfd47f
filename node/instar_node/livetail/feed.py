"""What the holder knows of one standby's copy, and what to send it next. Pure: time is handed in."""

from __future__ import annotations

from instar_node.clock import MICROS_PER_SECOND
from instar_node.contracts import LogPosition
from instar_node.livetail.entry import START

WINDOW_BYTES = 512 * 1024
"""Most text under way to one standby without an acknowledgement. What a slow one has not taken waits in the
holder's database, not in its memory."""
ACK_TIMEOUT_US = 5 * MICROS_PER_SECOND
"""With something under way and no progress for this long, everything after the last acknowledgement is sent
again."""


class PeerFeed:
    """Cumulative acknowledgements of one standby. Positions are ends of what was sent or is durable there."""

    def __init__(self) -> None:
        self.acked = START
        self.last_ack: int | None = None
        self.sent = START
        self.live = False
        """Whether the standby has said hello in this epoch and takes pushes."""
        self._in_flight: list[tuple[LogPosition, int]] = []
        self._progress = 0

    def begin(self, position: LogPosition, now: int) -> None:
        """The standby's copy ends exactly here and goes on from here."""
        self.live = True
        self.acked = self.sent = position
        self.last_ack = self._progress = now
        self._in_flight.clear()

    def end(self) -> None:
        """The standby is gone, or we no longer feed it; what it acknowledged stays known."""
        self.live = False
        self._in_flight.clear()

    def room(self) -> int:
        """Bytes that may be sent now; 0 when the window is full or the standby is not being fed."""
        under_way = sum(size for _, size in self._in_flight)
        return max(WINDOW_BYTES - under_way, 0) if self.live else 0

    def pushed(self, through: LogPosition, size: int, now: int) -> None:
        """A batch is on its way."""
        if not self._in_flight:
            self._progress = now
        self._in_flight.append((through, size))
        self.sent = through

    def acknowledged(self, position: LogPosition, now: int) -> None:
        """The standby's copy is durable up to ``position``."""
        if not self.live or position > self.sent:
            return
        self.last_ack = now
        if position > self.acked:
            self.acked, self._progress = position, now
            self._in_flight = [(through, size) for through, size in self._in_flight if through > position]

    def overdue(self, now: int) -> bool:
        """Whether acknowledgements have stopped; if so, sending has gone back to the last one."""
        if not self._in_flight or now - self._progress < ACK_TIMEOUT_US:
            return False
        self.sent, self._progress = self.acked, now
        self._in_flight.clear()
        return True
