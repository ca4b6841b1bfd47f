"""Which change sets stand in a state: the file in it that makes every edit count once. Pure.

It travels in the same commit as the edits themselves, so that whoever goes on from that commit knows, and
whoever goes on without it takes the edits in again.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from instar_node.errors import InstarError
from instar_node.sync.paths import APPLIED_FILE
from instar_node.sync.tree import Files


class Newest(msgspec.Struct, frozen=True):
    """The newest change set of one machine."""

    queue_id: str
    number: int


Table = dict[str, Newest]
"""Machine id → the newest of its change sets that was taken in."""


def read_applied(files: Files, blob: Callable[[str], bytes]) -> Table:
    """The table of a state. Raises ``InstarError("bad-tree")`` when it is damaged."""
    file = files.get(APPLIED_FILE)
    if file is None:
        return {}
    try:
        return msgspec.json.decode(blob(file.oid), type=Table)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InstarError("bad-tree", f"{APPLIED_FILE} is damaged: {error}", status=422) from error


def applied_number(files: Files, blob: Callable[[str], bytes], machine_id: str, queue_id: str) -> int:
    """The number of the newest change set of a queue in a state; 0 when there is none of that queue."""
    newest = read_applied(files, blob).get(machine_id)
    return newest.number if newest is not None and newest.queue_id == queue_id else 0


def encode_applied(table: Table) -> bytes:
    """The content of the file."""
    return msgspec.json.format(msgspec.json.encode(table, order="sorted"), indent=1) + b"\n"
