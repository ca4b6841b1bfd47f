"""``ReplyMarkerTransport``: carries message rows and reply markers between the machines.

Down: the holder streams its log to every connected member. Up: a standby first hands over what only it has.
An entry counts as safe once every machine of the electorate has synced it and the lease still holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from instar_node.clock import MICROS_PER_SECOND, Clock, wait_for
from instar_node.contracts import Authority, LogPosition, Members, Mesh
from instar_node.delivery.acks import NOWHERE, AckGate
from instar_node.delivery.contract import Publish
from instar_node.delivery.follower import Follower
from instar_node.delivery.hearing import Hearing
from instar_node.delivery.ledger import MessageProcessingLedger
from instar_node.delivery.state import Outcome, Totals
from instar_node.delivery.stream import PeerStream
from instar_node.delivery.wire import ReplicaAck, ReplicaBegin, ReplicaBroken, ReplicaMarks, ReplicaWanted
from instar_node.errors import InstarError

log = logging.getLogger("instar.delivery")

SLOW_MS = 1_000
LOOK_S = 0.02
"""How often a round trip looks whether the standby is level."""


class ReplyMarkerTransport:
    """Replication of this machine's ledger, in both roles. All methods belong to the event loop."""

    def __init__(
        self,
        mesh: Mesh,
        members: Members,
        authority: Authority,
        ledger: MessageProcessingLedger,
        clock: Clock,
        publish: Publish,
        on_slow: Callable[[str], None],
        slow_ms: int = SLOW_MS,
    ) -> None:
        """``on_slow(peer)`` is called when a machine of the electorate keeps an acknowledgement waiting for
        more than ``slow_ms``, once in each such period; the lease benches it."""
        self._mesh = mesh
        self._members = members
        self._authority = authority
        self._ledger = ledger
        self._clock = clock
        self._publish = publish
        self._streams: dict[str, PeerStream] = {}
        self._synced: dict[str, LogPosition] = {}
        """How far each peer said, in this epoch, that it has our log on its disk."""
        self._hearing = Hearing()
        self._heard = asyncio.Event()
        self.on_distrust: Callable[[], None] = lambda: None
        """Called when this machine's own ledger turns out to have gone back in time: stop, then ``hear``."""
        self._epoch: int | None = None
        self._on_slow = on_slow
        self._gate = AckGate(authority, clock, self.acked, lambda: ledger.head, self._slow, slow_ms)
        self._follower = Follower(mesh, authority, ledger.log)
        self._stopped = False

    def start(self) -> None:
        """Begin in the role that the lease gives; later changes are followed by themselves."""
        self._follower.start()
        self._mesh.on_notice(ReplicaAck, self._on_ack)
        self._mesh.on_notice(ReplicaBroken, self._on_broken)
        self._mesh.on_notice(ReplicaWanted, self._on_wanted)
        self._mesh.on_peer(self._on_peer)
        self._authority.on_change(self.refresh)
        self._ledger.log.on_durable(self._send_on)
        self._ledger.log.on_outcome(self._on_outcome)
        self.refresh()

    def stop(self) -> None:
        """End all streams; waits still open fail."""
        self._stopped = True
        self._drop_streams()
        self._gate.stop()

    async def wait_replicated(self, position: LogPosition) -> None:
        """Return once a position is durable here and on every machine of ``Authority.ack_set()``, read at
        that instant, in the epoch in which the wait began. Raises ``InstarError("lease-lost")``."""
        await self._gate.wait(position)

    async def hear(self) -> None:
        """Return once the machines within reach have handed up what only they had, or need not be waited for
        (``Hearing``). A ledger that went back notes who is out of reach as missing, and raises as
        ``ensure_open`` does."""
        while (left := self._hearing.wait_us(frozenset(self._peers()), self._clock.now())) != 0:
            self._heard.clear()
            if left is None:
                await self._heard.wait()
            else:
                await wait_for(self._clock, self._heard, left / MICROS_PER_SECOND)
        if self._hearing.distrusted:
            await self._ledger.ensure_open()
            await self._ledger.miss(self._hearing.unheard(self._holders_of_copies()))

    @property
    def alone(self) -> bool:
        """Whether no other machine is in the electorate or about to join it.

        What is submitted to the ledger while this is true needs no acknowledgement but that of our own disk:
        a stream that brings another machine level (``caught_up``) begins later, and by way of the same queue.
        """
        return not self._streams and not self._authority.ack_set()

    def acked(self, peer: str) -> LogPosition:
        """How far a peer has synced our log, as holder; nowhere for one without a stream."""
        stream = self._streams.get(peer)
        return stream.acked if stream is not None else NOWHERE

    def caught_up(self, peer: str) -> bool:
        """Whether a peer is level both ways: all it had is in our log, and it has everything that was ever
        acknowledged, in this epoch or an older one. Open the swap that admits it in the same instant: what is
        acknowledged after that waits for it too."""
        stream = self._streams.get(peer)
        return stream is not None and stream.joined and stream.acked >= self._gate.watermark

    async def round_trip(self, peer: str, within: float) -> None:
        """Have a standby acknowledge everything, and then an append of nothing, through its own disk.

        Raises ``InstarError``: ``stream-broken``, ``ledger-behind``.
        """
        try:
            async with asyncio.timeout(within):
                while not self.caught_up(peer):
                    await self._clock.sleep(LOOK_S)
                await self._streams[peer].round_trip()
        except TimeoutError:
            raise InstarError("ledger-behind", f"no row was acknowledged within {within:g} s") from None

    async def offer_stale(self, peer: str, epoch: int, within: float) -> None:
        """Speak to a standby as the holder of an epoch that is over; raises ``PeerError`` if all is well."""
        await self._mesh.request(peer, ReplicaBegin(epoch, 0, ()), ReplicaMarks, within=within)

    def behind(self, peer: str) -> Totals | None:
        """Entries and bytes a peer lacks; ``None`` while its log is not known."""
        stream = self._streams.get(peer)
        if stream is None or stream.acked_totals is None:
            return None
        ours = self._ledger.log.state.totals
        return Totals(
            max(0, ours.entries - stream.acked_totals.entries), max(0, ours.bytes - stream.acked_totals.bytes)
        )

    @property
    def refused(self) -> int:
        """Messages refused because a machine that is not the holder sent them."""
        return self._follower.refused

    def refresh(self) -> None:
        """Lease, tunnels or members changed: run exactly the streams that should run."""
        if self._stopped:
            return
        acting = self._authority.acting_epoch()
        wanted = set() if acting is None else self._peers()
        if acting != self._epoch:
            self._drop_streams()
            self._epoch = acting
            self._synced.clear()
            self._hearing.begin(wanted, self._clock.now())
        self._heard.set()
        for peer in self._streams.keys() - wanted:
            self._streams.pop(peer).stop()
        if acting is not None:
            for peer in wanted - self._streams.keys():
                self._streams[peer] = self._stream(peer, acting)
        self._follower.refresh()
        self._gate.evaluate()

    # -- what streams tell ------------------------------------------------------------------------------

    def progressed(self, peer: str) -> None:
        """See ``StreamWatcher``."""
        self._synced[peer] = max(self._synced.get(peer, NOWHERE), self.acked(peer))
        self._gate.evaluate()

    def met(self, peer: str, taken: LogPosition) -> None:
        """See ``StreamWatcher``. What both of us bring from older epochs may have been acknowledged then."""
        self._gate.inherit(taken)
        self._hearing.hear(peer)
        self._heard.set()

    def went_back(self, machine: str, peer: str, text: str) -> None:
        """See ``StreamWatcher``. A standby is benched until it is level again; we ourselves act on nothing
        that is older than this moment before all within reach have reported."""
        ours = machine == self._mesh.me
        name = "this machine" if ours else self._members.nickname(machine)
        log.error("the ledger of %s went back in time: %s", name, text)
        self._publish(
            "ledger",
            f"the ledger of {name} went back in time (a restored disk?) and is filled up again: {text}",
            peer=peer,
            machine=machine,
            code="ledger-went-back",
        )
        if not ours:
            self._synced.pop(machine, None)
            self._on_slow(machine)
        elif not self._hearing.distrusted:
            self._hearing.distrust()
            self.on_distrust()

    # -- inside -----------------------------------------------------------------------------------------

    def _holders_of_copies(self) -> set[str]:
        others = (member for member in self._members.active() if not member.witness)
        return {member.machine_id for member in others} - {self._mesh.me}

    def _peers(self) -> set[str]:
        return {machine for machine in self._holders_of_copies() if self._mesh.connected(machine)}

    def _stream(self, peer: str, epoch: int) -> PeerStream:
        remembered = self._synced.get(peer, NOWHERE)
        return PeerStream(peer, epoch, self._mesh, self._ledger, self._clock, self, remembered)

    def _drop_streams(self) -> None:
        for stream in self._streams.values():
            stream.stop()
        self._streams.clear()

    def _send_on(self, outcome: Outcome) -> None:
        if outcome.entries:
            for stream in self._streams.values():
                stream.grown()

    def _on_outcome(self, outcome: Outcome) -> None:
        if outcome.entries:
            self._gate.evaluate()

    def _on_peer(self, peer: str, up: bool) -> None:
        if (stream := self._streams.pop(peer, None)) is not None:
            stream.stop()  # what was in the old tunnel is lost
        self.refresh()

    def _slow(self, peer: str) -> None:
        if (stream := self._streams.get(peer)) is not None:
            stream.nudge()
        self._on_slow(peer)

    def _on_ack(self, peer: str, message: ReplicaAck) -> None:
        stream = self._streams.get(peer)
        if stream is not None and message.epoch == self._epoch:
            stream.on_ack(message)

    def _on_broken(self, peer: str, message: ReplicaBroken) -> None:
        if (stream := self._streams.get(peer)) is not None:
            stream.on_broken(message)

    def _on_wanted(self, peer: str, message: ReplicaWanted) -> None:
        stream = self._streams.get(peer)
        if stream is not None and message.epoch == self._epoch:
            stream.kick()
