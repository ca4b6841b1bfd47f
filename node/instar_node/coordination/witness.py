"""The witness: a paired machine that keeps the lease register for the others, and never holds the lease.

It serves its cells through the tunnel. What it is told is synced to disk before it is acknowledged, and one
process alone writes the folder, so a swap is atomic and outlives ``kill -9``.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from instar_node.contracts import Lane, Mesh, PeerError
from instar_node.coordination.cell_lease_store import CellLeaseStore
from instar_node.coordination.cells import LEASE_CELL, MAX_CELL_BYTES, version_of
from instar_node.coordination.lease_store import RefusedSwap, StoreUnavailable
from instar_node.coordination.record import Verifier, decode_record, is_authentic
from instar_node.errors import InstarError
from instar_node.storage.atomic import write_atomic

CALL_S = 3.0
"""How long a member waits for the witness: less than a ttl, so that one lost answer costs no lease."""

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,63}\Z")]
"""Of a cell; it becomes the name of a file."""
Value = Annotated[bytes, Meta(max_length=MAX_CELL_BYTES)]


class ReadCell(msgspec.Struct, tag="witness.read", frozen=True):
    """What does this cell hold?"""

    name: Name


class SwapCell(msgspec.Struct, tag="witness.swap", frozen=True):
    """Replace version ``expected`` of this cell (``None``: empty) by ``value`` (``None``: empty it)."""

    name: Name
    expected: Annotated[str, Meta(max_length=64)] | None
    value: Value | None


class CellState(msgspec.Struct, tag="witness.cell", frozen=True):
    """The value after a read; after a swap whether it was made, and if not, why."""

    value: bytes | None = None
    swapped: bool = False
    why: str = ""


class WitnessRegister:
    """``Cells`` in a folder of this machine, one file each.

    Args:
        folder: Made with the first value.
        verify: The register takes only lease records that a member signed, each newer than the one before.
    """

    def __init__(self, folder: Path, verify: Verifier) -> None:
        self._folder = folder
        self._verify = verify
        self._one_at_a_time = asyncio.Lock()

    def serve(self, mesh: Mesh) -> None:
        """Answer the members of the mesh from now on."""
        mesh.on_request(ReadCell, self._on_read)
        mesh.on_request(SwapCell, self._on_swap)

    async def read(self, name: str) -> bytes | None:
        """As ``Cells.read``."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._load, name)

    async def swap(self, name: str, expected: str | None, value: bytes | None) -> None:
        """As ``Cells.swap``."""
        # Shielded with its lock: a caller that goes away half-way must not let the next one in meanwhile.
        await asyncio.shield(self._swap_alone(name, expected, value))

    async def _swap_alone(self, name: str, expected: str | None, value: bytes | None) -> None:
        async with self._one_at_a_time:
            await asyncio.to_thread(self._swap, name, expected, value)

    async def close(self) -> None:
        """Nothing is kept open."""

    def _swap(self, name: str, expected: str | None, value: bytes | None) -> None:
        present = self._load(name)
        version = None if present is None else version_of(present)
        if version != expected:
            raise RefusedSwap(f"the cell holds {version or 'nothing'}")
        if name == LEASE_CELL:
            self._check_lease(present, value)
        try:
            if value is None:
                (self._folder / name).unlink()
            else:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                write_atomic((self._folder / name), value)
        except (InstarError, OSError) as error:
            raise StoreUnavailable(f"the witness cannot write its register: {error}") from error

    def _load(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable(f"the witness cannot read its register: {error}") from error

    def _check_lease(self, present: bytes | None, value: bytes | None) -> None:
        """A register of ours is never emptied, never rewound, and holds nothing that no member signed."""
        try:
            record = decode_record(value or b"")
        except msgspec.MsgspecError as error:
            raise RefusedSwap(f"not a lease record: {error}") from error
        if not is_authentic(record, self._verify):
            raise RefusedSwap("no member signed this lease record")
        if present is not None and record.order <= _order(present):
            raise RefusedSwap("the register holds a newer record than this one")

    async def _on_read(self, peer: str, question: ReadCell) -> CellState:
        try:
            return CellState(await self.read(question.name))
        except StoreUnavailable as error:
            raise InstarError(error.code, error.message, status=503) from error

    async def _on_swap(self, peer: str, wish: SwapCell) -> CellState:
        try:
            await self.swap(wish.name, wish.expected, wish.value)
        except RefusedSwap as refusal:
            return CellState(why=str(refusal))
        except StoreUnavailable as error:
            raise InstarError(error.code, error.message, status=503) from error
        return CellState(swapped=True)


def _order(present: bytes) -> tuple[int, int]:
    """How new a stored record is; any other is newer than one that this disk has damaged."""
    try:
        return decode_record(present).order
    except msgspec.MsgspecError:
        return (0, 0)


class WitnessCells:
    """The cells of another machine that is the witness, through the tunnel."""

    def __init__(self, mesh: Mesh, machine: str) -> None:
        self._mesh = mesh
        self._machine = machine

    async def read(self, name: str) -> bytes | None:
        """As ``Cells.read``."""
        return (await self._ask(ReadCell(name))).value

    async def swap(self, name: str, expected: str | None, value: bytes | None) -> None:
        """As ``Cells.swap``."""
        reply = await self._ask(SwapCell(name, expected, value))
        if not reply.swapped:
            raise RefusedSwap(reply.why)

    async def close(self) -> None:
        """The tunnel is not ours."""

    async def _ask(self, question: ReadCell | SwapCell) -> CellState:
        try:
            return await self._mesh.request(
                self._machine, question, CellState, within=CALL_S, lane=Lane.LEASE
            )
        except PeerError as error:
            raise StoreUnavailable(f"the witness does not serve: {error.message}") from error


class WitnessLeaseStore(CellLeaseStore):
    """``LeaseStore`` on a witness; a lost answer is ``Unknown``, as with every hub."""

    def __init__(self, cells: WitnessRegister | WitnessCells) -> None:
        super().__init__(cells, "the witness")
