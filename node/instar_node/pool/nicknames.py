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


_POLITE = r"(?:(?:please|pls|now|ok|okay|hey),?\s+|(?:can|could|would|will) you\s+(?:please\s+)?)*"
_THIS = r"(?:this|it|us|me|(?:this|the)\s+(?:topic|chat|conversation|thread|session|agent|work))"
_TO = r"(?:over\s+)?(?:back\s+)?(?:over\s+)?(?:to|onto)\s+(?:the\s+|my\s+)?"
_ON = r"(?:on|at)\s+(?:the\s+|my\s+)?"
_NAME = r"(?P<name>[\w][\w .-]{0,39}?)"
_HERE = r"(?:back\s+)?(?:over\s+)?(?P<name>here)"
_END = r"(?:,?\s+(?:please|pls|now|thanks|thank you))*\s*[.!?]*"

_VERBS_TO = r"(?:move|transfer|relocate|switch|send|bring|take|hand)"
_PHRASES = tuple(
    re.compile(_POLITE + phrase + _END, re.IGNORECASE)
    for phrase in (
        rf"{_VERBS_TO}\s+{_THIS}\s+{_TO}{_NAME}",
        rf"{_VERBS_TO}\s+{_THIS}\s+{_HERE}",
        rf"(?:run|continue|do)\s+{_THIS}\s+(?:{_ON}{_NAME})",
        rf"(?:run|continue)\s+{_THIS}\s+(?P<name>here)",
        rf"pin\s+{_THIS}\s+(?:{_TO}|{_ON}){_NAME}",
        rf"(?:pin|keep)\s+{_THIS}\s+(?P<name>here)",
    )
)
_UNPIN = re.compile(_POLITE + rf"unpin\s+{_THIS}" + _END, re.IGNORECASE)
_SLASH = re.compile(r"/move\s+(?P<name>\S.*?)(?P<yes>\s+yes|\s*!)?", re.IGNORECASE)


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
        if text.casefold() == "/unpin" or _UNPIN.fullmatch(text):
            return Command("unpin")
        if text.casefold() in ("/undo", "/move back"):
            return Command("undo")
        slash = _SLASH.fullmatch(text)
        if slash is not None:
            whole = slash["name"] + (slash["yes"] or "")
            if self._nicknames.resolve(whole) is not None:  # "mini yes" may be a name
                return Command("move", whole)
            return Command("move", slash["name"], slash["yes"] is not None)
        for phrase in _PHRASES:
            match = phrase.fullmatch(text)
            if match is not None and self._nicknames.resolve(match["name"]) is not None:
                return Command("move", match["name"])
        return None


def _folded(name: str) -> str:
    return folded(" ".join(name.split()))
