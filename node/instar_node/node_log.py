"""The node's log: one JSON object a line in ``<home>/logs/node.jsonl``, rotating, secrets blanked out.

Records are written by a thread of their own: a slow disk must not delay a lease round.
"""

from __future__ import annotations

import logging
import os
import queue
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedWriter, FileIO, TextIOWrapper
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler

import msgspec

from instar_node.clock import iso
from instar_node.config import Config
from instar_node.known_secrets import MARK, KnownSecrets
from instar_node.livetail.redaction import Redactor
from instar_node.storage.home import Home
from instar_node.storage.private import private_opener
from instar_node.surprises import LIBRARIES

MAX_BYTES = 5_000_000
KEPT_FILES = 4
_PAIRING_CODE = re.compile(r"\b[A-Za-z]{3,8}-[A-Za-z]{3,8}-\d{4}\b")


@contextmanager
def node_log(home: Home, config: Config) -> Iterator[KnownSecrets]:
    """Log everything below the ``instar`` logger to the home's file while the context lasts.

    What it gives is for the node, which adds the values of its vault: they are blanked out from then on.
    """
    known = KnownSecrets(lambda: (config.channels.webhook.secret,))
    home.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = PrivateFile(home.logs / "node.jsonl", maxBytes=MAX_BYTES, backupCount=KEPT_FILES, encoding="utf-8")
    file.setFormatter(JsonLines(known))
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    handler = _Handler(records)
    listener = QueueListener(records, file)
    listener.start()
    with ExitStack() as closing:
        closing.callback(file.close)
        closing.callback(listener.stop)
        closing.enter_context(_listening("instar", handler, config.node.log_level.upper()))
        for library in LIBRARIES:
            closing.enter_context(_listening(library, handler, "WARNING"))
        yield known


@contextmanager
def _listening(name: str, handler: logging.Handler, level: str) -> Iterator[None]:
    """Have the handler hear this logger, and nobody else: a line on the terminal would spoil the screens."""
    logger = logging.getLogger(name)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


class PrivateFile(RotatingFileHandler):
    """A log that only its owner may read, also after it was rotated."""

    def _open(self) -> TextIOWrapper:
        descriptor = private_opener(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return TextIOWrapper(BufferedWriter(FileIO(descriptor, "a")), encoding=self.encoding)


class _Handler(QueueHandler):
    """Hands records over as they are: nothing here is pickled, and the formatter wants the exception."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record


class JsonLines(logging.Formatter):
    """A record as one line of JSON: ``at, level, part, message`` and, for a failure, ``exception``."""

    def __init__(self, known: KnownSecrets) -> None:
        super().__init__()
        self._redactor = Redactor(known)

    def format(self, record: logging.LogRecord) -> str:
        """The line; secrets are blanked out wherever they stand."""
        line = {
            "at": iso(record.created),
            "level": record.levelname.lower(),
            "part": record.name.removeprefix("instar."),
            "message": self._redacted(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = self._redacted(self.formatException(record.exc_info))
        return msgspec.json.encode(line).decode()

    def _redacted(self, text: str) -> str:
        return _PAIRING_CODE.sub(MARK.format("pairing-code"), self._redactor.redact(text))
