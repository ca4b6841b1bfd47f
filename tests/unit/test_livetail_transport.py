"""The live tail between machines: following, catching up, changing holders, lag."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from instar_node.clock import SystemClock
from instar_node.contracts import LogPosition
from instar_node.errors import InstarError
from instar_node.events import Event, EventHub
from instar_node.known_secrets import KnownSecrets
from instar_node.livetail import feed as feed_module
from instar_node.livetail.buffer import LiveTailBuffer
from instar_node.livetail.entry import START, Line, TailEntry
from instar_node.livetail.http_transport import HttpLiveTailTransport
from instar_node.livetail.messages import TailHello, TailOffer, TailPush
from instar_node.livetail.redaction import Redactor
from instar_node.livetail.source import LiveTailSource
from instar_node.storage.database import SqliteDatabase
from tests.unit.fakes_mesh import FakeAuthority, Net, eventually


class Machine:
    """One machine's tail on the net."""

    def __init__(self, net: Net, name: str, folder: Path) -> None:
        self.name = name
        self.mesh, self.authority = net.node(name), FakeAuthority(name)
        self.database = SqliteDatabase.open(folder / f"{name}.db")
        self.clock = SystemClock()
        self.events = EventHub(self.clock)
        self.told: list[Event] = []
        self.events.listen(self.told.append)

    async def start(self, cap: int = 100_000) -> None:
        self.buffer = await LiveTailBuffer.open(self.database, self.clock, cap)
        redactor = Redactor(KnownSecrets(lambda: ("open-sesame",)))
        self.source = LiveTailSource(self.buffer, self.authority, self.clock, redactor)
        self.transport = HttpLiveTailTransport(
            self.source, self.buffer, self.mesh, self.authority, self.clock, self.events
        )
        await self.transport.start()

    async def stop(self) -> None:
        await self.transport.stop()
        await self.database.close()

    def say(self, *numbers: int, text: str = "", topic: str = "42") -> None:
        for n in numbers:
            self.source.append(
                kind="user" if n % 2 else "agent",
                topic=topic,
                text=text or f"line {n}",
                at="2026-01-01T00:00:00.000Z",
                key=f"k{n}",
                reply_to=None,
                epoch=self.authority.epoch,
                machine_id=self.name,
                seq=n,
            )

    async def heard(self) -> list[int]:
        return [line.topic_seq for line in await self.buffer.messages("42", 0, 1_000)]


class World:
    def __init__(self, folder: Path) -> None:
        self.net = Net()
        self.a, self.b, self.c = (Machine(self.net, name, folder) for name in "abc")
        self.all = (self.a, self.b, self.c)

    def holder(self, name: str, epoch: int, *who: Machine) -> None:
        for machine in who or self.all:
            machine.authority.set(name, epoch)

    async def together(self, *who: Machine) -> None:
        """All (of these) copies end at the same place, with everything said so far."""
        for machine in who or self.all:
            await machine.buffer.settled()
        await eventually(lambda: len({machine.buffer.head for machine in who or self.all}) == 1)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    for machine in world.all:
        await machine.start()
    world.holder("a", 1)
    yield world
    for machine in world.all:
        await machine.stop()


async def test_what_the_holder_says_reaches_every_standby_redacted(world: World) -> None:
    world.a.say(1, text="the word is open-sesame")
    world.a.say(2)
    await eventually(lambda: world.b.buffer.head.seq == world.c.buffer.head.seq == 2)
    for machine in world.all:
        assert [item.text for item in await machine.buffer.history("42", None, 9)] == [
            "the word is [redacted:vault]",
            "line 2",
        ]


async def test_a_standby_shows_that_lines_arrived(world: World) -> None:
    world.a.say(1)
    await eventually(lambda: any(event.kind == "livetail" for event in world.b.told))
    [event] = [event for event in world.b.told if event.kind == "livetail"]
    assert event.data == {"entries": 1, "topics": ["42"], "head_seq": 1}


async def test_a_machine_that_was_away_gets_what_it_missed(world: World) -> None:
    world.net.isolate("c")
    world.a.say(*range(1, 200))
    await world.together(world.a, world.b)
    assert world.c.buffer.head == START
    assert world.a.source.fed() == ["b"]
    world.net.rejoin("c")
    await world.together()
    assert await world.c.heard() == list(range(1, 200))


async def test_a_standby_that_takes_nothing_neither_blocks_nor_starves_the_other(world: World) -> None:
    world.a.say(1)
    await world.together()
    world.a.mesh.full.add("b")
    world.a.say(2, 3)
    await eventually(lambda: world.c.buffer.head.seq == 3)
    assert world.b.buffer.head.seq == 1
    world.a.mesh.full.clear()
    await world.together()


async def test_no_more_than_a_window_is_under_way_to_a_silent_standby(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "WINDOW_BYTES", 1_000)
    world.a.say(1)
    await world.together()
    world.b.mesh.lose = lambda peer, message: True  # its acknowledgements get lost
    before = len(world.net.log)
    world.a.say(*range(2, 60), text="x" * 100)
    await eventually(lambda: world.c.buffer.head.seq == 59)
    pushed = [entry for entry in world.net.log[before:] if entry == ("a", "b", "tail.push")]
    assert 1 <= len(pushed) <= 11


async def test_a_lost_push_is_noticed_by_the_gap_and_made_good(world: World) -> None:
    world.a.say(1)
    await world.together()
    world.a.mesh.lose = lambda peer, message: peer == "b"
    world.a.say(2)
    await eventually(lambda: world.c.buffer.head.seq == 2)
    world.a.mesh.lose = lambda peer, message: False
    world.a.say(3)
    await world.together()
    assert await world.b.heard() == [1, 2, 3]
    assert world.b.transport.follower.counters["gaps"] == 1


async def test_a_new_holder_is_offered_what_it_had_not_heard(world: World) -> None:
    world.a.say(1)
    await world.together()
    world.net.isolate("c")
    world.a.say(2, 3)
    await world.together(world.a, world.b)
    world.net.isolate("a")
    world.holder("c", 2)
    world.c.say(4)
    world.net.mend("b", "c")
    await eventually(lambda: world.b.buffer.head.epoch == 2)
    await world.together(world.b, world.c)
    assert await world.c.heard() == [1, 2, 3, 4]
    assert await world.b.buffer.manifest() == await world.c.buffer.manifest()
    world.net.mend("a", "c")
    await world.together()
    assert await world.a.heard() == [1, 2, 3, 4]
    assert await world.a.buffer.differing(await world.c.buffer.manifest()) == []


async def test_a_line_finished_as_the_lease_was_lost_reaches_the_next_holder(world: World) -> None:
    world.a.say(1)
    await world.together()
    world.net.isolate("a")
    world.a.authority.set("a", 1, valid=False)
    world.a.say(2)
    await world.a.buffer.settled()
    world.holder("b", 2)
    world.b.say(3)
    world.net.rejoin("a")
    await eventually(lambda: world.c.buffer.head == world.b.buffer.head == world.a.buffer.head)
    assert await world.b.heard() == [1, 2, 3]


async def test_only_the_holder_of_the_highest_epoch_is_believed(world: World) -> None:
    world.a.say(1)
    await world.together()
    world.holder("b", 2, world.b, world.c)
    forged = Line("42", 9, "agent", "forged", "", "k9", None, "a", 1)
    for epoch in (1, 2, 3):
        entry = TailEntry(LogPosition(epoch, 2), forged)
        world.a.mesh.send("c", TailPush(epoch, LogPosition(1, 1), (entry,), LogPosition(epoch, 2)))
    await eventually(lambda: world.c.transport.follower.counters["pushes_disbelieved"] >= 3)
    assert 9 not in await world.c.heard()


async def test_a_machine_that_is_not_awake_feeds_nobody(world: World) -> None:
    world.a.say(1)
    await world.together()
    world.a.authority.valid = False
    before = len(world.net.log)
    world.a.say(2)
    await world.a.buffer.settled()
    world.net.cut("a", "b")
    world.net.mend("a", "b")
    await eventually(lambda: ("b", "a", "tail.hello") in world.net.log[before:])
    assert ("a", "b", "tail.push") not in world.net.log[before:]
    world.a.authority.set("a", 1)
    await world.together()


async def test_lag_says_how_far_each_standby_is_behind(world: World) -> None:
    world.a.say(1)
    await world.together()
    await eventually(lambda: world.a.source._feeds["c"].acked.seq == 1)
    world.net.isolate("c")
    world.a.say(2, 3, 4)
    await eventually(lambda: world.a.source._feeds["b"].acked.seq == 4)
    b, c, never = await world.a.source.lag(["b", "c", "d"])
    assert (b.entries, b.bytes, b.ms, b.acked_seq, b.head_seq) == (0, 0, 0, 4, 4)
    assert (c.entries, c.bytes, c.acked_seq) == (3, 18, 1)
    assert c.ms > 1_000, "these lines were said long ago"
    assert b.last_ack_ms is not None
    assert (never.entries, never.last_ack_ms) == (4, None)


async def test_lag_names_the_topics_that_are_behind_the_most_so_first(world: World) -> None:
    world.a.say(1)
    await world.together()
    await eventually(lambda: world.a.source._feeds["c"].acked.seq == 1)
    world.net.isolate("c")
    world.a.say(1, topic="aside")
    world.a.say(2, 3)
    await eventually(lambda: world.a.source._feeds["b"].acked.seq == 4)
    b, c = await world.a.source.lag(["b", "c"])
    assert b.topics == ()
    assert [(one.topic, one.entries, one.bytes) for one in c.topics] == [("42", 2, 12), ("aside", 1, 6)]
    assert all(one.ms > 1_000 for one in c.topics)
    world.net.rejoin("c")
    await world.together()
    await eventually(lambda: world.a.source._feeds["c"].acked.seq == 4)
    assert (await world.a.source.lag(["c"]))[0].topics == ()


async def test_of_three_standbys_only_the_slow_one_is_behind(world: World, tmp_path: Path) -> None:
    fourth = Machine(world.net, "d", tmp_path)
    await fourth.start()
    try:
        fourth.authority.set("a", 1)
        world.a.say(1)
        await world.together(*world.all, fourth)
        fourth.mesh.full.add("a")  # it takes what is pushed, and its acknowledgements get stuck
        world.a.say(*range(2, 60), text="x" * 20_000)
        await world.together(world.a, world.b, world.c)
        await eventually(lambda: all(world.a.source._feeds[peer].acked.seq == 59 for peer in "bc"))
        b, c, d = await world.a.source.lag(["b", "c", "d"])
        assert (b.entries, c.entries) == (0, 0)
        assert d.entries > 0
        fourth.mesh.full.clear()
        await world.together(*world.all, fourth)
    finally:
        await fourth.stop()


async def test_a_machine_away_for_long_gets_what_is_still_kept_and_then_what_is_said(
    tmp_path: Path,
) -> None:
    """Away while the holder dropped old lines for space: a snapshot of what it holds, then the tail."""
    world = World(tmp_path)
    for machine in world.all:
        await machine.start(cap=2_000)
    world.holder("a", 1)
    try:
        world.a.say(1)
        await world.together()
        world.net.isolate("c")
        world.a.say(*range(2, 400))
        await world.together(world.a, world.b)
        kept = await world.a.heard()
        assert 1 not in kept
        world.net.rejoin("c")
        await world.together()
        assert await world.c.heard() == kept
        world.a.say(400)
        await world.together()
        assert (await world.c.heard())[-1] == 400
        same = [await machine.buffer.manifest() for machine in world.all]
        assert same[0] == same[1] == same[2]
    finally:
        for machine in world.all:
            await machine.stop()


async def test_the_source_can_wait_for_one_standby(world: World) -> None:
    world.a.say(*range(1, 50))
    assert await world.a.transport.caught_up("b", 5.0)
    assert world.b.buffer.head.seq == 49
    world.net.isolate("b")
    assert await world.a.transport.caught_up("b", 0.02), "nothing new was said"
    world.a.say(50)
    assert not await world.a.transport.caught_up("b", 0.05)
    assert await world.a.transport.caught_up("c", 5.0)


async def test_matching_waits_for_the_holder_and_compares(world: World) -> None:
    world.a.say(*range(1, 50))
    assert await world.b.transport.match(await world.a.buffer.manifest(), 5.0) == []


async def test_matching_gives_up_in_time_and_says_where_it_is(world: World) -> None:
    world.net.isolate("b")
    world.a.say(1)
    manifest = await world.a.buffer.manifest()
    with pytest.raises(InstarError) as caught:
        await world.b.transport.match(manifest, 0.05)
    assert caught.value.code == "tail-behind"


async def test_a_copy_that_differs_is_fetched_anew(world: World) -> None:
    world.a.say(1, 2)
    await world.together()
    await world.b.database.write(
        lambda db: db.execute("UPDATE tail_entries SET digest = zeroblob(32)") and None
    )
    await world.b.transport.stop()
    await world.b.start()
    assert await world.b.buffer.differing(await world.a.buffer.manifest()) == ["42"]
    assert await world.b.transport.match(await world.a.buffer.manifest(), 5.0) == []
    assert await world.b.heard() == [1, 2]


async def test_a_standby_keeps_as_much_as_the_holder(tmp_path: Path) -> None:
    world = World(tmp_path)
    await asyncio.gather(world.a.start(5_000), world.b.start(50), world.c.start())
    world.holder("a", 1)
    world.a.say(*range(1, 100))
    await world.together()
    assert await world.b.heard() == list(range(1, 100))
    assert await world.b.buffer.differing(await world.a.buffer.manifest()) == []
    for machine in world.all:
        await machine.stop()


async def test_conversation_cannot_begin_on_a_machine_that_was_never_awake(world: World) -> None:
    with pytest.raises(InstarError, match="never awake"):
        world.b.say(1)


def test_a_hello_too_long_to_be_honest_is_refused() -> None:
    bad = msgspec.msgpack.encode(
        {"type": "tail.hello", "epoch": 1, "lineage": [(n, n) for n in range(2_000)]}
    )
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(bad, type=TailHello)


@pytest.mark.parametrize("number", [-1, 1 << 63])
def test_numbers_that_no_table_holds_are_refused_where_they_arrive(number: int) -> None:
    line, place = Line("42", 1, "user", "hi", "", "k", None, "a", 1), LogPosition(1, 1)
    bad_lines = [msgspec.structs.replace(line, **{name: number}) for name in ("topic_seq", "epoch")]
    bad_places = [LogPosition(1, number), LogPosition(number, 1)]
    batches = [(TailEntry(place, bad),) for bad in bad_lines] + [
        (TailEntry(bad, line),) for bad in bad_places
    ]
    pushes = [TailPush(1, START, entries, place) for entries in batches]
    pushes += [TailPush(1, START, (), bad) for bad in bad_places]
    for message in (*pushes, *(TailOffer(1, (bad,)) for bad in bad_lines)):
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=TailPush | TailOffer)
