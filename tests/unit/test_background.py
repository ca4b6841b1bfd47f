"""Background work goes on after an unexpected error, and a person hears of it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from instar_node import background
from instar_node.api.heartbeat import Heartbeat
from instar_node.background import Background
from instar_node.surprises import REMEMBERED_S, Surprises
from tests.unit.identity_support import ManualClock
from tests.unit.node_world import a_home, running, until

log = logging.getLogger("instar.part")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE_S", 0.0)


def fail(what: str) -> None:
    try:
        raise OSError(28, "No space left on device")
    except OSError:
        log.exception(what)


async def test_work_that_fails_is_begun_anew_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    begun = 0
    goes_on = asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise ValueError(f"surprise {begun}")
        goes_on.set()
        await asyncio.Event().wait()

    part = Background("a part", work)
    part.start()
    async with asyncio.timeout(5):
        await goes_on.wait()
    await part.stop()
    assert begun == 3
    assert [record.getMessage().split(";")[0] for record in caplog.records] == ["a part failed"] * 2
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [
        "surprise 1",
        "surprise 2",
    ]


async def test_work_that_comes_to_its_end_is_over() -> None:
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1

    part = Background("a part", work)
    part.start()
    for _ in range(5):
        await asyncio.sleep(0)
    await part.stop()
    assert begun == 1


async def test_work_started_again_runs_once() -> None:
    running_now = 0

    async def work() -> None:
        nonlocal running_now
        running_now += 1
        try:
            await asyncio.Event().wait()
        finally:
            running_now -= 1

    part = Background("a part", work)
    part.start()
    await asyncio.sleep(0)
    part.start()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert running_now == 1
    await part.stop()
    assert running_now == 0


def test_what_was_expected_is_no_surprise_and_an_old_surprise_is_none_any_more() -> None:
    clock = ManualClock()
    with Surprises(clock) as surprises:
        log.error("the disk is full")
        assert surprises.recent() == []
        fail("a part failed")
        assert [one.what for one in surprises.recent()] == ["a part failed"]
        clock.advance(REMEMBERED_S + 1)
        assert surprises.recent() == []
    fail("another part failed")
    assert surprises.recent() == []


async def test_the_health_of_a_node_tells_of_an_unexpected_error(tmp_path: Path) -> None:
    async with running(a_home(tmp_path, "desk")) as node:
        assert "unexpected-error" not in {alert.code for alert in (await node.api.health()).alerts}
        fail("a part failed")
        fail("a call with Authorization: Bearer s3cret-Token_1234 failed")
        health = await node.api.health()
    (alert,) = [alert for alert in health.alerts if alert.code == "unexpected-error"]
    assert "2 times" in alert.message
    assert "s3cret" not in alert.message
    assert health.status == "degraded"


async def test_a_part_of_a_node_that_fails_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beats = 0
    beat = Heartbeat.beat

    async def breaks_first(self: Heartbeat) -> None:
        nonlocal beats
        beats += 1
        if beats == 1:
            raise OSError(28, "No space left on device")
        await beat(self)

    monkeypatch.setattr(Heartbeat, "beat", breaks_first)
    async with running(a_home(tmp_path, "desk")) as node:
        await until(lambda: beats > 1)
        (alert,) = [one for one in (await node.api.health()).alerts if one.code == "unexpected-error"]
    assert "heartbeat failed" in alert.message
