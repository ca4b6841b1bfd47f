"""``TunnelMesh``: one tunnel to every paired machine, whoever can reach whom."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec
from aiohttp import web

from instar_node.clock import Clock
from instar_node.contracts import Lane, Members, PeerError, PeerInfo, Rep, Req
from instar_node.events import EventHub
from instar_node.identity.addresses import is_loopback_host
from instar_node.mesh.channel import Channel, TunnelIdentity
from instar_node.mesh.dialler import Dialler, Myself, client_session
from instar_node.mesh.frames import MALFORMED, MAX_MESSAGE, Failure, Hello, Notice
from instar_node.mesh.limits import CallerLimits
from instar_node.mesh.opening import HandshakeError, Socket
from instar_node.mesh.peers import Peer
from instar_node.mesh.router import OVERLOADED, Router, tag_of
from instar_node.mesh.switchboard import Switchboard
from instar_node.mesh.tunnel import CLOSE_WITHIN, Tunnel, TunnelSettings

log = logging.getLogger("instar.mesh")


class TunnelMesh:
    """``contracts.Mesh`` over Noise tunnels in WebSockets.

    Args:
        identity: This machine's id and X25519 key.
        members: The machine registry; call ``refresh`` when it changed.
        incarnation: Random per process start.
        version: This program's version, for people.
        protocol_range: Lowest and highest node protocol this program speaks. A peer whose range does not
            overlap stays connected (its lease must be seen) and is shown as not ``compatible``.
        own_urls: Where peers can reach this machine, as it knows now.
        settings: Times; the defaults are meant for use.
    """

    def __init__(
        self,
        identity: TunnelIdentity,
        members: Members,
        clock: Clock,
        events: EventHub,
        *,
        incarnation: str,
        version: str,
        protocol_range: tuple[int, int],
        own_urls: Callable[[], tuple[str, ...]],
        settings: TunnelSettings | None = None,
    ) -> None:
        self._members, self._clock = members, clock
        self._settings = settings or TunnelSettings()
        self._protocol = protocol_range
        self._myself = Myself(
            identity, members, clock, self._settings, incarnation, version, protocol_range, own_urls
        )
        self.counters: Counter[str] = Counter()
        """What happened, by name: ``handshakes_failed``, ``frames_bad``, ``queue_full``, …"""
        self._router = Router(self.counters)
        self._limits = CallerLimits()
        self._board = Switchboard(members, clock, events, protocol_range, self.counters)
        self._session: aiohttp.ClientSession | None = None
        self._dialler: Dialler | None = None
        self._dialling: dict[str, asyncio.Task[None]] = {}

    @property
    def me(self) -> str:
        """This machine's id."""
        return self._myself.identity.machine_id

    # -- messages --------------------------------------------------------------------------------------------

    def on_request(
        self, request: type[Req], handler: Callable[[str, Req], Awaitable[msgspec.Struct]]
    ) -> None:
        """Answer requests of this type; see ``contracts.Mesh``. One handler for each type."""
        self._router.on_request(request, handler)

    def on_notice(self, notice: type[Req], handler: Callable[[str, Req], None]) -> None:
        """Receive one-way messages of this type; the handler must not block. One handler for each type."""
        self._router.on_notice(notice, handler)

    async def request(
        self,
        peer: str,
        message: msgspec.Struct,
        reply: type[Rep],
        *,
        within: float,
        lane: Lane = Lane.NORMAL,
    ) -> Rep:
        """Send and wait for the answer.

        Raises:
            PeerError: ``unreachable``, ``timeout``, ``overloaded`` (the queue to the peer is full, or it
                answers too many of our requests already) or ``refused``.
        """
        tunnel = self._board.tunnel(peer)
        if tunnel is None:
            raise PeerError("unreachable", f"{self._members.nickname(peer)} is not connected")
        body = msgspec.msgpack.encode(message)
        outcome = await tunnel.request(tag_of(type(message)), body, within, lane)
        if isinstance(outcome, Failure):
            reason = "overloaded" if outcome.code == OVERLOADED else "refused"
            raise PeerError(reason, outcome.message, outcome.code, outcome.detail)
        try:
            return msgspec.msgpack.decode(outcome.body, type=reply)
        except MALFORMED as error:
            raise PeerError("refused", f"unexpected answer: {error}", "bad-answer") from error

    def send(self, peer: str, message: msgspec.Struct, lane: Lane = Lane.NORMAL) -> bool:
        """One-way; ``False`` when there is no tunnel or its queue is full. Never blocks."""
        tunnel = self._board.tunnel(peer)
        if tunnel is None:
            return False
        body = msgspec.Raw(msgspec.msgpack.encode(message))
        return tunnel.post(Notice(tag_of(type(message)), body), lane)

    # -- peers -----------------------------------------------------------------------------------------------

    def on_peer(self, callback: Callable[[str, bool], None]) -> None:
        """Be told when a peer's tunnel comes up or goes down. A peer that restarted goes down first."""
        self._board.on_peer(callback)

    def connected(self, peer: str) -> bool:
        """Whether a tunnel to this peer is up now."""
        return self._board.tunnel(peer) is not None

    def info(self, peer: str) -> PeerInfo | None:
        """What is known of this peer's connection; ``None`` for a machine that is not paired."""
        known = self._board.peers.get(peer)
        return None if known is None else known.info(self._protocol)

    def announced_urls(self, peer: str) -> tuple[str, ...]:
        """Where this peer says it can be reached; empty when it has not been heard."""
        known = self._board.peers.get(peer)
        return known.hello.urls if known and known.hello else ()

    def trouble(self, peer: str) -> str:
        """Why dialling this peer failed last; empty when it has not failed since."""
        known = self._board.peers.get(peer)
        return known.trouble if known else ""

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to dial members and to accept their tunnels."""
        self._session = client_session()
        self._dialler = Dialler(self._myself, self._board, self._make_tunnel, self._session, self.counters)
        self.refresh()

    async def stop(self) -> None:
        """Close every tunnel and wait until all is quiet."""
        self._dialler = None
        tasks = list(self._dialling.values())
        self._dialling.clear()
        for task in tasks:
            task.cancel()
        await self._board.stop()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._router.stop()
        if self._session is not None:
            await self._session.close()

    def refresh(self) -> None:
        """Follow the registry: drop who left, dial who is new or not connected, at once."""
        if self._dialler is None:
            return
        peers = self._board.peers
        active = {member.machine_id for member in self._members.active()} - {self.me}
        for machine_id in peers.keys() - active:
            self._dialling.pop(machine_id).cancel()
            self._board.drop(machine_id)
        for peer in peers.values():
            peer.failures = 0
            peer.kick.set()
        for machine_id in active - peers.keys():
            peer = peers[machine_id] = Peer(machine_id)
            self._dialling[machine_id] = asyncio.create_task(self._dialler.keep_dialling(peer))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The ``/mesh/tunnel`` route: answer a caller and serve its tunnel until it ends."""
        address = request.remote or ""
        socket = web.WebSocketResponse(timeout=CLOSE_WITHIN, max_msg_size=MAX_MESSAGE, compress=False)
        if self._dialler is None:
            return web.Response(status=503)
        if not socket.can_prepare(request).ok:
            return web.Response(status=400)
        if not self._limits.admit(address, self._clock.now()):
            self.counters["handshakes_limited"] += 1
            return web.Response(status=429)
        try:
            async with asyncio.timeout(self._settings.handshake_within):
                await socket.prepare(request)
                tunnel = await self._dialler.accept(socket, same_host=is_loopback_host(address))
        except (HandshakeError, TimeoutError, ConnectionError) as error:
            self.counters["handshakes_failed"] += 1
            log.info("a caller at %s was refused: %s", address, str(error) or "too slow")
            await socket.close(code=aiohttp.WSCloseCode.POLICY_VIOLATION)
            return socket
        finally:
            self._limits.leave(address)
        await self._board.serve(tunnel)
        return socket

    def _make_tunnel(self, socket: Socket, channel: Channel, peer: str, dialler: str, hello: Hello) -> Tunnel:
        clock, settings, deliver = self._clock, self._settings, self._router.deliver
        return Tunnel(socket, channel, peer, dialler, hello, clock, settings, deliver, self.counters)
