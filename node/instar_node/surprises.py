"""Unexpected errors of the node, counted from its log, so that people hear of them where they look."""

from __future__ import annotations

import logging
from collections import deque
from types import TracebackType
from typing import NamedTuple, Self

from instar_node.clock import MICROS_PER_SECOND, Clock

REMEMBERED_S = 600
"""For so long an unexpected error counts as trouble that is there."""

MOST = 100

LIBRARIES = ("asyncio", "aiohttp")
"""Loggers that tell of errors nobody took up: an exception in a forgotten task, in a request's handler."""


class Surprise(NamedTuple):
    """One unexpected error: when, on the node's own clock in microseconds, and what failed, in one
    line."""

    at: int
    what: str


class Surprises(logging.Handler):
    """While entered: notes everything that is logged with a traceback.

    The node logs an error that it expects in one line; a traceback means that nobody expected it.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(logging.ERROR)
        self._clock = clock
        self._seen: deque[Surprise] = deque(maxlen=MOST)

    def __enter__(self) -> Self:
        for name in ("instar", *LIBRARIES):
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in ("instar", *LIBRARIES):
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging, from any thread."""
        if record.exc_info:
            self._seen.append(Surprise(self._clock.now(), record.getMessage().partition("\n")[0]))

    def recent(self) -> list[Surprise]:
        """Those of the last ten minutes, the newest last; a hundred at most."""
        since = self._clock.now() - REMEMBERED_S * MICROS_PER_SECOND
        return [one for one in self._seen.copy() if one.at >= since]
