"""One secret as it is kept and passed on: sealed, signed by its writer. And when to believe one.

Pure. Where a record comes from is never trusted; only machines that run the agent can open it.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated

import msgspec
from msgspec import Meta

from instar_node.contracts import Members
from instar_node.errors import InstarError, bad_input
from instar_node.identity.keys import MachineIdentity, verify
from instar_node.identity.sealing import (
    NONCE_BYTES,
    PURPOSE,
    TAG_BYTES,
    Place,
    WrappedKey,
    new_data_key,
    seal_value,
    wrap_for,
)
from instar_node.identity.secret_names import SecretName

MAX_VALUE_BYTES = 32 * 1024
MAX_READERS = 256
_MachineId = Annotated[str, Meta(max_length=64)]
_encoder = msgspec.msgpack.Encoder(order="deterministic")


class Stamp(msgspec.Struct, frozen=True, order=True):
    """Which writing of a secret: of two, the greater one counts, everywhere."""

    epoch: int
    version: int
    hash: bytes


class SecretRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One writing of one secret. A removed secret is a record with neither value nor readers."""

    name: SecretName
    version: Annotated[int, Meta(ge=1, lt=2**53)]
    """Grows with each writing; part of what the value is bound to."""
    epoch: Annotated[int, Meta(ge=0, lt=2**53)]
    """Lease epoch in which it was written."""
    set_at: Annotated[str, Meta(max_length=40)]
    """When a person set this value, ISO-8601 UTC; for display only."""
    by: _MachineId
    removed: bool = False
    nonce: Annotated[bytes, Meta(max_length=NONCE_BYTES)] = b""
    sealed: Annotated[bytes, Meta(max_length=MAX_VALUE_BYTES + TAG_BYTES)] = b""
    wrapped: Annotated[dict[_MachineId, WrappedKey], Meta(max_length=MAX_READERS)] = {}
    exposed_to: Annotated[tuple[_MachineId, ...], Meta(max_length=MAX_READERS)] = ()
    """Machines that could read this very value and are no longer members: it should be changed."""
    signature: Annotated[bytes, Meta(max_length=64)] = b""

    def signed_bytes(self) -> bytes:
        """What the signature covers: all fields but itself."""
        return _encoder.encode(msgspec.structs.replace(self, signature=b""))

    @property
    def stamp(self) -> Stamp:
        """Its place among the writings of this secret."""
        return Stamp(self.epoch, self.version, sha256(_encoder.encode(self)).digest())

    @property
    def readers(self) -> frozenset[str]:
        """Machines that can open it."""
        return frozenset(self.wrapped)

    def place(self, mesh_id: str) -> Place:
        """What its value is bound to."""
        return Place(mesh_id, self.name, self.version)


def written(
    identity: MachineIdentity,
    mesh_id: str,
    draft: SecretRecord,
    value: str | None,
    readers: Mapping[str, bytes],
) -> SecretRecord:
    """The draft (name, version, epoch, …) with the value sealed for the readers, signed by this machine.

    Every writing has a data key of its own: a machine that is no longer a reader has nothing that opens it.
    Without a value it is the record of a removed secret.
    """
    record = msgspec.structs.replace(draft, by=identity.machine_id, removed=value is None)
    if value is not None:
        place, key = record.place(mesh_id), new_data_key()
        nonce, sealed = seal_value(place, key, value)
        wrapped = wrap_for(place, key, readers)
        record = msgspec.structs.replace(record, nonce=nonce, sealed=sealed, wrapped=wrapped)
    signature = identity.sign(PURPOSE, mesh_id, record.signed_bytes())
    return msgspec.structs.replace(record, signature=signature)


def as_file(record: SecretRecord) -> bytes:
    """The record as the shared state holds it; sealed: all may copy it."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def read_record(raw: bytes) -> SecretRecord:
    """Read what ``as_file`` wrote. Raises ``secret-refused`` for anything else."""
    try:
        return msgspec.json.decode(raw, type=SecretRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InstarError("secret-refused", f"it is no record of a secret: {error}", status=422) from error


def check_record(record: SecretRecord, members: Members) -> None:
    """Raise ``InstarError("secret-refused")`` unless an active member signed this record for this mesh."""
    signer = members.get(record.by)
    if signer is None or signer.removed:
        raise _refused(record, f"is signed by {record.by}, which is not a member")
    if not verify(signer.signing_public, PURPOSE, members.mesh_id, record.signed_bytes(), record.signature):
        raise _refused(record, "has a bad signature")
    if record.removed and (record.sealed or record.wrapped):
        raise _refused(record, "is removed and has a value")


def check_value(value: str) -> None:
    """Raise ``bad-input`` for what an environment variable cannot carry."""
    size = len(value.encode())
    if not value or "\0" in value or size > MAX_VALUE_BYTES:
        raise bad_input(
            "value",
            "is empty, contains a NUL, or is too long",
            f"1 to {MAX_VALUE_BYTES} bytes of text; it becomes an environment variable",
        )


def _refused(record: SecretRecord, why: str) -> InstarError:
    return InstarError(
        "secret-refused", f"the secret {record.name} (version {record.version}) {why}", status=422
    )
