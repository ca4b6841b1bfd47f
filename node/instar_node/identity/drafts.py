"""Making registry records: unsigned drafts of each kind, and signing the next one of a chain."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from instar_node.identity.chain import PURPOSE_RECORD, Folded, Kind, RegistryRecord
from instar_node.identity.keys import MachineIdentity, PublicIdentity


def draft(kind: Kind, machine_id: str, *, nickname: str = "", urls: Iterable[str] = ()) -> RegistryRecord:
    """A record about a known machine, without its place in the chain."""
    return RegistryRecord(
        n=0,
        prev="",
        kind=kind,
        machine_id=machine_id,
        at="",
        by="",
        epoch=0,
        nickname=nickname,
        urls=tuple(urls),
    )


def identity_draft(
    kind: Kind, public: PublicIdentity, nickname: str, urls: Iterable[str], witness: bool
) -> RegistryRecord:
    """A record that brings a machine in: ``genesis`` or ``admit``."""
    return msgspec.structs.replace(
        draft(kind, public.machine_id, nickname=nickname, urls=urls),
        signing_public=public.signing_public,
        encryption_public=public.encryption_public,
        cross_signature=public.cross_signature,
        witness=witness,
    )


def signed_next(
    record: RegistryRecord, after: Folded | None, identity: MachineIdentity, at: str, epoch: int
) -> RegistryRecord:
    """The draft with its place after the chain (``None``: it founds one), signed by ``identity``."""
    placed = msgspec.structs.replace(
        record,
        n=0 if after is None else len(after.records),
        prev="" if after is None else after.head,
        at=at,
        by=identity.machine_id,
        epoch=epoch,
    )
    mesh_id = "" if after is None else after.mesh_id
    return msgspec.structs.replace(
        placed, signature=identity.sign(PURPOSE_RECORD, mesh_id, placed.signed_bytes())
    )
