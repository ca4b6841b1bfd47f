"""What a copy lacks of the log, topic by topic. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from instar_node.livetail.entry import Line, line_size


class TopicBehind(NamedTuple):
    """Entries of one topic that a copy lacks, their bytes, and when the oldest was said."""

    topic: str
    entries: int
    bytes: int
    since: str


def count_behind(lines: Iterable[Line]) -> list[TopicBehind]:
    """What these lines come to, in no order."""
    found: dict[str, TopicBehind] = {}
    for line in lines:
        _, entries, size, since = found.get(line.topic) or TopicBehind(line.topic, 0, 0, line.at)
        found[line.topic] = TopicBehind(line.topic, entries + 1, size + line_size(line), min(since, line.at))
    return list(found.values())
