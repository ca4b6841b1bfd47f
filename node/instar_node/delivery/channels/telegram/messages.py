"""What Telegram's updates and answers mean, and how replies fit its messages. Pure.

Source: Telegram Bot API 7.x (``Update``, ``Message``, ``sendMessage``, ``ResponseParameters``).
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import NamedTuple

import msgspec

from instar_node.delivery.contract import IngressMessage, Refused, Retry, SendOutcome, Sent

NAME = "telegram"
PIECE_UNITS = 4_096
"""Longest text of one message, in UTF-16 code units."""
RETRY_AFTER_MOST_S = 3_600
_TOPIC = re.compile(r"tg:(-?[0-9]{1,19})(?::([0-9]{1,19}))?")


class User(msgspec.Struct, frozen=True):
    """A Telegram account. ``id`` never changes; a user name may."""

    id: int
    is_bot: bool = False
    first_name: str = ""
    username: str = ""

    @property
    def shown(self) -> str:
        """Name, user name and id, for people."""
        known = [f"@{self.username}"] if self.username else []
        name = self.first_name.strip()[:64] or "somebody"
        return f"{name} ({', '.join([*known, str(self.id)])})"


class Chat(msgspec.Struct, frozen=True):
    """A private chat, group, supergroup or channel."""

    id: int


class Message(msgspec.Struct, frozen=True):
    """The fields of a message that matter here."""

    message_id: int
    chat: Chat
    from_: User | None = msgspec.field(default=None, name="from")
    sender_chat: Chat | None = None
    message_thread_id: int | None = None
    is_topic_message: bool = False
    text: str = ""
    caption: str = ""


class Update(msgspec.Struct, frozen=True):
    """One update; those that are not messages have no ``message``."""

    update_id: int
    message: Message | None = None


class Parameters(msgspec.Struct, frozen=True):
    """Why a request failed, as far as it helps to repeat it."""

    retry_after: int = 0
    migrate_to_chat_id: int | None = None


class Answer(msgspec.Struct, frozen=True):
    """What the Bot API answers to every request."""

    ok: bool
    result: msgspec.Raw = msgspec.Raw(b"null")
    error_code: int = 0
    description: str = ""
    parameters: Parameters = Parameters()


class AllowList(NamedTuple):
    """Who may talk to the agent: these users anywhere, and everybody in these chats."""

    users: Container[int]
    chats: Container[int]

    def admits(self, message: Message) -> bool:
        """Default deny. Who speaks in the name of a chat (an anonymous admin) is admitted by chat only."""
        if message.chat.id in self.chats:
            return True
        return message.sender_chat is None and message.from_ is not None and message.from_.id in self.users


class Stranger(NamedTuple):
    """A message of somebody who may not talk to the agent."""

    shown: str
    chat: int


class Skipped(NamedTuple):
    """An update that holds nothing to answer, and why."""

    reason: str


def judge_update(update: Update, allowed: AllowList, position: str) -> IngressMessage | Stranger | Skipped:
    """What an update means. ``position`` is the channel's position after it."""
    message = update.message
    if message is None:
        return Skipped("it is not a message")
    shown = message.from_.shown if message.from_ is not None else f"chat {message.chat.id}"
    if not allowed.admits(message):
        return Stranger(shown, message.chat.id)
    if message.from_ is not None and message.from_.is_bot and message.sender_chat is None:
        return Skipped(f"it comes from another bot, {shown}")
    text = message.text or message.caption
    if not text.strip():
        return Skipped(f"a message of {shown} has no text")
    return IngressMessage(
        NAME, topic_of(message), text, provider_id=str(message.message_id), sender=shown, position=position
    )


def topic_of(message: Message) -> str:
    """``tg:CHAT`` or, in a topic of a forum, ``tg:CHAT:THREAD``. A mere reply thread is no topic."""
    if message.is_topic_message and message.message_thread_id is not None:
        return f"tg:{message.chat.id}:{message.message_thread_id}"
    return f"tg:{message.chat.id}"


def place_of(topic: str) -> tuple[int, int | None] | None:
    """Chat and thread of a topic; ``None`` for one that is not of this channel."""
    found = _TOPIC.fullmatch(topic)
    if found is None:
        return None
    return int(found[1]), int(found[2]) if found[2] else None


def answered_message(reply_to: str) -> int | None:
    """The Telegram message that a reply answers; ``None`` when it came another way."""
    channel, _, rest = reply_to.partition(":")
    number = rest.rpartition(":")[2]
    return int(number) if channel == NAME and number.isascii() and number.isdigit() else None


def split_text(text: str, units: int = PIECE_UNITS) -> tuple[str, ...]:
    """The text in pieces that fit one message each, cut at a paragraph, line or word where there is one in
    the second half of the piece. Nothing but white space at the cuts is lost; blank text has no pieces."""
    pieces = []
    rest = text.strip()
    while rest:
        end = _fitting(rest, units)
        if end < len(rest):
            end = _good_cut(rest, end)
        pieces.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return tuple(pieces)


def _fitting(text: str, units: int) -> int:
    """How many characters of the text fit: one outside the basic plane counts for two."""
    used = 0
    for index, char in enumerate(text):
        used += 2 if ord(char) > 0xFFFF else 1
        if used > units:
            return max(index, 1)
    return len(text)


def _good_cut(text: str, end: int) -> int:
    for separator in ("\n\n", "\n", " "):
        cut = text.rfind(separator, end // 2, end + 1)
        if cut > 0:
            return cut
    return end


def judge_answer(status: int, answer: Answer | None) -> SendOutcome:
    """What the answer to ``sendMessage`` means for the reply."""
    if answer is None:  # a proxy's error page, say
        return Retry(0.0, f"Telegram answered {status} with something else than JSON")
    if answer.ok:
        return Sent()
    code = answer.error_code or status
    reason = f"Telegram answered {code}: {answer.description}"[:300]
    if code == 429:
        wait = min(max(answer.parameters.retry_after, 1), RETRY_AFTER_MOST_S)
        return Retry(float(wait), reason, maybe_sent=False)
    if code in (401, 404):
        return Retry(0.0, f"{reason} (is the bot token right?)", maybe_sent=False)
    if code >= 500:
        return Retry(0.0, reason)
    if answer.parameters.migrate_to_chat_id is not None:
        reason += f"; the chat goes on as topic tg:{answer.parameters.migrate_to_chat_id}"
    return Refused(reason)
