"""``HttpLeaseTransport``: the fast path of the lease, over the encrypted tunnel.

Promise rounds, notices of new records, yield tokens and closings. Records are signed, so a message proves its
own content; the tunnel proves who passed it on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from instar_node.contracts import Lane, Mesh, PeerError
from instar_node.coordination.record import KnownRecord


class PromiseRequest(msgspec.Struct, tag="lease.promise", frozen=True):
    """A holder asks for a promise not to contend; carries its signed record, so the hub need not be read."""

    known: KnownRecord


class PromiseReply(msgspec.Struct, tag="lease.promised", frozen=True):
    """``refusal`` is ``None`` for a promise. ``newest`` is what the member knows, if newer."""

    refusal: str | None
    newest: KnownRecord | None = None


class LeaseNotice(msgspec.Struct, tag="lease.notice", frozen=True):
    """The newest record its sender knows; ``None`` from a machine that knows none."""

    known: KnownRecord | None


class SplitBrainNotice(msgspec.Struct, tag="lease.split-brain", frozen=True):
    """Its sender has stopped. ``proof``: the records that made it, two where they contradict each other."""

    evidence: str
    proof: tuple[KnownRecord, ...]


TOKEN_PURPOSE = b"instar-lease-token/1:"


def token_text(version: str, successor: str) -> bytes:
    """What the signature of a yield token covers, beside the mesh id."""
    return TOKEN_PURPOSE + f"{version}:{successor}".encode()


class YieldToken(msgspec.Struct, tag="lease.token", frozen=True):
    """The holder gives its record up to exactly this successor, who may swap at once.

    The signature covers version and successor under the token purpose.
    """

    version: str
    successor: str
    signature: bytes


class TokenReply(msgspec.Struct, tag="lease.token-taken", frozen=True):
    taken: bool


class Closing(msgspec.Struct, tag="lease.closing", frozen=True):
    """The baton: a closed register instance whose successor opens its own from it."""

    known: KnownRecord


class ClosingReply(msgspec.Struct, tag="lease.closing-reply", frozen=True):
    """``opened`` with the new record, or a signed refusal of exactly this closing, or newer knowledge."""

    outcome: str
    """``opened``, ``declined`` or ``newer``."""
    newest: KnownRecord | None = None
    why: str = ""
    signature: bytes = b""


class HistoryRequest(msgspec.Struct, tag="lease.history", frozen=True):
    """Ask for the epochs a machine knows of."""


class HistoryRow(msgspec.Struct, frozen=True):
    """One epoch: who held it, why it began, when (display only), and how long the change took."""

    epoch: int
    holder: str
    reason: str
    at: str
    took_ms: int | None = None


class HistoryReply(msgspec.Struct, tag="lease.history-reply", frozen=True):
    rows: tuple[HistoryRow, ...]


class HttpLeaseTransport:
    """Sends and receives the lease's messages; every request has a deadline and a definite outcome."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def serve(
        self,
        *,
        promise: Callable[[str, PromiseRequest], Awaitable[PromiseReply]],
        token: Callable[[str, YieldToken], Awaitable[TokenReply]],
        closing: Callable[[str, Closing], Awaitable[ClosingReply]],
        history: Callable[[str, HistoryRequest], Awaitable[HistoryReply]],
        notice: Callable[[str, LeaseNotice], None],
        split_brain: Callable[[str, SplitBrainNotice], None],
    ) -> None:
        """Answer the other machines with these handlers."""
        self._mesh.on_request(PromiseRequest, promise)
        self._mesh.on_request(YieldToken, token)
        self._mesh.on_request(Closing, closing)
        self._mesh.on_request(HistoryRequest, history)
        self._mesh.on_notice(LeaseNotice, notice)
        self._mesh.on_notice(SplitBrainNotice, split_brain)

    async def ask_promise(self, machine: str, known: KnownRecord, within: float) -> PromiseReply | None:
        """Ask one machine; ``None`` when no answer came in time."""
        try:
            return await self._mesh.request(
                machine, PromiseRequest(known), PromiseReply, within=within, lane=Lane.LEASE
            )
        except PeerError:
            return None

    def notify(self, machine: str, known: KnownRecord | None) -> None:
        """Tell one machine the newest record; lost notices are made good by rounds and reconnects."""
        self._mesh.send(machine, LeaseNotice(known), Lane.LEASE)

    def notify_split_brain(self, machine: str, evidence: str, proof: tuple[KnownRecord, ...]) -> None:
        """Show one machine why this one has stopped; said again at every reconnect."""
        self._mesh.send(machine, SplitBrainNotice(evidence, proof), Lane.LEASE)

    async def give_token(self, machine: str, token: YieldToken, within: float) -> bool:
        """Hand a yield token over; ``False`` when it is not known to have arrived."""
        try:
            reply = await self._mesh.request(machine, token, TokenReply, within=within, lane=Lane.LEASE)
        except PeerError:
            return False
        return reply.taken

    async def pass_closing(self, machine: str, known: KnownRecord, within: float) -> ClosingReply | None:
        """Send a closing; ``None`` when the answer is not known (it is sent again)."""
        try:
            return await self._mesh.request(
                machine, Closing(known), ClosingReply, within=within, lane=Lane.LEASE
            )
        except PeerError:
            return None

    async def ask_history(self, machine: str, within: float) -> tuple[HistoryRow, ...]:
        """The epochs another machine knows of; empty when it does not answer."""
        try:
            reply = await self._mesh.request(machine, HistoryRequest(), HistoryReply, within=within)
        except PeerError:
            return ()
        return reply.rows
