"""Taking secrets out of conversation lines before they are stored, sent or logged. Pure.

Each rule has literals without which it cannot match, so ordinary text costs a few substring searches and no
regular expression. Redacting twice changes nothing more.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from instar_node.known_secrets import MARK, KnownSecrets


class Rule(NamedTuple):
    """One kind of secret. ``pattern`` marks the secret itself as group ``s``; what is around it stays."""

    kind: str
    literals: tuple[str, ...]
    pattern: re.Pattern[str]


def _rule(kind: str, literals: str, pattern: str, flags: int = 0) -> Rule:
    return Rule(kind, tuple(literals.split()), re.compile(pattern, flags))


_NAMES = r"(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)"

_NOT_CODE = r"(?!(?:true|false|none|null|undefined)\b|\$\w+;?(?:\s|$)|[\w.]+\((?:\w*)\))"

RULES = (
    Rule(
        "private-key",
        ("-----begin",),
        re.compile(
            r"(?P<s>-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----.*?"
            r"(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|\Z))",
            re.DOTALL,
        ),
    ),
    _rule("jwt", "eyj", r"(?P<s>\beyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?)"),
    _rule("aws-key", "akia asia", r"\b(?P<s>(?:AKIA|ASIA)[0-9A-Z]{16})\b"),
    _rule("github-token", "ghp_ gho_ ghu_ ghs_ ghr_", r"\b(?P<s>gh[pousr]_[A-Za-z0-9]{30,255})"),
    _rule("github-token", "github_pat_", r"\b(?P<s>github_pat_\w{22,255})"),
    _rule(
        "gitlab-token",
        "glpat- gldt- glsoat- glrt- glcbt- glptt- glft- glimt- glagent- glffct-",
        r"\b(?P<s>gl(?:pat|dt|soat|rt|cbt|ptt|ft|imt|agent|ffct)-[\w-]{20,})",
    ),
    _rule("slack-webhook", "hooks.slack.com", r"hooks\.slack\.com/services/(?P<s>\w+/\w+/\w{16,})"),
    _rule("slack-token", "xox xapp-", r"\b(?P<s>(?:xox[abeoprs]|xapp)-[\w-]{10,})"),
    _rule("api-key", "sk-", r"(?<![\w-])(?P<s>sk-(?:[a-z]+[0-9]*-)*[A-Za-z0-9_-]{20,})"),
    _rule("api-key", "k_live_ k_test_", r"\b(?P<s>[spr]k_(?:live|test)_[A-Za-z0-9]{10,})"),
    _rule("google-key", "aiza", r"\b(?P<s>AIza[\w-]{35})"),
    _rule("google-key", "ya29.", r"\b(?P<s>ya29\.[\w-]{20,})"),
    _rule("sendgrid-key", "sg.", r"\b(?P<s>SG\.[\w-]{16,}\.[\w-]{16,})"),
    _rule("registry-token", "npm_", r"\b(?P<s>npm_[A-Za-z0-9]{36})"),
    _rule("registry-token", "pypi-", r"\b(?P<s>pypi-[\w-]{40,})"),
    _rule("model-hub-token", "hf_", r"\b(?P<s>hf_[A-Za-z0-9]{30,})"),
    _rule("bot-token", ":aa", r"\b(?P<s>[0-9]{8,10}:AA[\w-]{33})"),
    _rule("bearer", "bearer", r"\bbearer\s+(?P<s>[A-Za-z0-9._~+/-]{16,}=*)", re.IGNORECASE),
    _rule(
        "url-password",
        "://",
        r"\b[a-z][a-z0-9+.-]*://[^\s:/@]*:(?P<s>(?!\[redacted)[^\s/@]+)@",
        re.IGNORECASE,
    ),
    _rule(
        "assignment",
        "passw passphrase secret token key credential",
        # ``name = value`` takes any value but what a program would write there; ``name: value`` is also how
        # people write, so there the value must be quoted or look made by a machine (long, with a digit or
        # a sign that words do not have). ``name "value";`` is how some settings files write. Every search
        # is bounded, so that no text takes quadratic time.
        rf"{_NAMES}\w{{0,40}}[\"']?(?:\[\]|\])?\s*"
        rf"(?::?=\s*@?[\"']?(?P<s>(?!\[redacted){_NOT_CODE}[^\s\"'=]{{4,}})"
        r"|:\s*[\"'](?P<q>(?!\[redacted)[^\"'\n]{4,})[\"']"
        r"|:\s*(?P<m>(?!\[redacted)(?=[^\s\"']{0,200}[0-9{}$#<>^~|%*+])[^\s\"',;]{8,})"
        r"|(?P<c>[\"'])(?P<v>(?!\[redacted)[^\"'\s]{8,400})(?P=c);)",
        re.IGNORECASE,
    ),
)


_LITERALS = tuple({literal for rule in RULES for literal in rule.literals})


class Redactor:
    """Removes every value that is a secret, and what looks like one.

    Args:
        known: The values that are.
        enabled: ``[livetail] redact``; when false, what merely looks like a secret stays.
    """

    def __init__(self, known: KnownSecrets, enabled: bool = True) -> None:
        self._known = known
        self._enabled = enabled

    def redact(self, text: str) -> str:
        """The text with each secret replaced by ``[redacted:<kind>]``."""
        text = self._known.blank(text)
        if not self._enabled:
            return text
        folded = text.lower()
        if not any(map(folded.__contains__, _LITERALS)):  # one pass in C settles nearly every line
            return text
        for rule in RULES:
            if any(literal in folded for literal in rule.literals):
                text = rule.pattern.sub(lambda match, kind=rule.kind: _masked(match, kind), text)  # type: ignore[misc]
        return text


def _masked(match: re.Match[str], kind: str) -> str:
    group = match.lastgroup
    assert group is not None
    begin, end = match.span(group)
    whole = match.string
    return whole[match.start() : begin] + MARK.format(kind) + whole[end : match.end()]
