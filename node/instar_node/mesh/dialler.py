"""Opening tunnels: dialling members until one side reaches the other, and answering those who dial us."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from instar_node.clock import MICROS_PER_SECOND, Clock
from instar_node.contracts import Member, Members
from instar_node.identity.addresses import is_loopback
from instar_node.mesh.addresses import dial_urls, offered_urls, tunnel_url
from instar_node.mesh.channel import Channel, TunnelIdentity
from instar_node.mesh.frames import MAX_MESSAGE, Hello
from instar_node.mesh.opening import HandshakeError, Socket, answer, call, send_hello
from instar_node.mesh.peers import FIRST_DELAY, Peer, dial_delay
from instar_node.mesh.switchboard import Switchboard
from instar_node.mesh.tunnel import CLOSE_WITHIN, Tunnel, TunnelSettings

log = logging.getLogger("instar.mesh")

CONNECT_WITHIN = 2.0
"""Seconds for the TCP connection to one address."""

SETTLED_US = 5 * MICROS_PER_SECOND
"""A tunnel that lived this long counts as a success; the next delay starts from the shortest again."""


@dataclass(frozen=True)
class Myself:
    """What this machine brings to every tunnel."""

    identity: TunnelIdentity
    members: Members
    clock: Clock
    settings: TunnelSettings
    incarnation: str
    version: str
    protocol: tuple[int, int]
    urls: Callable[[], tuple[str, ...]]

    def hello(self, *, same_host: bool) -> Hello:
        """What to tell a peer of ourselves."""
        urls = offered_urls(self.urls(), same_host=same_host)
        return Hello(self.version, self.protocol, self.incarnation, urls)


class Dialler:
    """Opens tunnels in both senses and hands them to the switchboard.

    Args:
        make_tunnel: Builds a tunnel from socket, keys, peer, dialling machine and the peer's hello.
    """

    def __init__(
        self,
        myself: Myself,
        board: Switchboard,
        make_tunnel: Callable[[Socket, Channel, str, str, Hello], Tunnel],
        session: aiohttp.ClientSession,
        counters: Counter[str],
    ) -> None:
        self._myself, self._board, self._make_tunnel = myself, board, make_tunnel
        self._session, self._counters = session, counters

    async def accept(self, socket: Socket, *, same_host: bool) -> Tunnel:
        """Answer a caller on a fresh WebSocket. Raises ``HandshakeError``.

        ``same_host``: it comes from a loopback address. That may be a reverse proxy, so it counts as one of
        this host only if it also told us a loopback address of its own.
        """
        my = self._myself
        caller, channel, hello = await answer(socket, my.identity, my.members, my.clock, my.settings.rekey)
        tunnel = self._make_tunnel(socket, channel, caller, caller, hello)
        if not self._board.wants(tunnel):  # before our hello: nothing can be under way on it yet
            raise HandshakeError("not a peer any more, or there is a better tunnel")
        here = same_host and any(is_loopback(url) for url in hello.urls)
        await send_hello(socket, channel, my.hello(same_host=here), my.clock)
        return tunnel

    async def keep_dialling(self, peer: Peer) -> None:
        """Dial ``peer`` whenever there is no tunnel to it, for ever."""
        my = self._myself
        while True:
            await peer.down.wait()
            await self._head_start(peer)
            tunnel = None if peer.connected else await self._dial(peer)
            if tunnel is not None:
                await self._board.serve(tunnel)
            lived = tunnel is not None and my.clock.now() - tunnel.since >= SETTLED_US
            peer.failures = 0 if lived else peer.failures + 1
            jitter = int(my.clock.token_hex(2), 16) / 65_536
            delay = dial_delay(peer.failures, peer.last_heard, my.clock.now(), jitter)
            await _pause(peer, delay)

    async def _head_start(self, peer: Peer) -> None:
        """The smaller machine id dials first; that saves most double tunnels."""
        if self._myself.identity.machine_id > peer.machine_id and peer.failures == 0:
            await self._myself.clock.sleep(FIRST_DELAY / 2)

    async def _dial(self, peer: Peer) -> Tunnel | None:
        member = self._myself.members.get(peer.machine_id)
        if member is None or member.removed:
            return None
        announced = peer.hello.urls if peer.hello else ()
        for url in dial_urls(peer.good_url, announced, member.urls):
            try:
                tunnel = await self._connect(member, url)
            except (HandshakeError, TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
                self._failed(peer, f"{url}: {error or 'no answer in time'}")
            else:
                peer.good_url, peer.trouble = url, ""
                return tunnel
        return None

    async def _connect(self, member: Member, url: str) -> Tunnel:
        my = self._myself
        socket: aiohttp.ClientWebSocketResponse | None = None
        try:
            async with asyncio.timeout(my.settings.handshake_within):
                socket = await self._session.ws_connect(
                    tunnel_url(url),
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_WITHIN),
                    max_msg_size=MAX_MESSAGE,
                )
                hello = my.hello(same_host=is_loopback(url))
                channel, theirs = await call(
                    socket, my.identity, my.members.mesh_id, member, hello, my.clock, my.settings.rekey
                )
        except BaseException:
            if socket is not None:
                await socket.close()
            raise
        return self._make_tunnel(socket, channel, member.machine_id, my.identity.machine_id, theirs)

    def _failed(self, peer: Peer, trouble: str) -> None:
        self._counters["dials_failed"] += 1
        if trouble != peer.trouble:
            log.warning("%s could not be reached at %s", peer.machine_id, trouble)
        peer.trouble = trouble


def client_session() -> aiohttp.ClientSession:
    """The HTTP client that tunnels are dialled with."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_WITHIN))


async def _pause(peer: Peer, seconds: float) -> None:
    """Wait ``seconds``, or until dialling is wanted at once."""
    try:
        async with asyncio.timeout(seconds):
            await peer.kick.wait()
    except TimeoutError:
        pass
    peer.kick.clear()
