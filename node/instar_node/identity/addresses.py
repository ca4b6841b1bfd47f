"""Which addresses mean anything to whom. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback_host(host: str) -> bool:
    """Whether ``host`` (name or address) only works on the machine that it belongs to."""
    try:
        address = ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def is_loopback(url: str) -> bool:
    """Whether the address only works on the machine that it belongs to; also true for what is no address."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    return host is None or is_loopback_host(host)


def reachable(urls: Iterable[str], *, same_host: bool) -> tuple[str, ...]:
    """What may be told to a machine: a loopback address never leaves the host."""
    return tuple(url for url in urls if same_host or not is_loopback(url))
