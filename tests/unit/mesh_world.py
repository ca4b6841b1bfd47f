"""Real meshes on loopback for the tests: machines with listeners, and a proxy that misbehaves on demand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial

import aiohttp
import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from instar_node.clock import SystemClock
from instar_node.contracts import Member, Mesh
from instar_node.events import EventHub
from instar_node.mesh.listener import PeerListener, PeerRoutes
from instar_node.mesh.mesh import TunnelMesh
from instar_node.mesh.tunnel import TunnelSettings

QUICK = TunnelSettings(ping_every=0.1, silent_after=0.6)
"""For tests about silence; the others keep the real times."""


@dataclass(frozen=True)
class Identity:
    machine_id: str
    encryption_private: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)


class Registry:
    """Members in memory; every machine of a test shares one."""

    def __init__(self, mesh_id: str = "mesh-1") -> None:
        self.mesh_id = mesh_id
        self.members: dict[str, Member] = {}

    def admit(self, identity: Identity, *urls: str) -> None:
        public = identity.encryption_private.public_key().public_bytes_raw()
        name = f"nick-{identity.machine_id}"
        self.members[identity.machine_id] = Member(identity.machine_id, name, bytes(32), public, urls, "", "")

    def change(self, machine_id: str, **facts: object) -> None:
        self.members[machine_id] = msgspec.structs.replace(self.members[machine_id], **facts)

    def get(self, machine_id: str) -> Member | None:
        return self.members.get(machine_id)

    def active(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members.values() if not member.removed)

    def nickname(self, machine_id: str) -> str:
        member = self.members.get(machine_id)
        return member.nickname if member else machine_id

    def resolve(self, name: str) -> Member | None:
        return next((m for m in self.active() if name in (m.nickname, m.machine_id)), None)


class Machine:
    """One mesh with its listener."""

    def __init__(
        self,
        identity: Identity,
        registry: Registry,
        settings: TunnelSettings | None,
        clock: SystemClock | None = None,
    ) -> None:
        self.identity, self.registry, self.settings = identity, registry, settings
        self.clock: SystemClock = clock or SystemClock()
        self.events = EventHub(self.clock)
        self.told: list[str] = []
        self.events.listen(lambda event: self.told.append(event.text))
        self.seen: list[tuple[str, bool]] = []
        self.url = ""
        self.protocol, self.incarnation = (1, 1), "one"

    async def start(self) -> None:
        self.mesh = TunnelMesh(
            self.identity,
            self.registry,
            self.clock,
            self.events,
            incarnation=self.incarnation,
            version="0.1",
            protocol_range=self.protocol,
            own_urls=lambda: (self.url,),
            settings=self.settings,
        )
        as_contract: Mesh = self.mesh
        as_contract.on_peer(lambda peer, up: self.seen.append((peer, up)))
        self.listener = PeerListener("127.0.0.1", 0, PeerRoutes(self._no_pairing, self.mesh.handle))
        self.listener_port = await self.listener.start()
        self.url = f"http://127.0.0.1:{self.listener_port}"

    async def stop(self) -> None:
        await self.mesh.stop()
        await self.listener.stop()

    @staticmethod
    async def _no_pairing(_body: bytes, _remote: str) -> tuple[int, bytes]:
        return 404, b""


class World:
    """Machines that share a registry, each listed there at its own address unless a test says otherwise."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.machines: list[Machine] = []
        self.proxies: list[Proxy] = []

    async def add(
        self,
        name: str,
        *,
        settings: TunnelSettings | None = None,
        identity: Identity | None = None,
        incarnation: str = "one",
        protocol: tuple[int, int] = (1, 1),
        clock: SystemClock | None = None,
    ) -> Machine:
        """A machine that listens but does not dial before ``mesh.start()``."""
        machine = Machine(identity or Identity(name), self.registry, settings, clock)
        machine.incarnation, machine.protocol = incarnation, protocol
        await machine.start()
        machine.registry.admit(machine.identity, machine.url)
        self.machines.append(machine)
        return machine

    async def pair(self, settings: TunnelSettings | None = None) -> tuple[Machine, Machine]:
        """Two connected machines, ``m_a`` and ``m_b``."""
        one, two = await self.add("m_a", settings=settings), await self.add("m_b", settings=settings)
        await self.connect(one, two)
        return one, two

    async def through_proxy(
        self, settings: TunnelSettings | None = None, settings_b: TunnelSettings | None = None
    ) -> tuple[Machine, Machine, Proxy]:
        """``m_a`` reaches ``m_b`` through a proxy only, ``m_b`` cannot reach ``m_a``."""
        one, two = (
            await self.add("m_a", settings=settings),
            await self.add("m_b", settings=settings_b or settings),
        )
        proxy = await self.proxy(two)
        two.url = proxy.url
        self.registry.change("m_a", urls=())
        self.registry.change("m_b", urls=(proxy.url,))
        one.url = ""
        await self.connect(one, two)
        return one, two, proxy

    async def connect(self, *machines: Machine) -> None:
        for machine in machines:
            await machine.mesh.start()
        for one in machines:
            for other in machines:
                if one is not other:
                    await eventually(partial(one.mesh.connected, other.identity.machine_id))

    async def proxy(self, machine: Machine) -> Proxy:
        proxy = Proxy(int(machine.url.rpartition(":")[2]))
        await proxy.start()
        self.proxies.append(proxy)
        return proxy

    async def stop(self) -> None:
        for proxy in self.proxies:
            await proxy.stop()
        for machine in self.machines:
            await machine.stop()


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    """A world that is torn down whatever happens."""
    the_world = World()
    try:
        yield the_world
    finally:
        await the_world.stop()


async def eventually(condition: Callable[[], bool], within: float = 10.0) -> None:
    """Wait until ``condition`` holds; the bound is only there to end a failing test."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


class Proxy:
    """A TCP proxy in front of one port.

    ``forward`` and ``backward`` are events: while one is cleared, that direction is a black hole that keeps
    its connection open. ``mangle`` alters what flows back. ``rate`` slows the way forward, bytes a second.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.forward, self.backward = asyncio.Event(), asyncio.Event()
        self.forward.set()
        self.backward.set()
        self.mangle: Callable[[bytes], bytes] = bytes
        self.rate: float | None = None
        self.recorded: list[bytes] = []
        """What the last caller sent."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Break every connection."""
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to, back = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers += [writer, back]
        self.recorded = []
        for flow in (self._flow_forward(reader, back), self._flow_backward(to, writer)):
            task = asyncio.create_task(flow)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _flow_forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(16 * 1024):
            await self.forward.wait()
            self.recorded.append(data)
            if self.rate:
                await asyncio.sleep(len(data) / self.rate)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _flow_backward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(16 * 1024):
            await self.backward.wait()
            writer.write(self.mangle(data))
            await writer.drain()
        writer.close()


async def raw_socket(session: aiohttp.ClientSession, machine: Machine) -> aiohttp.ClientWebSocketResponse:
    """A bare WebSocket to a machine's tunnel route, for callers that do not play by the rules."""
    return await session.ws_connect(machine.url + "/mesh/tunnel")
