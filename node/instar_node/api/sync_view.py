"""The shared state for people: ``GET /sync``, the ``sync`` part of health, and what calls for attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from instar_node.api import types as t
from instar_node.api.lease_picture import STATE_BEHIND_HINT
from instar_node.api.parts import NodeParts
from instar_node.clock import iso
from instar_node.identity.registry import MachineRegistry
from instar_node.sync.changes import ChangeSet
from instar_node.sync.facts import SyncFacts
from instar_node.sync.memory import RefusedLine

HUB = "hub"


def sync_view(parts: NodeParts) -> t.SyncView:
    """The whole picture. Names of files are blanked where they contain a secret."""
    facts, registry, wall = parts.state.facts(), parts.base.registry, parts.base.clock.wall()
    view = t.SyncView(
        state=_state(facts),
        head=facts.head,
        epoch=facts.epoch,
        signed_by=facts.signer,
        files=facts.files,
        writes=facts.writes,
        last_push=_at(wall, facts.pushed_us_ago),
        last_pull=_at(wall, facts.pulled_us_ago),
        unpushed=facts.head is not None and facts.head != facts.published,
        hub_error=facts.hub_error,
        trouble=facts.trouble or facts.behind,
        queued=[row for change in facts.queue for row in _queued(change)],
        refused=[_refused(line, registry) for line in facts.refused],
        conflicts=[
            t.SyncConflict(c.path, c.kept_as, c.machine_id, registry.nickname(c.machine_id), c.at)
            for c in facts.conflicts
        ],
        left_out=[t.SyncLeftOut(path, why) for path, why in sorted(facts.left_out.items())],
        unwritten=[t.SyncLeftOut(path, why) for path, why in sorted(facts.unwritten.items())],
        folder=str(parts.state.folder),
    )
    return msgspec.convert(parts.base.known.blank_all(msgspec.to_builtins(view)), t.SyncView)


def sync_health(parts: NodeParts) -> dict[str, Any]:
    """What ``GET /health`` says of the state."""
    facts = parts.state.facts()
    return {
        "state": _state(facts),
        "state_head": None if facts.head is None else facts.head[:12],
        "state_files": facts.files,
        "queued_changes": sum(len(change.edits) for change in facts.queue),
        "refused_commits": len(facts.refused),
        "conflicts": len(facts.conflicts),
        "last_push_ms_ago": None if facts.pushed_us_ago is None else facts.pushed_us_ago // 1_000,
        "last_pull_ms_ago": None if facts.pulled_us_ago is None else facts.pulled_us_ago // 1_000,
    }


def sync_alerts(parts: NodeParts) -> Iterator[t.Alert]:
    """What a person should know of the state."""
    facts, registry = parts.state.facts(), parts.base.registry
    if facts.refused:
        newest = _refused(facts.refused[-1], registry)
        yield t.Alert(
            "state-refused",
            f"the state that {newest.source} showed was refused: {newest.why}",
            "`instar sync` lists what was refused; whoever can write to the hub is not of your mesh, or a "
            "machine of it is not yours any more: `instar sync --seen` once you know",
        )
    if facts.behind is not None and parts.base.lease.acting_epoch() is not None:
        yield t.Alert(
            "state-behind",
            f"this machine is awake and cannot write the state: {facts.behind}",
            "it does once the hub, or a machine that has that state, can be reached; if all are gone for "
            "good, stop this machine and run `instar wakeup --force` on another",
        )
    elif facts.behind is not None:
        yield t.Alert(
            "state-behind", f"this machine does not take over by itself: {facts.behind}", STATE_BEHIND_HINT
        )
    if facts.trouble is not None:
        yield t.Alert("state-trouble", f"the state folder is not in step: {facts.trouble}")
    if facts.unwritten:
        path, why = next(iter(sorted(facts.unwritten.items())))
        more = f" (and {len(facts.unwritten) - 1} more)" if len(facts.unwritten) > 1 else ""
        yield t.Alert("state-unwritten", f"state/{path} is not up to date: {why}{more}", "move it aside")


def _state(facts: SyncFacts) -> t.SyncState:
    """In one word: ``empty``, ``in-sync``, ``queued`` (own edits wait), ``unpushed`` or ``behind``."""
    if facts.behind is not None:
        return "behind"
    if facts.queue:
        return "queued"
    if facts.head is None:
        return "empty"
    return "in-sync" if facts.head == facts.published else "unpushed"


def _queued(change: ChangeSet) -> Iterator[t.QueuedChange]:
    for edit in change.edits:
        kind: Literal["added", "changed", "deleted"] = (
            "deleted" if edit.now is None else "added" if edit.base is None else "changed"
        )
        yield t.QueuedChange(edit.path, kind, change.at, change.number)


def _refused(line: RefusedLine, registry: MachineRegistry) -> t.RefusedCommit:
    source = "the hub" if line.source == HUB else registry.nickname(line.source)
    return t.RefusedCommit(line.commit, line.code, line.why, source, line.at)


def _at(wall: float, us_ago: int | None) -> str | None:
    return None if us_ago is None else iso(wall - us_ago / 1e6)
