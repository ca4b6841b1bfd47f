"""Git trees as bytes: parsed strictly, built, compared. Pure; objects are read through a function.

The whole state is handled as one flat mapping of paths to files; folders exist only inside git.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from instar_node.errors import InstarError
from instar_node.sync.commit import oid_of
from instar_node.sync.paths import MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES, refusal_of

PLAIN, EXECUTABLE, FOLDER = "100644", "100755", "40000"
_WORDS = {"120000": "is a symbolic link", "160000": "is a submodule"}


class File(msgspec.Struct, frozen=True):
    """One file of a state: its content by object id, and whether it may be executed."""

    oid: Annotated[str, Meta(pattern=r"^[0-9a-f]{40}\Z")]
    executable: bool = False


Files = Mapping[str, File]
"""A whole state: path → file."""


class Entry(msgspec.Struct, frozen=True):
    """One line of a tree object."""

    name: str
    mode: str
    oid: str


ReadTree = Callable[[str], bytes]
"""The raw bytes of a tree by its id; raises for one that is missing or no tree."""
SizeOf = Callable[[str], int]
"""Bytes of a blob by its id; raises for one that is missing or no blob."""


def parse_tree(raw: bytes) -> tuple[Entry, ...]:
    """The entries of a tree object. Raises ``InstarError("bad-tree")`` unless it is in git's normal form."""
    entries: list[Entry] = []
    rest = raw
    while rest:
        head, nul, rest = rest.partition(b"\0")
        mode, space, name = head.partition(b" ")
        if not nul or not space or not name or b"/" in name or len(rest) < 20:
            raise bad_tree("a folder is malformed")
        entries.append(
            Entry(name.decode("utf-8", "surrogateescape"), mode.decode("latin-1"), rest[:20].hex())
        )
        rest = rest[20:]
    keys = [_sort_key(entry) for entry in entries]
    if keys != sorted(keys) or len({entry.name for entry in entries}) != len(entries):
        raise bad_tree("a folder is not in git's order")
    return tuple(entries)


def encode_tree(entries: list[Entry]) -> bytes:
    """The tree object of these entries."""
    ordered = sorted(entries, key=_sort_key)
    return b"".join(f"{e.mode} ".encode() + e.name.encode() + b"\0" + bytes.fromhex(e.oid) for e in ordered)


def build_tree(files: Files, write: Callable[[bytes], str]) -> str:
    """Write all folders of a state, inner ones first, through ``write``; returns the id of the whole."""
    folders: dict[str, list[Entry]] = {"": []}
    for path, file in files.items():
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, []).append(Entry(name, EXECUTABLE if file.executable else PLAIN, file.oid))
        while folder and (parent := folder.rpartition("/")[0]) not in folders:
            folders[parent] = []
            folder = parent
    for folder in sorted(folders, key=lambda path: path.count("/") + bool(path), reverse=True):
        oid = write(encode_tree(folders[folder]))
        if folder:
            parent, _, name = folder.rpartition("/")
            folders[parent].append(Entry(name, FOLDER, oid))
    return oid


def flatten(tree: str, read: ReadTree) -> dict[str, File]:
    """All files of a verified tree."""
    return {path: File(entry.oid, entry.mode == EXECUTABLE) for path, entry in _walk(tree, None, read, "")}


def check_tree(tree: str, before: str | None, read: ReadTree, size_of: SizeOf) -> None:
    """Refuse a state that has anything but plain files of bounded size with harmless names.

    Only what differs from ``before``, the tree of a verified parent, is looked at. Raises
    ``InstarError("bad-tree")`` naming the first path at fault.
    """
    for path, entry in _walk(tree, before, read, ""):
        why = refusal_of(path)
        if why is None and entry.mode not in (PLAIN, EXECUTABLE):
            why = _WORDS.get(entry.mode, "has a mode that no machine of a mesh writes")
        if why is None and size_of(entry.oid) > MAX_FILE_BYTES:
            why = f"is larger than {MAX_FILE_BYTES >> 20} MiB"
        if why is not None:
            raise bad_tree(f"{path!r}: {why}")
    if before is None and sum(1 for _ in _walk(tree, None, read, "")) > MAX_FILES:
        raise bad_tree(f"there are more than {MAX_FILES} files")


def differing(old: Files, new: Files) -> list[str]:
    """Paths that are not the same in both states, sorted."""
    return sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))


def _walk(tree: str, before: str | None, read: ReadTree, prefix: str) -> Iterator[tuple[str, Entry]]:
    """Entries that are no folders, and not the same in ``before``."""
    if prefix.count("/") > MAX_DEPTH:
        raise bad_tree(f"{prefix!r}: folders lie too deep")
    known = {entry.name: entry for entry in parse_tree(read(before))} if before is not None else {}
    for entry in parse_tree(read(tree)):
        old = known.get(entry.name)
        if entry == old:
            continue
        if entry.mode == FOLDER:
            inner = old.oid if old is not None and old.mode == FOLDER else None
            yield from _walk(entry.oid, inner, read, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry


def _sort_key(entry: Entry) -> bytes:
    name = entry.name.encode("utf-8", "surrogateescape")
    return name + b"/" if entry.mode == FOLDER else name


def bad_tree(why: str) -> InstarError:
    """The error for a tree that must not be materialised."""
    return InstarError("bad-tree", why, status=422)


def blob_oid(data: bytes) -> str:
    """The object id of a file's content."""
    return oid_of("blob", data)
