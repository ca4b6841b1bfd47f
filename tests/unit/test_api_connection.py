"""The local API as bytes on a connection: what any client may send, and what comes back for it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from instar_node.api import types as t
from instar_node.api.endpoint import find_endpoint
from instar_node.api.http_server import ApiServer
from instar_node.api.routes import MAX_BODY
from instar_node.events import Event
from instar_node.storage.home import Home
from tests.unit.fake_api import FakeNodeApi

MESSAGE = b'{"topic": "work", "text": "hi", "key": "k%d"}'


class GatedApi(FakeNodeApi):
    """Takes messages in while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, body: t.SendRequest) -> t.SendResult:
        self.asked.set()
        await self.gate.wait()
        return await super().send(body)


class Wire:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: bytes) -> None:
        self.reader = reader
        self.writer = writer
        self._headers = headers

    def send(self, line: bytes, *headers: bytes, body: bytes = b"") -> None:
        """A request with the token and the given headers."""
        lines = b"".join(header + b"\r\n" for header in headers)
        self.writer.write(line + b"\r\n" + self._headers + lines + b"\r\n" + body)

    async def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers by their lower-case names, and the body that ``Content-Length`` announces."""
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, *lines = head[:-4].split(b"\r\n")
            headers = dict(line.lower().split(b": ", 1) for line in lines)
            body = await self.reader.readexactly(int(headers.get(b"content-length", b"0")))
        return int(status.split(b" ")[1]), headers, body

    async def ends(self) -> bool:
        """Whether the other side closes, saying nothing more."""
        async with asyncio.timeout(10):
            return await self.reader.read() == b""


@pytest.fixture
def api() -> GatedApi:
    return GatedApi()


@pytest.fixture
async def wire(api: GatedApi, tmp_path: Path) -> AsyncIterator[Wire]:
    home = Home(tmp_path)
    server = ApiServer(api, home)
    await server.start()
    endpoint = find_endpoint(home)
    reader, writer = await asyncio.open_connection(*endpoint.address)
    headers = {"Host": "localhost", **endpoint.headers}
    yield Wire(reader, writer, "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode())
    writer.close()
    await server.stop()


def sent(api: FakeNodeApi) -> list[str | None]:
    """Keys of the messages that reached the node, in order."""
    return [body.key for name, (body, *_) in api.calls if name == "send" and isinstance(body, t.SendRequest)]


async def test_requests_sent_without_waiting_are_answered_in_order(wire: Wire, api: GatedApi) -> None:
    def post(n: int) -> None:
        body = MESSAGE % n
        wire.send(b"POST /messages HTTP/1.1", b"Content-Length: %d" % len(body), body=body)

    api.gate.clear()
    post(0)
    await api.asked.wait()
    for n in range(1, 40):
        post(n)
        await asyncio.sleep(0)  # it is read while the first is under way
    api.gate.set()
    for n in range(40):
        status, _, answer = await wire.answer()
        assert (status, json.loads(answer)["key"]) == (200, f"k{n}")
    post(40)
    assert (await wire.answer())[0] == 200
    assert sent(api) == [f"k{n}" for n in range(41)]


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_a_request_may_arrive_in_any_pieces(size: int, wire: Wire, api: GatedApi) -> None:
    body = MESSAGE % 1
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    start = wire.writer.write
    pieces: list[bytes] = []
    wire.writer.write = pieces.append  # type: ignore[method-assign]
    wire.send(b"POST /messages HTTP/1.1", b"Transfer-Encoding: chunked", body=chunks)
    whole = b"".join(pieces)
    for at in range(0, len(whole), size):
        start(whole[at : at + size])
        await asyncio.sleep(0)
    assert (await wire.answer())[0] == 200
    assert sent(api) == ["k1"]


async def test_a_compressed_body_is_unpacked_but_never_beyond_the_limit(wire: Wire, api: GatedApi) -> None:
    small, bomb = gzip.compress(MESSAGE % 1), gzip.compress(b" " * 64 * MAX_BODY)
    wire.send(
        b"POST /messages HTTP/1.1", b"Content-Encoding: gzip", b"Content-Length: %d" % len(small), body=small
    )
    assert (await wire.answer())[0] == 200
    wire.send(
        b"POST /messages HTTP/1.1", b"Content-Encoding: gzip", b"Content-Length: %d" % len(bomb), body=bomb
    )
    status, headers, answer = await wire.answer()
    assert (status, json.loads(answer)["error"]["code"]) == (413, "too-large")
    assert headers[b"connection"] == b"close"
    assert sent(api) == ["k1"]


async def test_a_body_in_a_flood_of_chunks_is_refused(wire: Wire) -> None:
    wire.send(b"POST /messages HTTP/1.1", b"Transfer-Encoding: chunked", body=b"1\r\n \r\n" * 20_000)
    assert (await wire.answer())[0] == 413


async def test_a_client_that_asks_before_it_sends_the_body_is_told_to(wire: Wire, api: GatedApi) -> None:
    body = MESSAGE % 1
    wire.send(b"POST /messages HTTP/1.1", b"Expect: 100-continue", b"Content-Length: %d" % len(body))
    assert (await wire.answer())[0] == 100
    wire.writer.write(body)
    assert (await wire.answer())[0] == 200
    assert sent(api) == ["k1"]


async def test_too_much_is_refused_while_it_still_comes_and_the_answer_can_be_read(wire: Wire) -> None:
    wire.send(b"POST /messages HTTP/1.1", b"Content-Length: %d" % (64 * MAX_BODY))
    for _ in range(8):
        wire.writer.write(b" " * MAX_BODY)
        await asyncio.sleep(0)
    status, headers, _ = await wire.answer()
    assert (status, headers[b"connection"]) == (413, b"close")
    assert await wire.ends()


async def test_without_the_token_too_much_is_a_401(wire: Wire) -> None:
    wire.writer.write(b"POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % 2**20)
    wire.writer.write(b" " * 2**20)
    assert (await wire.answer())[0] == 401


@pytest.mark.parametrize(
    ("line", "header", "said", "stays"),
    [
        (b"GET /whoami HTTP/1.1", b"X: y", None, True),
        (b"GET /whoami HTTP/1.1", b"Connection: close", b"close", False),
        (b"GET /whoami HTTP/1.0", b"X: y", b"close", False),
        (b"GET /whoami HTTP/1.0", b"Connection: keep-alive", b"keep-alive", True),
        (b"GET /whoami HTTP/1.1", b"Connection: Upgrade\r\nUpgrade: websocket", b"close", False),
    ],
)
async def test_the_connection_stays_open_when_the_client_wants_it(
    line: bytes, header: bytes, said: bytes | None, stays: bool, wire: Wire
) -> None:
    wire.send(line, header)
    status, headers, _ = await wire.answer()
    assert (status, headers.get(b"connection")) == (200, said)
    if stays:
        wire.send(b"GET /whoami HTTP/1.1")
        assert (await wire.answer())[0] == 200
    else:
        assert await wire.ends()


async def test_what_follows_a_good_request_and_is_none_is_refused_after_it(wire: Wire) -> None:
    wire.send(b"GET /whoami HTTP/1.1")
    assert (await wire.answer())[0] == 200
    wire.writer.write(b"nonsense\r\n\r\n")
    status, headers, answer = await wire.answer()
    assert (status, headers[b"connection"], json.loads(answer)["error"]["code"]) == (
        400,
        b"close",
        "bad-request",
    )
    assert await wire.ends()


async def test_head_is_answered_without_a_body(wire: Wire) -> None:
    wire.send(b"HEAD /whoami HTTP/1.1", b"Connection: close")
    async with asyncio.timeout(10):
        answer = await wire.reader.read()
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_path_may_be_written_whole_or_encoded(wire: Wire) -> None:
    for target in (b"http://localhost/whoami", b"/%77hoami", b"/pool/machines/mi%6Ei?"):
        wire.send(b"GET " + target + b" HTTP/1.1")
        assert (await wire.answer())[0] == 200
    wire.send(b"GET /pool%2Fmachines/mini HTTP/1.1")
    assert (await wire.answer())[0] == 404


async def test_what_was_asked_is_done_although_the_client_goes_away(wire: Wire, api: GatedApi) -> None:
    body = MESSAGE % 1
    api.gate.clear()
    wire.send(b"POST /messages HTTP/1.1", b"Content-Length: %d" % len(body), body=body)
    async with asyncio.timeout(5):
        await api.asked.wait()
        wire.writer.transport.abort()
        await wire.reader.read()
        await asyncio.sleep(0.02)
        api.gate.set()
        while not sent(api):
            await asyncio.sleep(0.005)


async def test_a_stream_that_breaks_off_ends_the_connection_without_its_last_chunk(
    wire: Wire, api: GatedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(after: int | None = None) -> AsyncIterator[Event]:
        yield Event(1, "at", "lease", "", {})
        raise RuntimeError("broken")

    monkeypatch.setattr(api, "events", broken)
    wire.send(b"GET /events HTTP/1.1")
    async with asyncio.timeout(10):
        received = await wire.reader.read()
    assert b"id: 1" in received
    assert not received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("line", [b"OPTIONS * HTTP/1.1", b"CONNECT localhost:80 HTTP/1.1"])
async def test_a_request_for_no_path_is_refused_in_json(line: bytes, wire: Wire) -> None:
    wire.send(line)
    status, headers, body = await wire.answer()
    assert (status, headers[b"content-type"]) == (404, b"application/json")
    assert json.loads(body)["error"]["code"] == "no-such-route"


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_stream_ends_as_soon_as_its_reader_goes_away(
    version: bytes, wire: Wire, api: GatedApi
) -> None:
    wire.send(b"GET /events HTTP/" + version)
    _, headers, _ = await wire.answer()
    assert (b"transfer-encoding" in headers) is (version == b"1.1")
    async with asyncio.timeout(5):
        while not api.hub.watched:
            await asyncio.sleep(0.005)
        wire.writer.transport.abort()
        while api.hub.watched:
            await asyncio.sleep(0.005)
