"""``TopicPlacementDescription``: where a topic runs and why, for people and scripts. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from instar_node.contracts import Placement
from instar_node.pool.placement import owner_now, ownership

Reason = Literal["pinned", "placed", "unowned"]


class TopicPlacementDescription(msgspec.Struct, frozen=True):
    """One topic's placement as the API shows it (all of ``PlacementView`` but who answered).

    ``owner`` is the machine that would run a message now; ``None`` while the topic waits for its pin.
    """

    topic: str
    owner: str | None
    owner_nickname: str | None
    reason: Reason
    pinned_to: str | None
    lease_holder: str | None
    lease_holder_nickname: str | None
    pin_state: Literal["actuated", "pending", "none"]
    is_this_machine: bool
    pending_reason: str | None
    ownership_epoch: tuple[int, int] | None


def describe(
    topic: str,
    placement: Placement | None,
    *,
    me: str,
    holder: str | None,
    epoch: int,
    away: Callable[[str], str | None],
    nickname: Callable[[str], str],
) -> TopicPlacementDescription:
    """Say where ``topic`` runs, by the same rules that route its next message.

    ``away(machine)`` says why nothing can be run on a machine now; ``None`` when something can.
    """
    pin = placement.pinned_to if placement is not None else None
    owner = owner_now(placement, holder=holder, epoch=epoch, online=lambda machine: away(machine) is None)
    pending: str | None = None
    reason: Reason
    if pin is not None:
        reason = "pinned"
        if (why := away(pin)) is not None:
            pending = f"{nickname(pin)} {why}"
        elif owner is None:
            pending = f"moving to {nickname(pin)}"
    elif placement is None or placement.reason == "unowned":
        reason = "unowned"
    else:
        reason = "placed"
    return TopicPlacementDescription(
        topic=topic,
        owner=owner,
        owner_nickname=None if owner is None else nickname(owner),
        reason=reason,
        pinned_to=pin,
        lease_holder=holder,
        lease_holder_nickname=None if holder is None else nickname(holder),
        pin_state="none" if pin is None else "pending" if pending else "actuated",
        is_this_machine=owner is not None and owner == me,
        pending_reason=pending,
        ownership_epoch=None if placement is None else ownership(placement),
    )
