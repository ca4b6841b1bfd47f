"""``NodeApi`` over HTTP for commands and scripts: the same methods, without asyncio."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from instar_node.api import routes
from instar_node.api import types as t
from instar_node.api.decoding import encode_body
from instar_node.api.endpoint import find_endpoint, no_answer, not_running, read_answer
from instar_node.api.exchange import exchange
from instar_node.api.routes import Route
from instar_node.storage.home import Home

if TYPE_CHECKING:
    from http.client import HTTPConnection

    from instar_node.events import Event

R = TypeVar("R", bound=msgspec.Struct)


class BlockingNodeApi:
    """Speaks to the node of ``home``; ``node-not-running`` when there is none. Safe to share by threads."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def _patience_s(self, route: Route[Any]) -> float:
        """How long to wait for the answer."""
        return route.patience_s

    def _call(self, route: Route[R], body: t.Body | None = None, **arguments: Any) -> R:
        endpoint, patience_s = find_endpoint(self._home), self._patience_s(route)
        data = None if body is None else encode_body(body)
        try:
            status, raw = exchange(
                endpoint.address, route.verb, route.url(arguments), endpoint.headers, data, patience_s
            )
        except TimeoutError as error:
            raise no_answer(route.method, patience_s) from error
        except OSError as error:
            raise not_running(self._home) from error
        return read_answer(route, status, raw)

    def status(self) -> t.Status:
        return self._call(routes.STATUS)

    def health(self) -> t.Health:
        return self._call(routes.HEALTH)

    def whoami(self) -> t.WhoAmI:
        return self._call(routes.WHOAMI)

    def machines(self) -> t.Machines:
        return self._call(routes.MACHINES)

    def lease(self) -> t.LeaseView:
        return self._call(routes.LEASE)

    def pair(self, body: t.PairRequest) -> t.PairView:
        return self._call(routes.PAIR, body)

    def pair_view(self) -> t.PairView:
        return self._call(routes.PAIR_VIEW)

    def pair_cancel(self) -> t.PairView:
        return self._call(routes.PAIR_CANCEL)

    def pair_confirm(self, body: t.PairConfirm) -> t.PairView:
        return self._call(routes.PAIR_CONFIRM, body)

    def join(self, body: t.JoinRequest) -> t.JoinResult:
        return self._call(routes.JOIN, body)

    def doctor(self) -> t.Doctor:
        return self._call(routes.DOCTOR)

    def config(self) -> t.ConfigView:
        return self._call(routes.CONFIG)

    def set_config(self, body: t.ConfigChange) -> t.ConfigChanged:
        return self._call(routes.SET_CONFIG, body)

    def wakeup(self, body: t.WakeupRequest) -> t.HandoffResult:
        return self._call(routes.WAKEUP, body)

    def lease_heal(self, body: t.HealRequest) -> t.HandoffResult:
        return self._call(routes.LEASE_HEAL, body)

    def handoff(self, body: t.HandoffRequest) -> t.HandoffResult:
        return self._call(routes.HANDOFF, body)

    def handoff_view(self) -> t.HandoffResult:
        return self._call(routes.HANDOFF_VIEW)

    def move_hub(self, body: t.HubRequest) -> t.HubMoved:
        return self._call(routes.MOVE_HUB, body)

    def leave(self) -> t.Ok:
        return self._call(routes.LEAVE)

    def remove_machine(self, machine: str) -> t.Ok:
        return self._call(routes.REMOVE_MACHINE, machine=machine)

    def send(self, body: t.SendRequest) -> t.SendResult:
        return self._call(routes.SEND, body)

    def topics(self) -> t.Topics:
        return self._call(routes.TOPICS)

    def messages(self, topic: str, after: int = 0, limit: int = 200) -> t.Messages:
        return self._call(routes.MESSAGES, topic=topic, after=after, limit=limit)

    def reply(self, topic: str, body: t.ReplyRequest) -> t.SendResult:
        return self._call(routes.REPLY, body, topic=topic)

    def outbox(self) -> t.Outbox:
        return self._call(routes.OUTBOX)

    def outbox_resolve(self, item: str, body: t.OutboxAction) -> t.Ok:
        return self._call(routes.OUTBOX_RESOLVE, body, item=item)

    def livetail(self) -> t.LiveTail:
        return self._call(routes.LIVETAIL)

    def pool(self) -> t.PoolView:
        return self._call(routes.POOL)

    def pool_machine(self, machine: str) -> t.Machine:
        return self._call(routes.POOL_MACHINE, machine=machine)

    def rename(self, machine: str, body: t.RenameRequest) -> t.Machine:
        return self._call(routes.RENAME, body, machine=machine)

    def placement(self, topic: str) -> t.PlacementView:
        return self._call(routes.PLACEMENT, topic=topic)

    def transfer(self, body: t.TransferRequest) -> t.TransferResult:
        return self._call(routes.TRANSFER, body)

    def unpin(self, body: t.UnpinRequest) -> t.PlacementView:
        return self._call(routes.UNPIN, body)

    def sync(self) -> t.SyncView:
        return self._call(routes.SYNC)

    def sync_seen(self) -> t.SyncView:
        return self._call(routes.SYNC_SEEN)

    def secrets(self) -> t.Secrets:
        return self._call(routes.SECRETS)

    def secret(self, name: str) -> t.Secret:
        return self._call(routes.SECRET, name=name)

    def set_secret(self, name: str, body: t.SecretValue) -> t.Ok:
        return self._call(routes.SET_SECRET, body, name=name)

    def remove_secret(self, name: str) -> t.Ok:
        return self._call(routes.REMOVE_SECRET, name=name)

    def verify(self, body: t.VerifyRequest) -> t.VerifyResult:
        return self._call(routes.VERIFY, body)

    def e2e_results(self) -> t.E2EResults:
        return self._call(routes.E2E_RESULTS)

    def flags(self) -> t.Flags:
        return self._call(routes.FLAGS)

    def set_flag(self, body: t.FlagChange) -> t.Flags:
        return self._call(routes.SET_FLAG, body)

    def updates(self) -> t.Updates:
        return self._call(routes.UPDATES)

    def update(self, body: t.UpdateRequest) -> t.UpdateResult:
        return self._call(routes.UPDATE, body)

    def events(self, after: int | None = None, *, tick: float = 1.0) -> Generator[Event | None, None, None]:
        """Events as they happen, ``None`` when none came for ``tick`` seconds (to look at a clock).

        A stream cut for slowness is taken up again by number; ``node-not-running`` ends it.
        """
        arrived: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
        reader = _EventReader(self._home, after, arrived)
        threading.Thread(target=reader.run, name="instar-events", daemon=True).start()
        try:
            while True:
                try:
                    item = arrived.get(timeout=tick)
                except queue.Empty:
                    yield None
                    continue
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            reader.stop()


class _EventReader:
    """Reads the event stream on a thread of its own, because a blocking read cannot also watch a clock."""

    def __init__(
        self, home: Home, after: int | None, arrived: queue.SimpleQueue[Event | BaseException]
    ) -> None:
        self._home = home
        self._after = after
        self._arrived = arrived
        self._connection: HTTPConnection | None = None
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True
        sock = self._connection.sock if self._connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):  # already closed by the other side
                sock.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        from http.client import HTTPException  # a stream needs more of HTTP than `exchange` speaks

        try:
            while not self._stopped:
                self._read_once()
        except (OSError, HTTPException):
            self._arrived.put(not_running(self._home))
        except Exception as error:  # raised again where the events are read
            self._arrived.put(error)

    def _read_once(self) -> None:
        from http.client import HTTPConnection

        from instar_node.api.sse import KEEP_ALIVE_S, EventParser  # loads asyncio

        endpoint = find_endpoint(self._home)
        connection = HTTPConnection(*endpoint.address, timeout=3 * KEEP_ALIVE_S)
        self._connection = connection
        query = "" if self._after is None else f"?after={self._after}"
        connection.request("GET", f"/events{query}", headers=endpoint.headers)
        response = connection.getresponse()
        if response.status != 200:
            read_answer(routes.STATUS, response.status, response.read())
        parser = EventParser()
        while chunk := response.read1(65_536):
            for event in parser.feed(chunk):
                self._after = event.n
                self._arrived.put(event)
        connection.close()
