"""Delivery on one machine: order, retries, people, pauses and failures."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from instar_node.contracts import RunResult
from instar_node.delivery import steps
from instar_node.delivery.contract import IngressMessage
from instar_node.delivery.conversation import Conversation
from instar_node.delivery.rows import MessageRow
from instar_node.delivery.steps import Incoming
from instar_node.errors import InstarError
from tests.unit.delivery_world import Machine, World, running_world, until

T = TypeVar("T")
MESSAGE = Incoming("local:t:k1", "t", "x", "", "local", "2026-01-01T00:00:00.000Z", "", "a")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(tmp_path, "a") as running:
        running.lead("a", 1)
        yield running


@pytest.fixture
def machine(world: World) -> Machine:
    return world["a"]


def texts(machine: Machine) -> list[str]:
    return machine.channel.receiver.texts


async def test_messages_of_a_topic_are_answered_in_order(machine: Machine) -> None:
    machine.agent.gate.clear()
    accepted = await asyncio.gather(*(machine.delivery.submit("t", f"m{n}") for n in range(30)))
    order = [a.seq for a in accepted]
    machine.agent.gate.set()
    await until(lambda: len(texts(machine)) == 30)
    by_line = sorted(zip(order, (f"a: m{n}" for n in range(30)), strict=True))
    assert texts(machine) == [text for _, text in by_line]


async def test_topics_do_not_wait_for_each_other(machine: Machine) -> None:
    machine.agent.gate.clear()
    await machine.delivery.submit("slow", "one")
    await until(lambda: machine.agent.requests)
    blocked = machine.agent.gate
    machine.agent.gate = asyncio.Event()
    machine.agent.gate.set()
    await machine.delivery.submit("fast", "two")
    await until(lambda: texts(machine) == ["a: two"])
    await until(lambda: list(machine.delivery.running) == ["slow"])
    assert machine.delivery.queued("slow") == 1
    blocked.set()
    await until(lambda: len(texts(machine)) == 2)


async def test_the_same_key_again_gives_the_same_answer(machine: Machine) -> None:
    first = await machine.delivery.submit("t", "hello", "k")
    again = await machine.delivery.submit("t", "hello", "k")
    assert (first.key, first.seq, first.duplicate) == ("k", 1, False)
    assert (again.key, again.seq, again.duplicate) == ("k", 1, True)
    with pytest.raises(InstarError) as reused:
        await machine.delivery.submit("t", "other", "k")
    assert reused.value.code == "key-reused"
    await until(lambda: texts(machine))
    assert (await machine.delivery.submit("t", "hello", "k")).state == "committed"
    assert texts(machine) == ["a: hello"]


async def test_the_same_key_at_the_same_time_is_one_message(machine: Machine) -> None:
    results = await asyncio.gather(*(machine.delivery.submit("t", "hello", "k") for _ in range(10)))
    assert sorted(r.duplicate for r in results) == [False] + [True] * 9
    await until(lambda: not machine.ledger.log.state.open)
    assert texts(machine) == ["a: hello"]


async def test_the_same_key_in_another_topic_is_another_message(machine: Machine) -> None:
    await machine.delivery.submit("a:b", "one", "c")
    await machine.delivery.submit("a", "two", "b:c")
    await until(lambda: sorted(texts(machine)) == ["a: one", "a: two"])


async def test_a_message_without_a_key_gets_one(machine: Machine) -> None:
    one, two = await machine.delivery.submit("t", "x"), await machine.delivery.submit("t", "x")
    assert one.key != two.key
    assert not two.duplicate


async def test_a_standby_accepts_nothing(machine: Machine) -> None:
    machine.authority.observe("b", 2)
    for attempt in (
        machine.delivery.submit("t", "x"),
        machine.delivery.reply("t", "k", "x"),
        machine.delivery.resolve("r_1", "send"),
    ):
        with pytest.raises(InstarError) as refused:
            await attempt
        assert refused.value.code == "not-awake"
    assert machine.ledger.topics() == {}


async def test_a_failing_agent_is_tried_three_times_then_the_message_is_abandoned(machine: Machine) -> None:
    seen: list[str] = []
    machine.events.listen(lambda e: seen.append(e.data["state"]) if e.kind == "message" else None)
    machine.agent.results = [RunResult("failed", error="exit 1")] * 3
    await machine.delivery.submit("t", "bad", "k1")
    await machine.delivery.submit("t", "good", "k2")
    await until(lambda: texts(machine) == ["a: good"])
    assert machine.agent.runs_of("bad") == 3
    assert len({r.n for r in machine.agent.requests}) == len(machine.agent.requests)
    row = await machine.ledger.message("local:t:k1")
    assert row is not None
    assert (row.state, row.reason) == ("abandoned", "exit 1")
    assert seen.count("failed") == 3
    assert "abandoned" in seen


async def test_a_machine_that_has_no_room_to_begin_tries_until_it_has(machine: Machine) -> None:
    machine.agent.results = [RunResult("unable", error="No space left on device")] * 5
    await machine.delivery.submit("t", "patience", "k1")
    await until(lambda: texts(machine) == ["a: patience"])
    assert machine.agent.runs_of("patience") == 6


async def test_an_agent_that_raises_counts_as_failed_and_may_succeed_later(machine: Machine) -> None:
    run, calls = machine.agent.run, []

    async def flaky(request):  # type: ignore[no-untyped-def]
        calls.append(request)
        if len(calls) == 1:
            raise RuntimeError("boom")
        return await run(request)

    machine.agent.run = flaky  # type: ignore[method-assign]
    await machine.delivery.submit("t", "x")
    await until(lambda: texts(machine) == ["a: x"])


async def test_an_earlier_run_that_has_not_ended_yet_is_nobodys_failure(machine: Machine) -> None:
    run, refusals = machine.agent.run, [InstarError("already-running", "still ending")] * 5

    async def busy(request):  # type: ignore[no-untyped-def]
        if refusals:
            raise refusals.pop()
        return await run(request)

    machine.agent.run = busy  # type: ignore[method-assign]
    await machine.delivery.submit("t", "x")
    await until(lambda: texts(machine) == ["a: x"])


async def test_an_answer_on_its_way_out_is_told_apart_from_one_in_the_making(machine: Machine) -> None:
    machine.agent.gate.clear()
    machine.channel.before.clear()
    await machine.delivery.submit("t", "x")
    await until(lambda: machine.delivery.running)
    assert not machine.delivery.mid_reply("t")
    machine.agent.gate.set()
    await until(lambda: machine.delivery.mid_reply("t"))
    machine.channel.before.set()
    await until(lambda: not machine.delivery.mid_reply("t"))


async def test_a_cancelled_run_begins_again_under_a_new_grant(machine: Machine) -> None:
    machine.agent.results = [RunResult("cancelled")]
    await machine.delivery.submit("t", "x")
    await until(lambda: texts(machine) == ["a: x"])
    first, second = machine.agent.requests
    assert (first.epoch, first.n) < (second.epoch, second.n)


async def test_a_message_for_a_person_waits_without_blocking_its_topic(machine: Machine) -> None:
    machine.agent.results = [RunResult("waiting")]
    await machine.delivery.submit("t", "x", "k1")
    await machine.delivery.submit("t", "y", "k2")
    await until(lambda: texts(machine) == ["a: y"])
    assert await machine.state("t", "k1") == "waiting"
    answered = await machine.delivery.reply("t", "k1", "by hand")
    assert answered.state == "committed"
    assert texts(machine) == ["a: y", "by hand"]
    again = await machine.delivery.reply("t", "k1", "by hand")
    assert again.key == answered.key
    with pytest.raises(InstarError) as late:
        await machine.delivery.reply("t", "k1", "differently")
    assert late.value.code == "already-replied"
    assert len(texts(machine)) == 2


async def test_a_waiting_message_waits_on_after_a_takeover(world: World, machine: Machine) -> None:
    machine.agent.results = [RunResult("waiting")]
    await machine.delivery.submit("t", "x", "k1")
    await until(lambda: machine.ledger.open_message("local:t:k1").state == "waiting")  # type: ignore[union-attr]
    await machine.kill()
    await machine.boot()
    world.lead("a", 2)
    await until(lambda: machine.ledger.head.epoch == 2)
    await machine.delivery.reply("t", "k1", "by hand")
    assert texts(machine) == ["by hand"]
    assert machine.agent.requests == []


async def test_the_agent_is_not_run_again_while_a_persons_answer_is_on_its_way_to_the_disk(
    machine: Machine,
) -> None:
    machine.agent.gate.clear()
    await machine.delivery.submit("t", "x", "k1")
    await until(lambda: machine.agent.requests and not machine.ledger.log.busy)
    write, block = machine.db.write, asyncio.Event()

    async def slow_write(job):  # type: ignore[no-untyped-def]
        await block.wait()
        return await write(job)

    machine.db.write = slow_write  # type: ignore[method-assign]
    reply = asyncio.ensure_future(machine.delivery.reply("t", "k1", "by hand"))
    await until(lambda: machine.agent.cancelled)
    await until(lambda: not machine.delivery.running, "the run's loop ends")
    block.set()
    await reply
    assert len(machine.agent.requests) == 1
    assert texts(machine) == ["by hand"]


async def test_a_person_who_answers_ends_the_run_and_its_result_is_refused(machine: Machine) -> None:
    machine.agent.gate.clear()
    await machine.delivery.submit("t", "x", "k1")
    await until(lambda: machine.agent.requests)
    machine.channel.before.clear()
    reply = asyncio.ensure_future(machine.delivery.reply("t", "k1", "by hand"))
    await until(lambda: machine.channel.under_way)
    assert machine.agent.cancelled == ["local:t:k1"]
    machine.agent.gate.set()
    await until(lambda: not machine.delivery.running)
    machine.channel.before.set()
    await reply
    assert texts(machine) == ["by hand"]
    assert len(machine.agent.requests) == 1


async def test_an_answer_is_never_on_its_way_twice(machine: Machine) -> None:
    machine.agent.results = [RunResult("waiting")]
    await machine.delivery.submit("t", "x", "k1")
    await until(lambda: not machine.delivery.running)
    machine.channel.before.clear()
    reply = asyncio.ensure_future(machine.delivery.reply("t", "k1", "by hand"))
    await until(lambda: machine.channel.under_way)
    again = asyncio.ensure_future(machine.outbox.resume("local:t:k1"))
    await asyncio.sleep(0.02)
    assert machine.channel.under_way == 1
    machine.channel.before.set()
    await reply
    with pytest.raises(InstarError) as refused:
        await again
    assert refused.value.code == "already-replied"
    assert len(machine.channel.receiver.attempts) == 1


async def test_nothing_is_appended_when_the_lease_ends_before_it_reaches_the_disk(machine: Machine) -> None:
    await until(lambda: machine.ledger.head.seq == 1)
    task = asyncio.ensure_future(machine.delivery.submit("t", "x"))
    while not machine.ledger.log.busy:
        await asyncio.sleep(0)
    machine.authority.lapse(announce=False)
    with pytest.raises(InstarError) as refused:
        await task
    assert refused.value.code == "not-awake"
    assert machine.ledger.head.seq == 1


async def test_a_result_under_an_older_grant_is_refused(machine: Machine) -> None:
    machine.agent.gate.clear()
    await machine.delivery.submit("t", "x", "k1")
    await until(lambda: machine.agent.requests)
    machine.agent.cancel = lambda key: False  # type: ignore[method-assign]
    machine.channel.before.clear()
    reply = asyncio.ensure_future(machine.delivery.reply("t", "k1", "by hand"))
    await until(lambda: machine.ledger.outbox())
    machine.agent.gate.set()
    await until(lambda: not machine.agent.running())
    machine.channel.before.set()
    await reply
    await until(lambda: not machine.delivery.running)
    assert texts(machine) == ["by hand"]


async def test_a_caller_who_goes_away_does_not_leave_a_reply_half_done(machine: Machine) -> None:
    machine.agent.results = [RunResult("waiting")]
    await machine.delivery.submit("t", "x", "k1")
    await until(lambda: not machine.delivery.running)
    machine.channel.before.clear()
    reply = asyncio.ensure_future(machine.delivery.reply("t", "k1", "by hand"))
    await until(lambda: machine.ledger.outbox())
    reply.cancel()
    machine.channel.before.set()
    await until(lambda: texts(machine) == ["by hand"])
    await until(lambda: not machine.ledger.log.state.open)


async def test_a_caller_who_goes_away_does_not_strand_a_recorded_message(machine: Machine) -> None:
    task = asyncio.ensure_future(machine.delivery.submit("t", "x", "k1"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    row = await machine.ledger.message("local:t:k1")
    if row is not None:
        await until(lambda: texts(machine) == ["a: x"])


async def test_nobody_is_answered_who_never_asked(machine: Machine) -> None:
    with pytest.raises(InstarError) as unknown:
        await machine.delivery.reply("t", "nope", "x")
    assert unknown.value.status == 404
    await machine.delivery.submit("t", "x", "k1")
    with pytest.raises(InstarError):
        await machine.delivery.reply("other", "k1", "x")


async def test_during_a_pause_messages_wait_then_go_on(machine: Machine) -> None:
    await machine.delivery.pause()
    task = asyncio.ensure_future(machine.delivery.submit("t", "x"))
    await asyncio.sleep(0.01)
    assert machine.ledger.topics() == {}
    await machine.delivery.resume()
    await task
    await until(lambda: texts(machine) == ["a: x"])


async def test_a_pause_that_lasts_is_a_clear_retryable_refusal(machine: Machine) -> None:
    await machine.delivery.pause()
    with pytest.raises(InstarError) as refused:
        await machine.delivery.submit("t", "x")
    assert (refused.value.code, refused.value.status) == ("handing-over", 503)
    assert refused.value.extra["retry_in_ms"] > 0


async def test_who_waited_during_a_handoff_learns_that_another_machine_is_awake(machine: Machine) -> None:
    await machine.delivery.pause()
    task = asyncio.ensure_future(machine.delivery.submit("t", "x"))
    await asyncio.sleep(0.01)
    machine.authority.lapse()
    await asyncio.sleep(0.01)
    assert not task.done()
    machine.authority.observe("b", 2)
    with pytest.raises(InstarError) as refused:
        await task
    assert refused.value.code == "not-awake"


async def test_draining_finishes_what_is_under_way_and_begins_nothing(machine: Machine) -> None:
    machine.agent.gate.clear()
    await machine.delivery.submit("t", "one")
    await machine.delivery.submit("t", "two")
    await until(lambda: machine.agent.requests)
    await machine.delivery.pause()
    drained = asyncio.ensure_future(machine.delivery.drain(60))
    await asyncio.sleep(0.01)
    machine.agent.gate.set()
    assert await drained
    assert texts(machine) == ["a: one"]
    await machine.delivery.resume()
    await until(lambda: texts(machine) == ["a: one", "a: two"])


async def test_a_run_that_does_not_end_is_cancelled_by_the_drain_and_runs_again_later(
    machine: Machine,
) -> None:
    machine.agent.gate.clear()
    await machine.delivery.submit("t", "one", "k1")
    await until(lambda: machine.agent.requests)
    await machine.delivery.pause()
    assert not await machine.delivery.drain(0.2)
    assert machine.agent.cancelled == ["local:t:k1"]
    machine.agent.gate.set()
    await asyncio.sleep(0.01)
    assert texts(machine) == []
    await machine.delivery.resume()
    await until(lambda: texts(machine) == ["a: one"])


async def test_a_lapse_in_the_middle_of_a_drain_does_not_begin_anything(machine: Machine) -> None:
    machine.agent.gate.clear()
    await machine.delivery.submit("t", "one")
    await until(lambda: machine.agent.requests)
    await machine.delivery.pause()
    drained = asyncio.ensure_future(machine.delivery.drain(1))
    await asyncio.sleep(0)
    machine.authority.lapse()
    machine.authority.become_holder(1)
    assert await drained
    await asyncio.sleep(0.02)
    assert len(machine.agent.requests) == 1


async def test_channels_are_polled_only_while_awake_and_not_paused(machine: Machine) -> None:
    await until(lambda: machine.channel.accept)
    await machine.delivery.pause()
    assert machine.channel.accept is None
    await machine.delivery.resume()
    await until(lambda: machine.channel.accept)
    machine.authority.lapse()
    await until(lambda: machine.channel.accept is None)


async def test_a_channels_cursor_moves_past_answered_messages(machine: Machine) -> None:
    await until(lambda: machine.channel.accept)
    assert machine.channel.accept is not None
    await machine.channel.accept(IngressMessage("hook", "t", "hi", "17", "ann", position="18"))
    await machine.channel.accept(IngressMessage("hook", "t", "hi", "17", "ann", position="18"))
    row = None
    async with asyncio.timeout(5):
        while row is None or row.state != "cursor_advanced":
            await asyncio.sleep(0.001)
            row = await machine.ledger.message("hook:t:17")
    assert row.origin is not None
    assert (row.origin.position, row.origin.sender) == ("18", "ann")
    assert texts(machine) == ["a: hi"]
    assert machine.channel.receiver.taken[0].reply_to == "hook:t:17"


async def test_a_full_disk_is_shown_and_the_message_goes_on_when_there_is_room(machine: Machine) -> None:
    write, broken, shown = machine.db.write, [True], []

    async def failing(job: Callable[[sqlite3.Connection], T]) -> T:
        if broken:
            raise InstarError("disk-full", "no space left")
        return await write(job)

    machine.agent.gate.clear()
    await machine.delivery.submit("t", "x", "k1")
    await until(lambda: machine.agent.requests)
    machine.events.listen(lambda e: shown.append(e.text) if "held up" in e.text else None)
    machine.db.write = failing  # type: ignore[method-assign]
    machine.agent.gate.set()
    await until(lambda: shown)
    assert "no space left" in shown[0]
    broken.clear()
    await until(lambda: texts(machine) == ["a: x"])


async def test_a_grant_that_found_no_room_on_the_disk_costs_neither_the_answer_nor_its_place(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, broken = steps.begin, [True]

    def failing(*args: Any) -> MessageRow:
        if broken:
            broken.pop()
            raise InstarError("disk-full", "no space left")
        return begin(*args)

    monkeypatch.setattr(steps, "begin", failing)
    machine.agent.gate.clear()
    await machine.delivery.submit("t", "one")
    await machine.delivery.submit("t", "two")
    await until(lambda: not broken)
    machine.agent.gate.set()
    await until(lambda: not machine.ledger.log.state.open)
    assert texts(machine) == ["a: one", "a: two"]
    assert machine.agent.runs_of("one") == 1


async def test_an_epoch_that_cannot_begin_is_shown_and_begins_later(world: World, machine: Machine) -> None:
    await until(lambda: machine.ledger.head.epoch == 1)
    write, broken, shown = machine.db.write, [True], []

    async def failing(job: Callable[[sqlite3.Connection], T]) -> T:
        if broken:
            raise InstarError("disk-full", "no space left")
        return await write(job)

    machine.events.listen(lambda e: shown.append(e.text) if e.kind == "ledger" else None)
    machine.db.write = failing  # type: ignore[method-assign]
    world.lead("a", 2)
    await until(lambda: shown)
    assert "cannot begin" in shown[0]
    broken.clear()
    await until(lambda: machine.ledger.head.epoch == 2)
    await machine.delivery.submit("t", "x")


async def test_every_state_of_a_message_is_an_event(machine: Machine) -> None:
    seen: list[str] = []
    machine.events.listen(lambda e: seen.append(e.data["state"]) if e.kind == "message" else None)
    machine.agent.gate.clear()
    await machine.delivery.submit("t", "x", "k1")
    await until(lambda: "processing" in seen)
    machine.agent.gate.set()
    await until(lambda: "committed" in seen)
    assert seen == ["received", "processing", "reserved", "committed"]


async def test_an_answer_that_comes_before_its_grant_is_written_takes_the_grant_along(
    machine: Machine,
) -> None:
    assert await machine.delivery.drain(1)  # only the test works on messages
    row = (await machine.ledger.record(MESSAGE)).row
    before = machine.ledger.head
    grant = machine.ledger.begin(row)
    answered, position = await machine.ledger.reserve(row.key, grant, ("yes",))
    assert (answered.grant, answered.state) == (grant, "reserved")
    assert position.seq == before.seq + 1
    assert machine.ledger.current(row.key, grant) is None


async def test_an_answer_under_a_grant_that_a_newer_one_ended_is_refused_although_neither_was_written(
    machine: Machine,
) -> None:
    assert await machine.delivery.drain(1)  # only the test works on messages
    row = (await machine.ledger.record(MESSAGE)).row
    ended, newest = machine.ledger.begin(row), machine.ledger.begin(row)
    with pytest.raises(InstarError) as refused:
        await machine.ledger.reserve(row.key, ended, ("late",))
    assert refused.value.code == "stale-grant"
    answered, _ = await machine.ledger.reserve(row.key, newest, ("yes",))
    assert answered.reservation is not None
    assert answered.reservation.replies == ("yes",)


async def test_an_agent_sees_the_lines_before_its_message_and_no_others(machine: Machine) -> None:
    await machine.delivery.submit("t", "one")
    await until(lambda: texts(machine))
    machine.agent.gate.clear()
    await machine.delivery.submit("t", "two")
    await machine.delivery.submit("t", "three")
    machine.agent.gate.set()
    await until(lambda: len(texts(machine)) == 3)
    assert [[h.text for h in r.history] for r in machine.agent.requests] == [
        [],
        ["one", "a: one"],
        ["one", "a: one", "two"],
    ]


async def test_a_conversation_is_read_in_pages(machine: Machine) -> None:
    for n in range(5):
        await machine.delivery.submit("t", f"m{n}", f"k{n}")
        await until(lambda n=n: len(texts(machine)) == n + 1)  # type: ignore[misc]
    await until(lambda: not machine.ledger.log.state.open)
    conversation = Conversation(machine.db, machine.ledger.log)
    assert [line.seq for line in await conversation.lines("t", 0, 4)] == [1, 2, 3, 4]
    page = await conversation.lines("t", 4, 3)
    assert [(line.seq, line.text) for line in page] == [(5, "m2"), (6, "a: m2"), (7, "m3")]
    assert (page[0].key, page[0].state, page[1].reply_to) == ("k2", "committed", "k2")
    assert [h.text for h in await conversation.history("t", 5, 2)] == ["m1", "a: m1"]
    assert await conversation.history("t", 5, 0) == ()
    assert await conversation.lines("unseen") == []


@pytest.mark.parametrize(("step", "answered"), [("reserve", "a: x"), ("commit", "by hand")])
async def test_a_persons_answer_that_the_disk_refused_half_way_leaves_nothing_lying(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, step: str, answered: str
) -> None:
    taken, broken = getattr(steps, step), [True]

    def failing(*args: Any) -> MessageRow:
        if broken:
            broken.pop()
            raise InstarError("disk-full", "no space left")
        return taken(*args)  # type: ignore[no-any-return]

    machine.agent.gate.clear()
    await machine.delivery.submit("t", "x", "k1")
    await until(lambda: machine.agent.requests and not machine.ledger.log.busy)
    monkeypatch.setattr(steps, step, failing)
    with pytest.raises(InstarError, match="no space left"):
        await machine.delivery.reply("t", "k1", "by hand")
    machine.agent.gate.set()
    await until(lambda: not machine.ledger.log.state.open)
    assert texts(machine) == [answered]


async def test_a_message_is_run_again_when_the_persons_answer_that_ended_its_run_is_refused_by_the_disk(
    machine: Machine,
) -> None:
    machine.agent.gate.clear()
    await machine.delivery.submit("t", "x", "k1")
    await until(lambda: machine.agent.requests and not machine.ledger.log.busy)
    write, full = machine.db.write, asyncio.Event()

    async def slowly_refused(job: Callable[[sqlite3.Connection], T]) -> T:
        await full.wait()
        machine.db.write = write  # type: ignore[method-assign]
        raise InstarError("disk-full", "no space left")

    machine.db.write = slowly_refused  # type: ignore[method-assign]
    reply = asyncio.ensure_future(machine.delivery.reply("t", "k1", "by hand"))
    await until(lambda: machine.agent.cancelled)
    await until(lambda: not machine.delivery.running, "the run's loop ends")
    full.set()
    with pytest.raises(InstarError, match="no space left"):
        await reply
    machine.agent.gate.set()
    await until(lambda: texts(machine) == ["a: x"])
