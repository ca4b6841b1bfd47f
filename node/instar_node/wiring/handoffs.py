"""Building what changes the awake machine."""

from __future__ import annotations

from instar_node.api.parts import Base, DeliveryParts, HandoffParts, PoolParts, TailParts
from instar_node.delivery.entries import Mark
from instar_node.handoff.board import HandoffBoard
from instar_node.handoff.copies import Copies
from instar_node.handoff.ports import StateLevel
from instar_node.handoff.receiver import HandoffReceiver
from instar_node.handoff.sentinel import HandoffSentinel
from instar_node.handoff.shutdown import ShutdownHandoff
from instar_node.handoff.steps import HandoffOutcome
from instar_node.handoff.times import HandoffTimes
from instar_node.handoff.wakeup import Wakeup
from instar_node.handoff.wire_transport import HandoffWireTransport
from instar_node.livetail.entry import TailManifest
from instar_node.verification.verification import Verification


def build_handoffs(
    base: Base,
    tail: TailParts,
    delivery: DeliveryParts,
    state: StateLevel,
    pool: PoolParts | None,
    verification: Verification,
) -> HandoffParts:
    """Sentinel, receiver, wakeup and the handoff at the end, over one board."""
    lease, mesh, members, clock = base.lease, base.mesh, base.registry, base.clock
    copies = Copies(tail.buffer, tail.transport, delivery.ledger.log, state, TailManifest, Mark)
    wire = HandoffWireTransport(mesh)
    times = HandoffTimes()
    board = HandoffBoard(lease, members, clock, base.events, lambda outcome: _note(base, outcome))
    sentinel = HandoffSentinel(
        lease=lease,
        ingress=delivery.delivery,
        waiting=pool.router.waiting if pool is not None else lambda topic: 0,
        copies=copies,
        wire=wire,
        board=board,
        mesh=mesh,
        members=members,
        clock=clock,
        times=times,
        require_open=lambda machine: verification.require("handoff", machine),
    )
    receiver = HandoffReceiver(
        authority=lease, copies=copies, wire=wire, board=board, members=members, times=times
    )
    wakeup = Wakeup(
        lease=lease, wire=wire, receiver=receiver, board=board, mesh=mesh, members=members, clock=clock
    )
    shutdown = ShutdownHandoff(
        lease=lease,
        sentinel=sentinel,
        board=board,
        mesh=mesh,
        members=members,
        clock=clock,
        embedded=lambda: lease.hub.kind == "embedded",
    )
    return HandoffParts(board, sentinel, receiver, wakeup, shutdown)


def _note(base: Base, outcome: HandoffOutcome) -> None:
    """How long a change of holder took goes into the history of epochs."""
    if outcome.outcome == "awake":
        base.lease.spawn(base.lease.note_took(outcome.epoch, round(outcome.took_ms)))
