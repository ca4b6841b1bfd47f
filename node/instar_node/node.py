"""``Node``: one machine of the mesh, put together, started and stopped in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from instar_node.api import types as t
from instar_node.api.forwarding import Forwarding
from instar_node.api.heartbeat import Heartbeat
from instar_node.api.holder_api import HolderApi
from instar_node.api.http_server import ApiServer
from instar_node.api.local import LocalNodeApi
from instar_node.api.membership import Membership
from instar_node.api.news import TailPicture
from instar_node.api.parts import NodeParts
from instar_node.api.protocol import NodeApi
from instar_node.api.routes import RENAME
from instar_node.api.views import Views
from instar_node.clock import Clock, SystemClock
from instar_node.config import Config, NodeOptions
from instar_node.coordination.lease_store import StoreUnavailable
from instar_node.errors import InstarError
from instar_node.events import Event, EventHub
from instar_node.known_secrets import KnownSecrets
from instar_node.mesh.listener import PeerListener, PeerRoutes
from instar_node.pairing.host import PairingHost
from instar_node.pairing.session_store import PairingSessionStore
from instar_node.pairing.wire import HubTerms
from instar_node.rejoining import Rejoining
from instar_node.storage.database import SqliteDatabase
from instar_node.storage.home import Home
from instar_node.storage.lock import HomeLock
from instar_node.wiring.building import build
from instar_node.wiring.foundation import Foundation, is_unfounded, lay_foundation
from instar_node.wiring.introduction import Introduction
from instar_node.wiring.tail_mending import TailMending

log = logging.getLogger("instar.node")

PASSING_ON_S = 2.0
"""At most so long does a stopping node try to hand its role on."""
LEAVING_S = 4.0
"""Handing on, and then releasing the lease on a hub that may be slow."""
DRAIN_S = 1.0
FLUSH_S = 0.5
"""For bringing the last edits of the state folder to the others before the role is handed on."""


class Node:
    """A node on one home. ``open`` it, ``start`` it, and ``stop`` it in any case."""

    def __init__(
        self,
        home: Home,
        config: Config,
        foundation: Foundation,
        parts: NodeParts,
        database: SqliteDatabase,
        closing: AsyncExitStack,
    ) -> None:
        self._home = home
        self._keep_baton = config.node.keep_baton
        self._foundation = foundation
        self._parts = parts
        self._closing = closing
        self._started = False
        base = parts.base
        self._tail = TailPicture(parts.tail.source, base.mesh, base.lease, base.clock)
        self._views = Views(parts, self._tail)
        self._heartbeat = Heartbeat(parts, self._views, self._tail)
        self._membership = Membership(base, parts.sync, parts.state, parts.addresses, self._free_orphans)
        holder_api = HolderApi(parts, self._membership, self._views)
        self._pairing = PairingHost(
            PairingSessionStore(home.machine, base.clock),
            base.me,
            base.clock,
            base.events,
            members=base.registry,
            urls=base.urls,
            admit=self._membership.admit,
            hub=self._shared_hub,
        )
        base.lease.on_change(self._void_code_of_a_standby)
        self._rejoining = Rejoining(home, parts, database, self._pairing, foundation.recorded.nickname)
        self._forwarding = Forwarding(holder_api, base.mesh, base.lease, base.registry, base.clock)
        self.api: NodeApi = LocalNodeApi(
            parts,
            self._views,
            self._forwarding,
            self._membership,
            self._pairing,
            self._rejoining,
            home,
        )
        self.api_url = ""

    @property
    def machine_id(self) -> str:
        """This machine's id."""
        return self._parts.base.me

    @property
    def superseded(self) -> asyncio.Event:
        """Set when this home belongs to another mesh: stop this node and open the home anew."""
        return self._rejoining.superseded

    @property
    def api_port(self) -> int:
        """Port of the local API; 0 before it listens."""
        return urlsplit(self.api_url).port or 0

    # -- life --------------------------------------------------------------------------------------------

    @classmethod
    async def open(
        cls, home: Home, config: Config, options: NodeOptions, known: KnownSecrets | None = None
    ) -> Node:
        """Take the home and load what is on it; a fresh home founds a mesh. Nothing is sent yet.

        ``known`` is what the log blanks out (see ``node_log``); the values of the vault are added to it.
        Raises ``InstarError``: ``already-running`` naming the pid, or what is damaged and the way out.
        """
        async with AsyncExitStack() as closing:
            home.prepare()
            closing.enter_context(HomeLock(home))
            clock: Clock = SystemClock()
            known = known or KnownSecrets(lambda: (config.channels.webhook.secret,))
            events = EventHub(clock, known)
            events.listen(_log_event)
            foundation = await lay_foundation(home, config, options, clock)
            database = SqliteDatabase.open(home.database)
            closing.push_async_callback(database.close)
            parts = await build(home, config, foundation, database, clock, events, known, options.restart)
            closing.enter_context(parts.base.surprises)
            closing.push_async_callback(parts.delivery.agent.close)
            closing.callback(events.close)
            return cls(home, config, foundation, parts, database, closing.pop_all())
        raise AssertionError("the block above returns or raises")

    async def start(self, api_port: int = 0) -> None:
        """Begin: reachable by peers first, then in the lease, then at work, then open to people.

        ``api_port`` is the one to have if it is free (a node that follows another on the same home).
        Raises ``InstarError`` when the address is taken or the first lease cannot be written; call ``stop``.
        """
        parts, base = self._parts, self._parts.base
        await self._listen()
        await self._begin(base.mesh.start(), base.mesh.stop)
        parts.sync.start()
        self._at_stop(parts.sync.stop)
        parts.addresses.start()
        self._at_stop(parts.addresses.stop)
        parts.secrets.start()
        self._at_stop(parts.secrets.stop)
        await self._begin(self._start_lease(), base.lease.stop)
        await self._begin(parts.state.start(), parts.state.stop)
        parts.delivery.replication.start()
        self._at_stop(_awaited(parts.delivery.replication.stop))
        parts.delivery.delivery.start()
        self._at_stop(parts.delivery.delivery.stop)
        parts.delivery.compactor.start()
        self._at_stop(parts.delivery.compactor.stop)
        await self._begin(parts.tail.transport.start(), parts.tail.transport.stop)
        mending = TailMending(
            base.lease,
            parts.delivery.ledger,
            parts.delivery.conversation,
            parts.tail.buffer,
            parts.tail.source,
        )
        mending.start()
        self._at_stop(mending.stop)
        await self._start_pool()
        self._at_stop(parts.handoff.receiver.stop)
        self._at_stop(parts.handoff.sentinel.stop)
        self._at_stop(parts.handoff.wakeup.stop)
        self._at_stop(parts.updates.updater.stop)
        self._at_stop(parts.verification.verification.stop)
        parts.verification.rehearsals.start()
        self._at_stop(parts.verification.rehearsals.stop)
        await self._start_people(api_port)
        self._started = True

    async def stop(self, *, hand_off: bool = True, keep_baton: bool | None = None) -> None:
        """Hand the awake role on if that is wanted and possible, finish what is under way, and close.

        ``keep_baton`` decides for this once what ``node.keep_baton`` in ``config.toml`` decides otherwise.
        Also for a node whose start failed half-way. Takes about 2 s at most beyond what runs.
        """
        if hand_off and self._started:
            try:
                async with asyncio.timeout(LEAVING_S):
                    await self._pass_on(self._keep_baton if keep_baton is None else keep_baton)
            except TimeoutError:
                log.warning("the awake role was not passed on within %g s", LEAVING_S)
            except InstarError as error:
                log.warning("the awake role was not passed on: %s", error.message)
        self._started = False
        try:
            await self._closing.aclose()
        except Exception:
            log.exception("the node did not stop cleanly")

    async def _pass_on(self, keep_baton: bool) -> None:
        base, delivery = self._parts.base, self._parts.delivery.delivery
        if not await self._parts.state.flush(FLUSH_S):
            log.info("edits of the state folder wait here until this machine runs again")
        await self._parts.handoff.shutdown.hand_off_for_shutdown(PASSING_ON_S, keep_baton=keep_baton)
        if base.lease.acting_epoch() is not None:  # the lease stays here: only end the work in good order
            await delivery.pause()
            await delivery.drain(DRAIN_S)

    # -- the steps of a start ----------------------------------------------------------------------------

    async def _listen(self) -> None:
        base, urls = self._parts.base, self._foundation.urls
        routes = PeerRoutes(self._pairing.handle, base.mesh.handle)
        listener = PeerListener(
            urls.host, urls.port, routes, port_is_default=self._foundation.port_is_default
        )
        wanted, urls.port = urls.port, await listener.start()
        self._at_stop(listener.stop)
        self._at_stop(self._pairing.close)
        if wanted not in (0, urls.port):
            base.warnings.append(
                t.Alert(
                    "port-moved",
                    f"port {wanted} is in use, so this node listens on {urls.port}",
                    "set node.listen in config.toml to have an address of its own",
                )
            )

    async def _start_lease(self) -> None:
        lease = self._parts.base.lease
        try:
            found = lease.known is None and await is_unfounded(self._foundation)
            await lease.start(found=found)
        except StoreUnavailable as error:
            raise InstarError(error.code, error.message, status=503) from error

    async def _start_pool(self) -> None:
        pool = self._parts.pool
        if pool is not None:
            await self._begin(pool.host.start(), pool.host.stop)
            await self._begin(pool.machines.start(), pool.machines.stop)
            await self._begin(pool.queued.start(), pool.queued.stop)

    async def _start_people(self, api_port: int) -> None:
        parts = self._parts
        self._membership.start()
        self._at_stop(self._membership.stop)
        wanted = self._foundation.wanted_nickname
        introduction = Introduction(
            parts.base, self._rename_here, wanted, self._note_nickname, parts.sync.become_witness
        )
        introduction.start()
        self._at_stop(introduction.stop)
        self._heartbeat.start()
        self._at_stop(self._heartbeat.stop)
        server = ApiServer(self.api, self._home, parts.base.known)
        self._at_stop(server.stop)
        self.api_url = await server.start(api_port)

    async def _begin(self, starting: Awaitable[None], stop: Callable[[], Awaitable[None]]) -> None:
        """Start a part; it is stopped with the node even when its start fails half-way."""
        self._at_stop(stop)
        await starting

    def _at_stop(self, stop: Callable[[], Awaitable[None]]) -> None:
        self._closing.push_async_callback(stop)

    # -- small ties --------------------------------------------------------------------------------------

    def _shared_hub(self) -> HubTerms | None:
        """The present hub where every machine must be able to use it."""
        lease = self._parts.base.lease
        place, hub = lease.lease.hub, lease.hub
        return None if hub.kind == "embedded" else HubTerms(hub.kind, hub.url, place.id if place else "")

    def _void_code_of_a_standby(self) -> None:
        """Only the awake machine admits: a code minted before another took over would lead nobody in."""
        base = self._parts.base
        holder = base.lease.holder
        if holder is None or holder == base.me:
            return
        try:
            self._pairing.cancel(f"{base.registry.nickname(holder)} is the awake machine now")
        except InstarError as error:  # a full disk must not stop the lease; the admission refuses anyhow
            log.warning("the pairing code is not voided: %s", error)

    async def _free_orphans(self) -> None:
        if (pool := self._parts.pool) is not None:
            await pool.transfers.free_orphans()

    async def _rename_here(self, nickname: str) -> None:
        """Also without the pool: a machine has a name whatever runs on it."""
        body = t.RenameRequest(nickname)
        await self._forwarding.perform(RENAME, machine=self.machine_id, body=body)

    def _note_nickname(self) -> None:
        wanted = self._foundation.wanted_nickname
        assert wanted is not None
        self._foundation.record(nickname=wanted)


def _awaited(stop: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def stop_now() -> None:
        stop()

    return stop_now


LOGGED_BY_THEIR_PART = frozenset({"handoff"})
USUAL_STATES = frozenset({"received", "processing", "reserved", "committed", "cursor_advanced"})
"""What every message goes through. Logged as debug: at a thousand a second they would drown the rest."""


def _log_event(event: Event) -> None:
    if event.text and event.kind not in LOGGED_BY_THEIR_PART:
        level = logging.DEBUG if event.data.get("state") in USUAL_STATES else logging.INFO
        log.log(level, "%s: %s", event.kind, event.text)
