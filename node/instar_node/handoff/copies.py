"""Whether two machines hold the same: the manifest one sends and the other recomputes from its own store."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, Generic, TypeVar

import msgspec

from instar_node.errors import InstarError
from instar_node.handoff.ports import LedgerLog, StateLevel, TailCopy, TailMatcher

TailT = TypeVar("TailT")
MarkT = TypeVar("MarkT")


class Manifest(msgspec.Struct, frozen=True):
    """What the outgoing machine holds: its tail per topic and its ledger's position with the running hash,
    each encoded by the part it belongs to.

    Channel positions are rows of the ledger, so the running hash covers them too.
    """

    tail: bytes
    ledger: bytes

    def digest(self) -> bytes:
        """SHA-256 over both, unambiguously encoded: what an acknowledgement repeats."""
        return hashlib.sha256(msgspec.msgpack.encode(self)).digest()


class Copies(Generic[TailT, MarkT]):
    """This machine's stores, in both roles of a comparison."""

    def __init__(
        self,
        tail: TailCopy[TailT],
        matcher: TailMatcher[TailT],
        ledger: LedgerLog[MarkT],
        state: StateLevel,
        manifest_type: type[TailT],
        mark_type: type[MarkT],
    ) -> None:
        """``manifest_type`` and ``mark_type`` decode what the tail's and the ledger's own parts encode."""
        self._tail = tail
        self._matcher = matcher
        self._ledger = ledger
        self._state = state
        self._decode_tail = msgspec.msgpack.Decoder(manifest_type).decode
        self._decode_mark = msgspec.msgpack.Decoder(mark_type).decode
        self._grown = asyncio.Event()
        ledger.on_outcome(self._on_outcome)

    async def settled(self) -> None:
        """Wait until no write of the ledger is under way; only once nothing is taken in any more."""
        await self._ledger.settle()

    async def manifest(self) -> Manifest:
        """What is durable on this machine."""
        tail = await self._tail.manifest()
        encode = msgspec.msgpack.encode
        return Manifest(encode(tail), encode(self._ledger.state.head))

    async def confirm(self, manifest: Manifest, within: float) -> None:
        """Catch up with a manifest and recompute it here; returns only when this machine holds the same, and
        the state that the lease vouches for.

        Raises ``InstarError``: ``bad-manifest``, ``state-behind``, ``ledger-behind``, ``tail-behind`` or
        ``copy-differs``.
        """
        try:
            theirs, mark = self._decode_tail(manifest.tail), self._decode_mark(manifest.ledger)
        except msgspec.MsgspecError as error:
            raise InstarError("bad-manifest", f"the manifest cannot be read: {error}", status=400) from error
        started = asyncio.ensure_future(self._matcher.match(theirs, within))
        try:
            await self._state.require_current(within)
            await self._hold(mark, within)
            differing = await started
        finally:
            started.cancel()
        if differing:
            raise InstarError(
                "copy-differs",
                f"the conversation differs in {', '.join(sorted(differing)[:5])}",
                "it is fetched anew; try again in a moment",
                extra={"topics": sorted(differing)},
            )

    async def _hold(self, mark: MarkT, within: float) -> None:
        """Wait until our ledger contains this mark: then it equals the other one up to there."""
        try:
            async with asyncio.timeout(within):
                while True:
                    grown = self._grown
                    if await self._ledger.greatest_common((mark,)) == mark:
                        return
                    await grown.wait()
        except TimeoutError:
            raise InstarError(
                "ledger-behind", "the standby's message log has not caught up", "try again in a moment"
            ) from None

    def _on_outcome(self, outcome: Any) -> None:
        grown, self._grown = self._grown, asyncio.Event()  # a new one each time: several may be waiting
        grown.set()
