"""Nicknames of machines: what is allowed, the one made from the host name, and finding a free one."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection

from instar_node.errors import bad_input

MAX_LENGTH = 40
RESERVED = frozenset({"here", "back"})
"""Words that mean a place in a command ("move it back here"), so no machine may be called so."""
_ALLOWED = re.compile(r"\w(?:[\w .-]*\w)?")
_LOOKS_LIKE_ID = re.compile(r"m_[0-9a-f]{32}")


def check_nickname(nickname: str) -> str:
    """The nickname in its normal form (NFC). Raises ``bad-input`` for one that is not allowed.

    1–40 letters (of any script), digits, spaces, dots, dashes and underscores, beginning and ending with a
    letter or digit; never in the form of a machine id, nor a word that commands use for a place.
    """
    normal = unicodedata.normalize("NFC", nickname)
    misleading = _LOOKS_LIKE_ID.fullmatch(normal) or normal.casefold() in RESERVED
    if len(normal) > MAX_LENGTH or not _ALLOWED.fullmatch(normal) or misleading:
        raise bad_input(
            "nickname",
            f"{nickname!r} is not a nickname",
            f"1 to {MAX_LENGTH} letters, digits, spaces, dots or dashes, beginning with a letter or digit",
        )
    return normal


def nickname_from_host(host: str | None = None) -> str:
    """A nickname made from the host name: its first label, cleaned; ``machine`` when nothing is left."""
    label = (os.uname().nodename if host is None else host).split(".")[0]
    cleaned = (
        re.sub(r"[^\w-]+", "-", unicodedata.normalize("NFC", label)).strip("-_")[:MAX_LENGTH].strip("-_")
    )
    misleading = _LOOKS_LIKE_ID.fullmatch(cleaned) or cleaned.casefold() in RESERVED
    return cleaned if cleaned and not misleading else "machine"


def same_nickname(one: str, other: str) -> bool:
    """Whether two nicknames differ at most in case, or in how their letters are composed."""
    return folded(one) == folded(other)


def folded(nickname: str) -> str:
    """The same text for all ways to write one nickname."""
    return unicodedata.normalize("NFC", nickname).casefold()


def free_nickname(wanted: str, taken: Collection[str]) -> str:
    """``wanted``, or with the lowest free suffix (``laptop-2``) when a machine already has it."""
    used = {folded(name) for name in taken}
    candidate, number = wanted, 1
    while folded(candidate) in used:
        number += 1
        suffix = f"-{number}"
        candidate = wanted[: MAX_LENGTH - len(suffix)].rstrip(" .-") + suffix
    return candidate
