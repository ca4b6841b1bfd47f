"""The node's log: whole lines of JSON, no secret in them, and nothing left behind in the logging module."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from instar_node import node_log as module
from instar_node.config import ChannelSettings, Config, WebhookSettings
from instar_node.events import Event, EventHub
from instar_node.node_log import node_log
from instar_node.storage.home import Home
from tests.unit.identity_support import ManualClock

log = logging.getLogger("instar.part")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def lines(home: Home) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home.logs / "node.jsonl").read_text().splitlines()]


def test_a_record_is_a_line_of_json(home: Home) -> None:
    with node_log(home, Config()):
        log.warning("peer %s\nis gone", "mini")
        log.debug("not interesting")
    (line,) = lines(home)
    assert (line["level"], line["part"], line["message"]) == ("warning", "part", "peer mini\nis gone")
    assert line["at"].endswith("Z")


def test_a_failure_is_logged_with_its_traceback(home: Home) -> None:
    with node_log(home, Config()):
        try:
            raise ValueError("Bearer abc.def.ghi.jkl.mno")
        except ValueError:
            log.exception("it failed")
    (line,) = lines(home)
    assert "Traceback" in line["exception"]
    assert "abc.def" not in line["exception"]


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("sent Authorization: Bearer s3cret-Token_1234", "s3cret-Token"),
        ("code able-baker-1234 was minted", "baker"),
        ("push to https://me:hunter2@git.example/x failed", "hunter2"),
        ("GET /hook?token=t0ken&x=1", "t0ken"),
        ("signed with webhook-secret-value", "webhook-secret-value"),
    ],
)
def test_secrets_are_blanked_out(text: str, secret: str, home: Home) -> None:
    config = Config(channels=ChannelSettings(webhook=WebhookSettings(secret="webhook-secret-value")))
    with node_log(home, config):
        log.info("%s", text)
    (line,) = lines(home)
    assert secret not in line["message"]
    assert "[redacted:" in line["message"]


def test_values_of_the_vault_are_in_no_line_and_no_event_from_the_moment_they_are_set(home: Home) -> None:
    vault: list[str] = []
    heard: list[Event] = []
    with node_log(home, Config()) as known:
        known.add(lambda: vault)
        events = EventHub(ManualClock(), known)
        events.listen(heard.append)
        vault.append("open-sesame")
        log.warning("the door says %s", "open-sesame")
        try:
            raise ValueError("not open-sesame")
        except ValueError:
            log.exception("it failed")
        events.publish(
            "sync", "a file open-sesame", path="open-sesame", more=[{"open-sesame": ("open-sesame",)}]
        )
    assert len(lines(home)) == 2
    assert "open-sesame" not in (home.logs / "node.jsonl").read_text() + repr(heard) + repr(events._history)
    assert heard[0].text == "a file [redacted:vault]"


def test_the_file_is_rotated(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1_000)
    with node_log(home, Config()):
        for n in range(50):
            log.info("line %d", n)
    names = sorted(path.name for path in home.logs.iterdir())
    assert names == ["node.jsonl", *(f"node.jsonl.{n}" for n in range(1, module.KEPT_FILES + 1))]
    assert all(path.stat().st_size <= 1_000 for path in home.logs.iterdir())


def test_afterwards_logging_is_as_before(home: Home) -> None:
    logger = logging.getLogger("instar")
    before = (logger.level, logger.propagate, list(logger.handlers))
    with node_log(home, Config()):
        pass
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


async def test_an_error_that_nobody_took_up_is_logged_and_shown_to_nobody_else(
    home: Home, capfd: pytest.CaptureFixture[str]
) -> None:
    async def breaks() -> None:
        raise ValueError("forgotten")

    with node_log(home, Config()):
        task = asyncio.create_task(breaks())
        await asyncio.wait([task])
        del task
        gc.collect()
    (line,) = lines(home)
    assert (line["level"], line["part"]) == ("error", "asyncio")
    assert "ValueError: forgotten" in line["exception"]
    assert "forgotten" not in capfd.readouterr().err
