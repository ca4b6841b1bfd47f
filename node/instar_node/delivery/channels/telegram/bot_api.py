"""Requests to the Bot API over aiohttp. The token is part of every address, so none ever reaches a text."""

from __future__ import annotations

import aiohttp
import msgspec

from instar_node.delivery.channels.telegram.messages import Answer
from instar_node.delivery.contract import Retry

SEND_TIMEOUT_S = 20.0
CONNECT_TIMEOUT_S = 10.0
ANSWER_BYTES = 4 * 1024 * 1024
"""Longest answer that is read: 100 updates with texts and all their other fields are well below."""

_decode = msgspec.json.Decoder(Answer).decode


class NoAnswerError(Exception):
    """A request came to nothing; ``outcome`` says why and whether it may have had an effect."""

    def __init__(self, outcome: Retry) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class BotApi:
    """One bot at one ``api_base``. All methods belong to one event loop."""

    def __init__(self, api_base: str) -> None:
        self._base = api_base.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def call(
        self, token: str, method: str, parameters: dict[str, object], within: float
    ) -> tuple[int, Answer | None]:
        """POST one request; HTTP status and answer, ``None`` where it is no answer of the Bot API.

        Raises ``NoAnswerError`` when the network or the receiver failed.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        timeout = aiohttp.ClientTimeout(total=within, connect=CONNECT_TIMEOUT_S)
        url = f"{self._base}/bot{token}/{method}"
        try:
            async with self._session.post(
                url, json=parameters, timeout=timeout, allow_redirects=False
            ) as response:
                body = await response.content.read(ANSWER_BYTES)
                while chunk := await response.content.read(ANSWER_BYTES):
                    body += chunk
                    if len(body) > ANSWER_BYTES:
                        return response.status, None
        except aiohttp.ClientConnectorError as error:
            raise NoAnswerError(
                Retry(0.0, f"no connection to Telegram: {error.os_error}", maybe_sent=False)
            ) from None
        except aiohttp.InvalidURL:
            raise NoAnswerError(
                Retry(0.0, "[channels.telegram] api_base is no address", maybe_sent=False)
            ) from None
        except TimeoutError:
            raise NoAnswerError(Retry(0.0, f"Telegram gave no answer within {within:g} s")) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoAnswerError(Retry(0.0, f"Telegram's answer was lost ({type(error).__name__})")) from None
        try:
            return response.status, _decode(body)
        except (msgspec.MsgspecError, UnicodeError):
            return response.status, None

    async def close(self) -> None:
        """Release the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
