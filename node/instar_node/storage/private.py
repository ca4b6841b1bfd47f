"""Files that only their owner may read: creating the folders, and refusing what others can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from instar_node.errors import InstarError

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def refuse_if_exposed(path: Path) -> None:
    """Raise ``InstarError("exposed-file")`` naming the ``chmod`` command if others can reach ``path``.

    Keys that another account could have read are no longer ours alone, so the node does not quietly tighten
    the mode and go on: the person decides whether they still trust them.
    """
    if os.name != "posix":
        return
    info = path.stat()
    if info.st_mode & OTHERS:
        wanted = "700" if stat.S_ISDIR(info.st_mode) else "600"
        raise InstarError(
            "exposed-file",
            f"{path} can be read by other accounts (mode {stat.S_IMODE(info.st_mode):03o})",
            f"chmod {wanted} {path} — and if others use this computer, make a new identity",
        )


def private_opener(path: str, flags: int) -> int:
    """For ``open(..., opener=private_opener)``: a file that is made is 0600 whatever the umask."""
    return os.open(path, flags, 0o600)


def private_dir(path: Path) -> None:
    """Create a folder (and its parents) with mode 0700; one that exists keeps its mode.

    Raises ``InstarError("home-unusable")`` when it cannot be made or is not a folder.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InstarError(
            "home-unusable",
            f"cannot use {path} as a folder: {error.strerror}",
            "name another folder with --home, or mend its permissions",
        ) from error
