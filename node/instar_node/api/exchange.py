"""One request to the node on this computer and its answer, over a plain socket.

``http.client`` would do, but it loads ``ssl`` and the e-mail package: a quarter of the time of a command.
Speaking HTTP/1.0 (RFC 1945) keeps the rest away: no chunks, and the connection serves one request.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping


def exchange(
    address: tuple[str, int],
    verb: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes | None,
    within_s: float,
) -> tuple[int, bytes]:
    """Status and content of the answer.

    Raises ``TimeoutError`` when the node says nothing for ``within_s`` seconds, ``OSError`` when it cannot be
    reached, or breaks off before the answer is whole.
    """
    content = body or b""
    lines = {"Host": "{}:{}".format(*address), **headers, "Content-Length": str(len(content))}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    with socket.socket() as connection:  # the address is numeric: nothing to resolve
        connection.settimeout(within_s)
        connection.connect(address)
        connection.sendall(f"{verb} {target} HTTP/1.0\r\n{head}\r\n".encode("ascii") + content)
        with connection.makefile("rb") as answer:
            return _answer(answer.read())


def _answer(raw: bytes) -> tuple[int, bytes]:
    head, end, content = raw.partition(b"\r\n\r\n")
    first, *fields = head.split(b"\r\n")
    try:
        status = int(first.split(b" ", 2)[1])
        lengths = [int(field[15:]) for field in fields if field[:15].lower() == b"content-length:"]
    except (IndexError, ValueError) as error:
        raise ConnectionError(f"this is no HTTP answer: {first[:80]!r}") from error
    if not end or lengths != [len(content)]:
        raise ConnectionError("the answer was cut off")
    return status, content
