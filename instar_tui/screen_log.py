"""Where the screens log: a file of the home, because a terminal in use has no room for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instar_node.config import Config
    from instar_node.storage.home import Home

MAX_BYTES = 1_000_000


@contextmanager
def screen_log(home: Home, config: Config) -> Iterator[None]:
    """Warnings and errors of the screens go to ``logs/tui.jsonl`` while the context lasts.

    The file is opened with the first record. An embedded node has them in its own log too.
    """
    handler = _WhenNeeded(home, config)
    logger = logging.getLogger("instar.tui")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


class _WhenNeeded(logging.Handler):
    """Costs nothing before there is something to log: start-up has no time to spare."""

    def __init__(self, home: Home, config: Config) -> None:
        super().__init__(logging.WARNING)
        self._home = home
        self._config = config
        self._file: logging.Handler | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self._file is None:
            from instar_node.known_secrets import KnownSecrets
            from instar_node.node_log import JsonLines, PrivateFile

            self._home.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = PrivateFile(
                self._home.logs / "tui.jsonl", maxBytes=MAX_BYTES, backupCount=1, encoding="utf-8"
            )
            webhook = self._config.channels.webhook
            self._file.setFormatter(JsonLines(KnownSecrets(lambda: (webhook.secret,))))
        self._file.emit(record)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()
