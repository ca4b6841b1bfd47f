"""The lease record: one signed value in one register, changed only by compare-and-swap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from instar_node.build import Build

PURPOSE = "instar-lease/1"
"""Purpose string every lease signature covers, beside the mesh id and the canonical bytes."""

GENERATION = 1_000_000
"""Epochs of one generation. A forced takeover jumps to the next multiple and so outranks whatever the other
side of a partition still does."""


class HubPlace(msgspec.Struct, frozen=True):
    """Where a register lies, as every member may open it.

    ``url`` is empty for the holder's own disk. ``id`` was written into the hub when it was set up: it tells
    the hub from another one at the same address, such as the folder under a disk that is not mounted.
    ``tip`` is what the register held when the lease was moved there: nothing, or the record that closed it
    when the lease was moved away from it earlier.
    """

    url: str
    id: str = ""
    tip: str | None = None


class LeaseRecord(msgspec.Struct, frozen=True):
    """One value of the register. The signer is the holder.

    Durations are milliseconds because the record is read by people and other programs; ``at`` and ``reason``
    are for display and never compared.
    """

    epoch: int
    serial: int
    """Grows by one with every record over the whole chain."""
    prev: str | None
    """Version this record replaced; ``None`` only for the first record of a mesh."""
    holder: str
    incarnation: str
    """Random per process start: a record of an earlier incarnation of this machine is someone else's."""
    electorate: tuple[str, ...]
    benched: tuple[str, ...]
    ttl_ms: int
    bench_ttl_ms: int
    state: Literal["held", "released", "closed"] = "held"
    successor: str | None = None
    state_head: str = ""
    incomplete: tuple[str, ...] = ()
    """Machines whose older rows are still missing here after a takeover from the bench or by force."""
    origin: str = ""
    """Nonce of the record that opened this generation by force; empty in the founding one. Two origins in one
    generation are two forces, however far each line has gone on since."""
    reason: str = ""
    at: str = ""
    nonce: str = ""
    """Random: makes every record unique, so that two writers can never both believe in one commit."""
    hub: HubPlace | None = None
    """Where the register lies that takes the *next* record; ``None`` for the founding holder's own disk."""
    build: Build | None = None
    """The program its holder runs: who shares no protocol with it may not follow."""
    signature: bytes = b""

    @property
    def moves(self) -> bool:
        """Whether this closed its register because the lease goes on in another one (``hub``)."""
        return self.state == "closed" and self.hub is not None and self.successor in (None, self.holder)

    @property
    def order(self) -> tuple[int, int]:
        """``(epoch, serial)``: what is newer is greater."""
        return (self.epoch, self.serial)

    def canonical(self) -> bytes:
        """The bytes that are signed: the record without its signature, fields in declared order."""
        return msgspec.json.encode(msgspec.structs.replace(self, signature=b""))

    def encode(self) -> bytes:
        """The content of ``lease.json``."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


_DECODER = msgspec.json.Decoder(LeaseRecord)


def decode_record(raw: bytes) -> LeaseRecord:
    """Decode ``lease.json`` strictly.

    Raises:
        msgspec.MsgspecError: when the bytes are not a lease record, whatever else they are.
    """
    try:
        return _DECODER.decode(raw)
    except (UnicodeDecodeError, RecursionError) as error:  # whoever may write to the hub chooses the bytes
        raise msgspec.DecodeError(str(error)) from error


class KnownRecord(msgspec.Struct, frozen=True):
    """A record together with its version (the commit id it has in the register)."""

    record: LeaseRecord
    version: str


Signer = Callable[[bytes], bytes]
"""Signs canonical bytes under ``PURPOSE`` and the mesh id with this machine's Ed25519 key."""

Verifier = Callable[[str, bytes, bytes], bool]
"""``(machine id, canonical bytes, signature)``: whether that member signed them."""


def sign_record(record: LeaseRecord, sign: Signer) -> LeaseRecord:
    """The record with its holder's signature."""
    return msgspec.structs.replace(record, signature=sign(record.canonical()))


def is_authentic(record: LeaseRecord, verify: Verifier) -> bool:
    """Whether the record's holder is a member that signed exactly this record."""
    return verify(record.holder, record.canonical(), record.signature)


def generation(epoch: int) -> int:
    """The generation an epoch lies in: the number of forced takeovers before it."""
    return epoch // GENERATION


def next_generation(epoch: int) -> int:
    """The first epoch of the generation after the one ``epoch`` lies in."""
    return (generation(epoch) + 1) * GENERATION


def epoch_text(epoch: int) -> str:
    """``7`` in the founding generation, ``1·3`` for the third epoch of generation 1."""
    generation, within = divmod(epoch, GENERATION)
    return f"{generation}·{within}" if generation else str(within)
