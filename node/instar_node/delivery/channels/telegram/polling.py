"""Long polling: takes updates in order and confirms each only after it is safe.

``getUpdates`` with an offset makes Telegram forget everything below it, so the offset moves past an update
only when ``accept`` has returned: then the message is durable on every in-sync machine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from instar_node.clock import Clock
from instar_node.delivery.channels.telegram.board import TroubleBoard
from instar_node.delivery.channels.telegram.bot_api import BotApi, NoAnswerError
from instar_node.delivery.channels.telegram.messages import (
    AllowList,
    Answer,
    Skipped,
    Stranger,
    Update,
    judge_update,
)
from instar_node.delivery.contract import Accept
from instar_node.errors import InstarError

log = logging.getLogger("instar.telegram")

POLL_S = 50
"""How long Telegram holds an empty poll open."""
ANSWER_MARGIN_S = 15.0
EMPTY_PAUSE_S = 0.5
"""Pause after an empty poll that came back at once: not everything that speaks the Bot API holds polls."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
BATCH = 100

_decode_raw_updates = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_update = msgspec.json.Decoder(Update).decode


class _Numbered(msgspec.Struct):
    update_id: int


_decode_number = msgspec.json.Decoder(_Numbered).decode


class Poller:
    """Reads one bot's updates. ``run`` until cancelled; an update half taken then comes again."""

    def __init__(
        self,
        api: BotApi,
        token: Callable[[], str | None],
        allowed: AllowList,
        board: TroubleBoard,
        clock: Clock,
    ) -> None:
        self._api = api
        self._token = token
        self._allowed = allowed
        self._board = board
        self._clock = clock
        self.position = ""
        """``BOT:OFFSET``: the next update of this bot that was not taken."""

    async def run(self, accept: Accept, position: str) -> None:
        """Take updates from a position on, for ever; every failure is shown and tried again."""
        self.position = position
        pause, hold = FIRST_PAUSE_S, 0
        while True:
            try:
                await self._poll(accept, hold)
            except _PollError as failed:
                self._board.note(failed.code, failed.text, failed.hint)
                await self._clock.sleep(max(pause, failed.after_s))
                pause, hold = min(pause * 2, LONGEST_PAUSE_S), 0  # whether it works again is seen at once
            else:
                pause, hold = FIRST_PAUSE_S, POLL_S

    async def _poll(self, accept: Accept, hold: int) -> None:
        token = self._token()
        if token is None:
            raise _PollError("telegram-no-token", "the bot token is not in the vault", _TOKEN_HINT)
        bot = token.partition(":")[0]
        asked: dict[str, object] = {"timeout": hold, "limit": BATCH, "allowed_updates": ["message"]}
        offset = offset_of(self.position, bot)
        if offset is not None:
            asked["offset"] = offset
        began = self._clock.now()
        try:
            status, answer = await self._api.call(token, "getUpdates", asked, hold + ANSWER_MARGIN_S)
        except NoAnswerError as failure:
            raise _PollError("telegram-unreachable", failure.outcome.reason) from None
        updates = _updates_of(status, answer)
        self._board.settle(
            "telegram-no-token", "telegram-unreachable", "telegram-refused", "telegram-conflict"
        )
        for raw in updates:
            await self._take(accept, raw, bot)
        if hold and not updates and self._clock.now() - began < EMPTY_PAUSE_S * 1_000_000:
            await self._clock.sleep(EMPTY_PAUSE_S)

    async def _take(self, accept: Accept, raw: msgspec.Raw, bot: str) -> None:
        number = _decode_number(raw).update_id
        after = f"{bot}:{number + 1}"
        try:
            judged = judge_update(_decode_update(raw), self._allowed, after)
        except (msgspec.MsgspecError, UnicodeError) as error:
            judged = Skipped(f"it is not understood: {error}")
        if isinstance(judged, Stranger):
            self._board.stranger(judged)
        elif isinstance(judged, Skipped):
            self._board.skipped(judged.reason)
        else:
            try:
                await accept(judged)
            except InstarError as error:
                if error.code != "key-reused":
                    raise _PollError(
                        "telegram-not-taken", f"a message cannot be taken now: {error.message}"
                    ) from error
                self._board.skipped(f"a message of {judged.sender}: {error.message}")
            self._board.settle("telegram-not-taken")
        self.position = after


def offset_of(position: str, bot: str) -> int | None:
    """The offset to poll from; ``None`` (everything Telegram still has) when the position is another bot's:
    its numbers mean nothing here, and too high an offset would make Telegram forget messages."""
    owner, _, number = position.partition(":")
    return int(number) if owner == bot and number.isascii() and number.isdigit() else None


class _PollError(Exception):
    """A poll that came to nothing: what to show, and when to try again at the earliest."""

    def __init__(self, code: str, text: str, hint: str = "", after_s: float = 0.0) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.hint = hint
        self.after_s = after_s


_TOKEN_HINT = "`instar secret set NAME` with the name that [channels.telegram] token_secret gives"  # noqa: S105


def _updates_of(status: int, answer: Answer | None) -> list[msgspec.Raw]:
    if answer is None:
        raise _PollError("telegram-unreachable", f"Telegram answered {status} with something else than JSON")
    if answer.ok:
        try:
            return _decode_raw_updates(answer.result)
        except msgspec.MsgspecError as error:
            raise _PollError("telegram-unreachable", f"Telegram's updates cannot be read: {error}") from error
    code, text = answer.error_code or status, answer.description[:200]
    if code == 409:
        raise _PollError(
            "telegram-conflict",
            f"somebody else receives this bot's messages: {text}",
            "stop the other program that uses this token, or take away its webhook (deleteWebhook)",
        )
    if code in (401, 404):
        raise _PollError("telegram-refused", f"Telegram does not know this bot token: {text}", _TOKEN_HINT)
    wait = float(answer.parameters.retry_after)
    raise _PollError("telegram-unreachable", f"Telegram answered {code}: {text}", after_s=wait)
