"""The lease as the state sync sees it."""

from __future__ import annotations

from collections.abc import Callable

from instar_node.clock import MICROS_PER_MS
from instar_node.coordination.lease_service import LeaseService


class LeaseOfState:
    """Implements ``sync.ports.StateLease``."""

    def __init__(self, lease: LeaseService) -> None:
        self._lease = lease

    @property
    def me(self) -> str:
        return self._lease.me

    @property
    def epoch(self) -> int:
        return self._lease.epoch

    @property
    def holder(self) -> str | None:
        return self._lease.holder

    @property
    def state_head(self) -> str:
        return self._lease.known.record.state_head if self._lease.known is not None else ""

    @property
    def benched(self) -> bool:
        return self._lease.known is not None and bool(self._lease.known.record.benched)

    @property
    def bench_ttl_us(self) -> int:
        return 0 if self._lease.known is None else self._lease.known.record.bench_ttl_ms * MICROS_PER_MS

    @property
    def incomplete(self) -> bool:
        return self._lease.known is not None and bool(self._lease.known.record.incomplete)

    def proof(self) -> bytes:
        return self._lease.known.record.encode() if self._lease.known is not None else b""

    def acting_epoch(self) -> int | None:
        return self._lease.acting_epoch()

    def ack_set(self) -> frozenset[str]:
        return self._lease.ack_set()

    def on_change(self, callback: Callable[[], None]) -> None:
        self._lease.on_change(callback)
