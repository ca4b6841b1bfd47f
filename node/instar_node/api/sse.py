"""Events as server-sent events (WHATWG HTML, section 9.2): one JSON line each, numbered for resuming."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from instar_node.events import Event

KEEP_ALIVE = b": still here\n\n"
"""A comment; sent when nothing happens so that both sides notice a dead connection."""
KEEP_ALIVE_S = 10.0

_decoder = msgspec.json.Decoder(Event)


def encode_event(event: Event) -> bytes:
    """``id`` is the number to resume after; a ``gap`` event repeats the number of the last one known."""
    return b"id: %d\ndata: %b\n\n" % (event.n, msgspec.json.encode(event))


class EventParser:
    """Cuts a stream of bytes into events; understands what ``encode_event`` writes, and comments."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events completed by ``chunk``. Raises ``msgspec.DecodeError`` for one that is not ours."""
        *blocks, self._rest = (self._rest + chunk).split(b"\n\n")
        for block in blocks:
            for line in block.split(b"\n"):
                if line.startswith(b"data: "):
                    yield _decoder.decode(line[6:])
