"""What people and programs send by mistake: refused with its field, or taken once and harmless."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from instar_node.api import types as t
from instar_node.api.endpoint import find_endpoint
from instar_node.api.forwarding import Forwarding
from instar_node.api.routes import Route
from instar_node.errors import InstarError
from instar_node.node import Node
from instar_node.storage.home import Home
from tests.unit.node_world import a_home, running

HALF = "\ud800"
"""Half a character: what Python makes of bytes that are not UTF-8."""


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with running(a_home(tmp_path, "desk")) as node:
        yield node


BAD_FIELDS = [
    ("text", {"text": ""}),
    ("text", {"text": "x" * 200_001}),
    ("text", {"text": HALF}),
    ("key", {"key": ""}),
    ("key", {"key": "x" * 201}),
    ("key", {"key": "a\nb"}),
    ("key", {"key": "a\0b"}),
    ("key", {"key": HALF}),
    ("sender", {"sender": HALF}),
    ("topic", {"topic": ""}),
    ("topic", {"topic": "two words"}),
    ("topic", {"topic": "t\n"}),
    ("topic", {"topic": "../t"}),
    ("topic", {"topic": "x" * 65}),
    ("topic", {"topic": "größe"}),
]


async def test_a_message_in_bad_form_is_refused_naming_the_field(node: Node) -> None:
    for field, body in BAD_FIELDS:
        with pytest.raises(InstarError) as refused:
            await node.api.send(t.SendRequest(**({"topic": "t", "text": "hi"} | body)))
        assert (refused.value.status, refused.value.extra) == (400, {"field": field}), body
    assert (await node.api.topics()).topics == []


BAD_BODIES = [
    (b"\xff\xfe", 400),
    (b'{"topic": "t", "text": "\xff"}', 400),
    (b'{"topic": "t", "text": "\\ud800"}', 400),
    (b'{"topic": "t", "text": 7}', 400),
    (b'{"topic": "t", "text": "hi", "colour": "red"}', 400),
    (b"[" * 10_000, 400),
    (b'{"topic": "t", "text": "' + b"x" * 300_000 + b'"}', 413),
]


async def test_bytes_that_are_no_message_are_refused_and_leave_nothing(node: Node, tmp_path: Path) -> None:
    endpoint = find_endpoint(Home(tmp_path / "desk"))
    async with aiohttp.ClientSession(headers=endpoint.headers) as session:
        for raw, status in BAD_BODIES:
            async with session.post(endpoint.url + "/messages", data=raw) as answer:
                assert answer.status == status, raw[:60]
                assert (await answer.json())["error"]["message"]
    assert (await node.api.topics()).topics == []


STRANGE = ["a\0b\x1b[2J\x07", "\u202egnp.exe", "\N{ZERO WIDTH JOINER}", "x" * 200_000]


async def test_strange_but_well_formed_text_is_answered_word_for_word(node: Node) -> None:
    for number, text in enumerate(STRANGE):
        topic = f"t{number}"
        await node.api.send(t.SendRequest(topic, text, "k1"))
        async with asyncio.timeout(20):
            while len(lines := (await node.api.messages(topic)).messages) < 2:
                await asyncio.sleep(0.01)
        assert [line.text for line in lines] == [text, text]


async def test_a_key_used_for_another_text_is_a_conflict_and_changes_nothing(node: Node) -> None:
    await node.api.send(t.SendRequest("t", "one", "k1"))
    with pytest.raises(InstarError) as refused:
        await node.api.send(t.SendRequest("t", "two", "k1"))
    assert (refused.value.status, refused.value.code) == (409, "key-reused")
    assert (await node.api.send(t.SendRequest("t", "one", "k1"))).duplicate


async def test_a_message_without_a_key_has_one_before_it_is_passed_on(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    perform, keys = Forwarding.perform, []

    async def noted(self: Forwarding, route: Route[Any], **arguments: Any) -> Any:
        keys.append(arguments["body"].key)
        return await perform(self, route, **arguments)

    monkeypatch.setattr(Forwarding, "perform", noted)
    taken = [await node.api.send(t.SendRequest("t", "hi")) for _ in range(2)]
    assert keys == [one.key for one in taken]
    assert len(set(keys)) == 2


@pytest.mark.parametrize("how", ["argument", "standard input"])
async def test_the_command_refuses_what_is_no_text_in_one_line(node: Node, tmp_path: Path, how: str) -> None:
    given = b"caf\xe9"
    command = [sys.executable, "-m", "instar_tui", "--home", str(tmp_path / "desk"), "send", "t"]
    done = await asyncio.to_thread(
        subprocess.run,
        [*command, given if how == "argument" else "-"],
        input=b"" if how == "argument" else given,
        capture_output=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"},
        check=False,
    )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"text" in done.stderr
