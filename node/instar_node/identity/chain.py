"""The machine registry as a chain of signed records, and the pure fold that every reader does itself.

Where the records come from is never trusted: a git host, a peer or a file may withhold or roll back, but
cannot forge, because each record names the hash of the one before it and is signed by a machine that was a
member at that place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from instar_node.contracts import Member
from instar_node.errors import InstarError
from instar_node.identity.keys import PublicIdentity, verify
from instar_node.identity.nicknames import check_nickname, same_nickname

PURPOSE_RECORD = "instar-registry/1"
MAX_URLS = 16
MAX_RECORDS = 100_000

Url = Annotated[str, Meta(max_length=2_048)]
Kind = Literal["genesis", "admit", "rename", "urls", "witness", "remove", "leave"]


class RegistryRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signed step of the registry.

    ``machine_id`` is the machine it is about, ``by`` the machine that signed it. Keys, ``cross_signature``
    and the field ``witness`` belong to ``genesis`` and ``admit``; ``nickname`` to those and ``rename``;
    ``urls`` to those and ``urls``. The kind ``witness`` makes a member one that only keeps the lease
    register. What does not belong to a kind is empty.
    """

    n: Annotated[int, Meta(ge=0, lt=MAX_RECORDS)]
    prev: Annotated[str, Meta(max_length=64)]
    """Hash of the record before, hex; empty for the genesis."""
    kind: Kind
    machine_id: Annotated[str, Meta(max_length=64)]
    at: Annotated[str, Meta(max_length=40)]
    """ISO-8601 UTC, for display only."""
    by: Annotated[str, Meta(max_length=64)]
    epoch: Annotated[int, Meta(ge=0)]
    """Lease epoch in which it was signed; never lower than the record before."""
    nickname: Annotated[str, Meta(max_length=40)] = ""
    signing_public: Annotated[bytes, Meta(max_length=32)] = b""
    encryption_public: Annotated[bytes, Meta(max_length=32)] = b""
    cross_signature: Annotated[bytes, Meta(max_length=64)] = b""
    urls: Annotated[tuple[Url, ...], Meta(max_length=MAX_URLS)] = ()
    witness: bool = False
    signature: Annotated[bytes, Meta(max_length=64)] = b""

    def signed_bytes(self) -> bytes:
        """What the signature covers: all fields but itself, in msgpack."""
        return msgspec.msgpack.encode(msgspec.structs.replace(self, signature=b""))

    def hash(self) -> str:
        """SHA-256 over the whole record, signature included; the ``prev`` of the next."""
        return sha256(msgspec.msgpack.encode(self)).hexdigest()


class Folded(msgspec.Struct, frozen=True):
    """A verified registry: the records, and what they amount to."""

    mesh_id: str
    records: tuple[RegistryRecord, ...]
    members: Mapping[str, Member]
    head: str
    """Hash of the last record."""

    @property
    def epoch(self) -> int:
        """Epoch of the last record."""
        return self.records[-1].epoch

    @property
    def removed(self) -> frozenset[str]:
        """Ids of the machines that were removed or left. They never come back."""
        return frozenset(member.machine_id for member in self.members.values() if member.removed)


def mesh_id_of(genesis: RegistryRecord) -> str:
    """The id of the mesh that this record founds."""
    return "mesh_" + genesis.hash()[:32]


def fold(records: Sequence[RegistryRecord], onto: Folded | None = None) -> Folded:
    """Verify records and fold them, from the genesis or ``onto`` an already verified beginning.

    Raises ``InstarError("registry-refused")`` naming the first record that is wrong and why.
    """
    members = {} if onto is None else dict(onto.members)
    done = [] if onto is None else list(onto.records)
    mesh_id = "" if onto is None else onto.mesh_id
    head = "" if onto is None else onto.head
    for record in records:
        _check_link(record, done, head)
        _check_signer(record, members, mesh_id)
        members[record.machine_id] = _RULES[record.kind](record, members)
        done.append(record)
        head = record.hash()
        mesh_id = mesh_id or mesh_id_of(record)
    if not done:
        raise InstarError("registry-refused", "the registry holds no records", status=422)
    return Folded(mesh_id, tuple(done), MappingProxyType(members), head)


def refused(record: RegistryRecord, why: str) -> InstarError:
    """The error for a record that must not be believed."""
    return InstarError(
        "registry-refused",
        f"registry record {record.n} ({record.kind} of {record.machine_id}) {why}",
        status=422,
        extra={"n": record.n},
    )


def _check_link(record: RegistryRecord, done: Sequence[RegistryRecord], head: str) -> None:
    if record.n != len(done) or record.prev != head:
        raise refused(record, "does not follow the record before it")
    if (record.kind == "genesis") != (not done):
        raise refused(record, "must be the first, and the first only, to found a mesh")
    if done and record.epoch < done[-1].epoch:
        raise refused(record, f"goes back from epoch {done[-1].epoch} to {record.epoch}")


def _check_signer(record: RegistryRecord, members: Mapping[str, Member], mesh_id: str) -> None:
    if record.kind == "genesis":
        if record.by != record.machine_id:
            raise refused(record, "is not signed by the machine that founds the mesh")
        key = record.signing_public
    else:
        signer = members.get(record.by)
        if signer is None or signer.removed:
            raise refused(record, f"is signed by {record.by}, which is not a member")
        key = signer.signing_public
    if not verify(key, PURPOSE_RECORD, mesh_id, record.signed_bytes(), record.signature):
        raise refused(record, "has a bad signature")


def _admit(record: RegistryRecord, members: Mapping[str, Member]) -> Member:
    if record.machine_id in members:
        raise refused(record, "admits a machine that is or was a member; coming back needs a new identity")
    public = PublicIdentity(
        record.machine_id, record.signing_public, record.encryption_public, record.cross_signature
    )
    try:
        public.check()
    except InstarError as error:
        raise refused(record, f"has a false identity: {error.message}") from error
    _check_nickname(record, members)
    return Member(
        machine_id=record.machine_id,
        nickname=record.nickname,
        signing_public=record.signing_public,
        encryption_public=record.encryption_public,
        urls=record.urls,
        joined_at=record.at,
        admitted_by=record.by,
        witness=record.witness,
    )


def _rename(record: RegistryRecord, members: Mapping[str, Member]) -> Member:
    member = _active(record, members)
    _check_nickname(record, members)
    return msgspec.structs.replace(member, nickname=record.nickname)


def _set_urls(record: RegistryRecord, members: Mapping[str, Member]) -> Member:
    return msgspec.structs.replace(_active(record, members), urls=record.urls)


def _make_witness(record: RegistryRecord, members: Mapping[str, Member]) -> Member:
    return msgspec.structs.replace(_active(record, members), witness=True)


def _bury(record: RegistryRecord, members: Mapping[str, Member]) -> Member:
    return msgspec.structs.replace(_active(record, members), removed=True)


_RULES = {
    "genesis": _admit,
    "admit": _admit,
    "rename": _rename,
    "urls": _set_urls,
    "witness": _make_witness,
    "remove": _bury,
    "leave": _bury,
}


def _active(record: RegistryRecord, members: Mapping[str, Member]) -> Member:
    member = members.get(record.machine_id)
    if member is None or member.removed:
        raise refused(record, "is about a machine that is not a member")
    return member


def _check_nickname(record: RegistryRecord, members: Mapping[str, Member]) -> None:
    try:
        if check_nickname(record.nickname) != record.nickname:
            raise refused(record, "has a nickname that is not in normal form")
    except InstarError as error:
        raise refused(record, f"has a bad nickname: {error.message}") from error
    for other in members.values():
        if other.removed or other.machine_id == record.machine_id:
            continue
        if same_nickname(other.nickname, record.nickname):
            raise refused(record, f"takes the nickname {record.nickname}, which {other.machine_id} has")
