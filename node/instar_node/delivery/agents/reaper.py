"""Process groups of running agents on record, so that the next start can end what a dead node left."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import msgspec

from instar_node.delivery.agents.process_identity import group_of_run, identity
from instar_node.storage.private import private_opener

log = logging.getLogger("instar.agents")

Group = int


class RunRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One running agent: its process group, who leads it, and the message it answers."""

    group: Group
    identity: str
    key: str


class RunRecords:
    """``<home>/machine/runs.json``: the groups running now.

    Written without fsync on purpose: the file matters after a crash of the node, which leaves the page cache
    intact; a crash of the whole machine ends the agents as well.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[Group, RunRecord] = {}

    def add(self, group: Group, key: str) -> None:
        """Put a group that was just started on record."""
        started = identity(group)
        if started is not None:
            self._records[group] = RunRecord(group, started, key)
            self._save()

    def remove(self, group: Group) -> None:
        """Strike a group that has ended."""
        if self._records.pop(group, None) is not None:
            self._save()

    def reap(self) -> list[str]:
        """Kill what an earlier node of this home left running; returns the keys of those messages.

        Called once at start, before the first run. A recorded number that now belongs to another process is
        left alone. A damaged record file is put aside (``runs.json.damaged``) and logged.
        """
        killed = [record.key for record in self._load() if _kill_leftover(record)]
        for key in killed:
            log.warning("killed an agent that outlived its node (message %s)", key)
        self._save()
        return killed

    def _load(self) -> list[RunRecord]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[RunRecord])
        except FileNotFoundError:
            return []
        except msgspec.DecodeError as error:
            damaged = self._path.with_suffix(".json.damaged")
            self._path.replace(damaged)
            log.error("agent records unreadable (%s); put aside as %s", error, damaged.name)
            return []

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".json.new")
        with open(draft, "wb", opener=private_opener) as file:
            file.write(msgspec.json.encode(list(self._records.values())))
        draft.replace(self._path)


def _kill_leftover(record: RunRecord) -> bool:
    leader = identity(record.group)
    if leader is not None and leader != record.identity:
        return False
    if leader is None and not group_of_run(record.group, record.key):
        return False
    return kill_group(record.group, signal.SIGKILL)


def kill_group(group: Group, sig: signal.Signals) -> bool:
    """Signal every process of a group; ``False`` when none is left."""
    try:
        os.killpg(group, sig)
    except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        return False
    return True
