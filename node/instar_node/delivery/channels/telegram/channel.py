"""The ``telegram`` channel: messages by long polling, replies by ``sendMessage``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from instar_node.clock import Clock
from instar_node.config import TelegramSettings
from instar_node.delivery.channels.telegram.board import TroubleBoard
from instar_node.delivery.channels.telegram.bot_api import SEND_TIMEOUT_S, BotApi, NoAnswerError
from instar_node.delivery.channels.telegram.messages import (
    NAME,
    AllowList,
    answered_message,
    judge_answer,
    place_of,
    split_text,
)
from instar_node.delivery.channels.telegram.polling import Poller
from instar_node.delivery.contract import (
    Accept,
    ChannelTrouble,
    OutgoingReply,
    Publish,
    Refused,
    Retry,
    SendOutcome,
)


class TelegramChannel:
    """A Telegram bot. The Bot API takes no idempotency key and cannot be asked what it was sent, so a reply
    whose sending was cut off half-way follows ``undecided``.

    Carries the topics ``tg:CHAT`` and ``tg:CHAT:THREAD`` (a forum's topics), and only them.
    """

    name = NAME
    deduplicates = False
    in_ledger = False
    max_in_flight_s = 3 * SEND_TIMEOUT_S

    def __init__(
        self,
        settings: TelegramSettings,
        secret: Callable[[str], str | None],
        clock: Clock,
        publish: Publish,
    ) -> None:
        """``secret`` reads the vault by name; the token is asked for anew each time, so it may come later."""
        self._settings = settings
        self._secret = secret
        self._api = BotApi(settings.api_base)
        self._board = TroubleBoard(publish)
        allowed = AllowList(frozenset(settings.allow_users), frozenset(settings.allow_chats))
        self._poller = Poller(self._api, self._token, allowed, self._board, clock)
        self._polling: asyncio.Task[None] | None = None

    @property
    def undecided(self) -> Literal["hold", "resend"]:
        return self._settings.undecided

    def carries(self, topic: str) -> bool:
        return place_of(topic) is not None

    def pieces(self, text: str) -> tuple[str, ...]:
        return split_text(text)

    async def send(self, reply: OutgoingReply) -> SendOutcome:
        """One attempt, as an answer to the message it replies to where that is still there."""
        place, token = place_of(reply.topic), self._token()
        if place is None:
            return Refused(f"{reply.topic} is no topic of Telegram")
        if token is None:
            return Retry(0.0, f"the secret {self._settings.token_secret} is not there", maybe_sent=False)
        chat, thread = place
        message: dict[str, object] = {"chat_id": chat, "text": reply.text}
        if thread is not None:
            message["message_thread_id"] = thread
        answered = answered_message(reply.reply_to)
        if answered is not None and reply.first:
            message["reply_parameters"] = {"message_id": answered, "allow_sending_without_reply": True}
        try:
            return judge_answer(*await self._api.call(token, "sendMessage", message, SEND_TIMEOUT_S))
        except NoAnswerError as failure:
            return failure.outcome

    async def was_sent(self, reply: OutgoingReply) -> bool | None:
        """A bot cannot read what it has sent."""
        return None

    def ingress_position(self) -> str:
        return self._poller.position

    async def start_consuming(self, accept: Accept, position: str) -> None:
        if self._polling is None:
            self._polling = asyncio.create_task(self._poller.run(accept, position), name="telegram-poll")

    async def stop_consuming(self) -> None:
        """What is half taken was not confirmed to Telegram: it comes again, and its key is known."""
        polling, self._polling = self._polling, None
        if polling is not None:
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)

    def troubles(self) -> tuple[ChannelTrouble, ...]:
        return self._board.troubles()

    async def close(self) -> None:
        await self.stop_consuming()
        await self._api.close()

    def _token(self) -> str | None:
        return self._secret(self._settings.token_secret)
