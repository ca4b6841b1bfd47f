"""``Delivery``: takes messages in, has them answered in order, and goes on where another machine stopped."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal, TypeVar

import msgspec

from instar_node.clock import Clock, iso
from instar_node.contracts import AgentRunner, Authority, HistoryItem
from instar_node.delivery.contract import Channel, ChannelTrouble, ConversationSink, IngressMessage, Publish
from instar_node.delivery.intake import Intake
from instar_node.delivery.ledger import MessageProcessingLedger
from instar_node.delivery.narrator import Narrator
from instar_node.delivery.outbox import FencedOutbox
from instar_node.delivery.replication import ReplyMarkerTransport
from instar_node.delivery.rows import MessageRow, Rank, dedupe_key, public_key, reply_id
from instar_node.delivery.runs import Runs
from instar_node.delivery.state import Outcome
from instar_node.delivery.steps import Incoming, Recorded
from instar_node.delivery.work import FIRST_PAUSE_S, LEASE_CODES, LONGEST_PAUSE_S, MessageWork
from instar_node.errors import InstarError

T = TypeVar("T")
log = logging.getLogger("instar.delivery")


class Accepted(msgspec.Struct, frozen=True):
    """A message that is safe on every in-sync machine.

    ``key`` is the public key, ``dedupe_key`` the whole one, ``seq`` its line number in the topic.
    """

    key: str
    dedupe_key: str
    state: str
    seq: int
    topic: str
    handled_by: str
    duplicate: bool


class OutboxEntry(msgspec.Struct, frozen=True):
    """An answer that is not out yet. ``id`` names it for ``Delivery.resolve``."""

    id: str
    reply_id: str
    key: str
    topic: str
    state: str
    epoch: int
    reason: str
    text: str


class Delivery:
    """The holder's work on messages. All methods belong to the event loop; on a standby nothing runs."""

    def __init__(
        self,
        ledger: MessageProcessingLedger,
        transport: ReplyMarkerTransport,
        outbox: FencedOutbox,
        runner: AgentRunner,
        authority: Authority,
        channels: tuple[Channel, ...],
        sink: ConversationSink,
        history: Callable[[str, int, int], Awaitable[tuple[HistoryItem, ...]]],
        clock: Clock,
        publish: Publish,
        history_limit: int,
        pause_s: float = 5.0,
        blank: Callable[[str], str] = str,
        at_once: Callable[[str], bool] = lambda text: False,
    ) -> None:
        """``history(topic, before_seq, limit)`` gives the lines an agent sees; ``pause_s`` is how long a
        message waits for a handoff before it is refused as retryable; ``blank`` takes the values of secrets
        out of what people write, before it is kept anywhere; ``at_once(text)`` tells what is done out of
        turn, such as moving a topic whose first message waits for a machine that is away."""
        self._ledger = ledger
        self._transport = transport
        self._outbox = outbox
        self._runner = runner
        self._authority = authority
        self._channels = channels
        self._clock = clock
        self._publish = publish
        self._blank = blank
        self._intake = Intake(clock, pause_s)
        runs = Runs(ledger, outbox, runner, authority, history, clock, publish, history_limit)
        self._work = MessageWork(
            ledger, transport, outbox, runs, runner, clock, publish, self._lease_lost, at_once
        )
        self._narrator = Narrator(sink, publish)
        self._epoch: int | None = None
        self._level = False
        """Whether what is open in our ledger may be acted on: all who must report have."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._channel_switch = asyncio.Lock()

    def start(self) -> None:
        """Follow the lease from now on. The ledger must be loaded and the transport started."""
        self._ledger.log.on_outcome(self._on_outcome)
        self._transport.on_distrust = self._distrust
        self._authority.on_change(self._refresh)
        self._refresh()

    async def stop(self) -> None:
        """End all work; what is open is taken up again by the next holder, or at the next start."""
        self._fence()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stop_channels()
        for channel in self._channels:
            await channel.close()
        await self._ledger.log.settle()

    # -- messages in ------------------------------------------------------------------------------------

    async def submit(
        self, topic: str, text: str, key: str | None = None, sender: str = "", via: str | None = None
    ) -> Accepted:
        """Take a message of the local channel; returns once it is safe on every in-sync machine.

        ``via`` is the machine where it arrived. The same key again gives the same answer. Raises
        ``InstarError``: ``not-awake`` (ask the holder), ``key-reused``, ``handing-over`` and ``lease-lost``
        (repeat with the same key), or what the database says.
        """
        identity = key if key is not None else self._clock.token_hex(8)
        message = IngressMessage("local", topic, text, identity, self._blank(sender))
        return await self._accept(message, via or self._authority.me)

    async def accept(self, message: IngressMessage) -> None:
        """Take a message that a channel received; it may move its position on when this returns."""
        await self._accept(message, self._authority.me)

    async def reply(self, topic: str, reply_to: str, text: str) -> Accepted:
        """A person answers a message, by its public or whole key; whatever the agent was doing ends.

        Raises ``InstarError``: ``unknown-message``, ``already-replied``, or as ``submit``.
        """
        text = self._blank(text)
        row = await self._admitted(lambda: self._reply(topic, reply_to, text))
        seq = row.commit.seq if row.commit is not None else 0
        return Accepted(
            reply_id(row.key, 0), row.key, row.state, seq, topic, self._authority.me, duplicate=False
        )

    # -- answers that need a person ---------------------------------------------------------------------

    def outbox_items(self) -> list[OutboxEntry]:
        """Every answer that is reserved but not out, and why."""
        return [self._outbox_entry(row) for row in self._ledger.outbox()]

    async def resolve(self, item: str, action: Literal["send", "drop"]) -> None:
        """Decide about one of ``outbox_items``: send it (again), or drop it for good.

        Raises ``InstarError``: ``unknown-item``, ``already-replied``, ``not-awake``.
        """
        await self._ledger.ensure_open()
        row = next((row for row in self._ledger.outbox() if reply_id(row.key, 0) == item), None)
        if row is None:
            raise InstarError("unknown-item", f"nothing named {item} is in the outbox", status=404)
        if action == "drop":
            await self._ledger.reject(row.key, "dropped by a person")
            self._work.queues.drop(row.key)
        else:
            self._work.send_anyway(row)

    def channel_troubles(self) -> list[ChannelTrouble]:
        """What a person should know of the channels now."""
        return [trouble for channel in self._channels for trouble in channel.troubles()]

    # -- handoff ----------------------------------------------------------------------------------------

    async def pause(self) -> None:
        """Take no message in until ``resume``; those that come wait a while, then are refused."""
        self._intake.pause()
        await self._stop_channels()

    async def drain(self, within: float) -> bool:
        """Begin nothing new and wait for what is under way, at most ``within`` seconds; what is not done
        then is cancelled and runs again on the next holder. Returns whether everything finished."""
        self._work.queues.hold()
        finished = await self._within(within, self._intake.settled, self._work.queues.idle)
        if not finished:
            self._work.stop()
        return finished

    async def resume(self) -> None:
        """Go on after a handoff that did not take place (or, on a machine no longer awake, send those who
        wait to the holder)."""
        self._reopen()
        await self._recover()

    # -- looking ----------------------------------------------------------------------------------------

    def queued(self, topic: str) -> int:
        """Messages of a topic that nobody has begun to answer, or whose answer is under way."""
        return self.queued_by_topic()[topic]

    def queued_by_topic(self) -> Counter[str]:
        """``queued`` for all topics at once."""
        return Counter(
            row.origin.topic
            for row in self._ledger.log.state.open.values()
            if row.origin is not None and row.rank <= Rank.PROCESSING
        )

    def mid_reply(self, topic: str) -> bool:
        """Whether an answer in this topic is reserved and on its way out."""
        row = self._ledger.open_message(self._work.queues.active.get(topic, ""))
        return row is not None and row.rank is Rank.RESERVED

    @property
    def running(self) -> dict[str, str]:
        """By topic: the key of the message being answered."""
        return dict(self._work.queues.active)

    # -- following the lease ----------------------------------------------------------------------------

    def _refresh(self) -> None:
        acting = self._authority.acting_epoch()
        if self._authority.holder != self._authority.me:
            self._reopen()  # the handoff is over: who waited here learns whom to ask
        if acting == self._epoch:
            return
        if self._epoch is not None:
            self._fence()
        if acting is not None:
            self._epoch = acting
            self._spawn(self._take_up(acting))

    async def _take_up(self, epoch: int) -> None:
        """Open the epoch, then go on with everything that is open; what the disk prevents is tried again."""
        pause = FIRST_PAUSE_S
        while self._epoch == epoch:
            try:
                await self._ledger.ensure_open()
                await self._recover()
                return
            except InstarError as error:
                if error.code == "not-awake":
                    self._lease_lost()
                    return
                self._publish("ledger", f"epoch {epoch} cannot begin: {error.message}", code=error.code)
            await self._clock.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _recover(self) -> None:
        """Go on with what is open. First what was under way must have reached the disk: an answer reserved
        in the last instant before is not given a second time; and what others know must be in it."""
        await self._ledger.settled()
        await self._transport.hear()
        if self._epoch is not None:
            self._level = True
            self._work.enqueue(self._ledger.open_messages())
            await self._start_channels()

    def _fence(self) -> None:
        """This machine may no longer act: stop everything that could have an effect, now."""
        self._epoch, self._level = None, False
        self._work.stop()
        self._spawn(self._stop_channels())

    def _distrust(self) -> None:
        """Our ledger lacks what it once had: stop, and begin anew when the others have told us."""
        if self._epoch is not None:
            epoch = self._epoch
            self._fence()
            self._epoch = epoch
            self._spawn(self._take_up(epoch))

    def _lease_lost(self) -> None:
        """A step found the lease gone before the change was announced: fence now, look again at once."""
        if self._epoch is not None:
            self._fence()
            self._refresh()

    def _reopen(self) -> None:
        self._intake.resume()
        self._work.queues.release()

    async def _start_channels(self) -> None:
        async with self._channel_switch:
            for channel in self._channels:
                if self._epoch is not None and self._intake.is_open:
                    await channel.start_consuming(self.accept, self._ledger.channel_position(channel.name))

    async def _stop_channels(self) -> None:
        async with self._channel_switch:
            for channel in self._channels:
                await channel.stop_consuming()

    # -- one message ------------------------------------------------------------------------------------

    async def _accept(self, message: IngressMessage, via: str) -> Accepted:
        recorded = await self._admitted(lambda: self._record(message, via))
        row, origin = recorded.row, recorded.row.origin
        assert origin is not None
        me = self._authority.me
        return Accepted(
            public_key(row.key), row.key, row.state, origin.seq, origin.topic, me, recorded.duplicate
        )

    async def _admitted(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it inside the intake, in an opened epoch; a lease lost meanwhile is acted on at once."""
        await self._intake.enter()
        try:
            await self._ledger.ensure_open()
            return await work()
        except InstarError as error:
            if error.code in LEASE_CODES:
                self._lease_lost()
            raise
        finally:
            self._intake.leave()

    async def _record(self, message: IngressMessage, via: str) -> Recorded:
        recorded = await self._ledger.record(self._incoming(message, via))
        await self._transport.wait_replicated(recorded.position)
        return recorded

    async def _reply(self, topic: str, reply_to: str, text: str) -> MessageRow:
        row = await self._find(topic, reply_to)
        if row.rank < Rank.RESERVED:
            # In a task of its own: a caller who goes away must not leave an answer half sent.
            return await asyncio.shield(self._spawn(self._answer(row, text)))
        if row.reservation is None or row.reservation.replies != (text,):
            raise InstarError("already-replied", f"message {reply_to} is {row.state}")
        return row

    async def _answer(self, row: MessageRow, text: str) -> MessageRow:
        grant = self._ledger.begin(row)
        self._runner.cancel(row.key)
        try:
            return await self._outbox.answer(row.key, grant, (text,))
        except Exception:
            left = self._ledger.open_message(row.key)
            if self._level and left is not None:  # nobody else is at work on it: the run has ended
                self._work.enqueue([left])
            raise

    def _incoming(self, message: IngressMessage, via: str) -> Incoming:
        return Incoming(
            dedupe_key(message.channel, message.topic, message.provider_id),
            message.topic,
            self._blank(message.text),
            message.sender,
            message.channel,
            iso(self._clock.wall()),
            message.position,
            via,
        )

    async def _find(self, topic: str, key: str) -> MessageRow:
        for candidate in (dedupe_key("local", topic, key), key):
            row = await self._ledger.message(candidate)
            if row is not None and row.origin is not None and row.origin.topic == topic:
                return row
        raise InstarError("unknown-message", f"topic {topic} has no message {key}", status=404)

    def _outbox_entry(self, row: MessageRow) -> OutboxEntry:
        assert row.origin is not None
        reservation = row.reservation
        name = reply_id(row.key, 0)
        return OutboxEntry(
            name,
            name,
            public_key(row.key),
            row.origin.topic,
            row.state,
            reservation.epoch if reservation is not None else 0,
            row.reason or self._outbox.trouble.get(row.key, ""),
            "\n".join(reservation.replies) if reservation is not None else "",
        )

    # -- inside -----------------------------------------------------------------------------------------

    def _on_outcome(self, outcome: Outcome) -> None:
        for change in outcome.changes:
            self._narrator.tell(change, ours=outcome.opened_by == self._authority.me)
            if self._epoch is None:
                continue
            if self._level and change.kind in ("received", "joined"):
                self._work.enqueue([change.after])
            origin = change.after.origin
            if change.kind == "committed" and origin is not None and origin.position:
                self._spawn(self._move_cursor(change.after.key))

    async def _move_cursor(self, key: str) -> None:
        try:
            await self._ledger.advance_cursor(key)
        except InstarError as error:  # the provider offers it again; its key is known
            log.info("the cursor was not moved past %s: %s", key, error)

    async def _within(self, seconds: float, *waits: Callable[[], Awaitable[None]]) -> bool:
        async def everything() -> None:
            for wait in waits:
                await wait()

        done = asyncio.create_task(everything())
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        pending: set[asyncio.Future[Any]] = {done, timer}
        try:
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            return done.done()
        finally:
            done.cancel()
            timer.cancel()

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
