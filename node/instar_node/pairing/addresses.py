"""Addresses as people type and read them."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from instar_node.errors import bad_input
from instar_node.identity.addresses import is_loopback


def normal_url(url: str) -> str:
    """``http://host:port`` of what a person typed; the scheme may be left out, a path is kept.

    Raises ``bad-input`` for what is no http address.
    """
    text = url.strip()
    full = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(full)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or any(char.isspace() for char in full):
        raise bad_input("url", f"{url[:80]!r} is not an address", "such as http://192.168.1.20:7707")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def best_url(urls: Iterable[str]) -> str | None:
    """The address to show: the first that other hosts can reach, else the first."""
    listed = list(urls)
    return next((url for url in listed if not is_loopback(url)), listed[0] if listed else None)
