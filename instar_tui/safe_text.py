"""Text of others made safe to show: control and direction characters are shown, not obeyed.

Apart from the other helpers for text because every command needs it, and needs nothing that loads rich.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    code = ord(char)
    if char == "\n":
        return "⏎ "
    if char == "\t":
        return "  "
    if code < 0x20:
        return chr(0x2400 + code)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def shown(text: str) -> str:
    """Text of a peer or a message on one line."""
    return _UNSAFE.sub(_escape, text)


def shown_lines(text: str) -> list[str]:
    """The same, keeping line breaks."""
    return [shown(line) for line in text.replace("\r\n", "\n").split("\n")]
