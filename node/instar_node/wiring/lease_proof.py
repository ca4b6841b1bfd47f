"""A lease record as proof of who held an epoch, for readers of the state repository."""

from __future__ import annotations

import msgspec

from instar_node.coordination.record import PURPOSE, LeaseRecord, decode_record, is_authentic
from instar_node.identity.chain import Folded
from instar_node.identity.keys import verify
from instar_node.sync.rules import Tenure


def prove(raw: bytes, registry: Folded) -> Tenure | None:
    """Who held which epoch by a record that its holder signed; ``None`` if it proves nothing."""
    try:
        record = decode_record(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return Tenure(record.epoch, record.holder) if _is_signed(record, registry) else None


def _is_signed(record: LeaseRecord, registry: Folded) -> bool:
    def signed(machine: str, data: bytes, signature: bytes) -> bool:
        member = registry.members.get(machine)
        return member is not None and verify(
            member.signing_public, PURPOSE, registry.mesh_id, data, signature
        )

    return is_authentic(record, signed)
