"""What is typed and not sent: kept while an update restarts the program around the person who types."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from instar_node.errors import InstarError
from instar_node.storage.atomic import read_json, write_atomic

log = logging.getLogger("instar.tui")


class Unsent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text in the line of a conversation.

    Attributes:
        reply_to: Key of the message it is to answer; ``None`` for a message of its own.
    """

    topic: str
    text: str
    reply_to: str | None = None


def keep(path: Path, unsent: Unsent) -> None:
    """Write it for the program that starts next, readable by this account only.

    Raises ``InstarError``: ``disk-full`` or ``write-failed``.
    """
    write_atomic(path, msgspec.json.encode(unsent) + b"\n")


def take(path: Path) -> Unsent | None:
    """What was kept, once: the file is gone afterwards. One that cannot be read is left, and logged."""
    if not path.exists():
        return None
    try:
        unsent = read_json(path, Unsent)
        path.unlink()
    except (InstarError, OSError) as error:
        log.warning("the unsent text in %s cannot be taken up: %s", path, error)
        return None
    return unsent
