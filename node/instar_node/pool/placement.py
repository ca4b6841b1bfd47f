"""Where a topic runs: the rules. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from instar_node.contracts import Placement

OVERLOAD = 0.85
"""A machine at this load or above begins nothing that a less loaded one could do."""
MARGIN = 0.15
"""How much less loaded the other must be; smaller differences are noise."""


class Candidate(Protocol):
    """A machine that could run a topic. Each property is looked up when it is asked for: whoever decides
    asks for as few as it can, since every message is decided on."""

    @property
    def machine_id(self) -> str: ...

    @property
    def online(self) -> bool:
        """Whether something can be run there now."""

    @property
    def load(self) -> float:
        """Its running agents over how many it can run; 0 when it is away."""

    @property
    def open(self) -> bool:
        """Whether it may be given something new. One that may not (its gate is shut, or it has another kind
        of agent) keeps what it has."""

    @property
    def settled(self) -> bool:
        """Whether it has not only just come back."""


def choose_owner(
    current: Placement | None, *, holder: str, epoch: int, candidates: Iterable[Candidate]
) -> str | None:
    """The machine that is to run the topic's next message; ``None`` when it has to wait for its pin.

    A hard pin comes first, also to a machine that is away. Otherwise the topic stays where it is, if it was
    placed in this epoch and that machine is online, and else goes to the holder (so a topic of an earlier
    epoch follows it); but when that machine is overloaded and another is clearly less so, it goes there.

    So whatever is begun is begun on a machine whose load is below ``OVERLOAD``, or at most ``MARGIN`` above
    the least loaded one; and a topic only ever moves to a machine that is less loaded by ``MARGIN``.
    """
    machines = {one.machine_id: one for one in candidates}
    if current is not None and current.pinned_to is not None:
        pin = machines.get(current.pinned_to)
        ready = pin is not None and pin.online and (current.owner == pin.machine_id or pin.settled)
        return current.pinned_to if ready else None
    own = machines.get(current.owner or "") if current is not None and current.epoch == epoch else None
    if own is None or not own.online:
        own = machines.get(holder)
    if own is None or not own.online:
        return holder
    load = own.load
    if load >= OVERLOAD:
        relief = [one for one in machines.values() if one.load <= load - MARGIN and one.online and one.open]
        if relief:
            # Ties go to the holder: what runs there needs no other machine.
            return min(
                relief, key=lambda one: (one.load, one.machine_id != holder, one.machine_id)
            ).machine_id
    return own.machine_id


def owner_now(
    current: Placement | None, *, holder: str | None, epoch: int, online: Callable[[str], bool]
) -> str | None:
    """The machine a topic counts as running on, between messages; ``None`` while it waits or is unowned."""
    if current is None or current.reason == "unowned":
        return None
    if current.pinned_to is not None:
        here = current.owner == current.pinned_to and online(current.pinned_to)
        return current.owner if here else None
    stays = current.epoch == epoch and current.owner is not None and online(current.owner)
    return current.owner if stays else holder


def placed(current: Placement | None, topic: str, owner: str | None, epoch: int) -> Placement:
    """The placement with this owner: the current one if nothing changes, else one of a new ownership epoch.

    An ownership epoch is ``(epoch, n)``; ``n`` starts at 1 in each lease epoch.
    """
    pinned_to = current.pinned_to if current is not None else None
    reason = "pinned" if pinned_to is not None else "placed"
    if (
        current is not None
        and (current.owner, current.reason) == (owner, reason)
        and (reason == "pinned" or current.epoch == epoch)
    ):
        return current
    return Placement(topic, owner, epoch, next_n(current, epoch), reason, pinned_to)


def pinned(current: Placement | None, topic: str, machine: str, *, online: bool, epoch: int) -> Placement:
    """The placement with a hard pin; without an owner while that machine is away."""
    owner = machine if online else None
    return Placement(topic, owner, epoch, next_n(current, epoch), "pinned", machine)


def unpinned(current: Placement, owner: str | None, epoch: int) -> Placement:
    """The placement without its pin; the topic stays with ``owner``."""
    return Placement(current.topic, owner, epoch, next_n(current, epoch), "placed" if owner else "unowned")


def next_n(current: Placement | None, epoch: int) -> int:
    """The ``n`` of the next ownership epoch within this lease epoch."""
    return current.n + 1 if current is not None and current.epoch == epoch else 1


def ownership(placement: Placement) -> tuple[int, int]:
    """The ownership epoch ``(epoch, n)``."""
    return placement.epoch, placement.n
