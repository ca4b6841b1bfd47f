"""Values that must never be written or shown: taken out of every text that is kept, sent or logged.

One object is shared by log, events, live tail, intake and agents. It holds no values itself but asks where
they are kept, so that a secret counts from the moment it is set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

MARK = "[redacted:{}]"
SHORTEST = 6
"""Values shorter than this are left alone: removing every ``7`` or ``yes`` would destroy the text."""
SHORTEST_LINE = 16
"""Of a value of several lines (a private key), lines from this length on count by themselves as well."""

Source = Callable[[], Iterable[str]]


class KnownSecrets:
    """The secret values of this process, asked of their sources each time."""

    def __init__(self, *sources: Source) -> None:
        self._sources = list(sources)

    def add(self, source: Source) -> None:
        """Ask this source too from now on. It must be quick: it is asked for every line."""
        self._sources.append(source)

    def blank(self, text: str) -> str:
        """The text with every secret value replaced by ``[redacted:vault]``."""
        mark = MARK.format("vault")
        for form in sorted(self._forms(), key=len, reverse=True):
            if form in text and form not in mark:
                text = text.replace(form, mark)
        return text

    def blank_all(self, content: Any) -> Any:
        """``blank`` for every string in a structure of dicts, lists and tuples; the rest stays as it is."""
        if isinstance(content, str):
            return self.blank(content)
        if isinstance(content, dict):
            return {self.blank_all(key): self.blank_all(value) for key, value in content.items()}
        if isinstance(content, list):
            return [self.blank_all(item) for item in content]
        if isinstance(content, tuple):
            return tuple(self.blank_all(item) for item in content)
        return content

    def _forms(self) -> Iterable[str]:
        """How the values may stand in a text: whole, without the space around them, line by line."""
        for source in self._sources:
            for value in source():
                lines = [line.strip() for line in value.splitlines()]
                yield from {form for form in (value, value.strip()) if len(form) >= SHORTEST}
                yield from {line for line in lines if len(line) >= SHORTEST_LINE}
