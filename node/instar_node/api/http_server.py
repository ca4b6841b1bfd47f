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
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from instar_node.api.decoding import read_arguments, read_body
from instar_node.api.endpoint import ApiFile
from instar_node.api.event_stream import stream_events
from instar_node.api.metrics import render_metrics
from instar_node.api.openapi import openapi_document
from instar_node.api.protocol import NodeApi
from instar_node.api.routes import HEALTH, MAX_BODY, ROUTES, Route
from instar_node.api.unreadable import JsonErrorRunner, unreadable
from instar_node.errors import InstarError
from instar_node.known_secrets import KnownSecrets
from instar_node.storage.atomic import write_atomic
from instar_node.storage.home import Home

log = logging.getLogger("instar.api")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
_LOOPBACK = "127.0.0.1"
_STOP_WITHIN_S = 1.0
_LONGEST_LINE = 65_536
"""Bytes of a request line or header."""


class ApiServer:
    """Serves one ``NodeApi`` on a loopback port of the system's choice."""

    def __init__(self, api: NodeApi, home: Home, known: KnownSecrets | None = None) -> None:
        """``known`` is what errors must not show: their text may quote what was sent or met."""
        self._known = known or KnownSecrets()
        self._api = api
        self._home = home
        self._token = b""
        self._runner: web.AppRunner | None = None
        self._streams: set[asyncio.Task[Any]] = set()
        self._requests: Counter[tuple[str, int]] = Counter()

    async def start(self, port: int = 0) -> str:
        """Listen, write ``api.token`` (kept from earlier runs) and ``api.json``, and return the URL.

        ``port`` is the one to have if it is free.
        """
        self._token = f"Bearer {_load_token(self._home)}".encode()
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY)
        for route in ROUTES:
            app.router.add_route(route.verb, route.path, self._handler(route))
        app.router.add_get("/events", self._events, allow_head=False)
        app.router.add_get("/metrics", self._metrics, allow_head=False)
        app.router.add_get("/openapi.json", self._openapi, allow_head=False)
        self._runner = JsonErrorRunner(
            app,
            access_log=None,
            logger=log,
            shutdown_timeout=_STOP_WITHIN_S,
            max_line_size=_LONGEST_LINE,  # too long a name is refused by its route, as JSON
            max_field_size=_LONGEST_LINE,
        )
        await self._runner.setup()
        await self._listen(self._runner, port)
        url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        write_atomic(self._home.api_json, msgspec.json.encode(ApiFile(url, os.getpid())))
        return url

    @staticmethod
    async def _listen(runner: web.AppRunner, port: int) -> None:
        try:
            await web.TCPSite(runner, _LOOPBACK, port).start()
        except OSError:
            if port == 0:
                raise
            await web.TCPSite(runner, _LOOPBACK, 0).start()

    async def stop(self) -> None:
        """Take ``api.json`` away, end the event streams, give running requests 1 s, close the port."""
        if self._runner is None:
            return
        self._home.api_json.unlink(missing_ok=True)
        for stream in self._streams:
            stream.cancel()
        await self._runner.cleanup()
        self._runner = None

    # -- around every request ---------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check(request)
            response = await handler(request)
        except InstarError as error:
            response = self._failure(error)
        except web.HTTPException as error:
            response = self._failure(_http_error(error, request))
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except web.RequestPayloadError:  # chunks or compression that are none
            response = self._failure(unreadable())
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            response = self._failure(InstarError("internal", "the node failed; see its log", status=500))
        self._requests[(_name_of(request), response.status)] += 1
        return response

    def _failure(self, error: InstarError) -> web.Response:
        response = _json({"error": self._known.blank_all(error.to_json())}, error.status)
        if error.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    def _check(self, request: web.Request) -> None:
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

    def _authorized(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(given, self._token)

    # -- the routes -------------------------------------------------------------------------------------

    def _handler(self, route: Route[Any]) -> Handler:
        call = getattr(self._api, route.method)

        async def handle(request: web.Request) -> web.Response:
            query = request.query if request.query_string else {}
            arguments = read_arguments(route, request.match_info, query)
            if route.body is not None:
                arguments["body"] = read_body(route.body, await request.read())
            reply = await call(**arguments)
            return _json(reply, route.status_of(reply))

        return self._health if route is HEALTH else handle

    async def _health(self, request: web.Request) -> web.Response:
        """Always 200, so that a monitor can tell "unwell" from "gone"; without the token only the status."""
        try:
            health = await self._api.health()
        except Exception:
            log.exception("health could not be told")
            return _json({"status": "alarm"})
        return _json(health if self._authorized(request) else {"status": health.status})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            return await stream_events(self._api, request)
        finally:
            self._streams.discard(task)

    async def _metrics(self, _request: web.Request) -> web.Response:
        text = render_metrics(await self._api.status(), self._requests)
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    async def _openapi(self, _request: web.Request) -> web.Response:
        return _json(openapi_document())


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


def _json(content: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), status=status, content_type="application/json")


def _http_error(error: web.HTTPException, request: web.Request) -> InstarError:
    """What aiohttp itself refuses, in our words."""
    if error.status == 404:
        return InstarError(
            "no-such-route", f"there is no {request.path}", "GET /openapi.json lists all routes", status=404
        )
    if error.status == 405:
        return InstarError("no-such-method", f"{request.path} does not take {request.method}", status=405)
    if error.status == 413:
        return InstarError("too-large", f"the body is larger than {MAX_BODY} bytes", status=413)
    return InstarError("bad-request", error.reason, status=error.status)


def _name_of(request: web.Request) -> str:
    """The route as the table has it, so that metrics do not grow with topics and ids."""
    resource = request.match_info.route.resource
    return f"{request.method} {resource.canonical}" if resource is not None else "unknown"
