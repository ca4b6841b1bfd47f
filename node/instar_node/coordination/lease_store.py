"""What the lease expects of its register: one value, read whole and changed only by compare-and-swap.

A swap has three outcomes, and *unknown* is not *lost*: a swap whose reply got lost is usually applied, even
seconds after the client gave up on it.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from instar_node.coordination.record import KnownRecord, LeaseRecord


class Won(msgspec.Struct, frozen=True):
    """The register holds our record."""

    known: KnownRecord


class Lost(msgspec.Struct, frozen=True):
    """The register does not hold the expected version and did not take our record.

    ``known`` is what it holds instead; ``None`` when it holds nothing.
    """

    known: KnownRecord | None


class Unknown(msgspec.Struct, frozen=True):
    """The swap may or may not have been, or may yet be, applied. Retry it with the identical candidate until
    the register differs from the expected version."""

    why: str


SwapOutcome = Won | Lost | Unknown


class StoreUnavailable(Exception):  # noqa: N818 - the name says what the caller handles: a hub that is away
    """The register cannot be reached or read now.

    Attributes:
        message: What is wrong, for people.
        code: One of ``hub_troubles.HINTS``, which says what to do about it.
        found: The version that the register holds although it cannot be read as a lease record; ``None``
            where that is not known. Only what a person decides may replace it.
    """

    def __init__(self, message: str, code: str = "hub-unreachable", found: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.found = found


class RefusedSwap(Exception):  # noqa: N818 - an outcome for our caller, not a fault
    """The hub says that this attempt changed nothing; the text says why. An earlier attempt may have."""


class LeaseStore(Protocol):
    """The register. Signatures are the caller's: what is read here is well-formed, not yet believed."""

    async def create(self) -> None:
        """Set the hub up where that is needed: a new one gets an id of its own.

        Raises:
            InstarError: with the code of ``StoreUnavailable``, or ``hub-not-repository``.
        """

    async def probe(self) -> None:
        """Let two writers race on the hub, before a lease is trusted to it.

        Raises:
            InstarError: ``hub-not-atomic`` (never trust a lease to it), ``hub-refuses``, or the code of
                ``StoreUnavailable``.
        """

    async def hub_id(self) -> str | None:
        """The id that ``create`` gave the hub, ``None`` when it never did. Raises ``StoreUnavailable``."""

    async def read(self) -> KnownRecord | None:
        """The register's value, ``None`` when it holds nothing.

        Raises:
            StoreUnavailable: the hub is away, refuses us, or holds something that is not a lease record.
        """

    async def prepare(self, record: LeaseRecord) -> KnownRecord:
        """Build a signed record into a version that can be swapped in, and swapped in again, unchanged.

        Raises:
            StoreUnavailable: the version to build on, or room for the new one, cannot be had now.
        """

    async def compare_and_swap(self, expected: str | None, candidate: KnownRecord) -> SwapOutcome:
        """Replace version ``expected`` (``None``: nothing) by the candidate, or learn what is there instead.

        Never raises for a hub that is away: that is ``Unknown``.
        """

    async def close(self) -> None:
        """Let go of what is open. A swap under way ends as it may."""
