"""Ports of the loopback interface for servers that tests start, and start again."""

from __future__ import annotations

import random
import socket

BELOW_EPHEMERAL = range(12_000, 32_000)
"""The system gives none of these to outgoing connections, so who was away finds its port free again."""

_draw = random.SystemRandom()
"""Whatever a test seeds, each worker draws other ports."""


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    while True:
        port = _draw.choice(BELOW_EPHEMERAL)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
