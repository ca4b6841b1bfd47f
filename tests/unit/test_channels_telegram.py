"""The Telegram channel: whom it hears, what it confirms when, and how replies become messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar_node.clock import SystemClock
from instar_node.config import TelegramSettings
from instar_node.delivery.channels.telegram.channel import TelegramChannel
from instar_node.delivery.channels.telegram.messages import split_text
from instar_node.delivery.channels.telegram.polling import offset_of
from instar_node.delivery.contract import IngressMessage, OutgoingReply, Refused, Retry, Sent
from instar_node.errors import InstarError
from instar_node.events import Event, EventHub
from tests.unit.channel_sinks import TOKEN, BotApiServer
from tests.unit.delivery_world import QuickClock, until

GROUP = -1001


class Bot:
    """A channel at work against a strict Bot API; what it brings in is collected."""

    def __init__(self, far: BotApiServer) -> None:
        self.far = far
        self.secrets = {"BOT": TOKEN}
        self.settings = TelegramSettings(
            token_secret="BOT", api_base=far.url, allow_users=(7,), allow_chats=(GROUP,)
        )
        self.taken: list[IngressMessage] = []
        self.events: list[Event] = []
        self.failures: list[Exception] = []
        self.before = asyncio.Event()
        self.before.set()
        self.channel = self.build()

    def build(self) -> TelegramChannel:
        clock = QuickClock()
        hub = EventHub(clock)
        hub.listen(self.events.append)
        return TelegramChannel(self.settings, self.secrets.get, clock, hub.publish)

    async def accept(self, message: IngressMessage) -> None:
        await self.before.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(message)

    async def start(self, position: str = "") -> None:
        await self.channel.start_consuming(self.accept, position)

    @property
    def codes(self) -> list[str]:
        return [trouble.code for trouble in self.channel.troubles()]


@pytest.fixture
async def bot() -> AsyncIterator[Bot]:
    async with BotApiServer().serve() as far:
        bot = Bot(far)
        yield bot
        await bot.channel.close()


async def test_a_message_of_an_allowed_user_comes_in_once_with_topic_sender_and_position(bot: Bot) -> None:
    await bot.start()
    number = await bot.far.say("hello")
    await until(lambda: bot.far.confirmed)
    [message] = bot.taken
    assert message == IngressMessage(
        "telegram", "tg:7", "hello", str(number), "Ada (@ada, 7)", position=f"4242:{bot.far.confirmed}"
    )
    assert bot.channel.ingress_position() == message.position


async def test_a_forums_topics_are_topics_and_a_mere_reply_thread_is_not(bot: Bot) -> None:
    await bot.start()
    await bot.far.say("in general", chat=GROUP)
    await bot.far.say("in a topic", chat=GROUP, thread=12)
    await bot.far.say("a reply", chat=GROUP, thread=3, is_topic_message=False)
    await until(lambda: len(bot.taken) == 3)
    assert [message.topic for message in bot.taken] == [f"tg:{GROUP}", f"tg:{GROUP}:12", f"tg:{GROUP}"]


async def test_nobody_is_heard_who_is_on_no_list_and_people_are_told(bot: Bot) -> None:
    await bot.start()
    for _ in range(2):
        await bot.far.say("let me in", user=666, chat=666)
    await bot.far.say("me too", user=667, chat=668)
    await bot.far.say("I may")
    await until(lambda: bot.taken)
    assert [message.text for message in bot.taken] == ["I may"]
    assert bot.far.sent == []
    assert [(t.code, t.message.partition(" is ")[0]) for t in bot.channel.troubles()] == [
        ("unknown-sender", "telegram: Ada (@ada, 666) in chat 666"),
        ("unknown-sender", "telegram: Ada (@ada, 667) in chat 668"),
    ]
    assert bot.channel.troubles()[0].message.endswith("not answered: 2")
    told = [event.text for event in bot.events if event.data.get("code") == "unknown-sender"]
    assert len(told) == 2


async def test_everybody_in_an_allowed_chat_is_heard_and_an_allowed_user_everywhere(bot: Bot) -> None:
    await bot.start()
    await bot.far.say("from anybody", user=55, chat=GROUP)
    await bot.far.say("from the owner", user=7, chat=-1002)
    await bot.far.say("as the chat", user=1087968824, chat=GROUP, sender_chat={"id": GROUP})
    await bot.far.say("as a foreign chat", user=7, chat=-1002, sender_chat={"id": -1002})
    await bot.far.say("end")
    await until(lambda: bot.taken and bot.taken[-1].text == "end")
    assert [message.text for message in bot.taken] == ["from anybody", "from the owner", "as the chat", "end"]


async def test_empty_lists_admit_nobody(bot: Bot) -> None:
    bot.settings = TelegramSettings(token_secret="BOT", api_base=bot.far.url)
    bot.channel = bot.build()
    await bot.start()
    await bot.far.say("hello?")
    await until(lambda: bot.codes == ["unknown-sender"])
    assert bot.taken == []


async def test_what_holds_no_text_is_passed_over_with_a_word(bot: Bot) -> None:
    await bot.start()
    await bot.far.say(None, sticker={})
    await bot.far.say("beep", chat=GROUP, **{"from": {"id": 5, "is_bot": True, "first_name": "B"}})
    await bot.far.push({"edited_message": {}})
    await bot.far.push({"message": {"message_id": "not a number"}})
    await bot.far.say(None, caption="a caption counts")
    await until(lambda: bot.taken)
    assert [message.text for message in bot.taken] == ["a caption counts"]
    assert len([event for event in bot.events if event.data.get("code") == "skipped"]) == 4


async def test_an_update_is_confirmed_only_after_its_message_is_safe(bot: Bot) -> None:
    bot.before.clear()
    await bot.start()
    await bot.far.say("one")
    await until(lambda: bot.far.polls)
    await asyncio.sleep(0.05)
    assert (bot.far.confirmed, bot.channel.ingress_position()) == (0, "")
    bot.before.set()
    await until(lambda: bot.far.confirmed)
    assert [message.text for message in bot.taken] == ["one"]


async def test_a_message_that_could_not_be_taken_is_asked_for_again_and_none_overtakes_it(bot: Bot) -> None:
    bot.failures = [InstarError("handing-over", "the role moves"), InstarError("disk-full", "no space")]
    await bot.far.say("one")
    await bot.far.say("two")
    await bot.start()
    await until(lambda: "telegram-not-taken" in bot.codes)
    await until(lambda: len(bot.taken) == 2)
    assert [message.text for message in bot.taken] == ["one", "two"]
    assert bot.codes == []


async def test_a_key_used_for_another_text_is_passed_over_and_does_not_block(bot: Bot) -> None:
    bot.failures = [InstarError("key-reused", "another text")]
    await bot.start()
    await bot.far.say("one")
    await bot.far.say("two")
    await until(lambda: bot.taken)
    assert [message.text for message in bot.taken] == ["two"]


async def test_the_next_machine_reads_on_where_the_ledger_says(bot: Bot) -> None:
    await bot.start()
    await bot.far.say("one")
    await until(lambda: bot.taken)
    await bot.channel.close()
    bot.channel = bot.build()
    await bot.far.say("two")
    bot.far.polls.clear()
    await bot.start(bot.taken[0].position)
    await until(lambda: len(bot.taken) == 2)
    assert bot.far.polls[0]["offset"] == 1_001
    assert [message.text for message in bot.taken] == ["one", "two"]


async def test_what_was_half_taken_when_consuming_stopped_comes_again(bot: Bot) -> None:
    bot.before.clear()
    await bot.start()
    await bot.far.say("one")
    await until(lambda: bot.far.polls)
    await bot.channel.stop_consuming()
    bot.before.set()
    await bot.start(bot.channel.ingress_position())
    await until(lambda: bot.taken)
    assert [message.text for message in bot.taken] == ["one"]


@pytest.mark.parametrize(
    ("position", "offset"), [("", None), ("4242:17", 17), ("99:17", None), ("4242:", None), ("4242:-1", None)]
)
def test_a_position_counts_only_for_the_bot_it_belongs_to(position: str, offset: int | None) -> None:
    assert offset_of(position, "4242") == offset


async def test_a_missing_token_is_asked_for_and_may_come_later(bot: Bot) -> None:
    bot.secrets.clear()
    await bot.start()
    await until(lambda: bot.codes == ["telegram-no-token"])
    outcome = await bot.channel.send(reply("x"))
    assert isinstance(outcome, Retry)
    assert not outcome.maybe_sent
    bot.secrets["BOT"] = TOKEN
    await bot.far.say("hello")
    await until(lambda: bot.taken)
    assert bot.codes == []


async def test_a_token_telegram_does_not_know_is_said_and_never_shown(bot: Bot) -> None:
    bot.secrets["BOT"] = "4242:wrongwrong"
    await bot.start()
    await until(lambda: bot.codes == ["telegram-refused"])
    outcome = await bot.channel.send(reply("x"))
    assert isinstance(outcome, Retry)
    assert not outcome.maybe_sent
    assert "wrongwrong" not in f"{bot.channel.troubles()}{bot.events}{outcome}"


async def test_a_webhook_set_elsewhere_is_said_with_the_way_out(bot: Bot) -> None:
    bot.far.webhook_is_set = True
    await bot.start()
    await until(lambda: bot.codes == ["telegram-conflict"])
    assert "deleteWebhook" in bot.channel.troubles()[0].hint
    bot.far.webhook_is_set = False
    await until(lambda: bot.codes == [])


@pytest.mark.parametrize("mischief", ["fail", "busy", "refuse"])
async def test_a_failed_poll_is_shown_and_repeated(bot: Bot, mischief: Any) -> None:
    bot.far.mischief = [mischief]
    await bot.start()
    await until(lambda: bot.codes == ["telegram-unreachable"])
    await bot.far.say("hello")
    await until(lambda: bot.taken)
    assert bot.codes == []


async def test_without_a_network_nothing_is_lost_and_no_token_shown(bot: Bot) -> None:
    bot.settings = TelegramSettings(token_secret="BOT", api_base="http://127.0.0.1:1", allow_users=(7,))
    bot.channel = bot.build()
    await bot.start()
    await until(lambda: bot.codes == ["telegram-unreachable"])
    outcome = await bot.channel.send(reply("x"))
    assert isinstance(outcome, Retry)
    assert not outcome.maybe_sent
    assert "AAsecret" not in f"{bot.channel.troubles()}{bot.events}{outcome}"


def reply(
    text: str, topic: str = "tg:7", reply_to: str = "telegram:tg%3A7:5", first: bool = True
) -> OutgoingReply:
    return OutgoingReply("r-1", reply_to, topic, text, 3, "m1", 0, first)


async def test_a_reply_goes_to_its_chat_and_thread_as_an_answer_to_its_message(bot: Bot) -> None:
    assert await bot.channel.send(reply("hi", f"tg:{GROUP}:12")) == Sent()
    assert bot.far.sent == [
        {
            "chat_id": GROUP,
            "text": "hi",
            "message_thread_id": 12,
            "reply_parameters": {"message_id": 5, "allow_sending_without_reply": True},
        }
    ]


async def test_later_pieces_and_answers_to_other_channels_quote_nothing(bot: Bot) -> None:
    await bot.channel.send(reply("more", first=False))
    await bot.channel.send(reply("hi", reply_to="typed-here"))
    assert [set(message) for message in bot.far.sent] == [{"chat_id", "text"}] * 2


async def test_only_its_own_topics_are_carried(bot: Bot) -> None:
    assert all(bot.channel.carries(topic) for topic in ("tg:7", "tg:-1:2"))
    assert not any(bot.channel.carries(topic) for topic in ("tg:", "tg:x", "42", "tg:1:2:3", "tg:7\n"))
    assert isinstance(await bot.channel.send(reply("x", "42")), Refused)


def test_long_texts_are_cut_where_a_reader_would() -> None:
    assert split_text("a" * 10 + "\n\n" + "b" * 10, 15) == ("a" * 10, "b" * 10)
    assert split_text("one two three four", 9) == ("one two", "three", "four")
    assert split_text("x" * 25, 10) == ("x" * 10, "x" * 10, "x" * 5)
    assert split_text(" \n ") == ()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), st.integers(2, 40))
def test_every_piece_fits_and_nothing_but_white_space_is_lost(text: str, units: int) -> None:
    pieces = split_text(text, units)
    assert all(0 < len(piece.encode("utf-16-le")) <= 2 * units for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


async def test_a_server_that_does_not_hold_polls_is_not_asked_in_a_loop(bot: Bot) -> None:
    bot.channel = TelegramChannel(bot.settings, bot.secrets.get, SystemClock(), lambda *_, **__: None)
    bot.far.hold_s = 0
    await bot.start()
    await until(lambda: bot.far.polls)
    await asyncio.sleep(0.2)
    assert len(bot.far.polls) <= 2
