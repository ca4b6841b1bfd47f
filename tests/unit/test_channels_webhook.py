"""The webhook as its receiver sees it, and what each of the receiver's answers means."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from instar_node.config import WebhookSettings
from instar_node.delivery.channels import webhook as module
from instar_node.delivery.channels.webhook import WebhookChannel, retry_after
from instar_node.delivery.contract import Fenced, OutgoingReply, Refused, Retry, Sent

REPLY = OutgoingReply("r-1", "local:42:1", "42", "grüße", 7, "m1", 0)


class Sink:
    """A receiver that records what comes and answers as told."""

    def __init__(self) -> None:
        self.answer: Callable[[], web.Response] = web.Response
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.requests.append((dict(request.headers), await request.read()))
        return self.answer()


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    sink = Sink()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", sink.take)
    async with TestServer(application) as server:
        sink.url = str(server.make_url("/hook"))
        yield sink


@pytest.fixture
async def channel(sink: Sink) -> AsyncIterator[WebhookChannel]:
    channel = WebhookChannel(WebhookSettings(url=sink.url, secret="s3cret"))
    yield channel
    await channel.close()


async def test_the_receiver_gets_body_key_epoch_and_signature(sink: Sink, channel: WebhookChannel) -> None:
    assert await channel.send(REPLY) == Sent()
    [(headers, body)] = sink.requests
    assert json.loads(body) == {
        "topic": "42",
        "reply_to": "local:42:1",
        "reply_id": "r-1",
        "text": "grüße",
        "epoch": 7,
        "machine_id": "m1",
    }
    assert headers["Idempotency-Key"] == "r-1"
    assert headers["Instar-Epoch"] == "7"
    assert headers["Content-Type"] == "application/json"
    expected = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    assert headers["Instar-Signature"] == f"sha256={expected}"


async def test_without_a_secret_nothing_pretends_to_be_a_signature(sink: Sink) -> None:
    channel = WebhookChannel(WebhookSettings(url=sink.url))
    await channel.send(REPLY)
    await channel.close()
    assert "Instar-Signature" not in sink.requests[0][0]


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_2xx_is_done(sink: Sink, channel: WebhookChannel, status: int) -> None:
    sink.answer = lambda: web.Response(status=status)
    assert await channel.send(REPLY) == Sent()


async def test_409_is_fenced(sink: Sink, channel: WebhookChannel) -> None:
    sink.answer = lambda: web.Response(status=409, text="epoch 8 was here")
    assert await channel.send(REPLY) == Fenced("the webhook answered 409: epoch 8 was here")


@pytest.mark.parametrize("status", [400, 401, 404, 410, 422])
async def test_another_4xx_is_for_a_person(sink: Sink, channel: WebhookChannel, status: int) -> None:
    sink.answer = lambda: web.Response(status=status, text="no")
    assert await channel.send(REPLY) == Refused(f"the webhook answered {status}: no")


async def test_a_redirect_is_not_followed(sink: Sink, channel: WebhookChannel) -> None:
    sink.answer = lambda: web.Response(status=307, headers={"Location": "/elsewhere"})
    assert isinstance(await channel.send(REPLY), Refused)
    assert len(sink.requests) == 1


async def test_5xx_backs_off_twice_as_long_each_time_and_starts_anew_after_success(
    sink: Sink, channel: WebhookChannel
) -> None:
    sink.answer = lambda: web.Response(status=503)
    outcomes = [await channel.send(REPLY) for _ in range(3)]
    assert [one.after_s for one in outcomes if isinstance(one, Retry)] == [0.25, 0.5, 1.0]
    assert all(isinstance(one, Retry) and one.maybe_sent for one in outcomes)
    sink.answer = web.Response
    await channel.send(REPLY)
    sink.answer = lambda: web.Response(status=500)
    again = await channel.send(REPLY)
    assert isinstance(again, Retry)
    assert again.after_s == 0.25


async def test_429_waits_as_long_as_asked_and_counts_as_not_taken(
    sink: Sink, channel: WebhookChannel
) -> None:
    sink.answer = lambda: web.Response(status=429, headers={"Retry-After": "17"})
    assert await channel.send(REPLY) == Retry(17.0, "the webhook answered 429", maybe_sent=False)


async def test_a_refused_connection_was_surely_not_sent() -> None:
    channel = WebhookChannel(WebhookSettings(url="http://127.0.0.1:1/"))
    outcome = await channel.send(REPLY)
    await channel.close()
    assert isinstance(outcome, Retry)
    assert not outcome.maybe_sent


async def test_an_address_that_is_none_is_for_a_person() -> None:
    channel = WebhookChannel(WebhookSettings(url="ftp://example.org/"))
    outcome = await channel.send(REPLY)
    await channel.close()
    assert isinstance(outcome, Refused)


async def test_a_lost_answer_may_have_been_sent() -> None:
    async def cut(request: web.Request) -> web.Response:
        await request.read()
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    application = web.Application()
    application.router.add_post("/", cut)
    async with TestServer(application) as server:
        other = WebhookChannel(WebhookSettings(url=str(server.make_url("/"))))
        outcome = await other.send(REPLY)
        await other.close()
    assert isinstance(outcome, Retry)
    assert outcome.maybe_sent


async def test_silence_ends_the_attempt_and_may_have_been_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.05)

    async def never(_: web.Request) -> web.Response:
        await asyncio.sleep(0.5)
        return web.Response()

    application = web.Application()
    application.router.add_post("/", never)
    async with TestServer(application) as server:
        channel = WebhookChannel(WebhookSettings(url=str(server.make_url("/"))))
        outcome = await channel.send(REPLY)
        await channel.close()
    assert isinstance(outcome, Retry)
    assert outcome.maybe_sent
    assert "0.05 s" in outcome.reason


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"Retry-After": "soon"}, 0.0),
        ({"Retry-After": "5"}, 5.0),
        ({"Retry-After": "999999999"}, 3_600.0),
        (
            {"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"},
            30.0,
        ),
        (
            {"Retry-After": "Wed, 21 Oct 2026 07:27:00 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"},
            0.0,
        ),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT"}, 0.0),
    ],
)
def test_retry_after_takes_seconds_or_a_date(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers) == seconds
