"""``NodeApi`` over HTTP for asyncio programs: the screen attached to a node that already runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import aiohttp
import msgspec

from instar_node.api import routes
from instar_node.api import types as t
from instar_node.api.decoding import encode_body
from instar_node.api.endpoint import Endpoint, find_endpoint, no_answer, not_running, read_answer
from instar_node.api.routes import Route
from instar_node.api.sse import KEEP_ALIVE_S, EventParser
from instar_node.errors import InstarError
from instar_node.events import Event
from instar_node.storage.home import Home

R = TypeVar("R", bound=msgspec.Struct)

_RETRY_S = 1.0


class HttpNodeApi:
    """Speaks to the node of ``home``; finds it again when it was restarted on another port."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._endpoint: Endpoint | None = None
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _connection(self) -> tuple[aiohttp.ClientSession, Endpoint]:
        self._session = self._session or aiohttp.ClientSession()
        self._endpoint = self._endpoint or find_endpoint(self._home)
        return self._session, self._endpoint

    async def _call(self, route: Route[R], body: t.Body | None = None, **arguments: Any) -> R:
        session, endpoint = self._connection()
        try:
            async with session.request(
                route.verb,
                endpoint.url + route.url(arguments),
                data=None if body is None else encode_body(body),
                headers=endpoint.headers,
                timeout=aiohttp.ClientTimeout(total=route.patience_s),
            ) as response:
                status, raw = response.status, await response.read()
        except TimeoutError as error:
            raise no_answer(route.method, route.patience_s) from error
        except aiohttp.ClientError as error:
            self._endpoint = None  # it may be back on another port
            raise not_running(self._home) from error
        return read_answer(route, status, raw)

    async def status(self) -> t.Status:
        return await self._call(routes.STATUS)

    async def health(self) -> t.Health:
        return await self._call(routes.HEALTH)

    async def whoami(self) -> t.WhoAmI:
        return await self._call(routes.WHOAMI)

    async def machines(self) -> t.Machines:
        return await self._call(routes.MACHINES)

    async def lease(self) -> t.LeaseView:
        return await self._call(routes.LEASE)

    async def pair(self, body: t.PairRequest) -> t.PairView:
        return await self._call(routes.PAIR, body)

    async def pair_view(self) -> t.PairView:
        return await self._call(routes.PAIR_VIEW)

    async def pair_cancel(self) -> t.PairView:
        return await self._call(routes.PAIR_CANCEL)

    async def pair_confirm(self, body: t.PairConfirm) -> t.PairView:
        return await self._call(routes.PAIR_CONFIRM, body)

    async def join(self, body: t.JoinRequest) -> t.JoinResult:
        return await self._call(routes.JOIN, body)

    async def doctor(self) -> t.Doctor:
        return await self._call(routes.DOCTOR)

    async def config(self) -> t.ConfigView:
        return await self._call(routes.CONFIG)

    async def set_config(self, body: t.ConfigChange) -> t.ConfigChanged:
        return await self._call(routes.SET_CONFIG, body)

    async def wakeup(self, body: t.WakeupRequest) -> t.HandoffResult:
        return await self._call(routes.WAKEUP, body)

    async def lease_heal(self, body: t.HealRequest) -> t.HandoffResult:
        return await self._call(routes.LEASE_HEAL, body)

    async def handoff(self, body: t.HandoffRequest) -> t.HandoffResult:
        return await self._call(routes.HANDOFF, body)

    async def handoff_view(self) -> t.HandoffResult:
        return await self._call(routes.HANDOFF_VIEW)

    async def move_hub(self, body: t.HubRequest) -> t.HubMoved:
        return await self._call(routes.MOVE_HUB, body)

    async def leave(self) -> t.Ok:
        return await self._call(routes.LEAVE)

    async def remove_machine(self, machine: str) -> t.Ok:
        return await self._call(routes.REMOVE_MACHINE, machine=machine)

    async def send(self, body: t.SendRequest) -> t.SendResult:
        return await self._call(routes.SEND, body)

    async def topics(self) -> t.Topics:
        return await self._call(routes.TOPICS)

    async def messages(self, topic: str, after: int = 0, limit: int = 200) -> t.Messages:
        return await self._call(routes.MESSAGES, topic=topic, after=after, limit=limit)

    async def reply(self, topic: str, body: t.ReplyRequest) -> t.SendResult:
        return await self._call(routes.REPLY, body, topic=topic)

    async def outbox(self) -> t.Outbox:
        return await self._call(routes.OUTBOX)

    async def outbox_resolve(self, item: str, body: t.OutboxAction) -> t.Ok:
        return await self._call(routes.OUTBOX_RESOLVE, body, item=item)

    async def livetail(self) -> t.LiveTail:
        return await self._call(routes.LIVETAIL)

    async def pool(self) -> t.PoolView:
        return await self._call(routes.POOL)

    async def pool_machine(self, machine: str) -> t.Machine:
        return await self._call(routes.POOL_MACHINE, machine=machine)

    async def rename(self, machine: str, body: t.RenameRequest) -> t.Machine:
        return await self._call(routes.RENAME, body, machine=machine)

    async def placement(self, topic: str) -> t.PlacementView:
        return await self._call(routes.PLACEMENT, topic=topic)

    async def transfer(self, body: t.TransferRequest) -> t.TransferResult:
        return await self._call(routes.TRANSFER, body)

    async def unpin(self, body: t.UnpinRequest) -> t.PlacementView:
        return await self._call(routes.UNPIN, body)

    async def sync(self) -> t.SyncView:
        return await self._call(routes.SYNC)

    async def sync_seen(self) -> t.SyncView:
        return await self._call(routes.SYNC_SEEN)

    async def secrets(self) -> t.Secrets:
        return await self._call(routes.SECRETS)

    async def secret(self, name: str) -> t.Secret:
        return await self._call(routes.SECRET, name=name)

    async def set_secret(self, name: str, body: t.SecretValue) -> t.Ok:
        return await self._call(routes.SET_SECRET, body, name=name)

    async def remove_secret(self, name: str) -> t.Ok:
        return await self._call(routes.REMOVE_SECRET, name=name)

    async def verify(self, body: t.VerifyRequest) -> t.VerifyResult:
        return await self._call(routes.VERIFY, body)

    async def e2e_results(self) -> t.E2EResults:
        return await self._call(routes.E2E_RESULTS)

    async def flags(self) -> t.Flags:
        return await self._call(routes.FLAGS)

    async def set_flag(self, body: t.FlagChange) -> t.Flags:
        return await self._call(routes.SET_FLAG, body)

    async def updates(self) -> t.Updates:
        return await self._call(routes.UPDATES)

    async def update(self, body: t.UpdateRequest) -> t.UpdateResult:
        return await self._call(routes.UPDATE, body)

    async def events(self, after: int | None = None) -> AsyncIterator[Event]:
        """Events without an end: a broken connection is taken up again after the last number seen.

        When the node was restarted its numbers begin anew: a ``gap`` event says so, and the new ones follow.
        While no node answers, it tries once a second; whoever iterates decides how long to wait.
        """
        pid: int | None = None
        while True:
            try:
                endpoint = self._connection()[1]
                if pid is not None and endpoint.pid != pid:
                    yield Event(0, "", "gap", "the node was restarted", {})
                    after = 0
                pid = endpoint.pid
                async for event in self._stream(after):
                    after = event.n
                    yield event
            except (aiohttp.ClientError, TimeoutError):
                self._endpoint = None
            except InstarError as error:
                if error.code != "node-not-running":
                    raise
            await asyncio.sleep(_RETRY_S)

    async def _stream(self, after: int | None) -> AsyncIterator[Event]:
        """One connection's worth of events. The keep-alives bound the silence of a node that is frozen."""
        session, endpoint = self._connection()
        query = "" if after is None else f"?after={after}"
        timeout = aiohttp.ClientTimeout(total=None, sock_read=3 * KEEP_ALIVE_S)
        async with session.get(
            f"{endpoint.url}/events{query}", headers=endpoint.headers, timeout=timeout
        ) as response:
            if response.status != 200:
                read_answer(routes.STATUS, response.status, await response.read())
            parser = EventParser()
            async for chunk in response.content.iter_any():
                for event in parser.feed(chunk):
                    yield event
