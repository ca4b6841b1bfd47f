"""What cannot be read as HTTP is refused as JSON, like everything else that is wrong with a request.

The web server answers such bytes itself, in plain text, before any of our code sees them: only the class of
its connections can change that.
"""

from __future__ import annotations

from aiohttp import web

from instar_node.errors import InstarError


def unreadable(status: int = 400) -> InstarError:
    """A request whose bytes are not what its protocol, or its own headers, say."""
    return InstarError(
        "bad-request",
        "the request cannot be read",
        "send plain HTTP/1.1: an encoded path, a known method, a body that is what its headers say",
        status=status,
    )


class JsonErrorRunner(web.AppRunner):
    """Runs an application whose connections refuse in JSON."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server
        return server


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        connection = super().__call__()
        connection.__class__ = _Connection
        return connection


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        plain = super().handle_error(request, status, exc, message)  # logs it
        if plain.status >= 500:
            return plain
        told = web.json_response({"error": unreadable(plain.status).to_json()}, status=plain.status)
        told.force_close()
        return told
