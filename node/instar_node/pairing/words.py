"""Pairing codes, ``WORD-WORD-NNNN``: easy to say aloud, about 35 bits."""

from __future__ import annotations

import difflib
import re
import secrets

from instar_node.errors import bad_input
from instar_node.identity.wordlist import words

_SEPARATORS = re.compile(r"[\s\-_.,–—]+")
_FORM = "a code looks like RIVER-STONE-4071"


def new_code() -> str:
    """A random code in its normal form: two words of 2,048 and four digits (35.3 bits)."""
    listed = words()
    return f"{secrets.choice(listed)}-{secrets.choice(listed)}-{secrets.randbelow(10_000):04d}".upper()


def normal_code(text: str) -> str:
    """The normal form of a code as a person typed it: any case, with spaces or dashes.

    Raises ``bad-input`` for what cannot be a code, so that a slip of the fingers costs no attempt. It knows
    the word list only, nothing of the code that is open.
    """
    parts = [part for part in _SEPARATORS.split(text.strip().upper()) if part]
    if len(parts) != 3 or not re.fullmatch(r"[0-9]{4}", parts[2]):
        raise bad_input("code", "this is not a pairing code", f"{_FORM}; the other machine shows it")
    for word in parts[:2]:
        if word.lower() not in words():
            raise bad_input("code", f"{word[:20]} is not a word of the list", _suggestion(word.lower()))
    return "-".join(parts)


def _suggestion(word: str) -> str:
    near = difflib.get_close_matches(word, words(), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near).upper()}?" if near else _FORM
