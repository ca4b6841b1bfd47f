"""``HandoffWireTransport``: what the two machines of a handoff say to each other through the tunnel.

Every message carries the session it belongs to; the mesh says, authenticated, who sent it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from instar_node.contracts import Mesh, PeerError
from instar_node.errors import InstarError
from instar_node.handoff.copies import Manifest
from instar_node.handoff.steps import HandoffOutcome

Session = Annotated[str, Meta(min_length=8, max_length=64)]
Note = Annotated[str, Meta(max_length=400)]

ANSWER_S = 2.0
"""How long the holder may take to say whether it will hand over."""
EXTRA_S = 0.25
"""What an acknowledgement may take beyond the time the standby was given to catch up."""


class HandoffAsk(msgspec.Struct, frozen=True, tag="handoff.ask"):
    """Standby to holder: hand over to me. Answered at once."""

    session: Session


class HandoffAccepted(msgspec.Struct, frozen=True, tag="handoff.accepted"):
    """Holder: it has begun, under this name; another than asked for when it was under way already."""

    session: Session


class HandoffOffer(msgspec.Struct, frozen=True, tag="handoff.offer"):
    """Holder to standby: this is what I hold; acknowledge it once you hold the same.

    Round 1 comes while messages are still taken in, round 2 when nothing moves any more.
    """

    session: Session
    epoch: int
    round: Literal[1, 2]
    manifest: Manifest
    within_ms: Annotated[int, Meta(ge=1, le=60_000)]


class HandoffRehearsal(msgspec.Struct, frozen=True, tag="handoff.rehearsal"):
    """Holder to standby: acknowledge this as you would the first round of a handoff. Nothing follows."""

    session: Session
    epoch: int
    manifest: Manifest
    within_ms: Annotated[int, Meta(ge=1, le=60_000)]


class HandoffAck(msgspec.Struct, frozen=True, tag="handoff.ack"):
    """Standby: I recomputed exactly this from my own stores; it is durable here."""

    session: Session
    round: int
    digest: bytes


class HandoffStepTaken(msgspec.Struct, frozen=True, tag="handoff.step"):
    """Holder to standby: how far it is. For people only; nothing is decided by it."""

    session: Session
    step: Note
    note: Note = ""


class HandoffAwait(msgspec.Struct, frozen=True, tag="handoff.await"):
    """Standby to holder: answer when this handoff has ended."""

    session: Session


class HandoffEnded(msgspec.Struct, frozen=True, tag="handoff.ended"):
    """Holder: what came of it."""

    outcome: Literal["awake", "aborted", "failed"]
    reason: str
    epoch: int


class HandoffWireTransport:
    """The messages of handoffs, each bound to its session and to the machine it is expected from."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def serve_source(
        self,
        ask: Callable[[str, HandoffAsk], Awaitable[HandoffAccepted]],
        ended: Callable[[str, HandoffAwait], Awaitable[HandoffEnded]],
    ) -> None:
        """Answer as the machine that hands over."""
        self._mesh.on_request(HandoffAsk, ask)
        self._mesh.on_request(HandoffAwait, ended)

    def serve_target(
        self,
        offer: Callable[[str, HandoffOffer], Awaitable[HandoffAck]],
        step: Callable[[str, HandoffStepTaken], None],
        rehearsal: Callable[[str, HandoffRehearsal], Awaitable[HandoffAck]],
    ) -> None:
        """Answer as the machine that is to be awake."""
        self._mesh.on_request(HandoffOffer, offer)
        self._mesh.on_request(HandoffRehearsal, rehearsal)
        self._mesh.on_notice(HandoffStepTaken, step)

    async def ask(self, holder: str, session: str) -> str:
        """Ask for the awake role; the session under which it is coming. Raises ``PeerError``."""
        answer = await self._mesh.request(holder, HandoffAsk(session), HandoffAccepted, within=ANSWER_S)
        return answer.session

    async def ended(self, holder: str, session: str, within: float) -> HandoffEnded:
        """Wait for the end of a handoff. Raises ``PeerError``."""
        return await self._mesh.request(holder, HandoffAwait(session), HandoffEnded, within=within)

    async def offer(
        self, standby: str, session: str, epoch: int, number: Literal[1, 2], manifest: Manifest, within: float
    ) -> None:
        """Have the standby acknowledge a manifest.

        Raises ``PeerError``, or ``InstarError("wrong-ack")`` when it acknowledged something else.
        """
        offer = HandoffOffer(session, epoch, number, manifest, max(1, int(within * 1_000)))
        ack = await self._mesh.request(standby, offer, HandoffAck, within=within + EXTRA_S)
        if (ack.session, ack.round, ack.digest) != (session, number, manifest.digest()):
            raise _wrong_ack()

    async def rehearse(
        self, standby: str, session: str, epoch: int, manifest: Manifest, within: float
    ) -> None:
        """Have the standby acknowledge a manifest without a handoff. Raises as ``offer``."""
        rehearsal = HandoffRehearsal(session, epoch, manifest, max(1, int(within * 1_000)))
        ack = await self._mesh.request(standby, rehearsal, HandoffAck, within=within + EXTRA_S)
        if (ack.session, ack.digest) != (session, manifest.digest()):
            raise _wrong_ack()

    def tell(self, standby: str, session: str, step: str, note: str) -> None:
        """Let the other machine's people see a step; one that is lost is made up for by the next."""
        self._mesh.send(standby, HandoffStepTaken(session, step, note[:400]))


def _wrong_ack() -> InstarError:
    return InstarError("wrong-ack", "the standby acknowledged something else than it was offered")


def ended_of(outcome: HandoffOutcome) -> HandoffEnded:
    """A finished outcome as the other machine hears it."""
    assert outcome.outcome in ("awake", "aborted", "failed")
    return HandoffEnded(outcome.outcome, outcome.reason, outcome.epoch)


def refusal(error: PeerError, peer: str) -> InstarError:
    """A peer's answer as the error a person sees: its own code, words and hint where it gave any."""
    if error.reason != "refused":
        message = f"{peer} could not be reached: {error.message}"
        return InstarError("peer-unreachable", message, "see `instar machines`", status=502)
    detail = error.detail
    hint, status = detail.get("hint"), detail.get("status")
    extra = {k: v for k, v in detail.items() if k not in ("code", "message", "hint", "status")}
    return InstarError(
        error.code or "refused",
        f"{peer}: {error.message}",
        hint if isinstance(hint, str) else "",
        status=status if isinstance(status, int) else 409,
        extra=extra,
    )
