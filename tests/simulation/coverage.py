"""What happened in a world, counted by kind: a promise is only shown to hold under what really occurred."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from instar_node.coordination.record import generation

if TYPE_CHECKING:
    from instar_node.coordination.record import LeaseRecord

NETWORK = (
    "message lost",
    "message later than a ttl",
    "message doubled",
    "message overtaken by a later one",
    "cut in one direction",
    "machine isolated",
)
MACHINES = (
    "crash with loss of memory",
    "clock begins anew at a start",
    "suspend",
    "woke up after its lease had run out",
    "clock as fast or slow as allowed",
    "wall clock jumps",
    "lone holder restarted and won its next epoch",
)
HUB = (
    "hub gone",
    "hub slow",
    "hub answers after the caller gave up",
    "swap of unknown outcome",
    "unknown swap sent again",
    "unknown swap landed later",
    "swap landed after its sender crashed",
    "hub rewound",
)
OWNERSHIP = (
    "takeover after a silence",
    "takeover from the bench",
    "takeover after a release",
    "takeover by a token",
    "bench or take-back lost against a takeover",
    "takeover lost against the holder's own swap",
    "takeover lost against another one",
    "token lost",
    "token too late",
    "lapsed holder went on in its epoch",
)
MEMBERS = (
    "benched for silence",
    "benched for slowness",
    "taken back from the bench",
    "checkpoint while somebody is benched",
    "machine removed",
    "machine admitted",
)
LEDGER = (
    "row acknowledged",
    "row held back by the electorate",
    "standby caught up",
    "rows handed up",
    "missing rows reported",
)
BATON = (
    "baton closed",
    "baton opened",
    "baton declined",
    "closer goes on two epochs up",
    "closing repeated",
    "closing came again after it was settled",
)
PEOPLE = (
    "forced awake",
    "moved to another hub",
    "moved to the own disk",
    "moved back to an earlier hub",
    "new hub opened by its mover",
    "new hub opened by another",
)
SPLIT_BRAIN = (
    "stopped for evidence of a split brain",
    "split brain healed",
)

EXPECTED = (
    *NETWORK,
    *MACHINES,
    *HUB,
    *OWNERSHIP,
    *MEMBERS,
    *LEDGER,
    *BATON,
    *PEOPLE,
    *SPLIT_BRAIN,
)
"""Kinds that worlds must show: a few hundred of them show all."""


def table(seen: Counter[str]) -> str:
    """How often each kind happened, for people."""
    return "\n".join(f"{seen[kind]:>10}  {kind}" for kind in EXPECTED)


def change_of_holder(before: LeaseRecord, after: LeaseRecord) -> str | None:
    """By which of the rules a swap that landed began a new epoch; ``None`` for one that began none."""
    if after.epoch == before.epoch or generation(after.epoch) != generation(before.epoch):
        return None
    if before.state == "closed" and not before.moves:
        return "baton opened" if after.holder == before.successor else "closer goes on two epochs up"
    if before.moves:
        return "new hub opened by its mover" if after.holder == before.holder else "new hub opened by another"
    if after.holder == before.holder:
        alone = before.electorate == (before.holder,) and not before.benched
        return "lone holder restarted and won its next epoch" if alone else None
    if after.holder in before.benched:
        return "takeover from the bench"
    if before.state == "released":
        return "takeover after a release"
    return "takeover by a token" if before.holder in after.electorate else "takeover after a silence"


def changes_of_members(before: LeaseRecord, after: LeaseRecord) -> list[str]:
    """What a holder's own swap did to electorate and bench."""
    if after.epoch != before.epoch or after.state != "held":
        return []
    was, now = {*before.electorate}, {*after.electorate}
    everybody, remaining = was | {*before.benched}, now | {*after.benched}
    kinds = {
        "benched for slowness": "too slow" in after.reason,
        "benched for silence": "missed" in after.reason or "silent" in after.reason,
        "taken back from the bench": bool(now & {*before.benched}),
        "machine removed": bool(everybody - remaining),
        "machine admitted": bool(remaining - everybody),
        "checkpoint while somebody is benched": after.reason == "checkpoint",
    }
    return [kind for kind, happened in kinds.items() if happened]
