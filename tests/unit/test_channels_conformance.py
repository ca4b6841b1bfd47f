"""What every channel keeps to, shown on each of them against a far end on loopback that misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from instar_node.clock import SystemClock
from instar_node.config import ChannelSettings, TelegramSettings, WebhookSettings
from instar_node.delivery.channels import webhook
from instar_node.delivery.channels.factory import build_channels
from instar_node.delivery.channels.telegram import channel as telegram
from instar_node.delivery.contract import (
    Channel,
    Fenced,
    IngressMessage,
    OutgoingReply,
    Refused,
    Retry,
    Sent,
)
from instar_node.events import EventHub
from tests.unit.channel_sinks import TOKEN, BotApiServer, Misbehaving, WebhookSink

REMOTE = ["webhook", "webhook without keys", "telegram"]


class Ends(NamedTuple):
    """A channel, what is at its far end, and a topic that it carries."""

    channel: Channel
    far: Misbehaving
    topic: str


@pytest.fixture
async def ends(request: pytest.FixtureRequest) -> AsyncIterator[Ends]:
    kind = getattr(request, "param", "local")
    sink, bots = WebhookSink(), BotApiServer()
    async with sink.serve(), bots.serve():
        settings = ChannelSettings(
            webhook=WebhookSettings(url=sink.url, idempotent=kind != "webhook without keys"),
            telegram=TelegramSettings(token_secret="BOT", api_base=bots.url, allow_users=(7,)),
        )
        clock = SystemClock()
        built = {
            one.name: one
            for one in build_channels(settings, {"BOT": TOKEN}.get, clock, EventHub(clock).publish)
        }
        name = kind.split()[0]
        far = {"local": Misbehaving(), "webhook": sink, "telegram": bots}[name]
        yield Ends(built[name], far, "tg:7" if name == "telegram" else "42")
        sink.gate.set()
        bots.gate.set()
        for one in built.values():
            await one.close()


every = pytest.mark.parametrize("ends", ["local", *REMOTE], indirect=True)
remote = pytest.mark.parametrize("ends", REMOTE, indirect=True)


def reply(ends: Ends, text: str = "pong", epoch: int = 7) -> OutgoingReply:
    return OutgoingReply("r-1", f"local:{ends.topic}:1", ends.topic, text, epoch, "m1", 0)


@every
async def test_a_taken_reply_is_sent(ends: Ends) -> None:
    assert ends.channel.carries(ends.topic)
    assert await ends.channel.send(reply(ends)) == Sent()
    assert ends.far.texts == ([] if ends.channel.name == "local" else ["pong"])


@every
async def test_a_channel_says_truly_whether_repeats_are_dropped(ends: Ends) -> None:
    assert [await ends.channel.send(reply(ends)) for _ in range(2)] == [Sent(), Sent()]
    if ends.channel.deduplicates:
        assert len(ends.far.texts) <= 1


@every
async def test_was_sent_never_guesses(ends: Ends) -> None:
    await ends.channel.send(reply(ends))
    assert await ends.channel.was_sent(reply(ends)) is None


@remote
async def test_a_failing_receiver_is_tried_again_and_may_have_taken_it(ends: Ends) -> None:
    ends.far.mischief = ["fail"]
    outcome = await ends.channel.send(reply(ends))
    assert isinstance(outcome, Retry)
    assert outcome.maybe_sent
    assert await ends.channel.send(reply(ends)) == Sent()


@remote
async def test_a_busy_receiver_is_left_alone_as_long_as_it_asks(ends: Ends) -> None:
    ends.far.mischief = ["busy"]
    outcome = await ends.channel.send(reply(ends))
    assert isinstance(outcome, Retry)
    assert (outcome.after_s, outcome.maybe_sent) == (3.0, False)
    assert ends.far.texts == []


@remote
async def test_what_the_receiver_will_never_take_is_for_a_person(ends: Ends) -> None:
    ends.far.mischief = ["refuse"]
    outcome = await ends.channel.send(reply(ends))
    assert isinstance(outcome, Refused)
    assert "refuse" in outcome.reason


@remote
async def test_a_lost_answer_may_have_been_taken(ends: Ends) -> None:
    ends.far.mischief = ["lose-answer"]
    outcome = await ends.channel.send(reply(ends))
    assert isinstance(outcome, Retry)
    assert outcome.maybe_sent
    assert ends.far.texts == ["pong"]


@remote
@pytest.mark.parametrize("mischief", ["stall", "late"])
async def test_silence_ends_the_attempt_and_may_have_been_taken(
    ends: Ends, mischief: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(telegram, "SEND_TIMEOUT_S", 0.1)
    ends.far.mischief = [mischief]  # type: ignore[list-item]
    outcome = await ends.channel.send(reply(ends))
    assert isinstance(outcome, Retry)
    assert outcome.maybe_sent


@remote
async def test_an_attempt_that_is_cancelled_leaves_the_channel_usable(ends: Ends) -> None:
    ends.far.mischief = ["stall"]
    attempt = asyncio.ensure_future(ends.channel.send(reply(ends)))
    while ends.far.mischief:
        await asyncio.sleep(0)
    attempt.cancel()
    await asyncio.gather(attempt, return_exceptions=True)
    assert await ends.channel.send(reply(ends, "again")) == Sent()


@every
async def test_no_text_makes_a_channel_raise(ends: Ends) -> None:
    for text in ("", "\0\x1b[31m\u202e", "\U0001f600" * 5_000, "x" * 300_000, "a\r\n\tb"):
        for piece in ends.channel.pieces(text):
            assert await ends.channel.send(reply(ends, piece)) == Sent()


@every
async def test_pieces_are_the_whole_text_and_always_the_same(ends: Ends) -> None:
    text = "\n\n".join(f"paragraph {n} " + "word " * n for n in range(150))
    pieces = ends.channel.pieces(text)
    assert pieces == ends.channel.pieces(text)
    assert "".join("".join(pieces).split()) == "".join(text.split())


@every
async def test_consuming_can_stop_and_resume_without_taking_a_message_by_itself(ends: Ends) -> None:
    taken: list[IngressMessage] = []

    async def accept(message: IngressMessage) -> None:
        taken.append(message)

    await ends.channel.stop_consuming()
    for _ in range(2):
        await ends.channel.start_consuming(accept, "")
        await ends.channel.start_consuming(accept, "")
        await ends.channel.stop_consuming()
    assert taken == []
    assert ends.channel.ingress_position() == ""


@every
async def test_closing_twice_is_harmless(ends: Ends) -> None:
    await ends.channel.send(reply(ends))
    await ends.channel.close()
    await ends.channel.close()


@every
async def test_a_channel_that_works_has_nothing_to_complain_of(ends: Ends) -> None:
    await ends.channel.send(reply(ends))
    assert ends.channel.troubles() == ()


@pytest.mark.parametrize("ends", ["webhook", "webhook without keys"], indirect=True)
async def test_a_receiver_that_knows_a_higher_epoch_fences_the_reply(ends: Ends) -> None:
    assert await ends.channel.send(reply(ends, epoch=8)) == Sent()
    assert isinstance(await ends.channel.send(reply(ends, "late", epoch=7)), Fenced)
    assert ends.far.texts == ["pong"]


def _names(settings: ChannelSettings) -> list[str]:
    clock = SystemClock()
    return [one.name for one in build_channels(settings, {}.get, clock, EventHub(clock).publish)]


def test_what_is_not_configured_is_not_there() -> None:
    assert _names(ChannelSettings()) == ["local"]


def test_the_local_channel_comes_first() -> None:
    webhook_settings = WebhookSettings(url="http://127.0.0.1:1/")
    telegram_settings = TelegramSettings(token_secret="BOT")
    settings = ChannelSettings(webhook=webhook_settings, telegram=telegram_settings)
    assert _names(settings) == ["local", "webhook", "telegram"]
