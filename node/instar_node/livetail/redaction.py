"""Taking secrets out of conversation lines before they are stored, sent or logged. Pure.

Each rule has literals without which it cannot match, and tokens need a long word: ordinary text costs a few
substring searches and no regular expression. Redacting twice changes nothing more.
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


_NAMES = (
    r"(?:passw(?:or)?d|passphrase|(?<![a-z])p(?:s?w|wd)(?![a-z])|secret|token"
    r"|(?:api|access|private)[_-]?key|credentials?)"
)

_ABOUT = r"(?![_-](?:types?|names?|re|regex|pattern|len(?:gth)?|ur[il]|ends?|count|limit|file|path)\b)"
"""What follows such a name where it says something about the secret, as in ``token_type``."""
_NOT_CODE = (
    r"(?!(?:true|false|none|null|undefined)\b|\$\w+;?(?:\s|$)|(?:self|this)\.\w"
    r"|[a-z_][\w.]{0,60}(?:\([^\n()]{0,80}(?:\([^\n()]{0,80}\)[^\n()]{0,80})?\)|\[[^\n\]]{0,80}\]))"
)

PRIVATE_KEY = Rule(
    "private-key",
    ("-----begin",),
    re.compile(
        r"(?P<s>-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----.*?"
        r"(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|\Z))",
        re.DOTALL,
    ),
)

TOKENS = (
    _rule("jwt", "eyj", r"(?P<s>\beyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?)"),
    _rule("aws-key", "akia asia", r"\b(?P<s>(?:AKIA|ASIA)[0-9A-Z]{16})\b"),
    _rule("github-token", "ghp_ gho_ ghu_ ghs_ ghr_", r"\b(?P<s>gh[pousr]_[A-Za-z0-9]{30,255})"),
    _rule("github-token", "github_pat_", r"\b(?P<s>github_pat_\w{22,255})"),
    _rule(
        "gitlab-token",
        "glpat- gldt- glsoat- glrt- glcbt- glptt- glft- glimt- glagent- glffct-",
        r"\b(?P<s>gl(?:pat|dt|soat|rt|cbt|ptt|ft|imt|agent|ffct)-[\w-]{20,})",
    ),
    _rule(
        "slack-webhook",
        "hooks.slack.com",
        r"hooks\.slack\.com/(?:services|workflows)/(?P<s>(?:\w+/){2,3}\w{16,})",
    ),
    _rule("slack-token", "xox xapp-", r"\b(?P<s>(?:xox[abeoprs]|xapp)-[\w-]{10,})"),
    _rule("api-key", "sk-", r"(?<![\w-])(?P<s>sk-(?:[a-z]+[0-9]*-)*[A-Za-z0-9_-]{20,})"),
    _rule("api-key", "k_live_ k_test_ k_prod_", r"\b(?P<s>[spr]k_(?:live|test|prod)_[A-Za-z0-9]{10,})"),
    _rule("google-key", "aiza", r"\b(?P<s>AIza[\w-]{35})"),
    _rule("google-key", "ya29.", r"\b(?P<s>ya29\.[\w-]{20,})"),
    _rule("sendgrid-key", "sg.", r"\b(?P<s>SG\.[\w-]{16,}\.[\w-]{16,})"),
    _rule("registry-token", "npm_", r"\b(?P<s>npm_[A-Za-z0-9]{36})"),
    _rule("registry-token", "pypi-", r"\b(?P<s>pypi-[\w-]{40,})"),
    _rule("model-hub-token", "hf_", r"\b(?P<s>hf_[A-Za-z0-9]{30,})"),
    _rule(
        "service-token",
        "dckr_ figd_ hvs. hvb. ntn_ lsv2_ sgp_ sq0csp- sb_secret_ ccipat_ ccdb1_ hrku- api_org_",
        r"\b(?P<s>(?:dckr_[op]at_|figd_|hv[bs]\.|ntn_|lsv2_[a-z]{2}_|sgp_|sq0csp-|sb_secret_|CCIPAT_|CCDB1_"
        r"|HRKU-|api_org_)[\w-]{20,})",
    ),
    _rule("service-token", "vca_ vcc_ vci_ vck_ vcp_ vcr_", r"\b(?P<s>vc[acikpr]_[A-Za-z0-9]{24,})"),
    _rule("service-token", "apk_ cog_ s-s4t2", r"\b(?P<s>(?:apk_|cog_|s-s4t2(?:ud|af)-)\w{40,}=*)"),
    _rule("service-token", "glc_eyj ops_eyj sntrys_eyj", r"\b(?P<s>(?:glc|ops|sntrys)_eyJ[\w+/=-]{40,})"),
    _rule("service-token", "fm1r_ fm2_", r"\b(?P<s>fm(?:1r|2)_[\w+/=,-]{40,})"),
    _rule("cloud-key", "ltai", r"\b(?P<s>LTAI[A-Za-z0-9]{17,21})\b"),
    _rule("cloud-key", "absk", r"\b(?P<s>ABSK[A-Za-z0-9+/]{100,}=*)"),
    _rule("cloud-key", "q~", r"(?<![\w~.-])(?P<s>[\w~.-]{3}[0-9]Q~[\w~.-]{31,34})(?![\w~-])"),
    _rule("cloud-key", "eaac eaam", r"\b(?P<s>EAA[CM][A-Za-z0-9]{80,})"),
    _rule("bot-token", ":aa", r"\b(?P<s>[0-9]{8,10}:AA[\w-]{33})"),
)
"""What is one word without a space in it, of ``TOKEN_LENGTH`` characters or more."""
TOKEN_LENGTH = 15

PHRASES = (
    _rule("bearer", "bearer", r"\bbearer\s+(?P<s>[A-Za-z0-9._~+/-]{16,}=*)", re.IGNORECASE),
    _rule(
        "url-password",
        "://",
        r"\b[a-z][a-z0-9+.-]*://[^\s:/@]*:(?P<s>(?!\[redacted)[^\s/@]+)@",
        re.IGNORECASE,
    ),
    _rule(
        "authorization",
        "authorization",
        r"\bauthorization[\"']?\s*[:=]\s*[\"']?"
        r"(?:(?:basic|token|api-?token|api-?key)\s+(?P<s>(?!\[redacted)[\w.~+/=:@-]{8,})"
        r"|(?P<m>(?=[a-z~-]{0,40}[0-9])[\w.~+/=:@-]{16,}))",
        re.IGNORECASE,
    ),
    _rule(
        "login",
        "curl",
        r"\bcurl\b[^\n]{0,300}?\s(?:-u|--user)(?:\s+|=)[\"']?[^\s:\"']{0,64}[\"']?:[\"']?"
        r"(?P<s>(?![$<{]|\[redacted)[^\s\"']{4,})",
    ),
    _rule(
        "setting",
        "key=",
        rf"key=[\"']\w{{0,40}}{_NAMES}\w{{0,40}}[\"']\s+value=[\"'](?P<s>(?!\[redacted)[^\"'\n]{{4,}})",
        re.IGNORECASE,
    ),
    _rule(
        "assignment",
        "key",
        # any other ``…_key``: only what a machine made, for much else is called a key
        r"[_-]key[\"']?\s*[:?]{0,3}[:=]\s*[\"']?"
        r"(?P<s>(?=[a-z+/_-]{0,100}[0-9])(?=[0-9+/_-]{0,100}[a-z])[\w+/=-]{20,})",
        re.IGNORECASE,
    ),
    _rule(
        "assignment",
        "passw passphrase pw psw secret token key credential",
        # ``name = value`` takes any value but what a program would write there; ``name: value`` is also how
        # people write, so there the value must be quoted or look made by a machine (long, with a digit or
        # a sign that words do not have). ``name "value";`` is how some settings files write. Every search
        # is bounded, so that no text takes quadratic time.
        rf"{_NAMES}{_ABOUT}(?:-?\w){{0,40}}[\"']?(?:\[\]|\])?\s*"
        r"(?:(?::|[:?]{0,3}=>?)\s*@?[\"'](?P<q>(?!\[redacted)[^\"'\n]{4,})[\"']"
        rf"|[:?]{{0,3}}=>?\s*@?[\"']?(?P<s>(?!\[redacted){_NOT_CODE}[^\s\"'=]{{4,}})"
        r"|:\s*(?P<m>(?!\[redacted)(?=[^\s\"']{0,200}[0-9{}$#<>^~|%*+])[^\s\"',;]{8,})"
        r"|(?P<c>[\"'])(?P<v>(?!\[redacted)[^\"'\s]{8,400})(?P=c);)",
        re.IGNORECASE,
    ),
)
"""What is known by the words around it."""


class _Rules(NamedTuple):
    """Rules to be tried, and all of their literals."""

    rules: tuple[Rule, ...]
    literals: tuple[str, ...]


def _together(*rules: Rule) -> _Rules:
    return _Rules(rules, tuple({literal for rule in rules for literal in rule.literals}))


_ALL = _together(PRIVATE_KEY, *TOKENS, *PHRASES)
_WITHOUT_TOKENS = _together(PRIVATE_KEY, *PHRASES)


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
        long_word = max(map(len, folded.split()), default=0) >= TOKEN_LENGTH
        rules, literals = _ALL if long_word else _WITHOUT_TOKENS
        if not any(map(folded.__contains__, literals)):  # one pass in C settles nearly every line
            return text
        for rule in rules:
            if any(literal in folded for literal in rule.literals):
                text = rule.pattern.sub(lambda match, kind=rule.kind: _masked(match, kind), text)  # type: ignore[misc]
        return text


def _masked(match: re.Match[str], kind: str) -> str:
    group = match.lastgroup
    assert group is not None
    begin, end = match.span(group)
    whole = match.string
    return whole[match.start() : begin] + MARK.format(kind) + whole[end : match.end()]
