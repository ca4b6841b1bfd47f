"""The state repository on disk: ``<home>/state.git``, with ``<home>/state`` as its work tree.

It lies beside the work tree, not in it, so that whatever an agent does in its folder cannot harm it; a
``.git`` file there makes every git command work. What was verified is ``refs/instar/verified``; ``main`` only
shows it to people. All methods block and belong to one thread at a time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pygit2
from pygit2.enums import ObjectType, Option

from instar_node.errors import InstarError
from instar_node.identity.chain import RegistryRecord
from instar_node.storage.atomic import write_atomic
from instar_node.storage.private import private_dir
from instar_node.sync.commit import Commit, Draft, parse_commit, signed_commit
from instar_node.sync.packing import needs_packing, pack_all
from instar_node.sync.paths import IGNORED, LEASE_FILE, MACHINES, MAX_DEPTH, MAX_FILE_BYTES, SIGNERS_FILE
from instar_node.sync.rules import Content
from instar_node.sync.tree import FOLDER, File, Files, bad_tree, build_tree, check_tree, flatten, parse_tree

VERIFIED = "refs/instar/verified"
ASIDE = "refs/instar/aside/"
"""Commits that were refused, or made by hand, are kept below it for inspection."""
SHOWN = "refs/heads/main"
MAX_ASIDE = 50
MAX_NEW_COMMITS = 100_000
MAX_MILESTONES = 24

log = logging.getLogger("instar.sync")

_KINDS = {"commit": ObjectType.COMMIT, "tree": ObjectType.TREE, "blob": ObjectType.BLOB}
_NAMES = {int(number): name for name, number in _KINDS.items()}

# What was acknowledged must outlive a power cut; libgit2 by default syncs neither objects nor refs.
pygit2.option(Option.ENABLE_FSYNC_GITDIR, True)


class StateRepository:
    """Objects, refs and verified history of the state."""

    def __init__(self, path: Path, worktree: Path) -> None:
        self.path = path
        self.worktree = worktree
        self._repository: pygit2.Repository | None = None
        self._records: dict[str, tuple[RegistryRecord, ...]] = {}

    def open(self) -> None:
        """Make the repository and the work tree if they are missing, and tie them to each other."""
        private_dir(self.worktree)
        if not (self.path / "HEAD").exists():
            config = pygit2.init_repository(str(self.path), bare=True, initial_head="main").config
            config["core.bare"] = False
            config["core.worktree"] = os.path.relpath(self.worktree, self.path)
            config["core.fsync"] = "all"
            config["gc.auto"] = 0
            config["gc.pruneExpire"] = "never"  # queued edits are objects that no ref holds
            config["transfer.fsckObjects"] = True
        self.path.chmod(0o700)
        settings = pygit2.Config(str(self.path / "config"))
        settings["gpg.ssh.allowedSignersFile"] = str((self.worktree / SIGNERS_FILE).absolute())
        write_atomic(self.path / "info" / "exclude", "\n".join(IGNORED).encode() + b"\n")
        self.tie()
        self._repository = pygit2.Repository(str(self.path))

    @property
    def tied(self) -> bool:
        """Whether the work tree is there and is ours: a folder without this file was deleted, not emptied."""
        return (self.worktree / ".git").is_file()

    def tie(self) -> None:
        """Make git commands in the work tree find the repository."""
        private_dir(self.worktree)
        link = self.worktree / ".git"
        if not link.is_file():
            write_atomic(link, f"gitdir: {os.path.relpath(self.path, self.worktree)}\n".encode())

    @property
    def git(self) -> pygit2.Repository:
        """The open repository."""
        assert self._repository is not None, "open() comes first"
        return self._repository

    def tidy(self) -> bool:
        """Pack what has become many small files; ``True`` if there was need."""
        if not needs_packing(self.path):
            return False
        pack_all(self.path)
        self._repository = pygit2.Repository(str(self.path))
        return True

    # -- objects ----------------------------------------------------------------------------------------

    def has(self, oid: str) -> bool:
        """Whether the object is here."""
        return pygit2.Oid(hex=oid) in self.git.odb

    def read(self, oid: str) -> tuple[str, bytes]:
        """Kind and bytes of an object. Raises ``InstarError("object-missing")``, also for a damaged one."""
        try:
            number, data = self.git.read(oid)
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise _missing(oid) from error
        return _NAMES.get(int(number), "tag"), data

    def write(self, kind: str, data: bytes) -> str:
        """Store an object durably; returns its id."""
        return str(self.git.write(_KINDS[kind], data))

    def tree(self, oid: str) -> bytes:
        """The bytes of a tree."""
        return self._of_kind("tree", oid)

    def blob(self, oid: str) -> bytes:
        """The bytes of a file."""
        return self._of_kind("blob", oid)

    def size(self, oid: str) -> int:
        """Bytes of a blob, without reading it."""
        try:
            number, size = self.git.odb.read_header(oid)
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise _missing(oid) from error
        if int(number) != int(ObjectType.BLOB):
            raise _missing(oid)
        return int(size)

    def commit(self, oid: str) -> Commit:
        """A commit, parsed strictly. Raises ``foreign-commit`` or ``object-missing``."""
        return parse_commit(self.raw_commit(oid))

    def _of_kind(self, kind: str, oid: str) -> bytes:
        found, data = self.read(oid)
        if found != kind:
            raise InstarError("foreign-commit", f"object {oid[:12]} is a {found}, not a {kind}", status=422)
        return data

    # -- history ----------------------------------------------------------------------------------------

    def head(self) -> str | None:
        """The newest verified commit."""
        return self._ref(VERIFIED)

    def set_head(self, oid: str) -> None:
        """Make a verified commit the newest, and show it to git commands in the work tree."""
        self._set(VERIFIED, oid)
        self._set(SHOWN, oid)
        self.git.set_head(SHOWN)
        try:
            index = self.git.index
            index.read_tree(self.git[oid].peel(pygit2.Tree).id)
            index.write()
        except pygit2.GitError as error:  # somebody's git has it locked; it only serves `git status` there
            log.info("the index of %s was not brought up to date: %s", self.worktree, error)

    def moved_by_hand(self) -> str | None:
        """A commit that somebody made in the work tree with git, on top of what is verified."""
        try:
            current = str(self.git.head.target)
        except pygit2.GitError:
            return None
        return current if current != self.head() else None

    def has_line(self, commit: str, tip: str) -> bool:
        """Whether ``commit`` is ``tip`` or comes before it."""
        if commit == tip:
            return True
        if not (self.has(commit) and self.has(tip)):
            return False
        try:
            return self.git.descendant_of(tip, commit)
        except (pygit2.GitError, ValueError):  # what is between them is missing, or no commit
            return False

    def shared(self, tip: str) -> str | None:
        """The newest commit that the line of ``tip`` has in common with the verified one."""
        head = self.head()
        base = self.git.merge_base(tip, head) if head is not None else None
        return None if base is None else str(base)

    def line(self, tip: str, base: str | None) -> list[Commit]:
        """The commits after ``base`` up to ``tip``, oldest first, by first parents.

        Raises as ``commit`` does, and ``line-too-long``.
        """
        found: list[Commit] = []
        current: str | None = tip
        while current is not None and current != base:
            commit = self.commit(current)
            found.append(commit)
            if len(found) > MAX_NEW_COMMITS:
                raise InstarError("line-too-long", f"more than {MAX_NEW_COMMITS} new commits", status=422)
            current = commit.parents[0] if commit.parents else None
        return found[::-1]

    def keep_aside(self, oid: str) -> None:
        """Keep a commit that is not believed, for a person to look at; the oldest such are let go."""
        if not self.has(oid):
            return
        names = sorted(
            (name for name in self.git.references if name.startswith(ASIDE)),
            key=lambda name: (self.path / name).stat().st_mtime_ns if (self.path / name).exists() else 0,
        )
        for name in names[: max(0, len(names) - MAX_ASIDE + 1)]:
            self.git.references.delete(name)
        self._set(ASIDE + oid, oid)

    def _ref(self, name: str) -> str | None:
        reference = self.git.references.get(name)
        return None if reference is None else str(reference.target)

    def _set(self, name: str, oid: str) -> None:
        self.git.references.create(name, pygit2.Oid(hex=oid), force=True)

    # -- content ----------------------------------------------------------------------------------------

    def files(self, commit: str | None) -> dict[str, File]:
        """All files at a verified commit."""
        return {} if commit is None else flatten(self.commit(commit).tree, self.tree)

    def check(self, tree: str, before: str | None) -> None:
        """Refuse a tree with anything but harmless plain files. Raises ``bad-tree``."""
        check_tree(tree, before, self.tree, self.size)

    def content(self, commit: Commit) -> Content:
        """What the rules look at. Raises ``bad-tree`` when it is not there or cannot be read."""
        folder = self._entry(commit.tree, MACHINES)
        lease = self._entry(commit.tree, *LEASE_FILE.split("/"))
        return Content(
            records=() if folder is None else self._registry(folder),
            lease=b"" if lease is None or self.size(lease) > MAX_FILE_BYTES else self.blob(lease),
        )

    def _entry(self, tree: str, *names: str) -> str | None:
        """The id of what a tree has at a path."""
        oid: str | None = tree
        for name in names:
            if oid is None:
                return None
            oid = next((entry.oid for entry in parse_tree(self.tree(oid)) if entry.name == name), None)
        return oid

    def _registry(self, folder: str) -> tuple[RegistryRecord, ...]:
        if folder not in self._records:
            self._records = {folder: self._read_registry(folder)}  # it rarely changes: one is enough
        return self._records[folder]

    def _read_registry(self, folder: str) -> tuple[RegistryRecord, ...]:
        records: list[RegistryRecord] = []
        for entry in parse_tree(self.tree(folder)):
            if entry.mode == FOLDER or self.size(entry.oid) > MAX_FILE_BYTES:
                continue
            try:
                records += msgspec.json.decode(self.blob(entry.oid), type=tuple[RegistryRecord, ...])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                message = f"{MACHINES}/{entry.name} holds no registry records: {error}"
                raise InstarError("forged-registry", message, status=422) from error
        return tuple(sorted(records, key=lambda record: record.n))

    def store(self, files: Files) -> str:
        """Write the folders of a state whose files are stored already; returns the id of its tree."""
        return build_tree(files, lambda raw: self.write("tree", raw))

    def add(self, draft: Draft, sign: Callable[[bytes], str]) -> Commit:
        """Write a signed commit; no ref moves."""
        payload = draft.payload()
        raw = signed_commit(payload, sign(payload))
        self.write("commit", raw)
        return parse_commit(raw)

    # -- exchanging -------------------------------------------------------------------------------------

    def raw_commit(self, oid: str) -> bytes:
        """The bytes of a commit."""
        return self._of_kind("commit", oid)

    def milestones(self) -> list[str]:
        """The verified head and ancestors of it, ever further back, for another machine to find what its
        line has in common with ours."""
        found: list[str] = []
        current, step = self.head(), 1
        while current is not None and len(found) < MAX_MILESTONES:
            found.append(current)
            for _ in range(step):
                parents = self.commit(current).parents
                if not parents:
                    return found
                current = parents[0]
            step *= 2
        return found

    def missing(self, roots: list[str], complete: set[str]) -> Iterator[str]:
        """Ids of trees and blobs that are not here among all that ``roots`` name.

        Ask for those, store them, ask again until there are none. ``complete`` remembers between the calls
        what is here with all that it names.
        """
        for root in roots:
            yield from self._missing_below(root, complete, 0)

    def _missing_below(self, oid: str, complete: set[str], depth: int) -> Iterator[str]:
        if oid in complete:
            return
        if depth > MAX_DEPTH:
            raise bad_tree("folders lie too deep")
        if not self.has(oid):
            yield oid
            return
        whole = True
        kind, data = self.read(oid)
        for entry in parse_tree(data) if kind == "tree" else ():
            for inner in self._missing_below(entry.oid, complete, depth + 1):
                whole = False
                yield inner
        if whole:
            complete.add(oid)


def registry_files(records: tuple[RegistryRecord, ...]) -> dict[str, bytes]:
    """The registry as files: ``machines/<id>.json`` holds the records about one machine."""
    about: dict[str, list[RegistryRecord]] = {}
    for record in records:
        about.setdefault(record.machine_id, []).append(record)
    return {
        f"{MACHINES}/{machine}.json": msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n"
        for machine, rows in about.items()
    }


def _missing(oid: str) -> InstarError:
    return InstarError("object-missing", f"object {oid[:12]} is missing or damaged", status=422)
