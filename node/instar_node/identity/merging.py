"""What to make of another machine's copy of the registry: the pure decision behind ``merge``."""

from __future__ import annotations

from collections.abc import Sequence

from instar_node.errors import InstarError
from instar_node.identity.chain import Folded, RegistryRecord, fold


def judge(ours: Folded, records: Sequence[RegistryRecord]) -> Folded | None:
    """The chain to adopt instead of ``ours``, or ``None`` to stay with ours.

    A continuation of ours is adopted. Of two chains that parted, the one of the higher epoch wins (then the
    longer, then the greater hash), provided that it buries every machine that ours has buried and that all it
    has which ours lacks was signed by machines ours still trusts: a removed machine cannot rewrite its
    removal away. Raises ``InstarError("registry-refused")`` for what must not be believed.
    """
    common = _common_length(ours.records, records)
    if common == len(records) and common > 0:
        return None
    if common == len(ours.records):
        return fold(records[common:], onto=ours)
    theirs = _parted(ours, records, common)
    if not _outranks(theirs, ours):
        return None
    lost = ours.removed - theirs.removed
    if lost:
        raise _refused(f"the chain brings back {', '.join(sorted(lost))}, which was removed")
    return theirs


def buried_elsewhere(ours: Folded, records: Sequence[RegistryRecord]) -> tuple[str, ...]:
    """Machines that are members in ``ours`` but removed in a valid chain that parted from it.

    The holder of the lease removes them again on its own chain, so that no removal is ever lost.
    """
    common = _common_length(ours.records, records)
    if common in (len(records), len(ours.records)):
        return ()
    theirs = _parted(ours, records, common)
    return tuple(sorted(theirs.removed & ours.members.keys() - ours.removed))


def _parted(ours: Folded, records: Sequence[RegistryRecord], common: int) -> Folded:
    """Verify a chain that is not a continuation of ours."""
    theirs = fold(records)
    if theirs.mesh_id != ours.mesh_id:
        raise _refused(f"the chain is of another mesh, {theirs.mesh_id}")
    for record in records[common:]:
        if record.by in ours.removed:
            raise _refused(f"the chain parts from ours by {record.by}, which was removed")
    return theirs


def _common_length(ours: Sequence[RegistryRecord], theirs: Sequence[RegistryRecord]) -> int:
    for n, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return n
    return min(len(ours), len(theirs))


def _outranks(theirs: Folded, ours: Folded) -> bool:
    return (theirs.epoch, len(theirs.records), theirs.head) > (ours.epoch, len(ours.records), ours.head)


def _refused(why: str) -> InstarError:
    return InstarError("registry-refused", why, status=422)
