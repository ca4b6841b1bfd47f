"""The node's API across threads: the node lives on its own event loop, the screen awaits it from another."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from instar_node.api import types as t
from instar_node.api.protocol import NodeApi
from instar_node.errors import InstarError
from instar_node.events import Event

T = TypeVar("T")

IN_FLIGHT = 1_000
"""Events that may wait for a slow screen; beyond, the stream is cut and taken up again by number."""


class BridgedNodeApi:
    """``NodeApi`` for callers on another event loop than the node's."""

    def __init__(self, api: NodeApi, loop: asyncio.AbstractEventLoop) -> None:
        self._api = api
        self._loop = loop
        self._channels: set[_Channel] = set()
        """Those that are read now."""

    def follow(self, api: NodeApi) -> None:
        """Go on with another node on the same loop; streams of events go over to its events."""
        self._api = api
        for channel in list(self._channels):  # else it would wait for ever for a node that is no more
            channel.end()

    async def _run(self, call: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            call.close()
            raise InstarError("node-not-running", "the node has stopped", status=503)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, self._loop))

    async def status(self) -> t.Status:
        return await self._run(self._api.status())

    async def health(self) -> t.Health:
        return await self._run(self._api.health())

    async def whoami(self) -> t.WhoAmI:
        return await self._run(self._api.whoami())

    async def machines(self) -> t.Machines:
        return await self._run(self._api.machines())

    async def lease(self) -> t.LeaseView:
        return await self._run(self._api.lease())

    async def pair(self, body: t.PairRequest) -> t.PairView:
        return await self._run(self._api.pair(body))

    async def pair_view(self) -> t.PairView:
        return await self._run(self._api.pair_view())

    async def pair_cancel(self) -> t.PairView:
        return await self._run(self._api.pair_cancel())

    async def pair_confirm(self, body: t.PairConfirm) -> t.PairView:
        return await self._run(self._api.pair_confirm(body))

    async def join(self, body: t.JoinRequest) -> t.JoinResult:
        return await self._run(self._api.join(body))

    async def doctor(self) -> t.Doctor:
        return await self._run(self._api.doctor())

    async def config(self) -> t.ConfigView:
        return await self._run(self._api.config())

    async def set_config(self, body: t.ConfigChange) -> t.ConfigChanged:
        return await self._run(self._api.set_config(body))

    async def wakeup(self, body: t.WakeupRequest) -> t.HandoffResult:
        return await self._run(self._api.wakeup(body))

    async def lease_heal(self, body: t.HealRequest) -> t.HandoffResult:
        return await self._run(self._api.lease_heal(body))

    async def handoff(self, body: t.HandoffRequest) -> t.HandoffResult:
        return await self._run(self._api.handoff(body))

    async def handoff_view(self) -> t.HandoffResult:
        return await self._run(self._api.handoff_view())

    async def move_hub(self, body: t.HubRequest) -> t.HubMoved:
        return await self._run(self._api.move_hub(body))

    async def leave(self) -> t.Ok:
        return await self._run(self._api.leave())

    async def remove_machine(self, machine: str) -> t.Ok:
        return await self._run(self._api.remove_machine(machine))

    async def send(self, body: t.SendRequest) -> t.SendResult:
        return await self._run(self._api.send(body))

    async def topics(self) -> t.Topics:
        return await self._run(self._api.topics())

    async def messages(self, topic: str, after: int = 0, limit: int = 200) -> t.Messages:
        return await self._run(self._api.messages(topic, after, limit))

    async def reply(self, topic: str, body: t.ReplyRequest) -> t.SendResult:
        return await self._run(self._api.reply(topic, body))

    async def outbox(self) -> t.Outbox:
        return await self._run(self._api.outbox())

    async def outbox_resolve(self, item: str, body: t.OutboxAction) -> t.Ok:
        return await self._run(self._api.outbox_resolve(item, body))

    async def livetail(self) -> t.LiveTail:
        return await self._run(self._api.livetail())

    async def pool(self) -> t.PoolView:
        return await self._run(self._api.pool())

    async def pool_machine(self, machine: str) -> t.Machine:
        return await self._run(self._api.pool_machine(machine))

    async def rename(self, machine: str, body: t.RenameRequest) -> t.Machine:
        return await self._run(self._api.rename(machine, body))

    async def placement(self, topic: str) -> t.PlacementView:
        return await self._run(self._api.placement(topic))

    async def transfer(self, body: t.TransferRequest) -> t.TransferResult:
        return await self._run(self._api.transfer(body))

    async def unpin(self, body: t.UnpinRequest) -> t.PlacementView:
        return await self._run(self._api.unpin(body))

    async def sync(self) -> t.SyncView:
        return await self._run(self._api.sync())

    async def sync_seen(self) -> t.SyncView:
        return await self._run(self._api.sync_seen())

    async def secrets(self) -> t.Secrets:
        return await self._run(self._api.secrets())

    async def secret(self, name: str) -> t.Secret:
        return await self._run(self._api.secret(name))

    async def set_secret(self, name: str, body: t.SecretValue) -> t.Ok:
        return await self._run(self._api.set_secret(name, body))

    async def remove_secret(self, name: str) -> t.Ok:
        return await self._run(self._api.remove_secret(name))

    async def verify(self, body: t.VerifyRequest) -> t.VerifyResult:
        return await self._run(self._api.verify(body))

    async def e2e_results(self) -> t.E2EResults:
        return await self._run(self._api.e2e_results())

    async def flags(self) -> t.Flags:
        return await self._run(self._api.flags())

    async def set_flag(self, body: t.FlagChange) -> t.Flags:
        return await self._run(self._api.set_flag(body))

    async def updates(self) -> t.Updates:
        return await self._run(self._api.updates())

    async def update(self, body: t.UpdateRequest) -> t.UpdateResult:
        return await self._run(self._api.update(body))

    async def events(self, after: int | None = None) -> AsyncIterator[Event]:
        """The node's events, taken up again by number when this side was too slow; ends with the node.

        The numbers of another node that is followed begin anew: a ``gap`` event says so.
        """
        over = False
        while not over and not self._loop.is_closed():
            channel = _Channel(asyncio.get_running_loop())
            self._channels.add(channel)
            api = self._api  # after it can be ended: a node that is followed from now on is not missed
            pump = asyncio.run_coroutine_threadsafe(channel.pump(api, after), self._loop)
            try:
                async for event in channel.events():
                    after = event.n
                    yield event
            finally:
                self._channels.discard(channel)
                pump.cancel()
            over = channel.over
            if self._api is not api:
                over, after = False, 0
                yield Event(0, "", "gap", "the node was restarted", {})


class _Channel:
    """A bounded queue from the node's loop to the reader's; one wake-up may bring many events."""

    def __init__(self, reader: asyncio.AbstractEventLoop) -> None:
        self._reader = reader
        self._wake = asyncio.Event()
        self._items: deque[Event] = deque()
        self._ended = False
        self._failure: Exception | None = None
        self.over = False
        """The node's loop is shutting down; there will be no more events."""

    async def pump(self, api: NodeApi, after: int | None) -> None:
        """Runs on the node's loop."""
        try:
            async for event in api.events(after):
                self._items.append(event)
                self._notify()
                if len(self._items) >= IN_FLIGHT:
                    break
        except asyncio.CancelledError:
            self.over = True
            raise
        except Exception as error:
            self._failure = error  # raised where the events are read
        finally:
            self._ended = True
            self._notify()

    def end(self) -> None:
        """Whatever the pump still waits for, nothing more is read than it has brought (from any thread)."""
        self._ended = True
        self._notify()

    def _notify(self) -> None:
        if not self._reader.is_closed():
            self._reader.call_soon_threadsafe(self._wake.set)

    async def events(self) -> AsyncIterator[Event]:
        """Runs on the reader's loop; ends when the pump has ended and all it brought is read."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            ended = self._ended  # read before the items: what the pump brought before it ended is not missed
            while self._items:
                yield self._items.popleft()
            if ended:
                break
        if self._failure is not None:
            raise self._failure
