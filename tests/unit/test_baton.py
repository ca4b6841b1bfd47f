"""The receiving end of the baton: open from a closing, or refuse it for good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from instar_node.coordination.baton import Baton
from instar_node.coordination.fenced_lease import FencedLease
from instar_node.coordination.http_lease_transport import Closing
from instar_node.coordination.lease_coordinator import LeaseCoordinator
from instar_node.coordination.lease_state import LeaseTiming, SwapKind
from instar_node.coordination.record import KnownRecord, LeaseRecord
from instar_node.errors import InstarError

SECOND = 1_000_000
TIMING = LeaseTiming(ttl=6 * SECOND, round=2 * SECOND, bench_ttl=120 * SECOND, drift=0.01)
CLOSING = KnownRecord(
    LeaseRecord(
        epoch=3,
        serial=6,
        prev="v5",
        holder="a",
        incarnation="a1",
        electorate=("a", "b"),
        benched=(),
        ttl_ms=6_000,
        bench_ttl_ms=120_000,
        state="closed",
        successor="b",
        nonce="n6",
    ),
    "v6",
)


class Receiver:
    """Machine ``b`` as its service shows it to ``Baton``; ``outcome`` is what becomes of its swaps."""

    me = "b"

    def __init__(self, outcome: Callable[[Receiver, LeaseRecord], None]) -> None:
        self.lease = FencedLease("b", "b1", TIMING, baton=True)
        self.coordinator = LeaseCoordinator(self.lease, lambda: "n7", lambda: "")
        self.hub_error: str | None = None
        self._outcome = outcome

    def verify(self, machine: str, message: bytes, signature: bytes) -> bool:
        return True

    def sign(self, message: bytes) -> bytes:
        return b"signed:" + message

    def now(self) -> int:
        return 0

    def persist(self) -> None:
        self.stored = self.lease.durable

    async def swap_now(self, record: LeaseRecord, kind: SwapKind) -> None:
        self.coordinator.begin(record, kind, 0)
        self._outcome(self, record)


def wins(receiver: Receiver, record: LeaseRecord) -> None:
    receiver.coordinator.on_won(KnownRecord(record, "w1"), 0)


def is_never_sent(receiver: Receiver, record: LeaseRecord) -> None:
    receiver.hub_error = "the disk is full"
    receiver.coordinator.on_unsent(0)


def may_still_land(receiver: Receiver, record: LeaseRecord) -> None:
    receiver.hub_error = "no answer in time"
    receiver.coordinator.on_unknown(0, 1)


def baton(receiver: Any) -> Baton:
    return Baton(receiver)


async def test_a_closing_is_opened_once_and_confirmed_whenever_it_comes() -> None:
    receiver = Receiver(wins)
    for _ in range(2):
        reply = await baton(receiver).on_closing("a", Closing(CLOSING))
        assert (reply.outcome, reply.newest) == ("opened", receiver.lease.known)
    assert receiver.lease.acting_epoch(0) == 4


async def test_who_cannot_write_its_register_declines_for_good() -> None:
    receiver = Receiver(is_never_sent)
    reply = await baton(receiver).on_closing("a", Closing(CLOSING))
    assert reply.outcome == "declined"
    assert "the disk is full" in reply.why
    assert receiver.stored.declined == ("v6",)
    receiver = Receiver(wins)
    receiver.lease.decline("v6")
    assert (await baton(receiver).on_closing("a", Closing(CLOSING))).outcome == "declined"


async def test_an_opening_that_may_still_land_is_not_declined() -> None:
    receiver = Receiver(may_still_land)
    for code in ("cannot-open", "busy"):
        with pytest.raises(InstarError) as refused:
            await baton(receiver).on_closing("a", Closing(CLOSING))
        assert refused.value.code == code
    assert receiver.lease.durable.declined == ()


async def test_a_split_brain_is_no_decline_which_would_wake_the_closer() -> None:
    receiver = Receiver(wins)
    other = KnownRecord(CLOSING.record.__class__(**{**_fields(CLOSING.record), "holder": "c"}), "x6")
    receiver.lease.accept_proof(CLOSING, other)
    with pytest.raises(InstarError) as refused:
        await baton(receiver).on_closing("a", Closing(CLOSING))
    assert refused.value.code == "split-brain"
    assert receiver.lease.durable.declined == ()


def _fields(record: LeaseRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}
