"""The peer-facing HTTP server: ``/api/pair``, ``/mesh/tunnel`` and a bare ``/health``, nothing else.

Everything here can be reached by anybody on the network, so everything is bounded: connections, the time to
say something, the size of what is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import hdrs, web

from instar_node.errors import InstarError

log = logging.getLogger("instar.mesh")

MAX_BODY = 64 * 1024
"""Bytes of a pairing request."""

MAX_CONNECTIONS = 256

SPEAK_WITHIN = 10.0
"""Seconds until the first complete request head, and until the end of a request body."""

PORTS_TRIED = 20
"""Ports tried above a default one that is taken."""

PairHandler = Callable[[bytes, str], Awaitable[tuple[int, bytes]]]
"""Body and remote address to status and body."""


@dataclass(frozen=True)
class PeerRoutes:
    """What answers peers."""

    pair: PairHandler
    tunnel: Callable[[web.Request], Awaitable[web.StreamResponse]]


class PeerListener:
    """Serves peers on one address.

    Args:
        host: Address to listen on.
        port: Port; 0 for any free one.
        routes: The handlers.
        port_is_default: Nobody asked for this very port, so if it is taken the next free one will do.
    """

    def __init__(self, host: str, port: int, routes: PeerRoutes, *, port_is_default: bool = False) -> None:
        self._host, self._port, self._routes = host, port, routes
        self._port_is_default = port_is_default
        self._server: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen; returns the port.

        Raises:
            InstarError: ``port-in-use``, or ``cannot-listen`` for any other reason.
        """
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/api/pair", self._pair)
        app.router.add_get("/mesh/tunnel", self._routes.tunnel)
        app.router.add_get("/health", _health)
        app.on_response_prepare.append(_hide_software)
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=SPEAK_WITHIN, shutdown_timeout=1)
        await self._runner.setup()
        try:
            self._server = await self._bind()
        except InstarError:
            await self._runner.cleanup()
            raise
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _bind(self) -> asyncio.Server:
        tries = PORTS_TRIED if self._port_is_default and self._port else 1
        loop = asyncio.get_running_loop()
        for port in range(self._port, self._port + tries):
            try:
                return await loop.create_server(self._connection, self._host, port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    text = f"cannot listen on {self._host}:{port}: {error.strerror or error}"
                    raise InstarError("cannot-listen", text, "check [node] listen in config.toml") from error
                log.info("port %d is in use", port)
        last = f"-{self._port + tries - 1}" if tries > 1 else ""
        raise InstarError(
            "port-in-use",
            f"port {self._port}{last} on {self._host} is in use",
            "stop what uses it, or set [node] listen in config.toml to another port",
            extra={"port": self._port},
        )

    def _connection(self) -> asyncio.Protocol:
        """A new connection, hung up at once when there are too many."""
        assert self._runner is not None
        assert self._runner.server is not None
        if len(self._runner.server.connections) >= MAX_CONNECTIONS:
            return _HangUp()
        connection = self._runner.server()
        connection.__class__ = _Connection
        return connection

    async def _pair(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(SPEAK_WITHIN):
                body = await request.read()
        except TimeoutError:
            return web.Response(status=408)
        except web.RequestPayloadError:  # chunks or compression that are none
            return web.Response(status=400)
        status, answer = await self._routes.pair(body, request.remote or "")
        return web.Response(status=status, body=answer, content_type="application/octet-stream")


class _HangUp(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


class _Connection(web.RequestHandler):
    """What cannot be read as HTTP is refused in few words and leaves no traceback in the log: it tells of no
    defect here, and anybody can send it as often as they like."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        log.debug("%s sent what is no HTTP: %s", request.remote, exc)
        refusal = web.Response(status=status, headers={hdrs.SERVER: ""})
        refusal.force_close()
        return refusal

    def log_exception(self, *args: Any, **options: Any) -> None:
        """Called for what is left of a body, after its request was answered."""
        if not isinstance(options.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **options)


async def _health(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _hide_software(_request: web.Request, response: web.StreamResponse) -> None:
    with contextlib.suppress(KeyError):
        del response.headers[hdrs.SERVER]
