"""A machine's copy of the conversation, replicated by the rules of delivery.

The log is a list of entry numbers. Equal numbers at one place mean equal logs up to there, as the running
hash says in the product; so two logs meet by looking for the last place where they agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.machine import Machine
    from tests.simulation.world import World

OPENING = -1


class Stream:
    """The holder's side of bringing one standby level. Positions are lengths of the log."""

    __slots__ = ("acked", "joined", "sent", "session")

    def __init__(self, session: int) -> None:
        self.session = session
        self.joined = False
        self.acked = 0
        self.sent = 0


class Copy:
    """Log, rows and streams of one machine. What is in ``log``, ``known`` and ``orphans`` is on disk."""

    def __init__(self, world: World, machine: Machine) -> None:
        self._world = world
        self._machine = machine
        self.log: list[int] = []
        self.known: set[int] = set()
        self.orphans: list[int] = []
        """Rows whose entries were cut off here and are not in the log again."""
        self._sessions = 0
        self.forget()

    def forget(self) -> None:
        """A crash: streams and waits are gone."""
        self.epoch: int | None = None
        self.opened: int = 0
        self.streams: dict[str, Stream] = {}
        self.reported: set[str] = set()
        self.watermark = 0
        self.waits: list[tuple[int, int]] = []
        self._following: tuple[str, int, int] | None = None
        self._parted = False
        """Whether this session has cut off already what its holder does not have."""
        self._taken = 0

    # -- holder ------------------------------------------------------------------------------------

    def write(self) -> None:
        """A message of the conversation arrives: log it, to be acknowledged once it is safe."""
        if self.epoch is not None:
            self._world.oracle.on_effect(self._machine, self.epoch)
        row = self._world.next_row
        self._world.next_row += 1
        self._append(row)
        self.waits.append((len(self.log), row))
        for name in self.streams:
            self._feed(name)
        self.evaluate()

    def follow_lease(self, acting: int | None) -> None:
        """Run exactly the streams that should run for the epoch this machine acts in."""
        machine = self._machine
        if acting != self.epoch:
            self.epoch = acting
            self.streams.clear()
            self.reported.clear()
            self.waits.clear()
            self.watermark = 0
            if acting is not None and acting != self.opened:
                self.opened = acting
                self._append(OPENING)
                for row in self.orphans:
                    self._append(row)
                self.orphans.clear()
        if acting is None:
            return
        for other in self._world.machines:
            if other is not machine:
                connected = self._world.connected(machine.index, other.index)
                if not connected:
                    self.streams.pop(other.name, None)
                elif other.name not in self.streams:
                    self._meet(other.name)

    def nudge(self) -> None:
        """From time to time: what was sent and never answered is begun anew."""
        for name, stream in list(self.streams.items()):
            if not stream.joined or (stream.acked < len(self.log) and stream.sent == stream.acked):
                self._meet(name)
            else:
                stream.sent = stream.acked
                self._feed(name)

    def evaluate(self) -> None:
        """Acknowledge what every machine of the electorate of this instant has."""
        if not self.waits:
            return
        machine = self._machine
        if machine.lease.acting_epoch(machine.now()) != self.epoch:
            return
        floor = len(self.log)
        for name in machine.lease.ack_set():
            stream = self.streams.get(name)
            floor = min(floor, stream.acked if stream is not None else 0)
        done = 0
        for position, row in self.waits:
            if position > floor:
                self._world.note("row held back by the electorate")
                break
            done += 1
            self.watermark = max(self.watermark, position)
            self._world.note("row acknowledged")
            self._world.oracle.on_acknowledged(machine, row)
        if done:
            del self.waits[:done]

    def caught_up(self, name: str) -> bool:
        stream = self.streams.get(name)
        return stream is not None and stream.joined and stream.acked >= self.watermark

    def missing(self) -> frozenset[str]:
        """Machines that have not handed up what only they have, of those that the record names."""
        known = self._machine.lease.known
        named = known.record.incomplete if known is not None else ()
        begun = self.epoch is not None and known is not None and known.record.epoch == self.epoch
        return frozenset(named) - self.reported if begun else frozenset(named)

    def _meet(self, name: str) -> None:
        assert self.epoch is not None
        self._sessions += 1
        self.streams[name] = Stream(self._sessions)
        self._send(name, Copy.on_begin, self.epoch, self._sessions)

    def on_log(self, source: str, session: int, theirs: list[int]) -> None:
        """A standby showed its log."""
        stream = self._stream(source, session)
        if stream is not None:
            common = _common(self.log, theirs)
            stream.acked = common
            self._send(source, Copy.on_follow, self.epoch, session, common)

    def on_orphans(self, source: str, session: int, rows: list[int]) -> None:
        """A standby handed up what only it had, and follows."""
        stream = self._stream(source, session)
        if stream is None or stream.joined:
            return
        for row in rows:
            if row not in self.known:
                self._world.note("rows handed up")
                self._append(row)
        stream.joined = True
        self._world.note("standby caught up")
        self.reported.add(source)
        known = self._machine.lease.known
        if known is not None and source in known.record.incomplete:
            self._world.note("missing rows reported")
        self.watermark = max(self.watermark, len(self.log))
        self._feed(source)

    def on_ack(self, source: str, session: int, length: int) -> None:
        """A standby has our log up to a place on its disk."""
        stream = self._stream(source, session)
        if stream is not None and length > stream.acked:
            stream.acked = length
            self.evaluate()

    def _stream(self, source: str, session: int) -> Stream | None:
        machine = self._machine
        if self.epoch is None or machine.lease.acting_epoch(machine.now()) != self.epoch:
            return None
        stream = self.streams.get(source)
        return stream if stream is not None and stream.session == session else None

    def _feed(self, name: str) -> None:
        stream = self.streams[name]
        if stream.joined:
            start = stream.acked
            entries = self.log[start:]
            self._send(name, Copy.on_append, self.epoch, stream.session, start, entries, len(self.log))

    def _append(self, row: int) -> None:
        self._world.entries.append(row)
        self.log.append(len(self._world.entries) - 1)
        if row >= 0:
            self.known.add(row)

    # -- standby -----------------------------------------------------------------------------------

    def on_begin(self, source: str, epoch: int, session: int) -> None:
        """A holder asks for our log. Believe only the holder of the highest epoch known."""
        if self._believes(source, epoch):
            if self._following != (source, epoch, session):
                self._following, self._parted = (source, epoch, session), False
            self._send(source, Copy.on_log, session, list(self.log))

    def on_follow(self, source: str, epoch: int, session: int, common: int) -> None:
        """Cut off what the holder does not have, and hand it up; once, for later it has all of it."""
        if not self._believes(source, epoch) or self._following != (source, epoch, session) or self._parted:
            return
        self._parted = True
        entries = self._world.entries
        self.orphans += [row for entry in self.log[common:] if (row := entries[entry]) >= 0]
        del self.log[common:]
        self._send(source, Copy.on_orphans, session, list(self.orphans))

    def on_append(
        self, source: str, epoch: int, session: int, start: int, entries: list[int], taken: int
    ) -> None:
        """The next entries of the holder's log."""
        if not self._believes(source, epoch) or self._following != (source, epoch, session):
            return
        if start > len(self.log):
            return
        known = len(self.log) - start
        if known < len(entries):
            rows = self._world.entries
            self.log += entries[known:]
            self.known.update(row for entry in entries[known:] if (row := rows[entry]) >= 0)
        if len(self.log) >= taken:
            self.orphans.clear()
        self._send(source, Copy.on_ack, session, len(self.log))

    def _believes(self, source: str, epoch: int) -> bool:
        machine = self._machine
        known = machine.lease.known
        if known is None or known.record.epoch != epoch or known.record.holder != source:
            return False
        return machine.lease.acting_epoch(machine.now()) is None

    def _send(self, name: str, handler: object, *args: object) -> None:
        world, machine = self._world, self._machine
        other = world.by_name[name]
        world.send(machine.index, other.index, _hand_over, handler, machine.name, args)


def _hand_over(machine: Machine, handler: object, source: str, args: tuple[object, ...]) -> None:
    handler(machine.copy, source, *args)


def _common(ours: list[int], theirs: list[int]) -> int:
    """Length of the common beginning, by bisection: logs that agree at a place agree before it."""
    low, high = 0, min(len(ours), len(theirs))
    while low < high:
        middle = (low + high + 1) // 2
        if ours[middle - 1] == theirs[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
