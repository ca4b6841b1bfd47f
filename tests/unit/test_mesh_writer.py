"""When the frames of a tunnel leave, and in which order, whatever its socket does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import WSMessage

from instar_node.clock import SystemClock
from instar_node.contracts import Lane
from instar_node.mesh.channel import RekeyPolicy
from instar_node.mesh.frames import PIECE, Control, DataPiece, Ping, RekeyOpen, parse_piece
from instar_node.mesh.lanes import WINDOW
from instar_node.mesh.writer import Writer
from tests.unit.mesh_channels import channels

USUAL = RekeyPolicy()


class FakeSocket:
    """Notes what is written; while it is full, a write is taken and then waits, as in aiohttp."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.full = False
        self.broken = False
        self.told: list[str] = []
        self.waiter: asyncio.Future[None] | None = None

    async def send_bytes(self, data: bytes) -> None:
        if self.broken:
            raise ConnectionResetError("Cannot write to closing transport")
        self.written.append(data)
        if self.full:
            self.waiter = asyncio.get_running_loop().create_future()
            try:
                await self.waiter
            except ConnectionResetError as error:
                self.told.append(str(error))
                raise

    def drain(self) -> None:
        self.full = False
        if self.waiter is not None:
            self.waiter.set_result(None)

    async def receive(self) -> WSMessage:
        raise NotImplementedError

    async def close(self, *, code: int = 1000, message: bytes = b"") -> Any: ...


class World:
    def __init__(self, policy: RekeyPolicy) -> None:
        clock = SystemClock()
        channel, self._other_side = channels(policy, clock.now())
        self._opened = 0
        self.socket = FakeSocket()
        self.writer = Writer(self.socket, channel, clock)
        self.task = asyncio.create_task(self.writer.run())

    def arrived(self) -> list[bytes | Control]:
        """What has been written since this was asked last, as the other side opens it."""
        new = self.socket.written[self._opened :]
        self._opened += len(new)
        pieces = [parse_piece(self._other_side.open(sealed)) for sealed in new]
        return [piece.data if isinstance(piece, DataPiece) else piece for piece in pieces]


@asynccontextmanager
async def writing(policy: RekeyPolicy = USUAL) -> AsyncIterator[World]:
    world = World(policy)
    await asyncio.sleep(0)
    try:
        yield world
    finally:
        world.task.cancel()
        await asyncio.gather(world.task, return_exceptions=True)


async def test_a_frame_is_on_the_socket_before_the_step_that_posts_it_ends() -> None:
    async with writing() as world:
        world.writer.post(Lane.NORMAL, b"entries")
        assert world.arrived() == [b"entries"]
        world.writer.post(Lane.LEASE, b"promise")
        world.writer.post_control(Ping(1, None))
        assert world.arrived() == [b"promise", Ping(1, None)]


async def test_bulk_leaves_its_place_to_what_the_same_step_posts_after_it() -> None:
    async with writing() as world:
        world.writer.post(Lane.BULK, b"pack")
        world.writer.post(Lane.NORMAL, b"entries")
        world.writer.post(Lane.LEASE, b"promise")
        assert world.arrived() == []
        await asyncio.sleep(0)
        assert world.arrived() == [b"promise", b"entries", b"pack"]


async def test_when_the_socket_takes_no_more_the_rest_waits_and_the_most_urgent_goes_first() -> None:
    async with writing() as world:
        world.socket.full = True
        world.writer.post(Lane.NORMAL, b"n1")
        world.writer.post(Lane.NORMAL, b"n2")
        world.writer.post(Lane.LEASE, b"l1")
        await asyncio.sleep(0)
        assert world.arrived() == [b"n1"]
        world.socket.drain()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert world.arrived() == [b"l1", b"n2"]
        world.writer.post(Lane.NORMAL, b"n3")
        assert world.arrived() == [b"n3"]  # all is well again: at once


async def test_a_frame_of_many_pieces_stops_where_the_socket_does() -> None:
    async with writing() as world:
        world.socket.full = True
        whole = bytes(range(256)) * (3 * PIECE // 256)
        world.writer.post(Lane.NORMAL, whole)
        await asyncio.sleep(0)
        first = world.arrived()
        assert len(first) == 1
        world.socket.drain()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert b"".join(first + world.arrived()) == whole  # type: ignore[arg-type]


async def test_what_waits_for_credit_leaves_when_it_comes() -> None:
    async with writing() as world:
        for _ in range(WINDOW // PIECE):
            world.writer.post(Lane.NORMAL, bytes(PIECE))
        world.writer.post(Lane.NORMAL, b"waits")
        assert b"waits" not in world.arrived()
        world.writer.credit(Lane.NORMAL, PIECE)
        await asyncio.sleep(0)
        assert world.arrived() == [b"waits"]


async def test_a_connection_that_breaks_on_a_write_ends_the_writer_with_its_reason() -> None:
    async with writing() as world:
        world.socket.broken = True
        assert world.writer.post(Lane.NORMAL, b"lost") is not None
        world.writer.post(Lane.NORMAL, b"lost too")
        with pytest.raises(ConnectionResetError, match="closing transport"):
            await world.task


async def test_nothing_leaves_after_the_writer_was_ended() -> None:
    async with writing() as world:
        world.task.cancel()
        await asyncio.gather(world.task, return_exceptions=True)
        world.writer.post(Lane.LEASE, b"too late")
        assert world.arrived() == []


async def test_a_write_that_waits_when_the_writer_is_ended_is_given_up() -> None:
    async with writing() as world:
        world.task.cancel()
        world.socket.full = True
        world.writer.post(Lane.NORMAL, b"waits")  # and the writer has no turn any more to wait with it
        await asyncio.gather(world.task, return_exceptions=True)
        assert world.socket.waiter is not None
        assert world.socket.waiter.cancelled()  # or the loss of the connection would be told to nobody


async def test_who_else_waits_for_room_on_the_connection_does_no_harm() -> None:
    async with writing() as world:

        async def wait_too() -> None:
            assert world.socket.waiter is not None
            await world.socket.waiter  # a connection has one future for all of them

        world.socket.full = True
        other = asyncio.create_task(wait_too())  # has its turn before the writer has
        world.writer.post(Lane.NORMAL, b"n1")
        await asyncio.sleep(0)
        world.socket.drain()
        await other
        world.writer.post(Lane.NORMAL, b"n2")
        await asyncio.sleep(0)
        assert world.arrived() == [b"n1", b"n2"]
        assert not world.task.done()


async def test_a_connection_that_is_lost_while_a_write_waits_tells_the_write_and_the_writer() -> None:
    async with writing() as world:
        world.socket.full = True
        world.writer.post(Lane.NORMAL, b"n1")
        await asyncio.sleep(0)
        assert world.socket.waiter is not None
        world.socket.waiter.set_exception(ConnectionResetError("lost"))
        with pytest.raises(ConnectionResetError, match="lost"):
            await world.task
        assert world.socket.told == ["lost"]


async def test_keys_used_often_enough_are_changed_between_two_frames() -> None:
    async with writing(RekeyPolicy(after_messages=2)) as world:
        for _ in range(2):
            world.writer.post(Lane.NORMAL, b"x")
        world.writer.post(Lane.NORMAL, b"y")
        kinds = [type(one) for one in world.arrived()]
        assert kinds == [bytes, bytes, RekeyOpen, bytes]
