"""The local HTTP API: a thin mapping of ``NodeApi`` for scripts, commands and an attached screen.

Loopback only; ``Authorization: Bearer <home>/api.token``; the Host header must name this computer (a web page
cannot reach it by DNS rebinding) and no other origin is ever allowed. Every error is JSON.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from instar_node.api.decoding import read_arguments, read_body
from instar_node.api.endpoint import ApiFile
from instar_node.api.event_stream import stream_events
from instar_node.api.http_connection import Connection
from instar_node.api.http_messages import Answer, Request, Stream, as_json
from instar_node.api.metrics import render_metrics
from instar_node.api.openapi import openapi_document
from instar_node.api.protocol import NodeApi
from instar_node.api.route_table import RouteTable
from instar_node.api.routes import HEALTH, ROUTES, Route
from instar_node.errors import InstarError
from instar_node.known_secrets import KnownSecrets
from instar_node.storage.atomic import write_atomic
from instar_node.storage.home import Home

log = logging.getLogger("instar.api")

Parameters = Mapping[str, str]
Handler = Callable[[Request, Parameters], Awaitable[Answer | Stream]]
"""Answers a request, with the parameters of its path."""

_LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
_LOOPBACK = "127.0.0.1"
_STOP_WITHIN_S = 1.0
_UNKNOWN = "unknown"
"""What requests that no route is found for are counted under."""


class ApiServer:
    """Serves one ``NodeApi`` on a loopback port of the system's choice."""

    def __init__(self, api: NodeApi, home: Home, known: KnownSecrets | None = None) -> None:
        """``known`` is what errors must not show: their text may quote what was sent or met."""
        self._known = known or KnownSecrets()
        self._api = api
        self._home = home
        self._token = b""
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._routes: RouteTable[Handler] = RouteTable()
        for route in ROUTES:
            self._routes.add(route.verb, route.path, self._handler(route))
        self._routes.add("GET", "/events", self._events)
        self._routes.add("GET", "/metrics", self._metrics)
        self._routes.add("GET", "/openapi.json", self._openapi)

    async def start(self, port: int = 0) -> str:
        """Listen, write ``api.token`` (kept from earlier runs) and ``api.json``, and return the URL.

        ``port`` is the one to have if it is free.
        """
        self._token = f"Bearer {_load_token(self._home)}".encode()
        self._server = await self._listen(port)
        url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        write_atomic(self._home.api_json, msgspec.json.encode(ApiFile(url, os.getpid())))
        return url

    async def _listen(self, port: int) -> asyncio.Server:
        def connection() -> Connection:
            return Connection(self._handle, self._failure, self._connections)

        loop = asyncio.get_running_loop()
        try:
            return await loop.create_server(connection, _LOOPBACK, port)
        except OSError:
            if port == 0:
                raise
            return await loop.create_server(connection, _LOOPBACK, 0)

    async def stop(self) -> None:
        """Take ``api.json`` away, end the event streams, give running requests 1 s, close the port."""
        if self._server is None:
            return
        self._home.api_json.unlink(missing_ok=True)
        self._server.close()
        self._server = None
        for connection in list(self._connections):
            connection.end()
        if under_way := [one.task for one in self._connections if one.task is not None]:
            _, late = await asyncio.wait(under_way, timeout=_STOP_WITHIN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in list(self._connections):
            connection.drop()

    # -- around every request ---------------------------------------------------------------------------

    async def _handle(self, request: Request) -> Answer | Stream:
        answer: Answer | Stream
        name = _UNKNOWN
        try:
            self._check(request)
            name, handler, parameters = self._routes.find(request.method, request.path)
            answer = await handler(request, parameters)
        except InstarError as error:
            answer = self._failure(error)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            answer = self._failure(InstarError("internal", "the node failed; see its log", status=500))
        self._requests[(name, answer.status)] += 1
        return answer

    def _failure(self, error: InstarError) -> Answer:
        answer = as_json({"error": self._known.blank_all(error.to_json())}, error.status)
        if error.status == 401:
            return answer._replace(headers=(("WWW-Authenticate", "Bearer"),))
        if error.status == 405:
            return answer._replace(headers=(("Allow", error.extra["allow"]),))
        return answer

    def _check(self, request: Request) -> None:
        host = request.headers.get("Host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.lower() not in _LOCAL_HOSTS:
            raise InstarError("foreign-host", f"{host!r} is not an address of this API", status=421)
        if not self._authorized(request) and request.path != HEALTH.path:
            raise InstarError(
                "unauthorized",
                "the token is missing or wrong",
                f"send `Authorization: Bearer …` with the content of {self._home.api_token}",
                status=401,
            )

    def _authorized(self, request: Request) -> bool:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(given, self._token)

    # -- the routes -------------------------------------------------------------------------------------

    def _handler(self, route: Route[Any]) -> Handler:
        call = getattr(self._api, route.method)

        async def handle(request: Request, parameters: Parameters) -> Answer:
            arguments = read_arguments(route, parameters, request.query)
            if route.body is not None:
                arguments["body"] = read_body(route.body, request.body())
            reply = await call(**arguments)
            return as_json(reply, route.status_of(reply))

        return self._health if route is HEALTH else handle

    async def _health(self, request: Request, _: Parameters) -> Answer:
        """Always 200, so that a monitor can tell "unwell" from "gone"; without the token only the status."""
        try:
            health = await self._api.health()
        except Exception:
            log.exception("health could not be told")
            return as_json({"status": "alarm"})
        return as_json(health if self._authorized(request) else {"status": health.status})

    async def _events(self, request: Request, _: Parameters) -> Stream:
        return stream_events(self._api, request)

    async def _metrics(self, _: Request, __: Parameters) -> Answer:
        text = render_metrics(await self._api.status(), self._requests)
        return Answer(text.encode(), content_type="text/plain; charset=utf-8")

    async def _openapi(self, _: Request, __: Parameters) -> Answer:
        return as_json(openapi_document())


def _load_token(home: Home) -> str:
    """The token of this home; made once, so that scripts may keep it."""
    try:
        token = home.api_token.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        token = ""
    if len(token) < 32:
        token = secrets.token_urlsafe(32)
        write_atomic(home.api_token, token.encode() + b"\n", 0o600)
    return token
