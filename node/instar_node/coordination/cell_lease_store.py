"""The lease register in a cell: ``LeaseStore`` for every hub that is not git."""

from __future__ import annotations

import secrets

import msgspec

from instar_node.coordination.cells import HUB_CELL, LEASE_CELL, Cells, ScratchCells, version_of
from instar_node.coordination.hub_probe import probe_hub
from instar_node.coordination.hub_troubles import hub_error
from instar_node.coordination.lease_store import (
    Lost,
    RefusedSwap,
    StoreUnavailable,
    SwapOutcome,
    Unknown,
    Won,
)
from instar_node.coordination.record import KnownRecord, LeaseRecord, decode_record


class CellLeaseStore:
    """Keeps the record's bytes in the cell ``lease``; ``shown`` names the hub in messages."""

    def __init__(self, cells: Cells, shown: str) -> None:
        self._cells = cells
        self._shown = shown

    async def create(self) -> None:
        """As ``LeaseStore.create``."""
        try:
            if await self._cells.read(HUB_CELL) is None:
                await self._cells.swap(HUB_CELL, None, secrets.token_hex(16).encode())
        except RefusedSwap:
            return  # another machine was quicker
        except StoreUnavailable as error:
            raise hub_error(error) from error

    async def hub_id(self) -> str | None:
        """As ``LeaseStore.hub_id``."""
        value = await self._cells.read(HUB_CELL)
        return None if value is None else value.decode("ascii", "replace")

    async def read(self) -> KnownRecord | None:
        """As ``LeaseStore.read``."""
        value = await self._cells.read(LEASE_CELL)
        if value is None:
            return None
        try:
            return KnownRecord(decode_record(value), version_of(value))
        except msgspec.MsgspecError as error:
            message = f"the register on {self._shown} does not hold a lease record: {error}"
            raise StoreUnavailable(message, "hub-foreign", version_of(value)) from error

    async def prepare(self, record: LeaseRecord) -> KnownRecord:
        """As ``LeaseStore.prepare``; nothing is needed of the hub."""
        return KnownRecord(record, version_of(record.encode()))

    async def compare_and_swap(self, expected: str | None, candidate: KnownRecord) -> SwapOutcome:
        """As ``LeaseStore.compare_and_swap``."""
        try:
            try:
                await self._cells.swap(LEASE_CELL, expected, candidate.record.encode())
            except RefusedSwap as refusal:
                return self._after_refusal(await self.read(), expected, candidate, str(refusal))
        except StoreUnavailable as error:
            return Unknown(error.message)
        return Won(candidate)

    def _after_refusal(
        self, known: KnownRecord | None, expected: str | None, ours: KnownRecord, why: str
    ) -> SwapOutcome:
        """What a refused swap came to: an earlier attempt may have been applied after all."""
        version = known.version if known is not None else None
        if version == ours.version:
            return Won(ours)
        if version == expected:
            return Unknown(f"{self._shown} refused the swap although its value is the expected one: {why}")
        return Lost(known)

    async def probe(self) -> None:
        """As ``LeaseStore.probe``."""
        await probe_hub(ScratchCells(self._cells), self._shown)

    async def close(self) -> None:
        """As ``LeaseStore.close``."""
        await self._cells.close()
