"""Addresses of machines: which to try, which to tell, what they become on the wire. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from instar_node.identity.addresses import reachable

MAX_OFFERED = 16
"""Own addresses told to a peer at most."""


def http_host(url: str) -> str | None:
    """The host of an ``http(s)://host[:port]`` address; ``None`` for anything else."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is none
    except ValueError:
        return None
    return parts.hostname if parts.scheme in ("http", "https") else None


def dial_urls(good: str | None, announced: Iterable[str], registered: Iterable[str]) -> list[str]:
    """Addresses to try, best first: what worked, what the machine says itself, what the registry says."""
    candidates = [*([good] if good else []), *announced, *registered]
    return [url for url in dict.fromkeys(candidates) if http_host(url)]


def offered_urls(urls: Iterable[str], *, same_host: bool) -> tuple[str, ...]:
    """The own addresses to tell a peer: a loopback address means nothing on another host."""
    valid = (url for url in urls if http_host(url))
    return reachable(valid, same_host=same_host)[:MAX_OFFERED]


def tunnel_url(url: str) -> str:
    """``http(s)://host:port[/prefix]`` as the WebSocket address of its tunnel."""
    return "ws" + url.removeprefix("http").rstrip("/") + "/mesh/tunnel"
