"""Machines, a settable clock and an in-memory mesh for the tests of identity and pairing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from instar_node.contracts import Lane, PeerError, PeerInfo
from instar_node.errors import InstarError
from instar_node.identity.keys import MachineIdentity
from instar_node.identity.registry import MachineRegistry

Req = TypeVar("Req", bound=msgspec.Struct)
Rep = TypeVar("Rep", bound=msgspec.Struct)


class ManualClock:
    """Implements ``Clock``; time moves only when told. Sleeping yields once and moves no time."""

    def __init__(self) -> None:
        self.micros = 1_000_000_000
        self.slept: list[float] = []
        self._tokens = 0

    def now(self) -> int:
        return self.micros

    def wall(self) -> float:
        return self.micros / 1e6

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    def token_hex(self, nbytes: int) -> str:
        self._tokens += 1
        return f"{self._tokens:0{2 * nbytes}x}"

    def advance(self, seconds: float) -> None:
        self.micros += round(seconds * 1_000_000)


def new_identity(folder: Path, name: str) -> MachineIdentity:
    return MachineIdentity.load_or_create(folder / name / "machine")


def founded(folder: Path, name: str, clock: ManualClock, epoch: int = 1) -> MachineRegistry:
    """A mesh of one machine, whose nickname and folder are ``name``."""
    identity = new_identity(folder, name)
    return MachineRegistry.found(folder / name / "machine", identity, clock, name, [], epoch=epoch)


def joined(
    folder: Path, name: str, host: MachineRegistry, clock: ManualClock, epoch: int = 1
) -> MachineRegistry:
    """Another machine, admitted by ``host`` and holding its registry."""
    identity = new_identity(folder, name)
    host.admit(identity.public, name, [], epoch=epoch)
    return MachineRegistry.adopt(folder / name / "machine", identity, clock, host.records, host.mesh_id)


class MemoryMesh:
    """Implements ``Mesh`` between objects of one process, over msgpack as the real one."""

    def __init__(self, me: str, network: dict[str, MemoryMesh]) -> None:
        self._me = me
        self._network = network
        self._links: set[str] = set()
        self._requests: dict[type, Callable[[str, Any], Awaitable[msgspec.Struct]]] = {}
        self._notices: dict[type, Callable[[str, Any], None]] = {}
        self._peers: list[Callable[[str, bool], None]] = []
        self.lose_requests = 0
        network[me] = self

    @property
    def me(self) -> str:
        return self._me

    def connect(self, peer: str, *, silently: bool = False) -> None:
        """Bring up the tunnel between the two; ``silently``: what is sent at that moment is lost."""
        for one, other in ((self._me, peer), (peer, self._me)):
            self._network[one]._links.add(other)
        if silently:
            return
        for one, other in ((self._me, peer), (peer, self._me)):
            for callback in self._network[one]._peers:
                callback(other, True)

    def on_request(
        self, request: type[Req], handler: Callable[[str, Req], Awaitable[msgspec.Struct]]
    ) -> None:
        self._requests[request] = handler

    def on_notice(self, notice: type[Req], handler: Callable[[str, Req], None]) -> None:
        self._notices[notice] = handler

    def on_peer(self, callback: Callable[[str, bool], None]) -> None:
        self._peers.append(callback)

    async def request(
        self, peer: str, message: msgspec.Struct, reply: type[Rep], *, within: float, lane: Lane = Lane.NORMAL
    ) -> Rep:
        if peer not in self._links:
            raise PeerError("unreachable", "no tunnel")
        if self.lose_requests:
            self.lose_requests -= 1
            raise PeerError("timeout", "no answer")
        arrived = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message))
        try:
            answer = await self._network[peer]._requests[type(message)](self._me, arrived)
        except InstarError as error:
            raise PeerError("refused", error.message, error.code) from error
        return msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=reply)

    def send(self, peer: str, message: msgspec.Struct, lane: Lane = Lane.NORMAL) -> bool:
        if peer not in self._links:
            return False
        arrived = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message))
        handler = self._network[peer]._notices[type(message)]
        asyncio.get_running_loop().call_soon(handler, self._me, arrived)
        return True

    def connected(self, peer: str) -> bool:
        return peer in self._links

    def info(self, peer: str) -> PeerInfo | None:
        return None


class FixedAuthority:
    """Implements ``Authority``: says who holds the lease, as the test sets it."""

    def __init__(self, me: str, holder: str | None, epoch: int = 1) -> None:
        self._me = me
        self._holder = holder
        self._epoch = epoch

    @property
    def me(self) -> str:
        return self._me

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def holder(self) -> str | None:
        return self._holder

    def acting_epoch(self) -> int | None:
        return self._epoch if self._holder == self._me else None

    def ack_set(self) -> frozenset[str]:
        return frozenset()

    def on_change(self, callback: Callable[[], None]) -> None:
        return None
