"""The signed machine registry of this home: read, extended, merged with what peers have, and kept on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from instar_node.clock import Clock, iso
from instar_node.contracts import Member
from instar_node.errors import InstarError
from instar_node.identity.chain import Folded, RegistryRecord, fold
from instar_node.identity.drafts import draft, identity_draft, signed_next
from instar_node.identity.keys import MachineIdentity, PublicIdentity
from instar_node.identity.merging import buried_elsewhere, judge
from instar_node.identity.nicknames import check_nickname, free_nickname, same_nickname
from instar_node.storage.atomic import read_json, write_atomic

log = logging.getLogger("instar.identity")

FILE_NAME = "registry.json"
_RESTORE = (
    "move it aside and join the mesh again from another machine's `instar pair`; if this machine is the only "
    "one, restore the machine/ folder from a backup"
)


class RegistryFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of ``registry.json``."""

    records: tuple[RegistryRecord, ...]


class MachineRegistry:
    """Implements ``contracts.Members``; every change is verified, then durable, then announced."""

    def __init__(self, path: Path, identity: MachineIdentity, clock: Clock, folded: Folded) -> None:
        self._path = path
        self._identity = identity
        self._clock = clock
        self._folded = folded
        self._callbacks: list[Callable[[], None]] = []
        self.refusals = 0
        """How many chains from others were refused: forged, of another mesh, or by a removed machine."""
        self.last_refusal = ""
        """Why the last one was."""

    # -- making one -------------------------------------------------------------------------------------

    @classmethod
    def found(
        cls,
        folder: Path,
        identity: MachineIdentity,
        clock: Clock,
        nickname: str,
        urls: Iterable[str],
        *,
        epoch: int,
        witness: bool = False,
    ) -> MachineRegistry:
        """Found a mesh: the first machine admits itself. Raises ``registry-exists`` if there is one."""
        path = folder / FILE_NAME
        if path.exists():
            raise InstarError("registry-exists", f"{path} exists: this machine already belongs to a mesh")
        first = identity_draft("genesis", identity.public, check_nickname(nickname), urls, witness)
        genesis = signed_next(first, None, identity, iso(clock.wall()), epoch)
        return cls._stored(path, identity, clock, fold([genesis]))

    @classmethod
    def load(cls, folder: Path, identity: MachineIdentity, clock: Clock) -> MachineRegistry | None:
        """The registry of this home; ``None`` if it belongs to no mesh yet.

        Raises ``InstarError``: ``file-damaged`` or ``registry-refused``, naming the file.
        """
        path = folder / FILE_NAME
        if not path.exists():
            return None
        try:
            folded = fold(read_json(path, RegistryFile, _RESTORE).records)
        except InstarError as error:
            if error.code != "registry-refused":
                raise
            raise InstarError(
                error.code, f"{path} cannot be trusted: {error.message}", _RESTORE, status=500
            ) from error
        return cls(path, identity, clock, folded)

    @classmethod
    def adopt(
        cls,
        folder: Path,
        identity: MachineIdentity,
        clock: Clock,
        records: Sequence[RegistryRecord],
        mesh_id: str,
    ) -> MachineRegistry:
        """Take over the registry of the mesh that admitted this machine.

        ``mesh_id`` comes from the confirmed pairing exchange. Raises ``registry-refused`` when the records
        are not of that mesh or do not admit this machine, ``registry-exists`` when it is in a mesh already.
        """
        path = folder / FILE_NAME
        if path.exists():
            raise InstarError("registry-exists", f"{path} exists: this machine already belongs to a mesh")
        folded = fold(records)
        me = folded.members.get(identity.machine_id)
        if folded.mesh_id != mesh_id or me is None or me.removed:
            raise InstarError(
                "registry-refused",
                "the registry that came with the admission is of another mesh or does not admit this machine",
                status=422,
            )
        return cls._stored(path, identity, clock, folded)

    @classmethod
    def _stored(cls, path: Path, identity: MachineIdentity, clock: Clock, folded: Folded) -> MachineRegistry:
        registry = cls(path, identity, clock, folded)
        registry._write(folded)
        return registry

    # -- reading (contracts.Members) --------------------------------------------------------------------

    @property
    def mesh_id(self) -> str:
        """Id of the mesh: from the hash of its first record."""
        return self._folded.mesh_id

    @property
    def head(self) -> str:
        """Hash of the newest record."""
        return self._folded.head

    @property
    def epoch(self) -> int:
        """Lease epoch of the newest record."""
        return self._folded.epoch

    @property
    def records(self) -> tuple[RegistryRecord, ...]:
        """The whole chain, oldest first."""
        return self._folded.records

    @property
    def folded(self) -> Folded:
        """The verified chain and what it amounts to."""
        return self._folded

    def get(self, machine_id: str) -> Member | None:
        """A member, also a removed one; ``None`` for an id never admitted."""
        return self._folded.members.get(machine_id)

    def active(self) -> tuple[Member, ...]:
        """Members neither removed nor left, in order of admission."""
        return tuple(member for member in self._folded.members.values() if not member.removed)

    def nickname(self, machine_id: str) -> str:
        """The nickname, or the id itself when it is not known."""
        member = self.get(machine_id)
        return machine_id if member is None else member.nickname

    def resolve(self, name: str) -> Member | None:
        """An active member by nickname (case-insensitive) or id."""
        for member in self.active():
            if member.machine_id == name or same_nickname(member.nickname, name):
                return member
        return None

    def on_change(self, callback: Callable[[], None]) -> None:
        """Be called after the registry changed (it is on disk by then)."""
        self._callbacks.append(callback)

    # -- extending --------------------------------------------------------------------------------------

    def admit(
        self,
        public: PublicIdentity,
        nickname: str,
        urls: Iterable[str],
        *,
        epoch: int,
        witness: bool = False,
    ) -> Member:
        """Admit a machine. A nickname that is taken gets a free suffix.

        Raises ``already-member`` (also for one that was removed: it needs a new identity), ``bad-identity``.
        """
        known = self.get(public.machine_id)
        if known is not None:
            raise _already_member(known)
        public.check()
        free = free_nickname(check_nickname(nickname), [member.nickname for member in self.active()])
        self._append(identity_draft("admit", public, free, urls, witness), epoch)
        return self._folded.members[public.machine_id]

    def rename(self, machine_id: str, nickname: str, *, epoch: int) -> Member:
        """Give a member another nickname. Raises ``nickname-taken``, ``bad-input`` or ``unknown-machine``."""
        member = self._must_be_active(machine_id)
        wanted = check_nickname(nickname)
        if member.nickname == wanted:
            return member
        holder = self.resolve(wanted)
        if holder is not None and holder.machine_id != machine_id:
            raise InstarError(
                "nickname-taken", f"{holder.machine_id} is already called {holder.nickname}", "choose another"
            )
        self._append(draft("rename", machine_id, nickname=wanted), epoch)
        return self._folded.members[machine_id]

    def set_urls(self, machine_id: str, urls: Iterable[str], *, epoch: int) -> Member:
        """Record where a member can be reached; no record is made when nothing changes."""
        member = self._must_be_active(machine_id)
        wanted = tuple(urls)
        if member.urls != wanted:
            self._append(draft("urls", machine_id, urls=wanted), epoch)
        return self._folded.members[machine_id]

    def make_witness(self, machine_id: str, *, epoch: int) -> Member:
        """Record that a member only keeps the lease register from now on."""
        if not self._must_be_active(machine_id).witness:
            self._append(draft("witness", machine_id), epoch)
        return self._folded.members[machine_id]

    def remove(self, machine_id: str, *, epoch: int) -> None:
        """Remove a member for good."""
        self.bury(self.next_tombstone("remove", machine_id, epoch=epoch))

    def leave(self, machine_id: str, *, epoch: int) -> None:
        """Record that a member left by its own wish, for good."""
        self.bury(self.next_tombstone("leave", machine_id, epoch=epoch))

    def next_tombstone(
        self, kind: Literal["remove", "leave"], machine_id: str, *, epoch: int
    ) -> RegistryRecord:
        """The record that would end a membership, signed but not yet part of the registry: it can be shown
        to that machine before its tunnel closes."""
        self._must_be_active(machine_id)
        return self._next(draft(kind, machine_id), epoch)

    def bury(self, tombstone: RegistryRecord) -> None:
        """Append what ``next_tombstone`` made; signed anew if the registry has grown since."""
        if tombstone.prev == self.head:
            self._become(fold([tombstone], onto=self._folded))
        elif self.resolve(tombstone.machine_id) is not None:
            self._append(draft(tombstone.kind, tombstone.machine_id), max(tombstone.epoch, self.epoch))

    # -- merging ----------------------------------------------------------------------------------------

    def merge(self, records: Sequence[RegistryRecord]) -> bool:
        """Take over a peer's chain if it is valid and ahead of ours (see ``judge``); ``True`` if adopted.

        Raises ``InstarError("registry-refused")`` for a forged, foreign or rewritten chain, and counts it.
        """
        try:
            adopted = judge(self._folded, records)
        except InstarError as error:
            self.refusals += 1
            self.last_refusal = error.message
            log.warning("refused a registry: %s", error.message)
            raise
        if adopted is None:
            return False
        self._become(adopted)
        return True

    def buried_in(self, records: Sequence[RegistryRecord]) -> tuple[str, ...]:
        """Members of ours that a valid chain which parted from ours has removed."""
        return buried_elsewhere(self._folded, records)

    # -- inside -----------------------------------------------------------------------------------------

    def _must_be_active(self, machine_id: str) -> Member:
        member = self.get(machine_id)
        if member is None or member.removed:
            raise InstarError(
                "unknown-machine",
                f"{machine_id} is not a member of this mesh",
                "`instar machines` lists them",
                status=404,
                extra={"known": [member.nickname for member in self.active()]},
            )
        return member

    def _next(self, record: RegistryRecord, epoch: int) -> RegistryRecord:
        return signed_next(record, self._folded, self._identity, iso(self._clock.wall()), epoch)

    def _append(self, record: RegistryRecord, epoch: int) -> None:
        self._become(fold([self._next(record, epoch)], onto=self._folded))

    def _become(self, folded: Folded) -> None:
        self._write(folded)
        self._folded = folded
        for callback in self._callbacks:
            callback()

    def _write(self, folded: Folded) -> None:
        write_atomic(self._path, msgspec.json.encode(RegistryFile(folded.records)) + b"\n")


def _already_member(member: Member) -> InstarError:
    if member.removed:
        return InstarError(
            "removed-machine",
            f"{member.nickname} ({member.machine_id}) was removed from this mesh; its identity stays out",
            "on that machine, move its machine/ folder aside for a new identity, and join again",
        )
    return InstarError("already-member", f"{member.nickname} is already a member of this mesh")
