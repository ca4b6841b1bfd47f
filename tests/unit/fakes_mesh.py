"""An in-memory mesh and a hand-set authority: named nodes, links that can be cut, everything on one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from instar_node.contracts import Lane, Member, PeerError, PeerInfo, Rep, Req
from instar_node.errors import InstarError


def _tag(kind: type[msgspec.Struct]) -> str:
    return str(kind.__struct_config__.tag)


class Net:
    """The wires between the nodes. Every message is encoded and decoded, as on a real wire."""

    def __init__(self) -> None:
        self.nodes: dict[str, FakeMesh] = {}
        self._cut: set[frozenset[str]] = set()
        self.log: list[tuple[str, str, str]] = []
        """Every message that was delivered: from, to, tag."""

    def node(self, name: str) -> FakeMesh:
        """Add a node, connected to all others."""
        mesh = self.nodes[name] = FakeMesh(self, name)
        return mesh

    def linked(self, one: str, other: str) -> bool:
        return one != other and other in self.nodes and frozenset((one, other)) not in self._cut

    def cut(self, one: str, other: str) -> None:
        """Break a link; both ends are told."""
        self._cut.add(frozenset((one, other)))
        self._tell(one, other, False)

    def mend(self, one: str, other: str) -> None:
        self._cut.discard(frozenset((one, other)))
        self._tell(one, other, True)

    def isolate(self, name: str) -> None:
        for other in self.nodes:
            if other != name:
                self.cut(name, other)

    def rejoin(self, name: str) -> None:
        for other in self.nodes:
            if other != name:
                self.mend(name, other)

    def _tell(self, one: str, other: str, up: bool) -> None:
        for here, there in ((one, other), (other, one)):
            for callback in self.nodes[here].peer_callbacks:
                callback(there, up)


class FakeMesh:
    """Implements ``contracts.Mesh``."""

    def __init__(self, net: Net, name: str) -> None:
        self._net = net
        self._name = name
        self.requests: dict[str, tuple[type[Any], Callable[[str, Any], Awaitable[msgspec.Struct]]]] = {}
        self.notices: dict[str, tuple[type[Any], Callable[[str, Any], None]]] = {}
        self.peer_callbacks: list[Callable[[str, bool], None]] = []
        self.full: set[str] = set()
        """Peers whose queue takes nothing more."""
        self.lose: Callable[[str, msgspec.Struct], bool] = lambda peer, message: False
        """Decides which one-way messages get lost on the way."""

    @property
    def me(self) -> str:
        return self._name

    def on_request(
        self, request: type[Req], handler: Callable[[str, Req], Awaitable[msgspec.Struct]]
    ) -> None:
        self.requests[_tag(request)] = (request, handler)

    def on_notice(self, notice: type[Req], handler: Callable[[str, Req], None]) -> None:
        self.notices[_tag(notice)] = (notice, handler)

    def on_peer(self, callback: Callable[[str, bool], None]) -> None:
        self.peer_callbacks.append(callback)

    async def request(
        self,
        peer: str,
        message: msgspec.Struct,
        reply: type[Rep],
        *,
        within: float,
        lane: Lane = Lane.NORMAL,
    ) -> Rep:
        if not self._net.linked(self._name, peer):
            raise PeerError("unreachable", f"no tunnel to {peer}")
        kind, handler = self._net.nodes[peer].requests[_tag(type(message))]
        self._net.log.append((self._name, peer, _tag(type(message))))
        decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=kind)
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(within):
                answer = await handler(self._name, decoded)
        except InstarError as error:
            raise PeerError("refused", error.message, error.code, error.to_json()) from error
        except TimeoutError:
            raise PeerError("timeout", f"{peer} did not answer") from None
        if not self._net.linked(self._name, peer):
            raise PeerError("unreachable", f"the tunnel to {peer} broke")
        return msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=reply)

    def send(self, peer: str, message: msgspec.Struct, lane: Lane = Lane.NORMAL) -> bool:
        if peer in self.full or not self._net.linked(self._name, peer):
            return False
        tag = _tag(type(message))
        if not self.lose(peer, message):
            kind, handler = self._net.nodes[peer].notices[tag]
            decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=kind)
            self._net.log.append((self._name, peer, tag))
            asyncio.get_running_loop().call_soon(self._deliver, peer, handler, decoded)
        return True

    def connected(self, peer: str) -> bool:
        return self._net.linked(self._name, peer)

    def info(self, peer: str) -> PeerInfo | None:
        if peer not in self._net.nodes:
            return None
        return PeerInfo(peer, self.connected(peer), None, None, None, "1", (1, 1), "one", True)

    def _deliver(self, peer: str, handler: Callable[[str, Any], None], message: msgspec.Struct) -> None:
        if self._net.linked(self._name, peer):
            handler(self._name, message)


class FakeAuthority:
    """Implements ``contracts.Authority``; a test sets who holds which epoch."""

    def __init__(self, me: str) -> None:
        self.me = me
        self.epoch = 0
        self.holder: str | None = None
        self.valid = True
        self._callbacks: list[Callable[[], None]] = []

    def acting_epoch(self) -> int | None:
        return self.epoch if self.valid and self.holder == self.me and self.epoch else None

    def ack_set(self) -> frozenset[str]:
        return frozenset()

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def set(self, holder: str | None, epoch: int, valid: bool = True) -> None:
        """This machine learns who holds the lease."""
        self.holder, self.epoch, self.valid = holder, epoch, valid
        for callback in self._callbacks:
            callback()


class FakeMembers:
    """Implements ``contracts.Members`` over a fixed set of nicknames; the id of ``mini`` is ``m-mini``."""

    mesh_id = "mesh-1"

    def __init__(self, *nicknames: str) -> None:
        self._members = {f"m-{name}": _member(f"m-{name}", name) for name in nicknames}

    def get(self, machine_id: str) -> Member | None:
        return self._members.get(machine_id)

    def active(self) -> tuple[Member, ...]:
        return tuple(member for member in self._members.values() if not member.removed)

    def remove(self, machine_id: str, *, witness: bool = False) -> None:
        """Remove a member for good, or make it a witness."""
        was = self._members[machine_id]
        self._members[machine_id] = msgspec.structs.replace(was, removed=not witness, witness=witness)

    def nickname(self, machine_id: str) -> str:
        member = self._members.get(machine_id)
        return member.nickname if member else machine_id

    def resolve(self, name: str) -> Member | None:
        folded = name.casefold()
        return next((m for m in self.active() if folded in (m.nickname.casefold(), m.machine_id)), None)


def _member(machine_id: str, nickname: str) -> Member:
    return Member(machine_id, nickname, bytes(32), bytes(32), (), "", "")


async def eventually(condition: Callable[[], bool], within: float = 5.0) -> None:
    """Wait until something that other tasks bring about is so."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.002)
