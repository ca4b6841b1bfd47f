"""Requests and answers of the local HTTP API, as values (RFC 9110, RFC 9112)."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from aiohttp.http import RawRequestMessage

from instar_node.api.routes import MAX_BODY
from instar_node.errors import InstarError


class Request:
    """One request, read to its end."""

    __slots__ = ("_body", "_head")

    def __init__(self, head: RawRequestMessage, body: bytes | InstarError) -> None:
        """``body`` is why it is refused where it cannot be read."""
        self._head = head
        self._body = body

    @property
    def method(self) -> str:
        return self._head.method

    @property
    def path(self) -> str:
        """As it was sent: still percent-encoded, without the query."""
        return self._head.url.raw_path

    @property
    def query(self) -> Mapping[str, str]:
        return self._head.url.query if self._head.url.raw_query_string else {}

    @property
    def headers(self) -> Mapping[str, str]:
        """By name, in any case."""
        return self._head.headers

    def body(self) -> bytes:
        """The whole body. Raises ``InstarError``: ``too-large``, ``bad-request``."""
        if isinstance(self._body, InstarError):
            raise self._body
        return self._body


class Answer(NamedTuple):
    """A whole answer."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self, connection: str, *, bodiless: bool) -> bytes:
        """The answer as it goes over the wire, in one piece.

        ``connection`` is what is said of it (``keep-alive``, ``close``; empty: nothing); ``bodiless`` when
        HEAD was asked.
        """
        length = ("Content-Length", str(len(self.body)))
        head = _head(self.status, self.content_type, (length, *self.headers), connection)
        return head if bodiless else head + self.body


class Stream(NamedTuple):
    """An answer that comes piece by piece, for as long as there are pieces."""

    pieces: AsyncGenerator[bytes, None]
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()
    status: int = 200

    def head(self, connection: str, *, chunked: bool) -> bytes:
        """What goes before the pieces. What is not ``chunked`` ends with the connection (HTTP/1.0)."""
        coding = (("Transfer-Encoding", "chunked"),) if chunked else ()
        return _head(self.status, self.content_type, (*coding, *self.headers), connection)


def chunk(piece: bytes) -> bytes:
    """A piece in the chunked transfer coding (RFC 9112, 7.1); an empty one ends the answer."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def as_json(content: Any, status: int = 200) -> Answer:
    """An answer in JSON."""
    return Answer(msgspec.json.encode(content), status)


def unreadable() -> InstarError:
    """A request whose bytes are not what its protocol, or its own headers, say."""
    return InstarError(
        "bad-request",
        "the request cannot be read",
        "send plain HTTP/1.1: an encoded path, a known method, a body that is what its headers say",
        status=400,
    )


def too_large() -> InstarError:
    """A request with more than ``MAX_BODY`` bytes."""
    return InstarError("too-large", f"the body is larger than {MAX_BODY} bytes", status=413)


def _head(status: int, content_type: str, headers: tuple[tuple[str, str], ...], connection: str) -> bytes:
    """Status line and headers (RFC 9112, 4 and 5)."""
    lines = f"{_status_line(status)}Content-Type: {content_type}\r\nDate: {_date(int(time.time()))}\r\n"
    for name, value in headers:
        lines += f"{name}: {value}\r\n"
    if connection:
        lines += f"Connection: {connection}\r\n"
    return f"{lines}\r\n".encode("latin-1")


@lru_cache(maxsize=64)
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
