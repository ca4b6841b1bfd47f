"""Values that must never be written or shown: taken out of every text that is kept, sent or logged.

One object is shared by log, events, live tail, intake and agents. It holds no values itself but asks where
they are kept, so that a secret counts from the moment it is set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

MARK = "[redacted:{}]"
_VAULT_MARK = MARK.format("vault")
SHORTEST = 6
"""Values shorter than this are left alone: removing every ``7`` or ``yes`` would destroy the text."""
SHORTEST_LINE = 16
"""Of a value of several lines (a private key), lines from this length on count by themselves as well."""

Source = Callable[[], tuple[str, ...]]
"""Gives the values there are now."""


class KnownSecrets:
    """The secret values of this process, asked of their sources each time."""

    def __init__(self, *sources: Source) -> None:
        self._sources = list(sources)
        self._known: tuple[list[tuple[str, ...]], tuple[str, ...]] = ([], ())
        """The values when they were last asked for, and how they may stand in a text, the longest first. In
        one attribute: the log asks from a thread of its own."""

    def add(self, source: Source) -> None:
        """Ask this source too from now on. It must be quick, best with the same tuple until its values
        change: it is asked for every line."""
        self._sources.append(source)

    def blank(self, text: str) -> str:
        """The text with every secret value replaced by ``[redacted:vault]``."""
        return _without(text, self._current_forms())

    def blank_all(self, content: Any) -> Any:
        """``blank`` for every string in a structure of dicts, lists and tuples; the rest stays as it is."""
        forms = self._current_forms()
        return _all_without(content, forms) if forms else content

    def _current_forms(self) -> tuple[str, ...]:
        """The forms of the values that the sources have now; made anew only when those have changed."""
        given = [source() for source in self._sources]
        known, forms = self._known
        if given != known:
            found = {form for form in _forms(chain.from_iterable(given)) if form not in _VAULT_MARK}
            forms = tuple(sorted(found, key=len, reverse=True))
            self._known = (given, forms)
        return forms


def _forms(values: Iterable[str]) -> Iterable[str]:
    """How the values may stand in a text: whole, without the space around them, line by line."""
    for value in values:
        lines = [line.strip() for line in value.splitlines()]
        yield from (form for form in (value, value.strip()) if len(form) >= SHORTEST)
        yield from (line for line in lines if len(line) >= SHORTEST_LINE)


def _without(text: str, forms: tuple[str, ...]) -> str:
    for form in forms:
        text = text.replace(form, _VAULT_MARK)
    return text


def _all_without(content: Any, forms: tuple[str, ...]) -> Any:
    if isinstance(content, str):
        return _without(content, forms)
    if isinstance(content, dict):
        return {_all_without(key, forms): _all_without(value, forms) for key, value in content.items()}
    if isinstance(content, list):
        return [_all_without(item, forms) for item in content]
    if isinstance(content, tuple):
        return tuple(_all_without(item, forms) for item in content)
    return content
