"""One POST to a machine that is not paired yet: what a joiner speaks."""

from __future__ import annotations

from urllib.parse import urlsplit

import aiohttp

from instar_node.errors import InstarError, bad_input
from instar_node.mesh.addresses import http_host

MAX_ANSWER = 64 * 1024
"""Bytes of an answer; more is not an answer of ours."""


async def post_bytes(url: str, body: bytes, timeout: float) -> tuple[int, bytes]:  # noqa: ASYNC109
    """POST ``body`` and return status and body of the answer, whatever the status.

    Args:
        url: Where, ``http://`` or ``https://``.
        timeout: Seconds for the whole exchange.

    Raises:
        InstarError: ``bad-input`` for a URL that is none; ``unreachable`` with a hint that fits the cause.
    """
    if http_host(url) is None:
        raise bad_input("url", f"{url!r} is not an http(s) address", "it looks like http://192.168.1.20:7707")
    try:
        limits = aiohttp.ClientTimeout(total=timeout)
        async with aiohttp.ClientSession(timeout=limits) as session:
            return await _post(session, url, body)
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        raise _unreachable(url, error) from error


async def _post(session: aiohttp.ClientSession, url: str, body: bytes) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/octet-stream"}
    async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
        answer = bytearray()
        async for piece in response.content.iter_chunked(8_192):
            answer += piece
            if len(answer) > MAX_ANSWER:
                raise aiohttp.ClientPayloadError("the answer is too long")
        return response.status, bytes(answer)


def _unreachable(url: str, error: Exception) -> InstarError:
    """Say which step failed and what mends it."""
    where = urlsplit(url).netloc
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        cause, hint = "its name is not known", "check the address, or use the IP address instead"
    elif isinstance(error, (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError)):
        cause, hint = (
            "TLS failed",
            "use http:// (pairing is protected by the code itself) or fix the certificate",
        )
    elif isinstance(error, TimeoutError):
        cause, hint = (
            "no answer in time",
            "check that the machine is on and that no firewall or NAT stands in between",
        )
    elif isinstance(getattr(error, "os_error", error), ConnectionRefusedError):
        cause, hint = (
            "nothing listens there",
            "check the port, and that the node runs there and listens on this network, not only on loopback",
        )
    elif isinstance(error, aiohttp.ClientConnectorError):
        cause, hint = f"no connection ({error.os_error.strerror or error.os_error})", "check the network"
    else:
        cause, hint = f"it answered with something else ({error})", "check that an instar node listens there"
    return InstarError("unreachable", f"{where} cannot be reached: {cause}", hint, status=502)
