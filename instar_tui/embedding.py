"""The node behind the screens: embedded on a thread of its own, or a daemon that already runs.

A repaint must never delay a lease round, so an embedded node has its own event loop; the screens reach it
through ``BridgedNodeApi`` only.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from instar_node.api.bridge import BridgedNodeApi
from instar_node.api.protocol import NodeApi
from instar_node.config import Config, NodeOptions
from instar_node.errors import InstarError
from instar_node.known_secrets import KnownSecrets
from instar_node.storage.home import Home
from instar_node.trust_on_use import trust_on_use
from instar_tui.event_loop import loop_factory

if TYPE_CHECKING:
    from instar_node.api.http_client import HttpNodeApi
    from instar_node.node import Node

log = logging.getLogger("instar.embedding")


class NodeThread:
    """A node on its own thread. ``start`` and ``stop`` block; call each once, from any other thread."""

    def __init__(self, home: Home, config: Config, options: NodeOptions) -> None:
        self._home = home
        self._config = config
        self._options = options
        self._thread = threading.Thread(target=self._run, name="instar-node")
        self._settled = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._api: BridgedNodeApi | None = None
        self._keep_baton: bool | None = None

    @property
    def api(self) -> BridgedNodeApi:
        """The node, for callers on other event loops. Raises ``node-not-running`` before it has started."""
        if self._api is None:
            raise InstarError("node-not-running", "the node has not started yet", status=503)
        return self._api

    def start(self) -> None:
        """Start the node and wait until it answers. Raises ``InstarError`` when it cannot start."""
        self._thread.start()
        self._settled.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def stop(self, keep_baton: bool | None = None) -> None:
        """Hand off or release the lease, stop the node, and wait for it.

        ``keep_baton``: with an embedded hub, whether it stays the awake one; ``None`` as configured.
        """
        self._keep_baton = keep_baton
        if self._loop is not None and self._ending is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()

    def _run(self) -> None:
        from instar_node.node_log import node_log

        try:
            log_of_node = node_log(self._home, self._config)
            with log_of_node as known, asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self._serve(known))
        except BaseException as error:
            if self._settled.is_set():
                log.exception("the embedded node failed")
            self._failure = error
        finally:
            self._settled.set()

    async def _serve(self, known: KnownSecrets) -> None:
        with trust_on_use():
            from instar_node.serving import serve
        self._ending = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        await serve(
            self._home,
            self._config,
            self._options,
            known,
            ready=self._ready,
            ending=self._ending,
            keep_baton=lambda: self._keep_baton,
        )

    def _ready(self, node: Node) -> None:
        """Called again by the node that follows when the home joined another mesh."""
        assert self._loop is not None
        if self._api is None:
            self._api = BridgedNodeApi(node.api, self._loop)
        else:
            self._api.follow(node.api)
        self._settled.set()


class Connection(Protocol):
    """A node to talk to."""

    @property
    def api(self) -> NodeApi:
        """Its methods."""

    @property
    def embedded(self) -> bool:
        """Whether it lives in this process, and ends with it."""

    async def close(self, keep_baton: bool | None = None) -> None:
        """Leave the daemon, or stop the embedded node cleanly (``keep_baton`` as in ``NodeThread.stop``)."""


@dataclass(frozen=True)
class Embedded:
    """A node in this process."""

    thread: NodeThread

    @property
    def api(self) -> NodeApi:
        return self.thread.api

    @property
    def embedded(self) -> bool:
        return True

    async def close(self, keep_baton: bool | None = None) -> None:
        await asyncio.to_thread(self.thread.stop, keep_baton)


@dataclass(frozen=True)
class Attached:
    """A daemon that runs on the same home."""

    client: HttpNodeApi

    @property
    def api(self) -> NodeApi:
        return self.client

    @property
    def embedded(self) -> bool:
        return False

    async def close(self, keep_baton: bool | None = None) -> None:
        await self.client.close()


async def open_api(home: Home, config: Config, options: NodeOptions) -> Connection:
    """Attach to the node that runs on this home, or start one in this process.

    ``options`` count only for a node that is started. Raises ``InstarError`` when neither is possible; a node
    that holds the lock of the home without answering is named by its pid.
    """
    if home.api_json.exists():  # left behind by a crash, it answers nothing and is replaced
        attached = await _attach(home)
        if attached is not None:
            return attached
    thread = NodeThread(home, config, options)
    await asyncio.to_thread(thread.start)
    return Embedded(thread)


async def _attach(home: Home) -> Attached | None:
    with trust_on_use():
        from instar_node.api.http_client import HttpNodeApi
    client = HttpNodeApi(home)
    try:
        await client.health()
    except InstarError as error:
        await client.close()
        if error.code == "node-not-running":
            return None
        raise
    return Attached(client)
