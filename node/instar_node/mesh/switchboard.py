"""Which tunnel serves which peer: exactly one for each pair, told to the parts and to people."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine

from instar_node.build import overlap
from instar_node.clock import MICROS_PER_SECOND, Clock
from instar_node.contracts import Members
from instar_node.events import EventHub
from instar_node.mesh.peers import QUIET_US, Peer, supersedes
from instar_node.mesh.tunnel import Tunnel

log = logging.getLogger("instar.mesh")

RETIRE_AFTER = 1.0
"""Seconds a superseded tunnel stays open for answers under way; nothing new is sent on it."""


class Switchboard:
    """The peers and the tunnels that serve them."""

    def __init__(
        self,
        members: Members,
        clock: Clock,
        events: EventHub,
        protocol: tuple[int, int],
        counters: Counter[str],
    ) -> None:
        self._members, self._clock, self._events = members, clock, events
        self._protocol, self._counters = protocol, counters
        self.peers: dict[str, Peer] = {}
        self._serving: dict[Tunnel, asyncio.Task[None]] = {}
        self._chores: set[asyncio.Task[None]] = set()
        self._callbacks: list[Callable[[str, bool], None]] = []

    def on_peer(self, callback: Callable[[str, bool], None]) -> None:
        """Be told when a peer comes up or goes down."""
        self._callbacks.append(callback)

    def tunnel(self, machine_id: str) -> Tunnel | None:
        """The live tunnel to this machine."""
        peer = self.peers.get(machine_id)
        return peer.tunnel if peer is not None and peer.connected else None

    def wants(self, tunnel: Tunnel) -> bool:
        """Whether this tunnel would serve its peer: the peer is known and has no better one."""
        peer = self.peers.get(tunnel.peer)
        return peer is not None and (peer.tunnel is None or supersedes(tunnel, peer.tunnel))

    async def serve(self, tunnel: Tunnel) -> None:
        """Take the tunnel into service and run it until it ends; cancelling this closes it."""
        self._adopt(tunnel)
        task = self._serving[tunnel] = asyncio.create_task(tunnel.run())
        try:
            await asyncio.wait({task})
        finally:
            tunnel.close("this machine closed it")
            await asyncio.wait({task})
            del self._serving[tunnel]

    def drop(self, machine_id: str) -> None:
        """Forget a machine that is no longer a member, and close what is open to it."""
        for tunnel in [tunnel for tunnel in self._serving if tunnel.peer == machine_id]:
            tunnel.close("no longer a member")
        del self.peers[machine_id]

    async def stop(self) -> None:
        """Close every tunnel and wait for their end."""
        for tunnel in list(self._serving):
            tunnel.close("this machine is stopping")
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._serving.values(), *self._chores, return_exceptions=True)
        self.peers.clear()

    def _adopt(self, tunnel: Tunnel) -> None:
        if tunnel.peer not in self.peers:
            tunnel.close("no longer a member")
            return
        peer = self.peers[tunnel.peer]
        old = peer.tunnel
        tunnel.on_end = self._ended
        self._counters["tunnels_opened"] += 1
        if not self.wants(tunnel):
            self._do(self._retire(tunnel))
            return
        restarted = old is not None and old.hello.incarnation != tunnel.hello.incarnation
        peer.up(tunnel)
        if old is not None and restarted:
            old.close("the machine restarted")
            self._tell(peer, False)
        elif old is not None:
            self._do(self._retire(old))
        if old is None or restarted:
            self._tell(peer, True)

    async def _retire(self, tunnel: Tunnel) -> None:
        """Let answers under way arrive before a tunnel that lost against another one is closed."""
        await self._clock.sleep(RETIRE_AFTER)
        tunnel.close("superseded by another tunnel")

    def _ended(self, tunnel: Tunnel) -> None:
        self._counters["tunnels_closed"] += 1
        peer = self.peers.get(tunnel.peer)
        if peer is not None and peer.tunnel is tunnel:
            log.info("%s: tunnel ended: %s", tunnel.peer, tunnel.closed_because)
            peer.lost()
            self._tell(peer, False)

    # -- telling -------------------------------------------------------------------------------------------

    def _tell(self, peer: Peer, up: bool) -> None:
        for callback in self._callbacks:
            try:
                callback(peer.machine_id, up)
            except Exception:
                log.exception("a listener failed on %s going %s", peer.machine_id, "up" if up else "down")
        if peer.announcer.changed(up, self._clock.now()):
            self._publish(peer)
        elif peer.announcer.owing:
            self._do(self._settle(peer))

    async def _settle(self, peer: Peer) -> None:
        await self._clock.sleep(QUIET_US / MICROS_PER_SECOND)
        if peer.announcer.settle(self._clock.now()):
            self._publish(peer)

    def _publish(self, peer: Peer) -> None:
        name = self._members.nickname(peer.machine_id)
        hello = peer.hello
        if not peer.connected or hello is None:
            text = f"{name} is not reachable"
        elif overlap(hello.protocol, self._protocol):
            text = f"{name} is connected"
        else:
            text = f"{name} is connected, but its version {hello.version} cannot work with this one"
        self._events.publish("machines", text, machine_id=peer.machine_id, online=peer.connected)

    def _do(self, chore: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
