"""What every channel keeps to, shown on each of them; the webhook talks to a real HTTP sink on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from instar_node.config import ChannelSettings, WebhookSettings
from instar_node.delivery.channels.factory import build_channels
from instar_node.delivery.contract import Channel, IngressMessage, OutgoingReply, Sent


@pytest.fixture(params=["local", "webhook"])
async def channel(request: pytest.FixtureRequest) -> AsyncIterator[Channel]:
    async def sink(_: web.Request) -> web.Response:
        return web.Response()

    application = web.Application()
    application.router.add_post("/hook", sink)
    async with TestServer(application) as server:
        webhook = WebhookSettings(url=str(server.make_url("/hook")))
        built = {one.name: one for one in build_channels(ChannelSettings(webhook=webhook))}
        yield built[request.param]
        for one in built.values():
            await one.close()


def reply() -> OutgoingReply:
    return OutgoingReply("r-1", "local:42:1", "42", "pong", 7, "m1", 0)


async def test_a_taken_reply_is_sent(channel: Channel) -> None:
    assert await channel.send(reply()) == Sent()


async def test_a_deduplicating_channel_takes_the_same_reply_again(channel: Channel) -> None:
    assert channel.deduplicates
    assert [await channel.send(reply()) for _ in range(2)] == [Sent(), Sent()]


async def test_was_sent_never_guesses(channel: Channel) -> None:
    assert await channel.was_sent(reply()) is None


async def test_consuming_can_stop_and_resume_without_taking_a_message_by_itself(channel: Channel) -> None:
    taken: list[IngressMessage] = []

    async def accept(message: IngressMessage) -> None:
        taken.append(message)

    for _ in range(2):
        await channel.start_consuming(accept)
        await channel.stop_consuming()
    assert taken == []
    assert channel.ingress_position() == ""


async def test_closing_twice_is_harmless(channel: Channel) -> None:
    await channel.send(reply())
    await channel.close()
    await channel.close()


def test_without_a_webhook_url_there_is_only_the_local_channel() -> None:
    assert [one.name for one in build_channels(ChannelSettings())] == ["local"]


def test_the_local_channel_comes_first() -> None:
    settings = ChannelSettings(webhook=WebhookSettings(url="http://127.0.0.1:1/", idempotent=False))
    local, webhook = build_channels(settings)
    assert (local.name, webhook.name) == ("local", "webhook")
    assert not webhook.deduplicates
    assert webhook.undecided == "hold"
