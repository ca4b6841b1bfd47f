"""The HTTP API and its two clients against a scripted node: the same answers, and every refusal as JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from instar_node.api import types as t
from instar_node.api.blocking_client import BlockingNodeApi
from instar_node.api.endpoint import find_endpoint
from instar_node.api.http_client import HttpNodeApi
from instar_node.api.http_server import ApiServer
from instar_node.api.routes import ROUTES
from instar_node.errors import InstarError
from instar_node.storage.home import Home
from tests.unit.fake_api import ME, FakeNodeApi, a_handoff

ARGUMENTS: dict[str, dict[str, Any]] = {
    "remove_machine": {"machine": "mini"},
    "pair": {"body": t.PairRequest(sas=True)},
    "pair_confirm": {"body": t.PairConfirm(accept=True)},
    "join": {"body": t.JoinRequest("http://a", "A-B-1")},
    "wakeup": {"body": t.WakeupRequest()},
    "set_config": {"body": t.ConfigChange("lease.ttl_ms", 9_000)},
    "lease_heal": {"body": t.HealRequest(confirm=True)},
    "handoff": {"body": t.HandoffRequest("mini")},
    "move_hub": {"body": t.HubRequest("/mnt/hub.git")},
    "send": {"body": t.SendRequest("work", "hi", "k1")},
    "messages": {"topic": "a:b", "after": 3, "limit": 7},
    "reply": {"topic": "work", "body": t.ReplyRequest("k1", "yes")},
    "outbox_resolve": {"item": "a/b c", "body": t.OutboxAction("send")},
    "pool_machine": {"machine": "mini"},
    "rename": {"machine": "mini", "body": t.RenameRequest("Großer")},
    "placement": {"topic": "work"},
    "transfer": {"body": t.TransferRequest("work", "mini")},
    "unpin": {"body": t.UnpinRequest("work")},
    "secret": {"name": "TOKEN"},
    "set_secret": {"name": "TOKEN", "body": t.SecretValue("s3cr3t")},
    "remove_secret": {"name": "TOKEN"},
    "verify": {"body": t.VerifyRequest("mini", rehearse=True)},
    "set_flag": {"body": t.FlagChange("livetail", "open")},
    "update": {"body": t.UpdateRequest("0.2.0")},
}


@pytest.fixture
def api() -> FakeNodeApi:
    return FakeNodeApi()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
async def server(api: FakeNodeApi, home: Home) -> AsyncIterator[ApiServer]:
    server = ApiServer(api, home)
    await server.start()
    yield server
    await server.stop()


class Raw:
    """Requests as any program would make them."""

    def __init__(self, session: aiohttp.ClientSession, home: Home) -> None:
        self._session = session
        self.endpoint = find_endpoint(home)

    async def __call__(self, verb: str, path: str, **options: Any) -> tuple[int, Any, Any]:
        """Status, decoded JSON and headers."""
        headers = {**self.endpoint.headers, **options.pop("headers", {})}
        sent = {name: value for name, value in headers.items() if value is not None}
        async with self._session.request(verb, self.endpoint.url + path, headers=sent, **options) as response:
            return response.status, json.loads(await response.read()), response.headers


@pytest.fixture
async def raw(server: ApiServer, home: Home) -> AsyncIterator[Raw]:
    async with aiohttp.ClientSession() as session:
        yield Raw(session, home)


@pytest.mark.parametrize("method", [route.method for route in ROUTES])
async def test_both_clients_get_what_the_node_answers(
    method: str, api: FakeNodeApi, server: ApiServer, home: Home
) -> None:
    arguments = ARGUMENTS.get(method, {})
    api.answers = False
    expected = await getattr(api, method)(**arguments)
    direct = api.calls[0]
    client = HttpNodeApi(home)
    for call in (
        getattr(client, method)(**arguments),
        asyncio.to_thread(getattr(BlockingNodeApi(home), method), **arguments),
    ):
        api.calls.clear()
        api.rows.clear()
        reply = await call
        assert api.calls[0] == direct
        assert type(reply) is type(expected)
        if method != "status":  # its event number grows with each call
            assert reply == expected
    await client.close()


async def test_errors_of_the_node_reach_the_client_whole(
    api: FakeNodeApi, server: ApiServer, home: Home
) -> None:
    api.errors["transfer"] = InstarError(
        "rate-limited", "too often", "wait", status=429, extra={"retry_in_ms": 800}
    )
    with pytest.raises(InstarError) as caught:
        await asyncio.to_thread(BlockingNodeApi(home).transfer, t.TransferRequest("work", "mini"))
    error = caught.value
    assert (error.code, error.message, error.hint, error.status) == ("rate-limited", "too often", "wait", 429)
    assert error.extra == {"retry_in_ms": 800}


async def test_an_aborted_handoff_answers_409_with_the_whole_result(
    api: FakeNodeApi, raw: Raw, home: Home
) -> None:
    api.handoff_outcome = a_handoff("aborted", "mini went away")
    status, body, _ = await raw("POST", "/handoff", json={"to": "mini"})
    assert status == 409
    assert (body["outcome"], body["reason"]) == ("aborted", "mini went away")
    assert (
        await asyncio.to_thread(BlockingNodeApi(home).handoff, t.HandoffRequest("mini"))
    ).outcome == "aborted"
    assert (await raw("GET", "/handoff"))[0] == 200


async def test_a_failure_inside_the_node_is_a_500_without_its_insides(api: FakeNodeApi, raw: Raw) -> None:
    api.errors["lease"] = RuntimeError("secret detail")
    status, body, _ = await raw("GET", "/lease")
    assert status == 500
    assert body["error"]["code"] == "internal"
    assert "secret" not in json.dumps(body)


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic x", "Bearer \udcff"])
async def test_without_the_right_token_nothing_is_said(authorization: str | None, raw: Raw) -> None:
    status, body, headers = await raw("GET", "/whoami", headers={"Authorization": authorization})
    assert (status, body["error"]["code"]) == (401, "unauthorized")
    assert headers["WWW-Authenticate"] == "Bearer"


async def test_health_without_a_token_tells_only_the_status(raw: Raw) -> None:
    assert (await raw("GET", "/health", headers={"Authorization": None}))[:2] == (200, {"status": "ok"})
    assert (await raw("GET", "/health"))[1]["machine_id"] == ME


async def test_health_answers_200_even_when_the_node_cannot_tell(api: FakeNodeApi, raw: Raw) -> None:
    api.errors["health"] = RuntimeError("broken")
    assert (await raw("GET", "/health"))[:2] == (200, {"status": "alarm"})


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::2]:1"])
async def test_a_foreign_host_is_refused(host: str, raw: Raw) -> None:
    status, body, _ = await raw("GET", "/health", headers={"Host": host})
    assert (status, body["error"]["code"]) == (421, "foreign-host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]", "[::1]:99"])
async def test_this_computer_by_any_of_its_names_is_served(host: str, raw: Raw) -> None:
    assert (await raw("GET", "/health", headers={"Host": host}))[0] == 200


async def test_no_other_origin_is_allowed(raw: Raw) -> None:
    _, _, headers = await raw("GET", "/health", headers={"Origin": "http://evil.example"})
    assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("verb", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "no-such-route"),
        ("GET", "/secrets/A/B", 404, "no-such-route"),
        ("PUT", "/machines", 405, "no-such-method"),
        ("HEAD", "/machines/x", 405, ""),
    ],
)
async def test_unknown_routes_are_json_errors(verb: str, path: str, status: int, code: str, raw: Raw) -> None:
    if verb == "HEAD":
        async with aiohttp.ClientSession() as session:
            response = await session.head(raw.endpoint.url + path, headers=raw.endpoint.headers)
            assert response.status == status
        return
    answered, body, headers = await raw(verb, path)
    assert (answered, body["error"]["code"]) == (status, code)
    if status == 405:
        assert "GET" in headers["Allow"]


async def test_a_body_of_256_kib_is_taken_and_one_byte_more_refused(raw: Raw, api: FakeNodeApi) -> None:
    def body(size: int) -> bytes:
        start = b'{"topic": "work", "text": "hi"'
        return start + b" " * (size - len(start) - 1) + b"}"

    assert (await raw("POST", "/messages", data=body(256 * 1024)))[0] == 200
    status, answer, _ = await raw("POST", "/messages", data=body(256 * 1024 + 1))
    assert (status, answer["error"]["code"]) == (413, "too-large")
    assert [name for name, _ in api.calls].count("send") == 1


@pytest.mark.parametrize(
    ("verb", "path", "body", "field"),
    [
        ("POST", "/messages", b'{"text": "hi"}', "topic"),
        ("POST", "/messages", b'{"topic": "a b", "text": "hi"}', "topic"),
        ("POST", "/messages", b'{"topic": "work\\n", "text": "hi"}', "topic"),
        ("POST", "/messages", b'{"topic": "work", "text": 7}', "text"),
        ("POST", "/messages", b'{"topic": "work", "text": ""}', "text"),
        ("POST", "/messages", b'{"topic": "work", "text": "hi", "colour": 1}', "colour"),
        ("POST", "/messages", b"{", "body"),
        ("POST", "/messages", b"\xff\xfe", "body"),
        ("PATCH", "/config", b'{"key": "ui.theme", "value": ' + b"[" * 100_000, "body"),
        ("POST", "/messages", b"[]", "body"),
        ("POST", "/messages", b"", "topic"),
        ("POST", "/wakeup", b'{"vouch": ["a", 3]}', "vouch[1]"),
        ("POST", "/outbox/o1", b'{"action": "eat"}', "action"),
        ("GET", "/topics/a%20b/messages", None, "topic"),
        ("GET", f"/topics/{'x' * 65}/messages", None, "topic"),
        ("GET", "/topics/work/messages?after=-1", None, "after"),
        ("GET", "/topics/work/messages?after=soon", None, "after"),
        ("GET", f"/topics/work/messages?after={2**63}", None, "after"),
        ("GET", f"/pool/machines/{'x' * 20_000}", None, "machine"),
        ("POST", "/messages", b'{"topic": "work", "text": "\\ud800"}', "body"),
        ("GET", "/topics/work/messages?limit=0", None, "limit"),
        ("GET", "/topics/work/messages?before=1", None, "before"),
        ("GET", "/pool/placement", None, "topic"),
        ("GET", "/events?after=x", None, "after"),
        ("GET", "/events?since=1", None, "since"),
    ],
)
async def test_bad_input_is_a_400_naming_the_field(
    verb: str, path: str, body: bytes | None, field: str, raw: Raw, api: FakeNodeApi
) -> None:
    status, answer, _ = await raw(verb, path, data=body)
    assert status == 400
    assert (answer["error"]["code"], answer["error"]["field"]) == ("bad-input", field)
    assert not api.calls


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /topics/\xff/messages HTTP/1.1\r\n{headers}\r\n",
        b"BREW /whoami HTTP/1.1\r\n{headers}\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n{headers}\r\n",
        b"POST /messages HTTP/1.1\r\n{headers}Content-Length: -5\r\n\r\n",
        b"POST /messages HTTP/1.1\r\n{headers}Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"hello\r\n\r\n",
    ],
    ids=["path", "method", "too long", "length", "compression", "no http"],
)
async def test_what_cannot_be_read_as_http_is_a_json_error_too(
    request_: bytes, raw: Raw, api: FakeNodeApi
) -> None:
    host, port = raw.endpoint.address
    headers = {"Host": f"{host}:{port}", **raw.endpoint.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request_.replace(b"{headers}", lines))
    head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    writer.close()
    assert head.split(b" ")[1] == b"400"
    assert b"content-type: application/json" in head.lower()
    assert json.loads(body)["error"]["code"] == "bad-request"
    assert not api.calls


async def test_an_optional_body_may_be_left_out(raw: Raw, api: FakeNodeApi) -> None:
    assert (await raw("POST", "/pair"))[0] == 200
    assert api.calls == [("pair", (t.PairRequest(sas=False),))]


async def test_the_files_of_a_running_node(api: FakeNodeApi, home: Home) -> None:
    server = ApiServer(api, home)
    url = await server.start()
    assert json.loads(home.api_json.read_bytes())["url"] == url
    assert home.api_token.stat().st_mode & 0o777 == 0o600
    token = home.api_token.read_text()
    await server.stop()
    assert not home.api_json.exists()
    again = ApiServer(api, home)
    await again.start()
    assert home.api_token.read_text() == token
    await again.stop()


async def test_clients_say_when_no_node_runs(api: FakeNodeApi, home: Home) -> None:
    client = HttpNodeApi(home)
    server = ApiServer(api, home)
    await server.start()
    left_behind = home.api_json.read_bytes()
    await server.stop()
    for prepare in (lambda: None, lambda: home.api_json.write_bytes(left_behind)):
        prepare()
        with pytest.raises(InstarError) as caught:
            await client.whoami()
        assert caught.value.code == "node-not-running"
        with pytest.raises(InstarError) as caught:
            await asyncio.to_thread(BlockingNodeApi(home).whoami)
        assert caught.value.code == "node-not-running"
    await client.close()


async def test_a_client_finds_a_restarted_node_on_its_new_port(api: FakeNodeApi, home: Home) -> None:
    client = HttpNodeApi(home)
    first = ApiServer(api, home)
    await first.start()
    await client.whoami()
    await first.stop()
    second = ApiServer(api, home)
    await second.start()
    with pytest.raises(InstarError):
        await client.whoami()
    assert (await client.whoami()).nickname == "desk"
    await client.close()
    await second.stop()


async def test_metrics_are_prometheus_text(raw: Raw) -> None:
    await raw("GET", "/topics/work/messages")
    async with aiohttp.ClientSession() as session:
        response = await session.get(raw.endpoint.url + "/metrics", headers=raw.endpoint.headers)
        text = await response.text()
        assert response.content_type == "text/plain"
    assert "\ninstar_epoch 7\n" in text
    assert "\ninstar_awake 1\n" in text
    assert "\ninstar_messages_committed_total 12\n" in text
    assert '\ninstar_livetail_behind_seconds{machine="mini"} 0.012\n' in text
    assert 'instar_http_requests_total{route="GET /topics/{topic}/messages",status="200"} 1\n' in text
    for line in text.splitlines():
        assert line.startswith(("# HELP instar_", "# TYPE instar_", "instar_"))


async def test_the_openapi_document_covers_every_route_and_resolves(raw: Raw) -> None:
    _, document, _ = await raw("GET", "/openapi.json")
    assert document["openapi"] == "3.1.0"
    for route in ROUTES:
        operation = document["paths"][route.path][route.verb.lower()]
        assert operation["operationId"] == route.method
        assert {param["name"] for param in operation.get("parameters", [])} == {p.name for p in route.params}
        assert ("requestBody" in operation) == (route.body is not None)
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        text = text.replace(f'"#/components/schemas/{name}"', '"found"')
    assert "#/components/schemas" not in text
    assert msgspec.json.encode(document)
