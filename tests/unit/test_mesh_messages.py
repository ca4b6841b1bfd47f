"""Requests, notices, refusals, lanes and back-pressure between real meshes on loopback."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from instar_node.contracts import Lane, PeerError
from instar_node.errors import InstarError
from instar_node.mesh.frames import MAX_FRAME
from instar_node.mesh.router import MAX_RUNNING
from tests.unit.mesh_world import eventually, world


class Ask(msgspec.Struct, tag="test.ask"):
    text: str


class Said(msgspec.Struct, tag="test.said"):
    text: str


class Other(msgspec.Struct, tag="test.other"):
    number: int


class Load(msgspec.Struct, tag="test.load"):
    data: bytes


async def echo(peer: str, ask: Ask) -> Said:
    return Said(f"{peer}: {ask.text}")


async def test_requests_are_answered_in_both_directions_over_one_tunnel() -> None:
    async with world() as w:
        a, b = await w.pair()
        a.mesh.on_request(Ask, echo)
        b.mesh.on_request(Ask, echo)
        assert (await a.mesh.request("m_b", Ask("hi"), Said, within=5)).text == "m_a: hi"
        assert (await b.mesh.request("m_a", Ask("ho"), Said, within=5, lane=Lane.LEASE)).text == "m_b: ho"


async def test_many_requests_at_once_each_get_their_own_answer() -> None:
    async with world() as w:
        a, b = await w.pair()
        b.mesh.on_request(Ask, echo)
        answers = await asyncio.gather(
            *(a.mesh.request("m_b", Ask(str(n)), Said, within=10) for n in range(200))
        )
        assert [said.text for said in answers] == [f"m_a: {n}" for n in range(200)]


async def test_notices_arrive_in_order_and_know_their_sender() -> None:
    async with world() as w:
        a, b = await w.pair()
        got: list[tuple[str, str]] = []
        b.mesh.on_notice(Said, lambda peer, said: got.append((peer, said.text)))
        assert all(a.mesh.send("m_b", Said(str(n))) for n in range(50))
        await eventually(lambda: len(got) == 50)
        assert got == [("m_a", str(n)) for n in range(50)]


async def test_a_refusal_travels_back_whole() -> None:
    async def refuse(_peer: str, _ask: Ask) -> Said:
        raise InstarError(
            "not-awake",
            "this machine is standby",
            "ask m_c",
            status=421,
            extra={"known": ["m_c"], "path": {1}},
        )

    async with world() as w:
        a, b = await w.pair()
        b.mesh.on_request(Ask, refuse)
        with pytest.raises(PeerError) as refusal:
            await a.mesh.request("m_b", Ask("x"), Said, within=5)
        assert (refusal.value.reason, refusal.value.code) == ("refused", "not-awake")
        assert refusal.value.message == "this machine is standby"
        detail = refusal.value.detail
        assert (detail["hint"], detail["status"], detail["known"]) == ("ask m_c", 421, ["m_c"])


async def test_a_handler_that_breaks_is_refused_as_internal_and_the_tunnel_stays() -> None:
    async def fail(_peer: str, _ask: Ask) -> Said:
        raise RuntimeError("secret detail")

    async with world() as w:
        a, b = await w.pair()
        b.mesh.on_request(Ask, fail)
        with pytest.raises(PeerError) as refusal:
            await a.mesh.request("m_b", Ask("x"), Said, within=5)
        assert (refusal.value.reason, refusal.value.code) == ("refused", "internal")
        assert "secret" not in refusal.value.message
        assert a.mesh.connected("m_b")


async def test_a_handler_that_asks_a_third_machine_passes_its_refusal_on() -> None:
    async with world() as w:
        a, b = await w.pair()

        async def forward(_peer: str, ask: Ask) -> Said:
            return await b.mesh.request("m_c", ask, Said, within=1)

        b.mesh.on_request(Ask, forward)
        with pytest.raises(PeerError) as refusal:
            await a.mesh.request("m_b", Ask("x"), Said, within=5)
        assert (refusal.value.reason, refusal.value.code) == ("refused", "peer-unreachable")


async def test_requests_of_another_version_are_refused_and_do_no_harm() -> None:
    class NewAsk(msgspec.Struct, tag="test.ask"):
        number: int

    class Unheard(msgspec.Struct, tag="test.unheard"):
        pass

    async with world() as w:
        a, b = await w.pair()
        b.mesh.on_request(Ask, echo)
        codes = []
        for message, reply in ((NewAsk(1), Said), (Unheard(), Said), (Ask("x"), Other)):
            with pytest.raises(PeerError) as refusal:
                await a.mesh.request("m_b", message, reply, within=5)
            assert refusal.value.reason == "refused"
            codes.append(refusal.value.code)
        assert codes == ["bad-request", "unknown-request", "bad-answer"]
        assert (await a.mesh.request("m_b", Ask("still here"), Said, within=5)).text == "m_a: still here"


async def test_a_broken_notice_handler_is_counted_and_the_tunnel_stays() -> None:
    def fail(_peer: str, _said: Said) -> None:
        raise RuntimeError

    async with world() as w:
        a, b = await w.pair()
        b.mesh.on_notice(Said, fail)
        b.mesh.on_request(Ask, echo)
        a.mesh.send("m_b", Said("x"))
        a.mesh.send("m_b", Other(1))
        await a.mesh.request("m_b", Ask("x"), Said, within=5)
        assert (b.mesh.counters["notices_failed"], b.mesh.counters["notices_unknown"]) == (1, 1)


async def test_nobody_waits_longer_than_the_deadline_and_a_late_answer_is_dropped() -> None:
    async with world() as w:
        a, b = await w.pair()
        go = asyncio.Event()

        async def slow(_peer: str, _ask: Ask) -> Said:
            await go.wait()
            return Said("late")

        b.mesh.on_request(Ask, slow)
        began = time.monotonic()
        with pytest.raises(PeerError) as failure:
            await a.mesh.request("m_b", Ask("x"), Said, within=0.1)
        assert failure.value.reason == "timeout"
        assert time.monotonic() - began < 2
        go.set()
        await eventually(lambda: a.mesh.counters["answers_too_late"] == 1)
        assert a.mesh.counters["requests_timed_out"] == 1


async def test_a_machine_that_is_not_connected_is_unreachable() -> None:
    async with world() as w:
        a = await w.add("m_a")
        await a.mesh.start()
        for peer in ("m_nobody", "m_a"):
            with pytest.raises(PeerError) as failure:
                await a.mesh.request(peer, Ask("x"), Said, within=1)
            assert failure.value.reason == "unreachable"
            assert not a.mesh.send(peer, Said("x"))
            assert not a.mesh.connected(peer)
            assert a.mesh.info(peer) is None


async def test_requests_waiting_when_the_tunnel_breaks_fail_at_once() -> None:
    async with world() as w:
        a, b, proxy = await w.through_proxy()
        asked = asyncio.Event()

        async def never(_peer: str, _ask: Ask) -> Said:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        b.mesh.on_request(Ask, never)
        request = asyncio.create_task(a.mesh.request("m_b", Ask("x"), Said, within=60))
        await asked.wait()
        proxy.cut()
        with pytest.raises(PeerError) as failure:
            await asyncio.wait_for(request, 5)
        assert failure.value.reason == "unreachable"


async def test_a_message_too_large_for_its_lane_is_refused_before_it_is_sent() -> None:
    async with world() as w:
        a, b = await w.pair()
        b.mesh.on_request(Ask, echo)
        with pytest.raises(PeerError) as failure:
            await a.mesh.request("m_b", Ask("x" * MAX_FRAME[Lane.LEASE]), Said, within=5, lane=Lane.LEASE)
        assert failure.value.code == "message-too-large"
        assert not a.mesh.send("m_b", Said("x" * MAX_FRAME[Lane.LEASE]), Lane.LEASE)
        big = "x" * MAX_FRAME[Lane.LEASE]
        assert (await a.mesh.request("m_b", Ask(big), Said, within=10)).text == f"m_a: {big}"


async def test_an_answer_too_large_for_its_lane_is_a_refusal_not_a_silence() -> None:
    async def flood(_peer: str, _ask: Ask) -> Said:
        return Said("x" * MAX_FRAME[Lane.LEASE])

    async with world() as w:
        a, b = await w.pair()
        b.mesh.on_request(Ask, flood)
        with pytest.raises(PeerError) as failure:
            await a.mesh.request("m_b", Ask("x"), Said, within=5, lane=Lane.LEASE)
        assert failure.value.code == "reply-not-sent"


async def test_lease_traffic_is_not_delayed_by_bulk_on_a_slow_line() -> None:
    async with world() as w:
        a, b, proxy = await w.through_proxy()
        b.mesh.on_request(Ask, echo)
        arrived = []
        b.mesh.on_notice(Load, lambda _peer, load: arrived.append(len(load.data)))
        proxy.rate = 4e6
        size = 12_000_000
        assert a.mesh.send("m_b", Load(bytes(size)), Lane.BULK)
        slowest = 0.0
        while not arrived:
            began = time.monotonic()
            await a.mesh.request("m_b", Ask("lease"), Said, within=10, lane=Lane.LEASE)
            if not arrived:
                slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.02)
        assert arrived == [size]
        assert 0 < slowest < 1.0  # the whole load takes three seconds


async def test_handlers_that_hang_on_one_lane_leave_the_lease_lane_free() -> None:
    async with world() as w:
        a, b = await w.pair()
        started: list[str] = []
        go = asyncio.Event()

        async def hang(_peer: str, ask: Ask) -> Said:
            started.append(ask.text)
            await go.wait()
            return Said("done")

        async def promise(_peer: str, _ask: Other) -> Said:
            return Said("promised")

        b.mesh.on_request(Ask, hang)
        b.mesh.on_request(Other, promise)
        hanging = [
            asyncio.create_task(a.mesh.request("m_b", Ask(str(n)), Said, within=30))
            for n in range(MAX_RUNNING)
        ]
        await eventually(lambda: len(started) == MAX_RUNNING)
        with pytest.raises(PeerError) as failure:
            await a.mesh.request("m_b", Other(1), Said, within=5)
        assert failure.value.reason == "overloaded"
        answer = await a.mesh.request("m_b", Other(1), Said, within=5, lane=Lane.LEASE)
        assert answer.text == "promised"
        go.set()
        assert {said.text for said in await asyncio.gather(*hanging)} == {"done"}
        assert (await a.mesh.request("m_b", Other(1), Said, within=5)).text == "promised"


async def test_a_peer_that_takes_nothing_in_fills_its_own_queue_and_blocks_nobody() -> None:
    async with world() as w:
        a, b, proxy = await w.through_proxy()
        c = await w.add("m_c")
        await c.mesh.start()
        a.mesh.refresh()
        await eventually(lambda: a.mesh.connected("m_c"))
        c.mesh.on_request(Ask, echo)
        proxy.forward.clear()
        load = Load(bytes(1 << 20))
        accepted = 0
        while a.mesh.send("m_b", load):
            accepted += 1
            assert accepted < 64
        with pytest.raises(PeerError) as failure:
            await a.mesh.request("m_b", load, Said, within=1)
        assert failure.value.reason == "overloaded"
        assert a.mesh.counters["queue_full"] == 2
        assert a.mesh.send("m_b", Said("lease"), Lane.LEASE)
        began = time.monotonic()
        assert (await a.mesh.request("m_c", Ask("x"), Said, within=5)).text == "m_a: x"
        assert time.monotonic() - began < 1
        assert b.mesh.counters["frames_bad"] == 0


async def test_a_request_given_up_before_it_left_is_never_sent() -> None:
    async with world() as w:
        a, b, proxy = await w.through_proxy()
        asked: list[str] = []

        async def note(peer: str, ask: Ask) -> Said:
            asked.append(ask.text)
            return await echo(peer, ask)

        b.mesh.on_request(Ask, note)
        proxy.forward.clear()
        assert a.mesh.send("m_b", Load(bytes(1 << 20)))  # fills the window: what follows waits in the queue
        with pytest.raises(PeerError):
            await a.mesh.request("m_b", Ask("given up"), Said, within=0.1)
        proxy.forward.set()
        await a.mesh.request("m_b", Ask("wanted"), Said, within=5)
        assert asked == ["wanted"]


async def test_a_message_type_needs_a_tag_and_one_handler() -> None:
    class Bare(msgspec.Struct):
        pass

    async with world() as w:
        a = await w.add("m_a")
        with pytest.raises(TypeError):
            a.mesh.on_notice(Bare, lambda _peer, _bare: None)
        a.mesh.on_request(Ask, echo)
        with pytest.raises(ValueError, match=r"test\.ask"):
            a.mesh.on_request(Ask, echo)
