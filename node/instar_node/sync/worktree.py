"""``<home>/state``: finding what was edited, and writing what came from elsewhere. All methods block.

Nothing outside the folder is ever read or written: symbolic links are neither followed nor shared, folders
are opened one by one without following links. A file is looked at again only when its size, times or inode
changed.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from instar_node.sync.paths import MAX_FILE_BYTES, MAX_FILES, is_reserved, refusal_of
from instar_node.sync.tree import File, Files, blob_oid, differing

RACY_NS = 2_000_000_000
"""A file changed less than this before it was read is read again next time: a later change may have left its
time the same."""
MANY = 32
"""From so many files on they are synced together."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Scan(msgspec.Struct, frozen=True):
    """What the folder holds."""

    files: dict[str, File]
    """Every file that is shared, with content ids. A tracked file that cannot be read counts as unchanged."""
    left_out: dict[str, str]
    """Path → why it is not shared, for people: links, oversize files, bad names. Not the ignored ones."""


class _Seen(NamedTuple):
    mark: tuple[int, int, int, int]
    read_at: int
    file: File


Store = Callable[[bytes], str]
"""Keeps a file's content durably and returns its id."""


class WorkTree:
    """The folder. ``store`` keeps the content of a file that was edited; ``ignored(path)`` leaves it out."""

    def __init__(self, root: Path, store: Store, ignored: Callable[[str], bool]) -> None:
        self.root = root
        self.store = store
        self.ignored = ignored
        self.seen: dict[str, _Seen] = {}

    # -- looking ----------------------------------------------------------------------------------------

    def scan(self, tracked: Files, now_ns: int) -> Scan:
        """Everything that should be shared. ``tracked`` is what the folder should hold by what is known;
        ``now_ns`` the wall clock, as file times have it."""
        looking = _Look(self, tracked, now_ns)
        looking.folder("", str(self.root))
        self.seen = looking.seen
        return Scan(looking.files, looking.left_out)

    def current(self, path: str) -> File | None:
        """The content of one path now, without storing it; ``None`` if there is no plain file."""
        opened = self._open_parent(path, create=False)
        if opened is None:
            return None
        folder, name = opened
        try:
            data = _read(name, folder)
        except OSError:
            return None
        finally:
            os.close(folder)
        return None if data is None else File(blob_oid(data[0]), data[1])

    # -- writing ----------------------------------------------------------------------------------------

    def put(self, path: str, content: bytes, executable: bool, *, synced: bool = True) -> str | None:
        """Write a file whole; returns why it could not be written, ``None`` when it was.

        ``synced``: durably; else the caller syncs when all are written. What is in the way (a link, a
        folder, a file where a folder is needed) is never followed or removed.
        """
        try:
            opened = self._open_parent(path, create=True)
            assert opened is not None
            folder, name = opened
        except OSError as error:
            return _obstacle(error)
        temporary = f".instar-{secrets.token_hex(8)}.tmp"
        try:
            if _is_foreign(name, folder):
                return "something that is no plain file is in its place"
            mode = 0o700 if executable else 0o600
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=folder)
            with os.fdopen(fd, "wb") as file:
                os.fchmod(fd, mode)
                file.write(content)
                file.flush()
                if synced:
                    os.fsync(fd)
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            _unlink(temporary, folder)
            return _obstacle(error)
        finally:
            os.close(folder)
        return None

    def remove(self, path: str) -> str | None:
        """Delete a file, and the folders that are empty without it; returns why not, ``None`` when done."""
        try:
            opened = self._open_parent(path, create=False)
        except OSError as error:
            return _obstacle(error)
        if opened is None:
            return None
        folder, name = opened
        try:
            if _is_foreign(name, folder):
                return "something that is no plain file is in its place"
            _unlink(name, folder)
        except OSError as error:
            return _obstacle(error)
        finally:
            os.close(folder)
        self._drop_empty(path.rpartition("/")[0])
        return None

    def _drop_empty(self, folder: str) -> None:
        while folder:
            opened = self._open_parent(folder, create=False)
            if opened is None:
                return
            above, name = opened
            try:
                os.rmdir(name, dir_fd=above)
            except OSError:  # something is in it
                return
            finally:
                os.close(above)
            folder = folder.rpartition("/")[0]

    def _open_parent(self, path: str, *, create: bool) -> tuple[int, str] | None:
        """The opened folder of a path and the name in it, no link followed on the way.

        ``None`` if a folder is missing and not to be made. Raises ``OSError`` when something else is there.
        """
        *folders, name = path.split("/")
        opened = os.open(self.root, _FOLDER)
        for folder in folders:
            try:
                if create:
                    _make_folder(folder, opened)
                inner = os.open(folder, _FOLDER, dir_fd=opened)
            except FileNotFoundError:
                os.close(opened)
                return None
            except OSError:
                os.close(opened)
                if create:
                    raise
                return None
            os.close(opened)
            opened = inner
        return opened, name


class _Look:
    """One pass over the folder."""

    def __init__(self, tree: WorkTree, tracked: Files, now_ns: int) -> None:
        self._tree = tree
        self._tracked = tracked
        self._now = now_ns
        self.files: dict[str, File] = {}
        self.left_out: dict[str, str] = {}
        self.seen: dict[str, _Seen] = {}

    def folder(self, prefix: str, where: str) -> None:
        try:
            entries = sorted(os.scandir(where), key=lambda entry: entry.name)
        except OSError as error:
            self._leave_out(prefix.rstrip("/"), f"it cannot be read: {error.strerror}")
            return
        for entry in entries:
            path = prefix + entry.name
            if path == ".git":
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            why = refusal_of(path)
            if why is not None:
                self._leave_out(path, why)
            elif path not in self._tracked and self._tree.ignored(f"{path}/" if is_folder else path):
                continue
            elif is_folder:
                self.folder(f"{path}/", entry.path)
            elif entry.is_symlink():
                self._leave_out(path, "it is a symbolic link; only plain files are shared")
            elif not entry.is_file(follow_symlinks=False):
                self._leave_out(path, "it is no plain file")
            else:
                self._file(path, entry)

    def _file(self, path: str, entry: os.DirEntry[str]) -> None:
        try:
            info = entry.stat(follow_symlinks=False)
            if info.st_size > MAX_FILE_BYTES and not is_reserved(path):
                self._leave_out(path, f"it is larger than {MAX_FILE_BYTES >> 20} MiB")
                return
            if len(self.files) >= MAX_FILES and path not in self._tracked:
                self._leave_out(path, f"there are more than {MAX_FILES} files")
                return
            seen = self._tree.seen.get(path)
            if seen is None or seen.mark != _mark(info) or seen.read_at - info.st_mtime_ns < RACY_NS:
                seen = self._read(path, entry)
        except OSError as error:
            if error.errno != errno.ENOENT:
                self._leave_out(path, f"it cannot be read: {error.strerror}")
            return
        if seen is None:
            self._leave_out(path, "it is being written to")
            return
        self.seen[path] = seen
        self.files[path] = seen.file

    def _read(self, path: str, entry: os.DirEntry[str]) -> _Seen | None:
        """Content and mark of a file; ``None`` if it changed while it was read."""
        before = os.stat(entry.path, follow_symlinks=False)
        found = _read(entry.path, None)
        after = os.stat(entry.path, follow_symlinks=False)
        if found is None or _mark(before) != _mark(after):
            return None
        data, executable = found
        file = File(blob_oid(data), executable)
        tracked = self._tracked.get(path)
        if tracked is None or tracked.oid != file.oid:
            self._tree.store(data)
        return _Seen(_mark(after), self._now, file)

    def _leave_out(self, path: str, why: str) -> None:
        """What is not shared stays as it is known: its disappearance from sight is no deletion."""
        self.left_out[path] = why
        inside = f"{path}/"
        for known, file in self._tracked.items():
            if known == path or not path or known.startswith(inside):
                self.files[known] = file


def _read(name: str, folder: int | None) -> tuple[bytes, bool] | None:
    """Bytes of a plain file and whether it may be executed; ``None`` for anything else."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            return None
        return file.read(), bool(info.st_mode & stat.S_IXUSR)


def _mark(info: os.stat_result) -> tuple[int, int, int, int]:
    return info.st_size, info.st_mtime_ns, info.st_ino, info.st_mode


def _is_foreign(name: str, folder: int) -> bool:
    """Whether something other than a plain file has this name."""
    try:
        return not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _make_folder(name: str, folder: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
    except FileExistsError:
        return


def _unlink(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return


def _obstacle(error: OSError) -> str:
    if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EEXIST):
        return "something that is no folder is in the place of one of its folders"
    return f"it cannot be written: {error.strerror}"


def materialise(
    tree: WorkTree,
    old: Files,
    new: Files,
    content: Callable[[str], bytes],
) -> dict[str, str]:
    """Bring the folder from one state to another; returns the paths that could not be, and why.

    A file that holds neither the old nor the new content was edited here meanwhile and is left alone: the
    next look finds it. Done again after a crash it goes on where it was.
    """
    failed: dict[str, str] = {}
    paths = differing(old, new)
    one_by_one = len(paths) < MANY
    for path in sorted(paths, key=lambda path: path in new):  # deletions make room first
        wanted, found = new.get(path), tree.current(path)
        if found == wanted:
            continue
        if found != old.get(path):
            continue
        if wanted is None:
            why = tree.remove(path)
        else:
            why = tree.put(path, content(wanted.oid), wanted.executable, synced=one_by_one)
        if why is not None:
            failed[path] = why
    if not one_by_one:
        os.sync()
    return failed
