"""Who is connected to whom: opening, tie-break, silence, restart, removal, change of keys, breaches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

import aiohttp
import msgspec
import pytest

from instar_node.clock import SystemClock
from instar_node.contracts import Lane, PeerError
from instar_node.mesh.channel import Channel, RekeyPolicy
from instar_node.mesh.frames import (
    Credit,
    Hello,
    Notice,
    Opening,
    Pong,
    RekeyDone,
    control_piece,
    data_piece,
    encode_frame,
)
from instar_node.mesh.limits import MAX_PENDING_PER_ADDRESS
from instar_node.mesh.opening import HandshakeError, call
from instar_node.mesh.tunnel import TunnelSettings
from tests.unit.mesh_world import QUICK, Identity, Machine, Registry, World, eventually, raw_socket, world


class Ask(msgspec.Struct, tag="test.ask"):
    number: int


class Got(msgspec.Struct, tag="test.got"):
    number: int


class Fast(SystemClock):
    """Time flies."""

    SPEED = 20

    def now(self) -> int:
        return super().now() * self.SPEED

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.SPEED)


class Eager(SystemClock):
    """Skips short waits."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0 if seconds < 0.06 else seconds)


async def answer(_peer: str, ask: Ask) -> Got:
    return Got(ask.number)


def open_tunnels(machine: Machine) -> int:
    return machine.mesh.counters["tunnels_opened"] - machine.mesh.counters["tunnels_closed"]


def seen_times(machine: Machine, up: bool, times: int) -> bool:
    return machine.seen.count(("m_b", up)) == times


def knows_round_trip(machine: Machine, peer: str) -> bool:
    info = machine.mesh.info(peer)
    return info is not None and info.rtt_us is not None


# -- opening ------------------------------------------------------------------------------------------------


async def test_one_reachable_side_is_enough() -> None:
    async with world() as w:
        a, b = await w.add("m_a"), await w.add("m_b")
        w.registry.change("m_b", urls=())
        await w.connect(b, a)
        a.mesh.on_request(Ask, answer)
        b.mesh.on_request(Ask, answer)
        assert (await a.mesh.request("m_b", Ask(1), Got, within=5)).number == 1
        assert (await b.mesh.request("m_a", Ask(2), Got, within=5)).number == 2


async def test_both_know_version_protocol_incarnation_round_trip_and_addresses_of_each_other() -> None:
    async with world() as w:
        a, b = await w.add("m_a", incarnation="first"), await w.add("m_b", protocol=(1, 2))
        await w.connect(a, b)
        for one, other in ((a, b), (b, a)):
            peer = other.identity.machine_id
            await eventually(partial(knows_round_trip, one, peer))
            info = one.mesh.info(peer)
            assert info is not None
            assert (info.connected, info.version, info.compatible) == (True, "0.1", True)
            assert (info.protocol, info.incarnation) == (other.protocol, other.incarnation)
            assert info.since is not None
            assert info.last_heard is not None
            assert info.since <= info.last_heard <= one.clock.now()
            assert one.mesh.announced_urls(peer) == (other.url,)


@pytest.mark.parametrize("_attempt", range(3))
async def test_when_both_dial_one_tunnel_remains_and_no_request_is_lost(_attempt: int) -> None:
    async with world() as w:
        a = await w.add("m_a")
        b = await w.add("m_b", clock=Eager())  # no head start for the smaller id: both really dial at once
        asked: list[asyncio.Task[Got]] = []

        def ask_at_once(machine: Machine, peer: str) -> None:
            def up(_peer: str, is_up: bool) -> None:
                if is_up:
                    request = machine.mesh.request(peer, Ask(7), Got, within=10)
                    asked.append(asyncio.create_task(request))

            machine.mesh.on_request(Ask, answer)
            machine.mesh.on_peer(up)

        ask_at_once(a, "m_b")
        ask_at_once(b, "m_a")
        await asyncio.gather(a.mesh.start(), b.mesh.start())
        await eventually(lambda: len(asked) >= 2)
        assert {got.number for got in await asyncio.gather(*asked)} == {7}
        await eventually(lambda: open_tunnels(a) == 1 and open_tunnels(b) == 1)
        assert a.seen == [("m_b", True)]
        assert b.seen == [("m_a", True)]


async def dial(w: World, caller: Identity, called: Machine, incarnation: str = "one") -> Rogue:
    """A caller with the right keys whose every message the test decides."""
    session = aiohttp.ClientSession()
    socket = await raw_socket(session, called)
    hello = Hello("0.1", (1, 1), incarnation, ())
    member = w.registry.members[called.identity.machine_id]
    try:
        channel, _ = await asyncio.wait_for(
            call(socket, caller, w.registry.mesh_id, member, hello, SystemClock(), RekeyPolicy()), 5
        )
    except BaseException:
        await session.close()
        raise
    return Rogue(session, socket, channel)


class Rogue:
    """One side of a tunnel, by hand."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        socket: aiohttp.ClientWebSocketResponse,
        channel: Channel,
    ) -> None:
        self.session, self.socket, self.channel = session, socket, channel

    async def closed(self) -> bool:
        """Whether the other side has ended the connection (waits for it)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while (message := await self.socket.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass
                return message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        return False


async def test_a_machine_that_dials_anew_replaces_its_own_old_tunnel() -> None:
    async with world() as w:
        called = await w.add("m_b")
        caller = Identity("m_a")
        w.registry.admit(caller)
        await called.mesh.start()
        old = await dial(w, caller, called)
        await eventually(lambda: called.mesh.connected("m_a"))
        new = await dial(w, caller, called)
        assert await old.closed()
        assert called.seen == [("m_a", True)]
        for rogue in (old, new):
            await rogue.session.close()


async def test_a_live_tunnel_dialled_by_the_smaller_id_is_not_replaced_by_the_larger() -> None:
    async with world() as w:
        a, b = await w.add("m_a"), await w.add("m_b")
        w.registry.change("m_a", urls=())
        a.url = ""
        await w.connect(a, b)
        a.url = f"http://127.0.0.1:{a.listener_port}"
        with pytest.raises(HandshakeError):
            await dial(w, b.identity, a)
        assert a.seen == [("m_b", True)]
        assert open_tunnels(a) == 1


async def test_a_member_that_was_down_is_found_at_once_on_refresh() -> None:
    async with world() as w:
        a = await w.add("m_a")
        b = await w.add("m_b")
        real = w.registry.members["m_b"].urls
        w.registry.change("m_b", urls=("http://127.0.0.1:9",))
        w.registry.change("m_a", urls=())
        await a.mesh.start()
        await b.mesh.start()
        await eventually(lambda: a.mesh.counters["dials_failed"] >= 1)
        assert "127.0.0.1:9" in a.mesh.trouble("m_b")
        a.mesh._board.peers["m_b"].failures = 1_000  # gone for long: the next wait is above seven seconds
        failed = a.mesh.counters["dials_failed"]
        await eventually(lambda: a.mesh.counters["dials_failed"] > failed)
        w.registry.change("m_b", urls=real)
        a.mesh.refresh()
        await eventually(lambda: a.mesh.connected("m_b"), within=5)
        assert a.mesh.trouble("m_b") == ""


async def test_a_machine_that_cannot_be_reached_is_dialled_less_and_less() -> None:
    async with world() as w:
        a = await w.add("m_a")
        w.registry.admit(Identity("m_b"), "http://127.0.0.1:9")
        await a.mesh.start()
        await eventually(lambda: a.mesh._board.peers["m_b"].failures == 3)
        assert a.mesh.counters["dials_failed"] in (3, 4)


async def test_an_incompatible_peer_stays_connected_and_is_shown_as_such() -> None:
    async with world() as w:
        a, b = await w.add("m_a", protocol=(1, 2)), await w.add("m_b", protocol=(3, 4))
        await w.connect(a, b)
        info = a.mesh.info("m_b")
        assert info is not None
        assert (info.connected, info.compatible) == (True, False)
        assert any("cannot work with this one" in text for text in a.told)


# -- going down ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ["both", "to", "from"])
async def test_a_silent_or_half_cut_path_is_noticed_by_both_sides(cut: str) -> None:
    async with world() as w:
        a, b, proxy = await w.through_proxy(QUICK)
        if cut in ("both", "to"):
            proxy.forward.clear()
        if cut in ("both", "from"):
            proxy.backward.clear()
        await eventually(lambda: not a.mesh.connected("m_b") and not b.mesh.connected("m_a"), within=5)
        with pytest.raises(PeerError) as failure:
            await a.mesh.request("m_b", Ask(1), Got, within=1)
        assert failure.value.reason == "unreachable"
        proxy.cut()
        proxy.forward.set()
        proxy.backward.set()
        await eventually(lambda: a.mesh.connected("m_b") and b.mesh.connected("m_a"))


async def test_a_peer_that_talks_but_no_longer_hears_us_is_given_up() -> None:
    patient = TunnelSettings(ping_every=0.1, silent_after=60)
    async with world() as w:
        a, b, proxy = await w.through_proxy(QUICK, patient)
        proxy.forward.clear()

        async def talk() -> None:
            while b.mesh.send("m_a", Got(1)):
                await asyncio.sleep(0.05)

        talking = asyncio.create_task(talk())
        await eventually(lambda: not a.mesh.connected("m_b"), within=5)
        talking.cancel()


async def test_a_flapping_peer_is_told_twice_at_most_and_then_as_it_is() -> None:
    async with world() as w:
        a = await w.add("m_a", clock=Fast())
        b = Identity("m_b")
        w.registry.admit(b)
        await a.mesh.start()
        for flap in range(1, 6):
            rogue = await dial(w, b, a)
            await eventually(partial(seen_times, a, True, flap))
            await rogue.session.close()
            await eventually(partial(seen_times, a, False, flap))
        await eventually(lambda: a.told[-1] == "nick-m_b is not reachable")
        assert len(a.told) < 6


async def test_an_idle_tunnel_stays_up() -> None:
    async with world() as w:
        a, b = await w.pair(QUICK)
        await asyncio.sleep(3 * QUICK.silent_after)
        assert a.seen == [("m_b", True)]
        assert b.seen == [("m_a", True)]


async def test_going_up_and_down_is_told_by_nickname() -> None:
    async with world() as w:
        a, b = await w.pair()
        await eventually(lambda: a.told == ["nick-m_b is connected"])
        a.mesh._board.peers["m_b"].announcer._told_at = None  # long ago
        await b.mesh.stop()
        await eventually(lambda: a.told[1:] == ["nick-m_b is not reachable"])
        assert a.seen == [("m_b", True), ("m_b", False)]


async def test_a_restarted_peer_replaces_its_former_self_even_if_that_seemed_alive() -> None:
    async with world() as w:
        a = await w.add("m_a")
        former = Identity("m_b")
        w.registry.admit(former)
        await a.mesh.start()
        old = await dial(w, former, a, incarnation="before")
        await eventually(lambda: a.mesh.connected("m_b"))
        new = await dial(w, former, a, incarnation="after")
        await eventually(lambda: a.seen == [("m_b", True), ("m_b", False), ("m_b", True)])
        info = a.mesh.info("m_b")
        assert info is not None
        assert info.incarnation == "after"
        assert await old.closed()
        await old.session.close()
        await new.session.close()


async def test_a_removed_member_is_dropped_and_cannot_come_back() -> None:
    async with world() as w:
        a, b = await w.pair()
        w.registry.change("m_b", removed=True)
        a.mesh.refresh()
        assert not a.mesh.connected("m_b")
        assert a.mesh.info("m_b") is None
        await eventually(lambda: not b.mesh.connected("m_a"))
        failed = a.mesh.counters["handshakes_failed"]
        await eventually(lambda: a.mesh.counters["handshakes_failed"] > failed)
        assert not b.mesh.connected("m_a")
        assert a.seen == [("m_b", True), ("m_b", False)]


async def test_a_member_removed_before_the_registry_was_followed_cannot_come_in() -> None:
    async with world() as w:
        a = await w.add("m_a")
        b = Identity("m_b")
        w.registry.admit(b)
        await a.mesh.start()
        w.registry.change("m_b", removed=True)
        with pytest.raises(HandshakeError):
            await dial(w, b, a)


async def test_stopping_leaves_nothing_running() -> None:
    before = asyncio.all_tasks()
    async with world() as w:
        await w.pair()
    assert asyncio.all_tasks() == before


# -- strangers ----------------------------------------------------------------------------------------------


def opening(caller: str, called: str, noise: bytes = bytes(48)) -> bytes:
    return msgspec.msgpack.encode(Opening(1, caller, called, noise))


@pytest.mark.parametrize(
    "first",
    [
        opening("m_stranger", "m_a"),
        opening("m_gone", "m_a"),
        opening("m_b", "m_a"),
        opening("m_a", "m_a"),
        opening("m_b", "m_a", b"short"),
        b"\x94\x01\xa1\xff",
        b"GET / HTTP/1.1",
    ],
    ids=["unknown", "removed", "wrong key", "ourselves", "short", "malformed", "nonsense"],
)
async def test_whatever_is_wrong_with_a_caller_it_sees_the_same(first: bytes) -> None:
    async with world() as w:
        a = await w.add("m_a")
        for name in ("m_b", "m_gone"):
            w.registry.admit(Identity(name))
        w.registry.change("m_gone", removed=True)
        await a.mesh.start()
        async with aiohttp.ClientSession() as session:
            socket = await raw_socket(session, a)
            await socket.send_bytes(first)
            message = await socket.receive(timeout=5)
        assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 1008, "")
        assert a.mesh.counters["handshakes_failed"] == 1
        assert a.seen == []


async def test_a_member_of_another_mesh_is_refused() -> None:
    async with world() as w:
        a = await w.add("m_a")
        b = Identity("m_b")
        w.registry.admit(b)
        await a.mesh.start()
        other = World()
        other.registry = Registry("mesh-2")
        other.registry.members = w.registry.members
        with pytest.raises(HandshakeError):
            await dial(other, b, a)


async def test_a_recorded_opening_played_again_has_no_effect() -> None:
    async with world() as w:
        a, b, proxy = await w.through_proxy()
        recorded = b"".join(proxy.recorded)
        await a.mesh.stop()
        await eventually(lambda: not b.mesh.connected("m_a"))
        b.seen.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(recorded)
        await asyncio.wait_for(reader.read(-1), 10)
        writer.close()
        assert b.mesh.counters["handshakes_failed"] == 1
        assert b.seen == []


async def test_a_caller_that_says_nothing_is_closed_in_time_and_frees_its_place() -> None:
    async with world() as w:
        a = await w.add("m_a", settings=TunnelSettings(handshake_within=0.3))
        await a.mesh.start()
        async with aiohttp.ClientSession() as session:
            sockets = [await raw_socket(session, a) for _ in range(MAX_PENDING_PER_ADDRESS)]
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                await raw_socket(session, a)
            assert refusal.value.status == 429
            for socket in sockets:
                assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
            await raw_socket(session, a)
        assert a.mesh.counters["handshakes_limited"] == 1


async def test_the_route_refuses_what_is_no_websocket_and_a_mesh_that_is_not_started() -> None:
    async with world() as w:
        a = await w.add("m_a")
        async with aiohttp.ClientSession() as session:
            async with session.get(a.url + "/mesh/tunnel") as response:
                assert response.status == 503
            await a.mesh.start()
            async with session.get(a.url + "/mesh/tunnel") as response:
                assert response.status == 400


# -- breaches by one who has the keys, or sits on the line --------------------------------------------------


async def test_an_altered_byte_on_the_line_ends_the_connection_and_nothing_else() -> None:
    async with world() as w:
        a, b, proxy = await w.through_proxy()
        b.mesh.on_request(Ask, answer)
        proxy.mangle = lambda data: data[:-1] + bytes((data[-1] ^ 1,))
        with pytest.raises(PeerError) as failure:
            await a.mesh.request("m_b", Ask(1), Got, within=5)
        assert failure.value.reason == "unreachable"
        assert a.mesh.counters["frames_bad"] == 1
        proxy.mangle = bytes
        await eventually(lambda: a.mesh.connected("m_b"))
        assert (await a.mesh.request("m_b", Ask(2), Got, within=5)).number == 2


Breach = Callable[[Channel], list[bytes]]


def notice(channel: Channel) -> bytes:
    frame = Notice("test.got", msgspec.Raw(msgspec.msgpack.encode(Got(1))))
    return channel.seal(data_piece(Lane.NORMAL, True, encode_frame(frame)))


def replayed(channel: Channel) -> list[bytes]:
    return [notice(channel)] * 2


def missing(channel: Channel) -> list[bytes]:
    return [notice(channel), (notice(channel), notice(channel))[1]]


BREACHES: dict[str, tuple[Breach, int]] = {
    "garbage": (lambda _channel: [b"\0" * 40], 0),
    "empty": (lambda _channel: [b""], 0),
    "replayed": (replayed, 1),
    "missing": (missing, 1),
    "unknown piece": (lambda channel: [channel.seal(b"\x42")], 0),
    "malformed frame": (lambda channel: [channel.seal(data_piece(Lane.LEASE, True, b"x"))], 0),
    "second hello": (lambda channel: [channel.seal(control_piece(Hello("", (1, 1), "", ())))], 0),
    "pong without ping": (lambda channel: [channel.seal(control_piece(Pong(99)))], 0),
    "credit for nothing": (lambda channel: [channel.seal(control_piece(Credit(Lane.BULK, 1)))], 0),
    "keys out of turn": (lambda channel: [channel.seal(control_piece(RekeyDone()))], 0),
}


@pytest.mark.parametrize("breach", BREACHES)
async def test_a_breach_of_the_protocol_ends_the_connection_and_nothing_else(breach: str) -> None:
    messages, delivered = BREACHES[breach]
    async with world() as w:
        a = await w.add("m_a")
        b = Identity("m_b")
        w.registry.admit(b)
        got: list[Got] = []
        a.mesh.on_notice(Got, lambda _peer, notice: got.append(notice))
        await a.mesh.start()
        rogue = await dial(w, b, a)
        await eventually(lambda: a.mesh.connected("m_b"))
        for message in messages(rogue.channel):
            await rogue.socket.send_bytes(message)
        assert await rogue.closed()
        assert not a.mesh.connected("m_b")
        assert a.mesh.counters["frames_bad"] == 1
        assert len(got) == delivered
        await rogue.session.close()


async def test_text_on_the_binary_connection_ends_it() -> None:
    async with world() as w:
        a = await w.add("m_a")
        b = Identity("m_b")
        w.registry.admit(b)
        await a.mesh.start()
        rogue = await dial(w, b, a)
        await rogue.socket.send_str("hello")
        assert await rogue.closed()
        assert a.mesh.counters["frames_bad"] == 1
        await rogue.session.close()


# -- keys ----------------------------------------------------------------------------------------------------


async def test_changing_keys_under_load_loses_nothing() -> None:
    settings = TunnelSettings(rekey=RekeyPolicy(after_messages=60))
    async with world() as w:
        a, b = await w.pair(settings)
        got: list[int] = []
        b.mesh.on_notice(Got, lambda _peer, notice: got.append(notice.number))
        a.mesh.on_request(Ask, answer)
        b.mesh.on_request(Ask, answer)
        for start in range(0, 1_000, 100):
            numbers = range(start, start + 100)
            answers = await asyncio.gather(
                *(a.mesh.request("m_b", Ask(n), Got, within=20) for n in numbers),
                *(b.mesh.request("m_a", Ask(n), Got, within=20) for n in numbers),
            )
            assert [got.number for got in answers] == [*numbers, *numbers]
            assert all(a.mesh.send("m_b", Got(n)) for n in numbers)
        await eventually(lambda: len(got) == 1_000)
        assert got == list(range(1_000))
        assert min(a.mesh.counters["rekeys"], b.mesh.counters["rekeys"]) >= 10
        assert a.seen == [("m_b", True)]


async def test_keys_change_with_time_on_an_idle_tunnel() -> None:
    settings = TunnelSettings(ping_every=0.05, rekey=RekeyPolicy(after_us=100_000))
    async with world() as w:
        a, b = await w.pair(settings)
        await eventually(lambda: min(a.mesh.counters["rekeys"], b.mesh.counters["rekeys"]) >= 3)
        assert a.seen == [("m_b", True)]


async def test_a_tunnel_whose_keys_are_not_renewed_is_ended() -> None:
    settings = TunnelSettings(ping_every=0.05, rekey=RekeyPolicy(refuse_us=200_000))
    async with world() as w:
        a, _b = await w.pair(settings)
        await eventually(lambda: ("m_b", False) in a.seen)
