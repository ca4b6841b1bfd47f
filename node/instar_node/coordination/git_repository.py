"""The bare repository that holds lease records as commits: building, reading and dropping them.

A record is the file ``lease.json`` of one commit. A renewal replaces the tip, so that the chain of first
parents is the history of epochs: the last record of each. All calls block; every call opens the repository
anew, because libgit2's repository objects must not be shared between threads.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec
import pygit2
from pygit2.enums import FileMode, Option

from instar_node.coordination.git_refs import UNREADABLE
from instar_node.coordination.hub import is_bare_repository
from instar_node.coordination.hub_troubles import closed, not_a_repository, not_writable
from instar_node.coordination.lease_store import StoreUnavailable
from instar_node.coordination.record import KnownRecord, LeaseRecord, decode_record, epoch_text

LEASE_FILE = "lease.json"
MAX_RECORD_BYTES = 262_144
_OBJECT_NAME = re.compile(rb"[0-9a-f]{40}\s*")

# An acknowledged swap must outlive a power cut; libgit2 by default syncs neither objects nor refs.
pygit2.option(Option.ENABLE_FSYNC_GITDIR, True)
# A disk shared by machines shows other owners than our own account. The check protects from commands in a
# stranger's configuration; libgit2 runs none of them, and the person has named this repository.
pygit2.option(Option.SET_OWNER_VALIDATION, False)


class LeaseRepository:
    """One bare repository on a disk of ours: a hub, or the local copy of a remote one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        """Whether there is a bare repository at the path."""
        return is_bare_repository(self.path)

    def create(self) -> None:
        """Make the repository if it is not there, at once and whole. Raises ``StoreUnavailable``."""
        if self.exists():
            return
        try:
            with tempfile.TemporaryDirectory(prefix=".instar-", dir=self.path.parent) as folder:
                fresh = Path(folder) / self.path.name
                config = pygit2.init_repository(str(fresh), bare=True).config
                config["core.fsync"] = "all"  # for git itself, when it serves this repository
                config["receive.autogc"] = False
                config["gc.auto"] = 0
                fresh.rename(self.path)
        except (pygit2.GitError, OSError) as error:
            if not self.exists():  # another one was not quicker
                raise self._failed(error) from error

    @contextmanager
    def opened(self) -> Iterator[pygit2.Repository]:
        """The repository for one piece of work.

        Raises:
            StoreUnavailable: there is none, or the disk fails or is full, or may not be written.
        """
        self._require_there()
        try:
            yield pygit2.Repository(str(self.path))
        except (pygit2.GitError, OSError) as error:
            raise self._failed(error) from error

    def _require_there(self) -> None:
        try:
            if not self.path.exists():
                raise StoreUnavailable(f"there is no repository at {self.path}", "hub-missing")
            if not self.exists():
                raise not_a_repository(self.path)
        except PermissionError as error:
            raise closed(self.path) from error

    def tip(self, ref: str) -> str | None:
        """The version ``ref`` holds now, ``None`` when it does not exist."""
        with self.opened() as repository:
            return tip_of(repository, ref)

    def is_folder(self, ref: str) -> bool:
        """Whether anything lies below the name of a ref, another ref or any file: then it cannot be set."""
        with self.opened() as repository:
            if any(path.is_file() for path in (self.path / ref).rglob("*")):
                return True
            return any(name.startswith(f"{ref}/") for name in repository.references)  # packed ones too

    def has(self, version: str) -> bool:
        """Whether the commit of this version is here."""
        with self.opened() as repository:
            return _holds(repository, version)

    def holds(self, oid: str) -> bool:
        """Whether an object of any kind is here: whoever may push may set a ref to what is no commit."""
        with self.opened() as repository:
            return pygit2.Oid(hex=oid) in repository.odb

    def build(self, record: LeaseRecord, base: str | None) -> str:
        """Write the commit of ``record`` and return its version.

        ``base`` is the version it replaces: a renewal gets the base's parents, a change of epoch the base
        itself as parent. The same record on the same base is always the same version.
        """
        author = pygit2.Signature(record.holder, f"{record.holder}@instar", _seconds(record.at), 0)
        with self.opened() as repository:
            parents = _parents(repository, record, base)
            files = repository.TreeBuilder()
            files.insert(LEASE_FILE, repository.create_blob(record.encode()), FileMode.BLOB)
            version = repository.create_commit(None, author, author, _message(record), files.write(), parents)
        return str(version)

    def build_scratch(self) -> str:
        """Write a commit unlike any other, which holds nothing, and return its version."""
        author = pygit2.Signature("instar", "hub@instar", 0, 0)
        with self.opened() as repository:
            empty = repository.TreeBuilder().write()
            return str(repository.create_commit(None, author, author, secrets.token_hex(16), empty, []))

    def record_at(self, version: str) -> KnownRecord | None:
        """The record of a version, ``None`` when its objects are not here.

        Raises ``StoreUnavailable("hub-foreign")`` for a version that is no lease record.
        """
        with self.opened() as repository:
            if repository.get(version) is None:
                return None
            return KnownRecord(record=_record_of(_commit(repository, version)), version=version)

    def forget_renewed(self, replaced: KnownRecord, by: KnownRecord) -> None:
        """Delete the loose objects of a version that a renewal replaced; nothing refers to them any more.

        Keeps the repository at a constant size without any packing: with a machine on the bench the holder
        renews some two thousand times a day. Does nothing unless ``by`` is a later record of the same epoch.
        """
        if replaced.record.epoch != by.record.epoch or replaced.record.serial >= by.record.serial:
            return
        with self.opened() as repository:
            if not _holds(repository, replaced.version):
                return
            old, new = _commit(repository, replaced.version), _commit(repository, by.version)
            if old.parent_ids != new.parent_ids:
                return
            for item in (old.id, old.tree_id, *(entry.id for entry in old.tree)):
                name = str(item)
                (self.path / "objects" / name[:2] / name[2:]).unlink(missing_ok=True)

    def _failed(self, error: Exception) -> StoreUnavailable:
        nearest = self.path if self.path.exists() else self.path.parent
        if not os.access(nearest, os.W_OK):
            return not_writable(self.path)
        return StoreUnavailable(f"the repository {self.path} cannot be used: {error}")


def tip_of(repository: pygit2.Repository, ref: str) -> str | None:
    """The version ``ref`` holds in an open repository; ``UNREADABLE`` for a garbled one."""
    try:
        reference = repository.references.get(ref)
        return None if reference is None else str(reference.resolve().target)
    except (pygit2.GitError, UnicodeDecodeError) as error:
        if _is_garbled(Path(repository.path) / ref):
            return UNREADABLE
        raise pygit2.GitError(str(error)) from error


def _is_garbled(file: Path) -> bool:
    """Whether a ref's file is there and names no object. Raises ``OSError`` when it cannot be read."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return _OBJECT_NAME.fullmatch(opened.read(len(UNREADABLE) + 2)) is None


def _holds(repository: pygit2.Repository, version: str) -> bool:
    """Whether a version (any text a record may carry) names a commit of this repository."""
    try:
        found = repository.get(version)
    except ValueError:  # not an object id at all
        return False
    return isinstance(found, pygit2.Commit) and str(found.id) == version


def _commit(repository: pygit2.Repository, version: str) -> pygit2.Commit:
    found = repository.get(version)
    if not isinstance(found, pygit2.Commit):
        raise StoreUnavailable(f"the register's value {version[:12]} is not a commit", "hub-foreign")
    return found


def _record_of(commit: pygit2.Commit) -> LeaseRecord:
    entry = next((entry for entry in commit.tree if entry.name == LEASE_FILE), None)
    if not isinstance(entry, pygit2.Blob) or entry.size > MAX_RECORD_BYTES:
        raise StoreUnavailable(f"the register's commit {commit.short_id} has no {LEASE_FILE}", "hub-foreign")
    try:
        return decode_record(entry.data)
    except msgspec.MsgspecError as error:
        message = f"{LEASE_FILE} in the register's commit {commit.short_id} is not a lease record: {error}"
        raise StoreUnavailable(message, "hub-foreign") from error


def _parents(repository: pygit2.Repository, record: LeaseRecord, base: str | None) -> list[pygit2.Oid]:
    if base is None:
        return []
    tip = _commit(repository, base)
    return list(tip.parent_ids) if _record_of(tip).epoch == record.epoch else [tip.id]


def _message(record: LeaseRecord) -> str:
    subject = f"epoch {epoch_text(record.epoch)}, record {record.serial}: {record.state} by {record.holder}"
    return "\n\n".join(part for part in (subject, record.reason) if part) + "\n"


def _seconds(at: str) -> int:
    """The commit's time; 1970 when the record carries none, so that a rebuild gives the same version."""
    try:
        return max(0, int(datetime.fromisoformat(at).timestamp()))
    except (ValueError, OverflowError, OSError):
        return 0
