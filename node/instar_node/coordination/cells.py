"""Small named values that change only by compare-and-swap: what a hub that is not git offers.

The version of a value is the hash of its bytes. Every lease record carries a nonce, so that no two records
are the same bytes, and a version names one record for good.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Protocol

LEASE_CELL = "lease"
HUB_CELL = "hub"
"""Holds the hub's own id, written once when it is set up."""
MAX_CELL_BYTES = 262_144


def version_of(value: bytes) -> str:
    """The version that ``value`` has wherever it is stored."""
    return hashlib.sha256(value).hexdigest()


class Cells(Protocol):
    """The cells of one hub."""

    async def read(self, name: str) -> bytes | None:
        """The value of a cell, ``None`` when it is empty. Raises ``StoreUnavailable``."""

    async def swap(self, name: str, expected: str | None, value: bytes | None) -> None:
        """Replace the value of version ``expected`` (``None``: empty) by ``value`` (``None``: empty it).

        Raises:
            RefusedSwap: the cell holds something else, and this call did not change it.
            StoreUnavailable: it may have been changed, or may yet be.
        """

    async def close(self) -> None:
        """Let go of connections."""


class ScratchCells:
    """Cells as the probe races for them: by versions, with the values made here."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._values: dict[str, bytes] = {}

    async def scratch(self) -> str:
        """As ``Refs.scratch``."""
        value = secrets.token_hex(16).encode()
        self._values[version_of(value)] = value
        return version_of(value)

    async def tip(self, name: str, have: str | None) -> str | None:
        """As ``Refs.tip``."""
        value = await self._cells.read(name)
        return None if value is None else version_of(value)

    async def swap(self, name: str, expected: str | None, new: str, hooks: Path | None = None) -> None:
        """As ``Refs.swap``."""
        await self._cells.swap(name, expected, self._values[new])

    async def remove(self, name: str, expected: str) -> None:
        """As ``Refs.remove``."""
        await self._cells.swap(name, expected, None)
