"""The refs of a hub of any kind: reading one and swapping one, with the objects in a repository here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from instar_node.coordination.lease_store import StoreUnavailable

if TYPE_CHECKING:
    from instar_node.coordination.git_repository import LeaseRepository

T = TypeVar("T")

UNREADABLE = "0" * 40
"""The version of a ref whose file says nothing that git understands: a value that no object has."""

_DISK_GRACE = 1.0
"""Seconds a disk may take beyond the time that waiting for locks is bounded to."""


class Refs(Protocol):
    """What ``GitLeaseStore`` needs of a hub."""

    @property
    def objects(self) -> LeaseRepository:
        """Where commits are built and read."""

    async def tip(self, ref: str, have: str | None) -> str | None:
        """The version ``ref`` holds, ``None`` if absent; its objects are then in ``objects``. A garbled one
        is ``UNREADABLE``, where that can be told.

        ``have`` is a version whose history is there already. Raises ``StoreUnavailable``.
        """

    async def swap(self, ref: str, expected: str | None, new: str, hooks: Path | None = None) -> None:
        """Set ``ref`` from ``expected`` (``None``: absent) to ``new``.

        ``hooks`` is a folder of git hooks for a hub that is pushed to.

        Raises:
            RefusedSwap: the hub says this call did not set it; an earlier one for the same ``new`` may have.
            StoreUnavailable: it may have been set, or may yet be.
        """

    async def remove(self, ref: str, expected: str) -> None:
        """Delete a ref; raises as ``swap`` does."""

    async def scratch(self) -> str:
        """A new version unlike any other, ready to be swapped in. Raises ``StoreUnavailable``."""


async def in_thread(job: Callable[[], T], within: float) -> T:
    """Run blocking disk work beside the event loop.

    Raises ``StoreUnavailable`` when it is not done in time; the work then goes on and may still succeed.
    """
    try:
        async with asyncio.timeout(within + _DISK_GRACE):
            return await asyncio.to_thread(job)
    except TimeoutError as error:
        raise StoreUnavailable(f"the disk of the hub did not answer within {within:g} s") from error
