"""How much an unauthenticated caller may ask of us. Pure: time is handed in."""

from __future__ import annotations

from collections import Counter, OrderedDict

from instar_node.clock import MICROS_PER_SECOND

MAX_PENDING = 64
"""Handshakes under way at once."""

MAX_PENDING_PER_ADDRESS = 8

RATE_PER_ADDRESS = 10
"""New handshakes a second from one address, in the long run."""

BURST_PER_ADDRESS = 30

MAX_ADDRESSES = 1_024
"""Addresses remembered; the one longest unseen is forgotten first."""


class CallerLimits:
    """Admits handshakes: a token bucket for each address, and a bound on how many are under way."""

    def __init__(self) -> None:
        self._pending: Counter[str] = Counter()
        self._buckets: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def admit(self, address: str, now: int) -> bool:
        """Whether a handshake from ``address`` may begin; if so, ``leave`` must follow."""
        if self._pending.total() >= MAX_PENDING or self._pending[address] >= MAX_PENDING_PER_ADDRESS:
            return False
        tokens, last = self._buckets.pop(address, (float(BURST_PER_ADDRESS), now))
        tokens += (now - last) * RATE_PER_ADDRESS / MICROS_PER_SECOND
        tokens = min(tokens, float(BURST_PER_ADDRESS))
        admitted = tokens >= 1
        self._buckets[address] = (tokens - 1 if admitted else tokens, now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        if admitted:
            self._pending[address] += 1
        return admitted

    def leave(self, address: str) -> None:
        """The handshake is over, well or badly."""
        self._pending[address] -= 1
        if self._pending[address] <= 0:
            del self._pending[address]
