"""What every kind of hub must do alike: one register, changed only by compare-and-swap, three outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from instar_node.coordination.lease_store import LeaseStore, Lost, StoreUnavailable, Unknown, Won
from tests.hubs.kinds import HubKind
from tests.unit.lease_store_support import lease_record, renewed, swapped, taken, won


@pytest.fixture
async def store(kind: HubKind) -> AsyncIterator[LeaseStore]:
    store = kind.store()
    yield store
    await store.close()


@pytest.fixture
async def other(kind: HubKind) -> AsyncIterator[LeaseStore]:
    """The same hub from another machine."""
    store = kind.store("m-bea")
    yield store
    await store.close()


async def test_an_empty_register_reads_as_nothing_and_takes_its_first_record(store: LeaseStore) -> None:
    assert await store.read() is None
    record = lease_record()
    known = await won(store, record)
    assert known.record == record
    assert await store.read() == known


async def test_another_machine_reads_what_was_written(store: LeaseStore, other: LeaseStore) -> None:
    first = await won(store, lease_record())
    assert await other.read() == first
    second = await won(store, renewed(first))
    third = await won(other, taken(second))
    assert await store.read() == await other.read() == third


@pytest.mark.over_ssh
async def test_a_swap_from_an_outdated_version_is_lost_and_shows_the_present_one(store: LeaseStore) -> None:
    first = await won(store, lease_record())
    second = await won(store, taken(first))
    assert await swapped(store, taken(first, "m-cyd")) == Lost(second)
    assert await store.read() == second


async def test_a_swap_from_nothing_is_lost_when_there_is_something(store: LeaseStore) -> None:
    first = await won(store, lease_record())
    assert await swapped(store, lease_record(holder="m-bea")) == Lost(first)


async def test_a_swap_from_a_version_is_lost_when_there_is_nothing(store: LeaseStore, kind: HubKind) -> None:
    first = await won(store, lease_record())
    kind.empty()
    assert await swapped(store, taken(first)) == Lost(None)


async def test_repeating_the_identical_swap_after_it_was_made_is_won(store: LeaseStore) -> None:
    first = await won(store, lease_record())
    candidate = await store.prepare(taken(first))
    for _ in range(2):
        outcome = await store.compare_and_swap(first.version, candidate)
        assert isinstance(outcome, Won)
        assert outcome.known.version == candidate.version


async def test_preparing_the_same_record_again_gives_the_same_version(
    store: LeaseStore, other: LeaseStore
) -> None:
    record = taken(await won(store, lease_record()))
    assert await other.read()
    versions = {(await maker.prepare(record)).version for maker in (store, store, other)}
    assert len(versions) == 1


async def test_records_that_differ_in_their_nonce_alone_are_rivals(store: LeaseStore) -> None:
    record = lease_record()
    twin = msgspec.structs.replace(record, nonce="another")
    first, second = await store.prepare(record), await store.prepare(twin)
    assert isinstance(await store.compare_and_swap(None, first), Won)
    assert isinstance(await store.compare_and_swap(None, second), Lost)


@pytest.mark.over_ssh
async def test_of_two_machines_that_swap_at_once_exactly_one_wins(
    store: LeaseStore, other: LeaseStore
) -> None:
    known = await won(store, lease_record())
    for _ in range(3):
        outcomes = await asyncio.gather(
            swapped(store, taken(known, "m-ada")), swapped(other, taken(known, "m-bea"))
        )
        winners = [outcome.known for outcome in outcomes if isinstance(outcome, Won)]
        losers = [outcome.known for outcome in outcomes if isinstance(outcome, Lost)]
        assert len(winners) == 1
        assert losers == winners
        known = winners[0]
        assert await store.read() == await other.read() == known


@pytest.mark.over_ssh
async def test_a_lost_answer_is_unknown_and_the_same_swap_again_is_won(
    store: LeaseStore, kind: HubKind
) -> None:
    first = await won(store, lease_record())
    candidate = await store.prepare(taken(first))
    async with kind.answers_lost():
        assert isinstance(await store.compare_and_swap(first.version, candidate), Unknown)
    known = await store.read()
    assert known is not None
    assert known.version == candidate.version
    assert await store.compare_and_swap(first.version, candidate) == Won(known)


async def test_a_lost_answer_and_a_successor_is_lost_to_the_successor(
    store: LeaseStore, other: LeaseStore, kind: HubKind
) -> None:
    first = await won(store, lease_record())
    candidate = await store.prepare(taken(first))
    async with kind.answers_lost():
        assert isinstance(await store.compare_and_swap(first.version, candidate), Unknown)
    mine = await other.read()
    assert mine is not None
    successor = await won(other, taken(mine, "m-cyd"))
    assert await store.compare_and_swap(first.version, candidate) == Lost(successor)


async def test_a_hub_that_is_away_is_neither_empty_nor_lost(
    store: LeaseStore, kind: HubKind, request: pytest.FixtureRequest
) -> None:
    if "embedded" in request.node.name:
        pytest.skip("the embedded hub is this machine's own disk")
    first = await won(store, lease_record())
    candidate = await store.prepare(taken(first))
    async with kind.away():
        with pytest.raises(StoreUnavailable):
            await store.read()
        assert isinstance(await store.compare_and_swap(first.version, candidate), Unknown)
    assert await store.read() == first
    assert isinstance(await store.compare_and_swap(first.version, candidate), Won)


@pytest.mark.parametrize(
    "content",
    [b"{}", b"\xff\x00 no text", b'{"holder":"\xff"}', b'{"unknown":' + b"[" * 100_000],
    ids=["no record", "no text", "text in no encoding", "deeper than a stack"],
)
async def test_a_value_that_is_no_lease_record_is_not_taken_for_an_empty_register(
    store: LeaseStore, kind: HubKind, content: bytes
) -> None:
    known = await won(store, lease_record())
    kind.spoil(content)
    with pytest.raises(StoreUnavailable) as caught:
        await store.read()
    assert caught.value.code == "hub-foreign"
    anew = await store.prepare(taken(known))  # as a person may decide: what was found is what is replaced
    assert isinstance(await store.compare_and_swap(caught.value.found, anew), Won)


async def test_the_probe_passes_and_leaves_nothing_behind(store: LeaseStore, kind: HubKind) -> None:
    known = await won(store, lease_record())
    before = kind.names()
    await store.probe()
    assert kind.names() == before
    assert await store.read() == known


async def test_a_hub_has_one_id_for_everybody_and_keeps_it(
    store: LeaseStore, other: LeaseStore, kind: HubKind
) -> None:
    known = await store.hub_id()
    assert known
    await asyncio.gather(store.create(), other.create())
    assert await store.hub_id() == await other.hub_id() == known
