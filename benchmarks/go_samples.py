"""The samples beside the rules of gitleaks and its kin, read out of their Go sources.

Each rule there is a function that lists true positives (``tps``) and false positives (``fps``) for itself:
``tps := []string{"…", `…`}``, ``tps = append(tps, "…")`` or a map from a name to the sample. Rules with
``SkipReport: true`` find what is no secret alone (a client id, a host name); they are left out.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
    | (?P<raw>`[^`]*`)
    | (?P<quoted>"(?:[^"\\\n]|\\.)*")
    | (?P<word>[\w.]+)
    | (?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)
_LIST = re.compile(
    r"^\s*(?P<which>tps|fps)\s*:?=\s*(?:append\(\s*\w+\s*,|(?:\[\]|map\[string\])string(?={))", re.M
)


class Sample(NamedTuple):
    """A text and whether it holds a secret. ``text`` is ``None`` for one that their program makes."""

    secret: bool
    text: str | None


def samples(folder: Path) -> Iterator[Sample]:
    """Every sample of the rules in the ``*.go`` files of a folder, tests left out."""
    for path in sorted(folder.glob("*.go")):
        if not path.name.endswith("_test.go"):
            for rule in re.split(r"^func ", path.read_text(encoding="utf-8"), flags=re.M):
                if not re.search(r"^\s*SkipReport:\s*true", rule, re.M):
                    yield from _of_rule(rule)


def _of_rule(source: str) -> Iterator[Sample]:
    for found in _LIST.finditer(source):
        for text in _elements(source, found.end()):
            yield Sample(found["which"] == "tps", text)


def _elements(source: str, at: int) -> Iterator[str | None]:
    """The elements of the list or call that goes on at ``at``: their texts, ``None`` for an expression."""
    depth = 0 if source[at] == "{" else 1
    element: list[str] = []
    for token in _TOKEN.finditer(source, at):
        kind, word = token.lastgroup, token.group()
        if kind == "space":
            continue
        depth += (word in ("{", "(", "[")) - (word in ("}", ")", "]"))
        if depth == 0 or (depth == 1 and word in (",", "{")):
            if element:
                yield _text(element)
            element = []
            if depth == 0:
                return
        else:
            element.append(word)


def _text(element: list[str]) -> str | None:
    """``"…"``, or ``name: "…"``, as text."""
    if len(element) == 3 and element[1] == ":":
        element = element[2:]
    if len(element) != 1 or element[0][0] not in '"`':
        return None
    literal = element[0]
    return literal[1:-1] if literal[0] == "`" else str(ast.literal_eval(literal))
