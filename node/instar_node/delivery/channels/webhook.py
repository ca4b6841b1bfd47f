"""The ``webhook`` channel: every reply is POSTed to one URL, signed, fenced and with an idempotency key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Literal

import aiohttp
import msgspec

from instar_node.config import WebhookSettings
from instar_node.delivery.channels.base import OutwardChannel
from instar_node.delivery.contract import (
    Fenced,
    OutgoingReply,
    Refused,
    Retry,
    SendOutcome,
    Sent,
)

TIMEOUT_S = 10.0
"""How long one attempt may take in all."""
CONNECT_TIMEOUT_S = 5.0
BACKOFF_FIRST_S = 0.25
BACKOFF_MOST_S = 30.0
RETRY_AFTER_MOST_S = 3_600.0
"""A receiver may ask for a longer pause than our own back-off, but not for an endless one."""
REASON_BYTES = 300
"""How much of a refusing answer is kept for the person who has to look."""


class WebhookBody(msgspec.Struct, frozen=True):
    """The JSON body; the field names are a contract with receivers."""

    topic: str
    reply_to: str
    reply_id: str
    text: str
    epoch: int
    machine_id: str


class WebhookChannel(OutwardChannel):
    """POSTs replies to ``[channels.webhook] url``.

    Headers: ``Idempotency-Key`` (the reply id), ``Instar-Epoch`` (the fencing token) and, when a secret is
    set, ``Instar-Signature: sha256=<hex hmac of the raw body>``. It carries nothing in.
    """

    name = "webhook"
    max_in_flight_s = 3 * TIMEOUT_S

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._failures = 0

    @property
    def deduplicates(self) -> bool:
        return self._settings.idempotent

    @property
    def undecided(self) -> Literal["hold", "resend"]:
        return self._settings.undecided

    async def send(self, reply: OutgoingReply) -> SendOutcome:
        """One attempt. 2xx: sent; 409: fenced; 429, 5xx, network: try again later; anything else: refused."""
        body = msgspec.json.encode(
            WebhookBody(
                reply.topic, reply.reply_to, reply.reply_id, reply.text, reply.epoch, reply.machine_id
            )
        )
        try:
            outcome = await self._post(body, self._headers(reply, body))
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            outcome = Refused(f"[channels.webhook] url is not an http address: {error}")
        except aiohttp.ClientConnectorError as error:
            outcome = Retry(0.0, f"no connection to the webhook: {error}", maybe_sent=False)
        except TimeoutError:
            outcome = Retry(0.0, f"the webhook gave no answer within {TIMEOUT_S:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            outcome = Retry(0.0, f"the webhook's answer was lost: {error or type(error).__name__}")
        return self._with_backoff(outcome)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _headers(self, reply: OutgoingReply, body: bytes) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": reply.reply_id,
            "Instar-Epoch": str(reply.epoch),
        }
        if self._settings.secret:
            headers["Instar-Signature"] = signature(self._settings.secret, body)
        return headers

    async def _post(self, body: bytes, headers: dict[str, str]) -> SendOutcome:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
            self._session = aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        # Redirects are not followed: a POST would become a GET, or the signed reply go to a stranger.
        async with self._session.post(
            self._settings.url, data=body, headers=headers, allow_redirects=False
        ) as answer:
            said = (await answer.content.read(REASON_BYTES)).decode("utf-8", "replace").strip()
            return judge(answer.status, answer.headers, said)

    def _with_backoff(self, outcome: SendOutcome) -> SendOutcome:
        """Fill in how long to wait: doubling with each failure in a row, or what the receiver asked."""
        if not isinstance(outcome, Retry):
            self._failures = 0
            return outcome
        own = min(BACKOFF_FIRST_S * 2.0 ** min(self._failures, 16), BACKOFF_MOST_S)
        self._failures += 1
        return msgspec.structs.replace(outcome, after_s=max(own, outcome.after_s))


def signature(secret: str, body: bytes) -> str:
    """``sha256=<hex>``: HMAC-SHA256 (RFC 2104) of the raw body under the shared secret."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def judge(status: int, headers: Mapping[str, str], said: str) -> SendOutcome:
    """What an HTTP answer means for the reply; the wait of a ``Retry`` is what the receiver asked for."""
    reason = f"the webhook answered {status}" + (f": {said}" if said else "")
    if 200 <= status < 300:
        return Sent()
    if status == 409:
        return Fenced(reason)
    if status == 429:
        return Retry(retry_after(headers), reason, maybe_sent=False)
    if status >= 500:
        return Retry(retry_after(headers), reason)
    return Refused(reason)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds asked for by ``Retry-After`` (RFC 9110, 10.2.3); 0 when absent or unreadable.

    A date is measured against the receiver's own ``Date``, never against our clock.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return min(float(value), RETRY_AFTER_MOST_S)
    try:
        until = parsedate_to_datetime(value)
        seconds = (until - parsedate_to_datetime(headers.get("Date", ""))).total_seconds()
    except (TypeError, ValueError):
        return 0.0
    return min(max(seconds, 0.0), RETRY_AFTER_MOST_S)
