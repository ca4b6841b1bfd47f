"""Moving a topic by talking: which names are machines, and which messages are commands. Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

import msgspec

from instar_node.contracts import Members
from instar_node.identity.nicknames import folded

HERE = "here"


class RelocationNicknameSet:
    """The names a topic can be moved to: every active machine that can run an agent, this one always."""

    def __init__(self, members: Members, me: str) -> None:
        self._members = members
        self._me = me

    def resolve(self, name: str) -> str | None:
        """Machine id for a nickname (case-insensitive), an id, or ``here``; ``None`` when it is neither."""
        wanted = _folded(name)
        if wanted in (HERE, _folded(self._me)):
            return self._me
        for member in self._members.active():
            if not member.witness and wanted in (_folded(member.nickname), _folded(member.machine_id)):
                return member.machine_id
        return self._me if wanted == _folded(self._members.nickname(self._me)) else None

    def known(self) -> list[str]:
        """The valid names, for a refusal that helps."""
        names = [member.nickname for member in self._members.active() if not member.witness]
        own = self._members.nickname(self._me)
        return names if own in names else [*names, own]


class Command(msgspec.Struct, frozen=True):
    """What a message asks for. ``name`` is as the person wrote it; ``confirmed`` when they said yes to it."""

    kind: Literal["move", "unpin", "undo"]
    name: str = ""
    confirmed: bool = False


LONGEST = 200
"""Characters of the longest command; what is longer is talk, and no work for the patterns."""

_POLITE = r"(?:(?:please|pls|now|ok|okay|hey),?\s+|(?:can|could|would|will) you\s+(?:please\s+)?)*"
_TOPIC = r"(?:us|(?:this|the)\s+(?:topic|chat|conversation|thread|session|agent))"
_THIS = rf"(?:this|it|me|{_TOPIC})"
_BACK = r"(?:over\s+)?back\s+(?:over\s+)?"
_TO = r"(?:to|onto)\s+(?:the\s+|my\s+)?"
_OVER_TO = rf"(?:{_BACK}|over\s+)?{_TO}"
_ON = r"(?:on|at)\s+(?:the\s+|my\s+)?"
_NAME = r"(?P<name>[\w][\w .-]{0,39}?)"
_HERE = rf"(?:{_BACK}|over\s+)?(?P<name>here)"
_END = r"(?:,?\s+(?:please|pls|now|thanks|thank you))*\s*[.!?]*"

_MOVE = r"(?:move|transfer|relocate|switch)"
_CARRY = r"(?:send|bring|take|hand)"
"""Of these "it" is as often a file or a mail: what is carried has to be the conversation, or to go back."""
_PHRASES = tuple(
    re.compile(_POLITE + phrase + _END, re.IGNORECASE)
    for phrase in (
        rf"{_MOVE}\s+{_THIS}\s+(?:{_OVER_TO}{_NAME})",
        rf"{_MOVE}\s+{_THIS}\s+{_HERE}",
        rf"{_CARRY}\s+{_TOPIC}\s+(?:{_OVER_TO}{_NAME})",
        rf"{_CARRY}\s+{_TOPIC}\s+{_HERE}",
        rf"(?:bring|take)\s+(?:this|it|me)\s+{_BACK}(?:{_TO}{_NAME})",
        rf"bring\s+(?:this|it)\s+(?:{_BACK}|over\s+)(?P<name>here)",
        rf"(?:run|continue)\s+{_THIS}\s+(?:{_ON}{_NAME})",
        rf"continue\s+{_THIS}\s+(?P<name>here)",
        rf"pin\s+{_THIS}\s+(?:{_TO}|{_ON}){_NAME}",
        rf"pin\s+{_THIS}\s+(?P<name>here)",
        rf"(?:run|keep)\s+{_TOPIC}\s+(?P<name>here)",
    )
)
_MAY_BE = re.compile(_POLITE + rf"(?:/|(?:{_MOVE}|{_CARRY}|run|continue|pin|keep|unpin)\s)", re.IGNORECASE)
"""How every command begins: most messages are known for talk by this alone."""
_UNPIN = re.compile(_POLITE + rf"unpin\s+{_THIS}" + _END, re.IGNORECASE)
_SLASH = re.compile(r"/move\s+(?P<name>\S.*?)(?P<yes>\s+yes|\s*!)?", re.IGNORECASE)
_AROUND_A_NAME = re.compile(
    rf"""(?:{_THIS}\s+)?(?:{_BACK}|back\s+)?(?:{_TO}|(?:the|my)\s+)?["'@]?(?P<name>.+?)["']?""" + _END,
    re.IGNORECASE,
)
"""What people put around the name in ``/move``; it is only dropped when the rest is a machine's name."""


class NicknameCommand:
    """Recognises a message that is, as a whole, an order to move its topic.

    ``/move NAME`` is always one. A sentence is one only if nothing else is in it and the name is a machine's;
    talk that merely contains such words goes to the agent. No verb list decides: the whole message does.
    """

    def __init__(self, nicknames: RelocationNicknameSet) -> None:
        self._nicknames = nicknames

    def recognise(self, text: str) -> Command | None:
        """The command, or ``None`` for a message to the agent."""
        text = unicodedata.normalize("NFC", " ".join(text.split()))
        if len(text) > LONGEST or _MAY_BE.match(text) is None:
            return None
        if text.casefold() == "/unpin" or _UNPIN.fullmatch(text):
            return Command("unpin")
        if text.casefold() in ("/undo", "/move back"):
            return Command("undo")
        slash = _SLASH.fullmatch(text)
        if slash is not None:
            whole = slash["name"] + (slash["yes"] or "")
            if self._nicknames.resolve(whole) is not None:  # "mini yes" may be a name
                return Command("move", whole)
            return Command("move", self._name_in(slash["name"]), slash["yes"] is not None)
        for phrase in _PHRASES:
            match = phrase.fullmatch(text)
            if match is not None and self._nicknames.resolve(match["name"]) is not None:
                return Command("move", match["name"])
        return None

    def _name_in(self, written: str) -> str:
        """The name in what follows ``/move``; all of it when there is none, so that the refusal quotes it."""
        match = _AROUND_A_NAME.fullmatch(written)
        if self._nicknames.resolve(written) is None and match is not None:
            return match["name"] if self._nicknames.resolve(match["name"]) is not None else written
        return written


def _folded(name: str) -> str:
    return folded(" ".join(name.split()))
