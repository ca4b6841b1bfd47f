"""The pieces that tie a node together, each where it matters: addresses, tail, alerts, a failed admission."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from instar_node.api import types as t
from instar_node.api.alerts import health_of
from instar_node.delivery.conversation import Line
from instar_node.delivery.state import TopicHead
from instar_node.errors import InstarError
from instar_node.events import Event
from instar_node.node import Node
from instar_node.wiring.own_urls import OwnUrls, own_addresses, split_address
from instar_node.wiring.tail_mending import TailMending
from tests.unit.node_world import a_home, join, pair, running, until

# -- addresses -----------------------------------------------------------------------------------------------


def test_urls_of_the_settings_stand_and_otherwise_the_listening_address() -> None:
    assert OwnUrls(("https://desk.example.net",), "0.0.0.0:7707")() == ("https://desk.example.net",)
    assert OwnUrls((), "127.0.0.1:7707")() == ("http://127.0.0.1:7707",)
    assert OwnUrls((), "[::1]:7707")() == ("http://[::1]:7707",)


def test_the_port_that_was_got_is_the_port_that_is_told() -> None:
    urls = OwnUrls((), "127.0.0.1:0")
    urls.port = 4711
    assert urls() == ("http://127.0.0.1:4711",)


def test_listening_everywhere_is_told_as_addresses_that_mean_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [(socket.AF_INET, 1, 6, "", (ip, 0)) for ip in ("127.0.1.1", "192.168.1.20", "192.168.1.20")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: found)
    monkeypatch.setattr("instar_node.wiring.own_urls._towards_the_network", lambda: ["10.0.0.5"])
    assert OwnUrls((), "0.0.0.0:7707")() == ("http://10.0.0.5:7707", "http://192.168.1.20:7707")
    assert OwnUrls((), "[::]:7707")() == ("http://10.0.0.5:7707", "http://192.168.1.20:7707")


def test_without_any_network_only_the_loopback_address_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object) -> Any:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr("instar_node.wiring.own_urls._towards_the_network", list)
    assert own_addresses() == ("127.0.0.1",)


def test_an_address_comes_apart_with_and_without_brackets() -> None:
    assert split_address("[fe80::1]:80") == ("fe80::1", 80)
    assert split_address("desk.local:7707") == ("desk.local", 7707)


# -- the tail of a new holder --------------------------------------------------------------------------------


def a_line(seq: int, role: Any = "user") -> Line:
    return Line(seq, role, f"text {seq}", "2026-11-23T11:00:00.000Z", f"k{seq}", None, 1, "m_old", None)


class World:
    """A machine whose ledger knows more than its tail."""

    def __init__(self, said: int, in_tail: int) -> None:
        self.acting: int | None = None
        self.callbacks: list[Callable[[], None]] = []
        self.in_tail = in_tail
        self.said = [a_line(seq) for seq in range(1, said + 1)]
        self.appended: list[int] = []
        source = SimpleNamespace(append=lambda **fields: self.appended.append(fields["seq"]))
        self.mending = TailMending(
            self,  # type: ignore[arg-type]
            SimpleNamespace(topics=lambda: {"work": TopicHead("work", said)}),  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            SimpleNamespace(topic=lambda topic: SimpleNamespace(last=self.in_tail)),  # type: ignore[arg-type]
            source,  # type: ignore[arg-type]
        )
        self.mending.start()

    def acting_epoch(self) -> int | None:
        return self.acting

    def on_change(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    async def lines(self, topic: str, after: int, limit: int) -> list[Line]:
        return [line for line in self.said if line.seq > after][:limit]

    def become_awake(self, epoch: int) -> None:
        self.acting = epoch
        for callback in self.callbacks:
            callback()


async def test_a_new_holder_adds_to_its_tail_what_only_its_ledger_knows() -> None:
    world = World(said=5, in_tail=3)
    assert world.appended == []
    world.become_awake(2)
    world.in_tail = 9  # something new is said before the older lines are read
    await until(lambda: world.appended == [4, 5])
    world.become_awake(2)
    await asyncio.sleep(0)
    assert world.appended == [4, 5]
    await world.mending.stop()


async def test_a_holder_that_lost_the_lease_meanwhile_adds_nothing() -> None:
    world = World(said=5, in_tail=3)
    world.become_awake(2)
    world.acting = None
    assert world.mending._task is not None
    await world.mending._task
    assert world.appended == []


# -- alerts --------------------------------------------------------------------------------------------------


def test_facts_do_not_degrade_a_node_and_a_split_brain_is_an_alarm() -> None:
    assert health_of([]) == "ok"
    assert health_of([t.Alert("no-failover", "")]) == "ok"
    assert health_of([t.Alert("no-failover", ""), t.Alert("benched", "")]) == "degraded"
    assert health_of([t.Alert("benched", ""), t.Alert("split-brain", "")]) == "alarm"


async def test_an_alert_is_told_when_it_lasts_and_again_when_it_is_over(tmp_path: Path) -> None:
    async with running(a_home(tmp_path, "desk")) as desk:
        told: list[tuple[str, bool]] = []

        def hear(event: Event) -> None:
            if event.kind == "alert" and event.data["code"] == "test":
                told.append((event.text, event.data.get("over", False)))

        base = desk._parts.base
        base.events.listen(hear)
        beat = desk._heartbeat.beat
        await desk._heartbeat.stop()
        base.warnings.append(t.Alert("test", "something is wrong"))
        await beat()
        assert told == []
        await beat()
        await beat()
        assert told == [("something is wrong", False)]
        base.warnings.clear()
        await beat()
        assert told == [("something is wrong", False), ("over: something is wrong", True)]


# -- an admission that fails half-way ------------------------------------------------------------------------


async def test_an_admission_that_the_registry_refuses_is_undone_in_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(a_home(tmp_path, "desk")) as desk:
        registry = desk._parts.base.registry

        def full(*args: Any, **kwargs: Any) -> Any:
            raise InstarError("disk-full", "no space left", status=507)

        monkeypatch.setattr(registry, "admit", full)
        home = a_home(tmp_path, "mini")
        with pytest.raises(InstarError) as refused:
            await join(desk, home)
        assert refused.value.code == "disk-full"
        lease = await desk.api.lease()
        assert lease.electorate + lease.benched == [desk.machine_id]
        assert not (home.machine / "registry.json").exists()
        monkeypatch.undo()
        await join(desk, home)
        assert len((await desk.api.machines()).machines) == 2


# -- stopping ------------------------------------------------------------------------------------------------


async def test_a_part_that_fails_to_stop_does_not_keep_the_rest_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = a_home(tmp_path, "desk")

    async def broken() -> None:
        raise RuntimeError("no end")

    async with running(home) as desk:
        desk._at_stop(broken)
    assert "did not stop cleanly" in caplog.text
    async with running(home):
        pass


async def test_the_role_that_is_handed_on_costs_no_message_under_way(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini):
        await desk.api.send(t.SendRequest("work", "hello"))
        await _stop(desk)

        async def answered() -> bool:
            rows = (await mini.api.messages("work")).messages
            return [row.role for row in rows] == ["user", "agent"]

        await until(answered)
        assert (await mini.api.lease()).holder == mini.machine_id


async def _stop(node: Node) -> None:
    await node.stop(hand_off=True)
