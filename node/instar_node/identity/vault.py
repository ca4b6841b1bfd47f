"""The vault of this home: every secret of the mesh, sealed on disk, open only in memory."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path

import msgspec

from instar_node.clock import Clock, iso
from instar_node.contracts import Members
from instar_node.errors import InstarError
from instar_node.identity.keys import MachineIdentity
from instar_node.identity.sealing import WrappedKey, open_value, unwrap, wrap_for
from instar_node.identity.secret_record import (
    SecretRecord,
    Stamp,
    as_file,
    check_record,
    check_value,
    written,
)
from instar_node.storage.atomic import read_json, write_atomic

log = logging.getLogger("instar.vault")

FILE_NAME = "vault.json"
MAX_SECRETS = 200
MAX_RECORDS = 1_000
"""Secrets ever named; a removed one keeps a small record, so that it stays removed everywhere."""
RETIRED_KEPT = 64
_RESTORE = (
    "move it aside: this machine then gets the secrets from the others again; on a machine that is alone, "
    "set them anew (instar secret set NAME)"
)


class VaultFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of ``vault.json``."""

    records: tuple[SecretRecord, ...]


class Vault:
    """Keeps ``machine/vault.json`` (0600). Written by the holder of the lease, copied by every reader.

    Readers are the members that run the agent: a witness keeps the register and gets no secrets.
    """

    def __init__(self, path: Path, identity: MachineIdentity, members: Members, clock: Clock) -> None:
        self._path = path
        self._identity = identity
        self._members = members
        self._clock = clock
        self._records: dict[str, SecretRecord] = {}
        self._values: dict[str, str] = {}
        self._retired: deque[str] = deque(maxlen=RETIRED_KEPT)
        self._hidden: tuple[str, ...] = ()
        self._callbacks: list[Callable[[], None]] = []
        self.refusals = 0
        """How many records of others were refused."""

    @classmethod
    def load(cls, folder: Path, identity: MachineIdentity, members: Members, clock: Clock) -> Vault:
        """The vault of this home; empty if there is none. Raises ``file-damaged``, naming the file.

        What cannot be opened with this machine's key is kept, and listed by ``locked``.
        """
        vault = cls(folder / FILE_NAME, identity, members, clock)
        if vault._path.exists():
            for record in read_json(vault._path, VaultFile, _RESTORE).records:
                vault._take(record)
        return vault

    # -- reading ----------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Every secret there is, sorted."""
        return sorted(name for name, record in self._records.items() if not record.removed)

    def record(self, name: str) -> SecretRecord | None:
        """The newest writing of a secret; ``None`` when there is none or it was removed."""
        record = self._records.get(name)
        return None if record is None or record.removed else record

    def value(self, name: str) -> str | None:
        """The value, or ``None`` when there is no such secret or it cannot be opened here."""
        return self._values.get(name)

    def values(self) -> tuple[str, ...]:
        """Every value to keep out of sight: those in force, and those replaced since the start. May be asked
        for on any thread."""
        return self._hidden

    def locked(self) -> list[str]:
        """Secrets that this machine cannot open: they were written when it was no reader."""
        return [name for name in self.names() if name not in self._values]

    def readable_by(self, machine_id: str) -> list[str]:
        """Secrets that this machine can open, or could while it was a member."""
        found = []
        for name in self.names():
            record = self._records[name]
            if machine_id in record.wrapped or machine_id in record.exposed_to:
                found.append(name)
        return found

    def readers(self) -> dict[str, bytes]:
        """Who is to read secrets now: id to X25519 public key."""
        active = self._members.active()
        return {member.machine_id: member.encryption_public for member in active if not member.witness}

    @property
    def digest(self) -> bytes:
        """Equal on two machines exactly when they hold the same records."""
        stamps = ((name, self._records[name].stamp) for name in sorted(self._records))
        return sha256(msgspec.msgpack.encode(list(stamps))).digest()

    def files(self) -> dict[str, bytes]:
        """The records as files of the shared state, ``secrets/NAME.json``; of a removed secret too, so that
        nobody who was away brings it back."""
        return {f"secrets/{name}.json": as_file(record) for name, record in self._records.items()}

    def stamps(self) -> dict[str, Stamp]:
        """The newest writing known of each secret, removed ones too."""
        return {name: record.stamp for name, record in self._records.items()}

    def newer_than(self, known: dict[str, Stamp]) -> list[SecretRecord]:
        """Records that somebody who knows these stamps lacks."""
        return [
            record
            for name, record in sorted(self._records.items())
            if name not in known or record.stamp > known[name]
        ]

    def lacks(self, stamps: dict[str, Stamp]) -> bool:
        """Whether somebody who holds these has anything newer than we."""
        ours = self.stamps()
        return any(name not in ours or stamp > ours[name] for name, stamp in stamps.items())

    def on_change(self, callback: Callable[[], None]) -> None:
        """Be called after the vault changed (it is on disk by then)."""
        self._callbacks.append(callback)

    # -- writing, as the holder -------------------------------------------------------------------------

    def set(self, name: str, value: str, *, epoch: int) -> SecretRecord:
        """Keep a value under a name. Raises ``bad-input``, or ``vault-full``."""
        check_value(value)
        if self.record(name) is None and len(self.names()) >= MAX_SECRETS:
            raise _full(f"it holds {MAX_SECRETS} secrets")
        if name not in self._records and len(self._records) >= MAX_RECORDS:
            raise _full(f"{MAX_RECORDS} names have been used")
        return self._write(name, value, epoch, iso(self._clock.wall()))

    def remove(self, name: str, *, epoch: int) -> None:
        """Remove a secret everywhere. Raises ``unknown-secret``."""
        if self.record(name) is None:
            raise unknown_secret(name, self.names())
        self._write(name, None, epoch, iso(self._clock.wall()))

    def misfits(self) -> list[str]:
        """Secrets that can be read by other machines than should read them now."""
        readers = self.readers().keys()
        return [name for name in self.names() if self._records[name].readers != readers]

    def realign(self, epoch: int, at_most: int) -> list[SecretRecord]:
        """Seal up to ``at_most`` misfits anew, for exactly the machines that should read them.

        Machines that could read a value and are out are noted in it. Secrets that cannot be opened here
        (``locked``) are left. Returns the new records; empty when there is nothing left to do.
        """
        readers = self.readers()
        done: list[SecretRecord] = []
        for name in self.misfits():
            if name not in self._values or len(done) == at_most:
                continue
            old = self._records[name]
            exposed = tuple(sorted({*old.exposed_to, *(old.readers - readers.keys())}))
            done.append(self._next(name, self._values[name], epoch, old.set_at, exposed))
        if done:
            self._keep(done)
        return done

    # -- copying ----------------------------------------------------------------------------------------

    def merge(self, records: Iterable[SecretRecord]) -> list[InstarError]:
        """Take over the records that are newer than ours; returns why others were refused."""
        taken: list[SecretRecord] = []
        refused: list[InstarError] = []
        for record in records:
            known = self._records.get(record.name)
            if known is not None and record.stamp <= known.stamp:
                continue
            try:
                check_record(record, self._members)
                if known is None and len(self._records) + len(taken) >= MAX_RECORDS:
                    raise _full(f"{MAX_RECORDS} names have been used")
            except InstarError as error:
                self.refusals += 1
                log.warning("refused a secret: %s", error.message)
                refused.append(error)
            else:
                taken.append(record)
        if taken:
            self._keep(taken)
        return refused

    def share(self, name: str, stamp: Stamp, reader: str) -> WrappedKey | None:
        """The key of this very writing for another reader; ``None`` if we have another, or cannot open it."""
        record = self.record(name)
        readers, me = self.readers(), self._identity.machine_id
        if record is None or record.stamp != stamp or me not in record.wrapped or reader not in readers:
            return None
        place = record.place(self._members.mesh_id)
        key = unwrap(place, record.wrapped[me], me, self._identity.encryption_private)
        return wrap_for(place, key, {reader: readers[reader]})[reader]

    def unlock(self, name: str, stamp: Stamp, wrapped: WrappedKey) -> None:
        """Open a locked secret with a key that another reader shared. Raises ``secret-damaged``."""
        record = self.record(name)
        if record is not None and record.stamp == stamp:
            self._values[name] = self._opened(record, wrapped)
            self._hide()

    def erase(self) -> None:
        """Forget everything: this machine is no member any more."""
        self._retired.extend(self._values.values())
        self._records.clear()
        self._values.clear()
        self._hide()
        self._path.unlink(missing_ok=True)

    # -- inside -----------------------------------------------------------------------------------------

    def _write(self, name: str, value: str | None, epoch: int, set_at: str) -> SecretRecord:
        record = self._next(name, value, epoch, set_at, ())
        self._keep([record])
        return record

    def _next(
        self, name: str, value: str | None, epoch: int, set_at: str, exposed: tuple[str, ...]
    ) -> SecretRecord:
        known = self._records.get(name)
        version = 1 if known is None else known.version + 1
        epoch = epoch if known is None else max(epoch, known.epoch)
        draft = SecretRecord(name, version, epoch, set_at, "", exposed_to=exposed)
        return written(self._identity, self._members.mesh_id, draft, value, self.readers())

    def _keep(self, records: Iterable[SecretRecord]) -> None:
        after = {**self._records, **{record.name: record for record in records}}
        content = VaultFile(tuple(after[name] for name in sorted(after)))
        write_atomic(self._path, msgspec.json.encode(content) + b"\n")
        for record in records:
            self._take(record)
        for callback in self._callbacks:
            callback()

    def _take(self, record: SecretRecord) -> None:
        """Hold a record in memory, opened if this machine can."""
        self._records[record.name] = record
        old = self._values.pop(record.name, None)
        wrapped = record.wrapped.get(self._identity.machine_id)
        if wrapped is not None:
            try:
                self._values[record.name] = self._opened(record, wrapped)
            except InstarError as error:
                log.error("%s", error.message)
        if old is not None and old != self._values.get(record.name):
            self._retired.append(old)
        self._hide()

    def _hide(self) -> None:
        self._hidden = (*self._values.values(), *self._retired)

    def _opened(self, record: SecretRecord, wrapped: WrappedKey) -> str:
        place = record.place(self._members.mesh_id)
        key = unwrap(place, wrapped, self._identity.machine_id, self._identity.encryption_private)
        return open_value(place, key, record.nonce, record.sealed)


def unknown_secret(name: str, known: list[str]) -> InstarError:
    """404 that lists the names there are."""
    return InstarError(
        "unknown-secret",
        f"there is no secret {name}",
        f"known: {', '.join(known)}" if known else f"instar secret set {name}",
        status=404,
        extra={"known": known},
    )


def _full(why: str) -> InstarError:
    return InstarError("vault-full", f"the vault takes no more: {why}", "remove some: instar secret rm NAME")
