"""The peer-facing server and the joiner's POST."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from instar_node.errors import InstarError
from instar_node.mesh import listener as listener_module
from instar_node.mesh.http import MAX_ANSWER, post_bytes
from instar_node.mesh.listener import MAX_BODY, PeerListener, PeerRoutes
from tests.ports import free_port


async def pair(body: bytes, remote: str) -> tuple[int, bytes]:
    return 403, remote.encode() + b" sent " + body


async def tunnel(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="tunnel")


ROUTES = PeerRoutes(pair, tunnel)


@pytest.fixture
async def base() -> AsyncIterator[str]:
    listener = PeerListener("127.0.0.1", 0, ROUTES)
    yield f"http://127.0.0.1:{await listener.start()}"
    await listener.stop()


async def test_exactly_three_routes_exist(base: str) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(base + "/health") as response:
            assert (response.status, await response.json()) == (200, {"status": "ok"})
        async with session.get(base + "/mesh/tunnel") as response:
            assert await response.text() == "tunnel"
        for method, path, status in (
            ("GET", "/", 404),
            ("GET", "/status", 404),
            ("GET", "/api/pair", 405),
            ("POST", "/health", 405),
        ):
            async with session.request(method, base + path) as response:
                assert response.status == status


async def test_a_pairing_body_reaches_the_handler_and_its_answer_the_joiner(base: str) -> None:
    assert await post_bytes(base + "/api/pair", b"hello", 5) == (403, b"127.0.0.1 sent hello")


async def test_answers_do_not_name_the_software(base: str) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/health", "/nothing"):
            async with session.get(base + path) as response:
                assert "Server" not in response.headers


@pytest.mark.parametrize(
    "said",
    [
        b"hello\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\r\n\r\n",
        b"POST /api/pair HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /api/pair HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["words", "a long line", "TLS", "compression", "chunks"],
)
async def test_what_cannot_be_read_is_refused_and_taken_for_no_defect(
    said: bytes, base: str, caplog: pytest.LogCaptureFixture
) -> None:
    where = urlsplit(base)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(said)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert answer.split(b" ")[1] == b"400"
    assert b"aiohttp" not in answer
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_body_above_the_bound_is_refused(base: str) -> None:
    status, _ = await post_bytes(base + "/api/pair", bytes(MAX_BODY + 1), 5)
    assert status == 413


async def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "SPEAK_WITHIN", 0.2)
    listener = PeerListener("127.0.0.1", 0, ROUTES)
    port = await listener.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /api/pair HT")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    finally:
        await listener.stop()


async def test_a_head_that_comes_byte_by_byte_is_given_up_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener_module, "SPEAK_WITHIN", 0.2)
    listener = PeerListener("127.0.0.1", 0, ROUTES)
    port = await listener.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        closed = asyncio.create_task(reader.read())
        writer.write(b"GET /health HTTP/1.1\r\nX: ")
        async with asyncio.timeout(10):
            while not closed.done():  # every byte is progress, and none of them buys more time
                writer.write(b"x")
                await asyncio.sleep(0.02)
        writer.close()
    finally:
        await listener.stop()


async def test_a_body_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "SPEAK_WITHIN", 0.2)
    listener = PeerListener("127.0.0.1", 0, ROUTES)
    port = await listener.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /api/pair HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 408")
        writer.close()
    finally:
        await listener.stop()


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "MAX_CONNECTIONS", 2)
    listener = PeerListener("127.0.0.1", 0, ROUTES)
    port = await listener.start()
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    try:
        assert await asyncio.wait_for(streams[2][0].read(), 5) == b""
        streams[0][1].write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.wait_for(streams[0][0].readline(), 5)).startswith(b"HTTP/1.1 200")
    finally:
        for _, writer in streams:
            writer.close()
        await listener.stop()


async def test_a_port_in_use_is_an_error_that_names_it(base: str) -> None:
    port = int(base.rpartition(":")[2])
    with pytest.raises(InstarError, match=str(port)) as error:
        await PeerListener("127.0.0.1", port, ROUTES).start()
    assert error.value.code == "port-in-use"
    assert error.value.extra == {"port": port}
    assert error.value.hint


async def test_a_default_port_in_use_gives_way_to_the_next_free_one(base: str) -> None:
    port = int(base.rpartition(":")[2])
    listener = PeerListener("127.0.0.1", port, ROUTES, port_is_default=True)
    taken = await listener.start()
    try:
        assert port < taken <= port + listener_module.PORTS_TRIED
    finally:
        await listener.stop()


async def test_an_address_that_is_not_ours_cannot_be_listened_on() -> None:
    with pytest.raises(InstarError) as error:
        await PeerListener("192.0.2.1", 0, ROUTES).start()
    assert error.value.code == "cannot-listen"


# -- post ---------------------------------------------------------------------------------------------------


async def refusal(url: str, timeout: float = 5) -> InstarError:
    with pytest.raises(InstarError) as error:
        await post_bytes(url, b"x", timeout)
    assert error.value.hint
    return error.value


@pytest.mark.parametrize("url", ["", "host:7707", "ftp://host/", "http://", "http://[::1"])
async def test_what_is_no_address_is_bad_input(url: str) -> None:
    assert (await refusal(url)).code == "bad-input"


async def test_nobody_listening_is_said_so() -> None:
    error = await refusal(f"http://127.0.0.1:{free_port()}/api/pair")
    assert error.code == "unreachable"
    assert "nothing listens" in error.message


async def test_an_unknown_name_is_said_so() -> None:
    assert "name is not known" in (await refusal("http://no-such-host.invalid:7707/api/pair")).message


async def test_tls_with_one_who_does_not_speak_it_is_said_so(base: str) -> None:
    assert "TLS failed" in (await refusal(base.replace("http", "https"))).message


async def test_silence_is_said_so() -> None:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert "no answer in time" in (await refusal(f"http://127.0.0.1:{port}/api/pair", 0.2)).message
    server.close()


async def serve_once(answer: bytes) -> tuple[asyncio.Server, str]:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/pair"


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_ANSWER + 1), b""],
    ids=["another protocol", "too long", "closed"],
)
async def test_something_else_at_that_address_is_said_so(answer: bytes) -> None:
    server, url = await serve_once(answer)
    error = await refusal(url)
    assert error.code == "unreachable"
    assert "something else" in error.message
    server.close()


async def test_a_redirect_is_not_followed() -> None:
    server, url = await serve_once(
        b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n"
    )
    assert await post_bytes(url, b"x", 5) == (302, b"")
    server.close()
