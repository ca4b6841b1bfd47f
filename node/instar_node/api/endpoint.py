"""How clients find the node that runs on a home, and how answers become values or errors."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from instar_node.api.routes import Route
from instar_node.errors import InstarError
from instar_node.storage.home import Home

R = TypeVar("R", bound=msgspec.Struct)


class ApiFile(msgspec.Struct):
    """Content of ``<home>/api.json`` while a node runs."""

    url: str
    pid: int


class Endpoint(NamedTuple):
    """Where the node of a home listens, and the token it wants."""

    url: str
    pid: int
    token: str

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of ``url``. Raises ``ValueError`` when it names none."""
        parts = urlsplit(self.url)
        if not parts.hostname or not parts.port:
            raise ValueError(f"{self.url!r} names no port")
        return parts.hostname, parts.port

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def find_endpoint(home: Home) -> Endpoint:
    """The endpoint written by the node on ``home``; it may have crashed since.

    Raises ``node-not-running`` when there is none.
    """
    try:
        file = msgspec.json.decode(home.api_json.read_bytes(), type=ApiFile)
        endpoint = Endpoint(file.url, file.pid, home.api_token.read_text(encoding="ascii").strip())
        _ = endpoint.address
    except (OSError, ValueError) as error:  # msgspec.DecodeError is a ValueError
        raise not_running(home) from error
    return endpoint


def not_running(home: Home) -> InstarError:
    """No node runs on this home."""
    return InstarError(
        "node-not-running",
        f"no node runs on {home.path}",
        "start one with `instar-tui`, or without a screen with `instar-tui --daemon`",
        status=503,
    )


def no_answer(method: str, seconds: float) -> InstarError:
    """The node took the request and did not answer in time: what became of it is not known."""
    return InstarError(
        "no-answer",
        f"the node did not answer {method} within {seconds:g} s; it may still carry it out",
        "look with `instar status` before repeating it",
        status=504,
    )


def read_answer(route: Route[R], status: int, raw: bytes) -> R:
    """The reply, or the ``InstarError`` that the node answered with."""
    try:
        if status == 200:
            return msgspec.json.decode(raw, type=route.reply)
        content = msgspec.json.decode(raw, type=dict[str, Any])
        if "error" not in content:
            return msgspec.convert(content, route.reply)
    except msgspec.DecodeError as error:  # ValidationError included
        raise InstarError(
            "bad-answer",
            f"the answer to {route.verb} {route.path} (status {status}) is not understood: {error}",
            "are the node and this command of the same version?",
            status=502,
        ) from error
    raise _error(content["error"], status)


def _error(content: dict[str, Any], status: int) -> InstarError:
    extra = {name: value for name, value in content.items() if name not in ("code", "message", "hint")}
    return InstarError(
        str(content.get("code", "unknown")),
        str(content.get("message", "")),
        str(content.get("hint", "")),
        status=status,
        extra=extra,
    )
