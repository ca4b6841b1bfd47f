"""Two signed records that cannot both be of one honest register: the evidence of a split brain."""

from __future__ import annotations

from instar_node.coordination.lease_mutations import Mutations
from instar_node.coordination.record import KnownRecord, epoch_text, generation


def contradiction(one: KnownRecord, other: KnownRecord, mutations: Mutations) -> str | None:
    """Why these two records cannot both come from one register; ``None`` when they can.

    Anybody who is shown both can repeat the judgement. Records of different epochs of one line never
    contradict each other, so late frames and racing losers raise nothing.
    """
    if one.version == other.version:
        return None
    first, second = one.record, other.record
    if first.epoch == second.epoch and not mutations.ignore_twins:
        if first.holder != second.holder:
            return f"epoch {epoch_text(first.epoch)} is held by {first.holder} and by {second.holder}"
        if first.serial == second.serial:
            return (
                f"two records {second.serial} of epoch {epoch_text(second.epoch)} exist: "
                f"{one.version[:12]} and {other.version[:12]}"
            )
    if generation(first.epoch) != generation(second.epoch):
        return None
    if first.origin != second.origin and not mutations.ignore_second_force:
        return (
            f"generation {generation(first.epoch)} was begun by force twice: "
            f"{first.holder} and {second.holder} are of different lines"
        )
    if first.order == second.order or mutations.trust_any_successor:
        return None
    older, newer = (one, other) if first.order < second.order else (other, one)
    step = newer.record.serial - older.record.serial
    if step < 1 or (step == 1 and newer.record.prev != older.version):
        return (
            f"record {newer.record.serial} of {newer.record.holder} does not follow "
            f"record {older.record.serial} of {older.record.holder}"
        )
    return None
