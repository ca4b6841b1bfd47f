"""The awake machine's pen: the fence, edits taken in, and the mesh's own files. Blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pygit2
from pygit2.enums import FileMode

from instar_node.clock import Clock
from instar_node.identity.commit_signature import allowed_signer
from instar_node.identity.keys import MachineIdentity
from instar_node.identity.registry import MachineRegistry
from instar_node.sync.applied import Newest, applied_number, encode_applied, read_applied
from instar_node.sync.changes import ChangeSet, Conflict, apply
from instar_node.sync.commit import Commit, Draft, Person
from instar_node.sync.paths import APPLIED_FILE, LEASE_FILE, MARKERS, PINS, SECRETS, SIGNERS_FILE, is_reserved
from instar_node.sync.repository import registry_files
from instar_node.sync.rules import Known, Standing
from instar_node.sync.state_copy import StateCopy
from instar_node.sync.tree import File

PUBLISHED = (f"{PINS}/", f"{SECRETS}/", MARKERS)
"""Folders whose whole content other parts give."""


class StateWriter:
    """Makes signed commits in the name of one machine. Belongs to the repository's thread."""

    def __init__(
        self, copy: StateCopy, identity: MachineIdentity, registry: MachineRegistry, clock: Clock
    ) -> None:
        self._copy = copy
        self._repository = copy.repository
        self._identity = identity
        self._registry = registry
        self._clock = clock
        self._published: object = None
        """What the mesh's own files were last made of."""

    def fence(self, epoch: int, proof: bytes, known: Known) -> Standing:
        """The first commit of an epoch: it carries the lease record that entitles this machine to write.

        The head does not move: that waits until the hub has it.
        """
        updates: dict[str, File | None] = {LEASE_FILE: self._stored(proof), **self._registry_updates()}
        me = self._identity.machine_id
        return self._copy.judge_own(self._build(updates, me, "a new epoch begins", epoch), known)

    def publish(self, files: Mapping[str, bytes], epoch: int, known: Known) -> bool:
        """Bring the mesh's own files up to date, the registry among them; ``False`` if all were.

        Below ``PUBLISHED`` nothing else stays.
        """
        key = (epoch, self._registry.head, tuple(sorted(files.items())))
        if key == self._published:
            return False
        updates: dict[str, File | None] = {
            path: None for path in self._copy.files if path.startswith(PUBLISHED)
        }
        updates |= {path: self._stored(data) for path, data in files.items()}
        updates |= self._registry_updates()
        changed = {path: file for path, file in updates.items() if self._copy.files.get(path) != file}
        if changed:
            names = sorted({path.partition("/")[0] for path in changed})
            subject = f"the mesh's own files: {', '.join(names)}"
            self._commit(changed, self._identity.machine_id, subject, epoch, known)
        self._published = key
        return bool(changed)

    def take_in(
        self, machine_id: str, queue_id: str, changes: Iterable[ChangeSet], epoch: int, known: Known
    ) -> tuple[Conflict, ...]:
        """Apply change sets of one machine, each as a commit; those that stand already are passed over."""
        conflicts: list[Conflict] = []
        done = applied_number(self._copy.files, self._repository.blob, machine_id, queue_id)
        for change in changes:
            if change.number <= done:
                continue
            conflicts += self._take_in_one(machine_id, queue_id, change, epoch, known)
            done = change.number
        return tuple(conflicts)

    def _take_in_one(
        self, machine_id: str, queue_id: str, change: ChangeSet, epoch: int, known: Known
    ) -> tuple[Conflict, ...]:
        nickname = self._registry.nickname(machine_id)
        applied = apply(change, self._copy.files, machine_id, nickname, self._merge)
        table = read_applied(self._copy.files, self._repository.blob)
        table[machine_id] = Newest(queue_id, change.number)
        updates = {path: file for path, file in applied.updates.items() if not is_reserved(path)}
        subject = _subject(nickname, sorted(updates) or [edit.path for edit in change.edits])
        updates[APPLIED_FILE] = self._stored(encode_applied(table))
        self._commit(updates, machine_id, subject, epoch, known)
        return applied.conflicts

    def _commit(
        self, updates: Mapping[str, File | None], author: str, subject: str, epoch: int, known: Known
    ) -> None:
        commit = self._build(updates, author, subject, epoch)
        self._copy.become(self._copy.judge_own(commit, known))

    def _build(self, updates: Mapping[str, File | None], author: str, subject: str, epoch: int) -> Commit:
        before = self._copy.standing
        files = dict(self._copy.files)
        for path, file in updates.items():
            if file is None:
                files.pop(path, None)
            else:
                files[path] = file
        time = max(int(self._clock.wall()), before.time if before is not None else 0)
        me = self._identity.machine_id
        return self._repository.add(
            Draft(
                tree=self._repository.store(files),
                parent=None if before is None else before.commit,
                author=Person(self._registry.nickname(author), author, time),
                committer=Person(self._registry.nickname(me), me, time),
                subject=subject,
                mesh_id=self._registry.mesh_id,
                epoch=epoch,
            ),
            self._identity.sign_commit,
        )

    def _registry_updates(self) -> dict[str, File | None]:
        files = {**registry_files(self._registry.records), SIGNERS_FILE: signers_of(self._registry)}
        return {path: self._stored(data) for path, data in files.items()}

    def _stored(self, data: bytes) -> File:
        return File(self._repository.write("blob", data))

    def _merge(self, base: File, ours: File, theirs: File) -> File | None:
        """Merge two changes of a text that do not touch (three-way, by lines)."""
        versions = (base, ours, theirs)
        if not self._repository.has(base.oid):  # the other machine started from what is not known here
            return None
        if not all(_is_text(self._repository.blob(file.oid)) for file in versions):
            return None
        entries = [pygit2.IndexEntry("file", pygit2.Oid(hex=file.oid), FileMode.BLOB) for file in versions]
        result = self._repository.git.merge_file_from_index(entries[0], entries[1], entries[2])
        if not result.automergeable:
            return None
        executable = theirs.executable if ours.executable == base.executable else ours.executable
        return File(self._repository.write("blob", result.contents.encode()), executable)


def signers_of(registry: MachineRegistry) -> bytes:
    """Every machine that ever was a member, with its key, for ``git verify-commit``.

    Removed ones are listed too, because what they signed before still stands; the note says so.
    """
    lines = []
    for machine_id in dict.fromkeys(record.machine_id for record in registry.records):
        member = registry.get(machine_id)
        if member is not None:
            note = "removed" if member.removed else member.nickname.replace(" ", "_")
            lines.append(allowed_signer(f"{machine_id}@instar", member.signing_public, note))
    return "\n".join(lines).encode() + b"\n"


def _subject(nickname: str, paths: list[str]) -> str:
    shown = paths[0] if len(paths) == 1 else f"{len(paths)} files"
    return f"{nickname}: {shown}"


def _is_text(data: bytes) -> bool:
    try:
        return "\0" not in data.decode("utf-8")
    except UnicodeDecodeError:
        return False
