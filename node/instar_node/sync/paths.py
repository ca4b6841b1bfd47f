"""Which paths may stand in the shared state, which belong to the mesh itself, and which are left out. Pure.

A path is a POSIX path relative to ``state/``: components joined by ``/``, UTF-8.
"""

from __future__ import annotations

import unicodedata

MAX_FILE_BYTES = 16 * 1024 * 1024
"""Largest file that is shared; a larger one stays on its machine, and is named in ``GET /sync``."""
MAX_PATH_BYTES = 1_024
MAX_DEPTH = 32
MAX_FILES = 50_000

MACHINES, PINS, SECRETS, OWN = "machines", "pins", "secrets", ".instar"
RESERVED = frozenset({MACHINES, PINS, SECRETS, OWN})
"""Top folders that only the awake machine's own parts write: they bear authority, or are copies of it."""

LEASE_FILE = f"{OWN}/lease.json"
"""The signed lease record of the epoch a commit belongs to."""
MARKERS = f"{OWN}/markers/"
"""Checkpoints for machines on the bench: what was answered, without any text."""
SIGNERS_FILE = f"{OWN}/allowed_signers"
"""Whose signatures git is to take for good: ``git log --show-signature`` in the folder uses it."""
APPLIED_FILE = f"{OWN}/applied.json"
"""For each machine the number of its newest change that was taken in."""

IGNORED = (
    "*.tmp",
    "*.swp",
    "*.swo",
    "*.swx",
    "*~",
    ".#*",
    "#*#",
    ".~lock.*#",
    "*.part",
    "*.crdownload",
    ".DS_Store",
    "._*",
    "Thumbs.db",
    "desktop.ini",
    "__pycache__/",
    "*.pyc",
    ".nfs*",
    ".fuse_hidden*",
)
"""Left out on every machine, in ``.gitignore`` syntax; ``state/.gitignore`` adds to it."""


def refusal_of(path: str) -> str | None:
    """Why no file may have this path in the shared state; ``None`` if it may.

    Refused is what leads outside, what git itself keeps its own data under (also in the spellings that some
    file systems take for the same), and what another machine could not store.
    """
    parts = path.split("/")
    if len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES or len(parts) > MAX_DEPTH:
        return "its path is too long"
    for part in parts:
        if part in ("", ".", ".."):
            return "its path leads outside the state folder"
        if _is_git_name(part):
            return "git keeps its own data under that name"
        if any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) <= 0xDFFF for char in part):
            return "its name has control characters or is not UTF-8"
        if len(part.encode()) > 255:
            return "its name is too long"
    return None


def is_reserved(path: str) -> bool:
    """Whether this path belongs to the mesh itself: nobody edits it by hand."""
    return path.partition("/")[0].casefold() in RESERVED


def _is_git_name(part: str) -> bool:
    """``.git`` as ext4, HFS+ (skips invisible characters) and NTFS (short names, trailing dots, streams)
    would read it."""
    visible = "".join(char for char in part if unicodedata.category(char) != "Cf")
    plain = visible.casefold().split(":")[0].rstrip(". ")
    return plain in (".git", "git~1")


def conflict_path(path: str, nickname: str, number: int, taken: frozenset[str] | set[str]) -> str:
    """Where the other version of a file goes when two machines changed it: beside it, naming the machine.

    ``notes.md`` becomes ``notes.conflict-mini-7.md``. ``taken`` are the paths that exist.
    """
    folder, slash, name = path.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    if not stem:
        stem, dot, ending = name, "", ""
    mark = f".conflict-{nickname}-{number}"
    found = f"{folder}{slash}{stem}{mark}{dot}{ending}"
    again = 1
    while found in taken or _shadowed(found, taken):
        again += 1
        found = f"{folder}{slash}{stem}{mark}-{again}{dot}{ending}"
    return found


def _shadowed(path: str, taken: frozenset[str] | set[str]) -> bool:
    return any(other.startswith(f"{path}/") for other in taken)
