"""The pool's routes as scripts meet them: plain HTTP on the awake machine and on a standby, with the names of
the contract."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from instar_node.node import Node
from tests.unit.node_world import a_home, in_sync, join, pair, running, until

PLACEMENT = {
    "topic",
    "owner",
    "owner_nickname",
    "reason",
    "pinned_to",
    "lease_holder",
    "lease_holder_nickname",
    "pin_state",
    "is_this_machine",
    "answered_by",
}
MACHINE = {
    "machine_id",
    "nickname",
    "role",
    "status",
    "online",
    "last_seen",
    "rtt_ms",
    "version",
    "protocol",
    "electorate",
    "lag",
    "is_self",
}
RESULT = {"component", "peer", "passed", "at", "versions", "signed_by", "verified"}
OF_THE_READER = ("answered_by", "is_this_machine")


class Script:
    """A program on one machine that talks HTTP to its node."""

    def __init__(self, session: aiohttp.ClientSession, node: Node) -> None:
        self._session, self._node = session, node

    async def call(self, verb: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        token = self._node._home.api_token.read_text().strip() if token is None else token
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self._node.api_url}{path}"
        async with self._session.request(verb, url, json=body, headers=headers) as answer:
            return answer.status, json.loads(await answer.read())

    async def get(self, path: str) -> Any:
        status, answer = await self.call("GET", path)
        assert status == 200, answer
        return answer

    async def post(self, path: str, **body: Any) -> Any:
        status, answer = await self.call("POST", path, body)
        assert status == 200, answer
        return answer

    async def refused(self, verb: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        status, answer = await self.call(verb, path, body)
        assert set(answer) == {"error"}, answer
        assert {"code", "message", "hint"} <= set(answer["error"])
        return status, answer["error"]


@asynccontextmanager
async def scripts(*nodes: Node) -> AsyncIterator[list[Script]]:
    async with aiohttp.ClientSession() as session:
        yield [Script(session, node) for node in nodes]


async def the_same(where: list[Script], path: str) -> Any:
    """What every machine answers, once they agree, without what is about the reader."""
    while True:
        answers = [await one.get(path) for one in where]
        for answer in answers:
            for mine in OF_THE_READER:
                answer.pop(mine, None)
        if all(answer == answers[0] for answer in answers):
            return answers[0]
        await asyncio.sleep(0.01)


async def test_every_field_of_the_contract_is_there_on_every_machine(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini), scripts(desk, mini) as both, asyncio.timeout(60):
        for script in both:
            pool = await script.get("/pool")
            assert {"enabled", "router", "machines", "topics"} <= pool.keys()
            assert pool["enabled"] is True
            assert pool["router"] == {"holder": desk.machine_id, "epoch": 1}
            assert pool["topics"] == {"count": 0, "pinned": 0, "placed": 0, "unowned": 0}
            assert [row["nickname"] for row in pool["machines"]] == ["desk", "mini"]
            for row in pool["machines"]:
                assert row.keys() >= MACHINE
                for name in (row["machine_id"], row["nickname"], row["nickname"].upper()):
                    one = await script.get(f"/pool/machines/{name}")
                    assert one["machine_id"] == row["machine_id"]
            seen = await script.get("/pool/placement?topic=42")
            assert seen.keys() >= PLACEMENT
            assert (seen["owner"], seen["reason"], seen["pin_state"]) == (None, "unowned", "none")
            assert seen["lease_holder_nickname"] == "desk"
            assert await script.get("/session-pool/e2e-results") == {"results": []}

        moved = await both[1].post("/pool/transfer", topic="42", to="mini")
        assert moved.keys() >= {"outcome", "owner", "ownership_epoch", "took_ms"}
        assert (moved["outcome"], moved["owner"]) == ("moved", mini.machine_id)
        assert isinstance(moved["took_ms"], int)
        placed = await the_same(both, "/pool/placement?topic=42")
        assert (placed["owner"], placed["owner_nickname"]) == (mini.machine_id, "mini")
        assert (placed["reason"], placed["pinned_to"]) == ("pinned", mini.machine_id)
        assert placed["pin_state"] == "actuated"
        assert placed["ownership_epoch"] == moved["ownership_epoch"]
        for script, node in zip(both, (desk, mini), strict=True):
            here = await script.get("/pool/placement?topic=42")
            assert here["is_this_machine"] is (node is mini)
            assert here["answered_by"] in ("local", "holder")
        assert (await both[1].post("/pool/transfer", topic="42", to="mini"))["outcome"] == "noop"
        unpinned = await both[1].post("/pool/unpin", topic="42")
        assert (unpinned["reason"], unpinned["pinned_to"], unpinned["pin_state"]) == ("placed", None, "none")

        ran = await both[1].post("/verify", rehearse=True)
        assert ran["passed"] is True
        found = await the_same(both, "/session-pool/e2e-results")
        assert all(result.keys() >= RESULT for result in found["results"])
        assert {result["component"] for result in found["results"]} >= {"tunnel", "handoff"}
        assert all(result["passed"] and result["verified"] for result in found["results"])


async def test_every_refusal_has_its_status_code_and_extras_wherever_it_is_asked(tmp_path: Path) -> None:
    async with pair(tmp_path) as (desk, mini), scripts(desk, mini) as both, asyncio.timeout(60):
        for number, script in enumerate(both):
            topic = f"topic-{number}"
            transfer = {"topic": topic, "to": "mini"}
            for field, body in (
                ("topic", {"to": "mini"}),
                ("topic", {"topic": "a b", "to": "mini"}),
                ("topic", {"topic": "x" * 65, "to": "mini"}),
                ("topic", {"topic": 42, "to": "mini"}),
                ("to", {"topic": topic}),
                ("to", {"topic": topic, "to": 7}),
                ("too", {"topic": topic, "too": "mini"}),
            ):
                status, error = await script.refused("POST", "/pool/transfer", body)
                assert (status, error["code"]) == (400, "bad-input"), body
                assert field in error["message"], error
            assert (await script.refused("GET", "/pool/placement"))[0] == 400
            assert (await script.refused("GET", "/pool/placement?topic=a%20b"))[0] == 400
            assert (await script.refused("POST", "/pool/unpin", {}))[0] == 400
            for bad in ({}, {"nickname": 7}, {"nickname": ""}, {"nickname": "a/b"}, {"nickname": "x" * 41}):
                assert (await script.refused("PATCH", "/pool/machines/mini", bad))[0] == 400

            for name in ("attic", "büro", "机器", "m_" + "0" * 32, "mini2", "min"):
                status, error = await script.refused("POST", "/pool/transfer", {"topic": topic, "to": name})
                assert (status, error["code"]) == (404, "unknown-machine")
                assert error["known"] == ["desk", "mini"]
                for verb, body in (("GET", None), ("PATCH", {"nickname": "x"})):
                    assert (await script.refused(verb, f"/pool/machines/{name}", body))[0] == 404
            status, error = await script.refused("PATCH", "/pool/machines/mini", {"nickname": "DESK"})
            assert (status, error["code"]) == (409, "nickname-taken")

            assert (await script.post("/pool/transfer", **transfer))["outcome"] == "moved"
            status, error = await script.refused("POST", "/pool/transfer", {"topic": topic, "to": "desk"})
            assert (status, error["code"]) == (429, "rate-limited")
            assert isinstance(error["retry_in_ms"], int)
            assert (await script.post("/pool/transfer", topic=topic, undo=True))["owner"] == desk.machine_id
            for token in ("", "wrong"):
                status, answer = await script.call("GET", "/pool", token=token)
                assert (status, answer["error"]["code"]) == (401, "unauthorized")


async def test_a_consent_is_asked_for_with_all_its_reasons_and_is_good_for_one_move(tmp_path: Path) -> None:
    async with pair(tmp_path, agent="manual") as (desk, mini), scripts(desk, mini) as both:
        away = mini.machine_id
        await mini.stop(hand_off=False)
        await until(lambda: not desk._parts.base.mesh.connected(away))
        status, error = await both[0].refused("POST", "/pool/transfer", {"topic": "42", "to": "mini"})
        assert (status, error["code"], error["conditions"]) == (409, "needs-confirmation", ["offline"])
        assert "mini is offline" in error["prompt"]
        token = error["confirm"]
        other = {"topic": "43", "to": "mini", "confirm": token}
        assert (await both[0].refused("POST", "/pool/transfer", other))[0] == 409
        queued = await both[0].post("/pool/transfer", topic="42", to="mini", confirm=token)
        assert (queued["outcome"], queued["owner"]) == ("queued", None)
        waits = await both[0].get("/pool/placement?topic=42")
        assert (waits["owner"], waits["reason"], waits["pin_state"]) == (None, "pinned", "pending")
        assert waits["pending_reason"] == "mini is offline; runs there when it is back"
        assert (waits["pinned_to"], waits["is_this_machine"]) == (away, False)
        freed = await both[0].post("/pool/unpin", topic="42")
        assert (freed["owner"], freed["pin_state"]) == (desk.machine_id, "none")
        again = {"topic": "42", "to": "mini", "confirm": token}
        assert (await both[0].refused("POST", "/pool/transfer", again))[0] in (409, 429)
        assert (await both[0].get("/pool/placement?topic=42"))["pinned_to"] is None


async def test_a_standby_whose_rows_may_be_behind_asks_the_holder_one_hop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path) as (desk, mini), scripts(desk, mini) as both, asyncio.timeout(60):
        lease = desk._parts.base.lease
        monkeypatch.setattr(lease, "caught_up", lambda machine: False)
        lease.bench(mini.machine_id, "to see what it says then")
        await until(lambda: mini.machine_id not in mini._parts.base.lease.known.record.electorate)
        nothing = {"placement": lambda topic: None, "placements": lambda: (), "topics": dict}
        for name, answer in nothing.items():
            monkeypatch.setattr(mini._parts.delivery.ledger, name, answer)
        assert (await both[1].post("/pool/transfer", topic="42", to="desk"))["outcome"] == "moved"
        seen = await both[1].get("/pool/placement?topic=42")
        assert (seen["answered_by"], seen["owner"], seen["reason"]) == ("holder", desk.machine_id, "pinned")
        assert seen["is_this_machine"] is False
        for script in both:
            pool = await script.get("/pool")
            assert pool["topics"] == {"count": 1, "pinned": 1, "placed": 0, "unowned": 0}
            assert {row["nickname"]: row["topics"] for row in pool["machines"]} == {"desk": 1, "mini": 0}
            assert [row["is_self"] for row in pool["machines"]] == [script is both[0], script is both[1]]
        await desk.stop(hand_off=False)  # and when it cannot be asked, it answers itself
        await until(lambda: not mini._parts.base.mesh.connected(desk.machine_id))
        assert (await both[1].get("/pool/placement?topic=42"))["answered_by"] == "local"


async def test_with_the_holder_out_of_reach_a_standby_answers_reads_and_says_502_to_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_node.api.forwarding.PATIENCE_S", 0.3)
    async with pair(tmp_path, hub=False) as (desk, mini), scripts(mini) as (script,):
        assert (await script.post("/pool/transfer", topic="42", to="mini"))["outcome"] == "moved"
        await desk.stop(hand_off=False)  # embedded hub: nobody takes over
        await until(lambda: not mini._parts.base.mesh.connected(desk.machine_id))
        seen = await script.get("/pool/placement?topic=42")
        assert (seen["owner"], seen["answered_by"]) == (mini.machine_id, "local")
        assert (await script.get("/pool"))["topics"]["pinned"] == 1
        for path, body in (
            ("/pool/transfer", {"topic": "42", "to": "mini"}),
            ("/pool/unpin", {"topic": "42"}),
            ("/verify", {}),
        ):
            status, error = await script.refused("POST", path, body)
            assert (status, error["code"]) == (502, "holder-unreachable")
            assert "desk" in error["message"]
        assert (await script.refused("PATCH", "/pool/machines/mini", {"nickname": "x"}))[0] == 502


async def test_without_the_pool_its_routes_are_503_also_through_a_machine_that_has_it(tmp_path: Path) -> None:
    without = "[pool]\nenabled = false\n"
    homes = [a_home(tmp_path, "desk", more=without), a_home(tmp_path, "mini")]
    async with running(homes[0], hub=str(tmp_path / "hub.git")) as desk:
        await join(desk, homes[1])
        async with running(homes[1]) as mini, scripts(desk, mini) as both:
            await in_sync(desk, mini)
            for verb, path, body in (
                ("GET", "/pool", None),
                ("GET", "/pool/machines/desk", None),
                ("PATCH", "/pool/machines/desk", {"nickname": "attic"}),
                ("GET", "/pool/placement?topic=42", None),
                ("POST", "/pool/transfer", {"topic": "42", "to": "mini"}),
                ("POST", "/pool/unpin", {"topic": "42"}),
                ("GET", "/session-pool/e2e-results", None),
            ):
                status, error = await both[0].refused(verb, path, body)
                assert (status, error["code"]) == (503, "pool-disabled"), path
            for path, body in (
                ("/pool/transfer", {"topic": "42", "to": "mini"}),
                ("/pool/unpin", {"topic": "42"}),
            ):
                status, error = await both[1].refused("POST", path, body)
                assert (status, error["code"]) == (503, "pool-disabled"), path
