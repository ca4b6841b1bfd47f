"""The same mesh gives the same picture: what chance and the clock decide is replaced by fixed values.

Everything else (who is awake in which epoch, by which steps, what was said and decided) is what the real
nodes answered. Replaced are ids, names of meshes, ports, codes, times and durations; left out are events that
come at moments of their own (drills, sync, connections).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from instar_node.api import types as t
from instar_node.api.protocol import NodeApi
from instar_node.clock import iso
from instar_node.events import Event
from tests.tui.standing import NOON

TOLD = frozenset({"lease", "handoff", "transfer", "message", "pair"})
FINGERPRINTS = ("amber-canoe-lunar-pelican-drift", "velvet-orbit-mango-thrive-cedar")
FINGERPRINTS = (*FINGERPRINTS, "crystal-badge-winter-poet-onion")
SINCE_MS = 54 * 60_000
"""How long this machine is awake: since the handoff that the events tell of."""
NUMBERS: dict[str, float] = {
    "rtt_ms": 2, "took_ms": 38, "round_took_ms": 3, "latency_ms": 2, "last_seen_ms": 120,
    "renewed_ms_ago": 600, "promised_ms_ago": 600, "last_ack_ms": 400, "last_write_ms_ago": SINCE_MS,
    "since_ms": SINCE_MS, "for_ms": 36_000, "expires_in_ms": 84_000, "after_ms": 3_060, "at_ms": 8,
}  # fmt: skip
TEXTS = (
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), iso((NOON - timedelta(milliseconds=SINCE_MS)).timestamp())),
    (re.compile(r"\d+(\.\d+)? ms"), "38 ms"),
    (re.compile(r"[\d.,]+ GB free"), "84.0 GB free"),
    (re.compile(r"[\d.]+ [kM]B$"), "412.0 kB"),
    (re.compile(r"rows of epoch \d+ refused"), "rows of epoch 2 refused"),
    (re.compile(r"\w+ would take over"), "attic would take over"),
    (re.compile(r"epoch 1 record \d+, but epoch 3 record \d+"), "epoch 1 record 5, but epoch 3 record 9"),
    (re.compile(r"^(in sync|admitted|benched) m_\d+$"), "in sync m_" + "2" * 32),
    (re.compile(r"(entry|row) [\d.]+"), r"\1 9"),
    (re.compile(r"promised for epoch \d+"), "promised for epoch 3"),
    (re.compile(r"\d+ placements? (is|are)"), "3 placements are"),
    (re.compile(r"\b[0-9a-f]{40}\b"), "9f31c2a7d04b" + "0" * 28),
    (re.compile(r"from 127\.0\.0\.1"), "from 192.168.1.77"),
    (re.compile(r"/\S*/instar-(demo|pictures)-[^/ ]+"), "/srv/instar"),
)


class SteadyApi:
    """A ``NodeApi`` whose answers do not depend on chance."""

    def __init__(self, api: NodeApi, machines: Sequence[t.Machine]) -> None:
        """``machines``: of the mesh, in the order in which the pictures number them."""
        self._api = api
        self._names: dict[str, str] = {}
        for number, machine in enumerate(machines):
            self._names[machine.machine_id] = "m_" + str(number + 1) * 32
            self._names[machine.fingerprint] = FINGERPRINTS[number]
            for url in machine.urls:
                self._names[url] = f"http://192.168.1.{20 + number}:7707"
        self.drill_steps = 0
        """How many steps of a drill are still told; none, unless a picture is about them."""
        self.drill_may_end = asyncio.Event()

    async def verify(self, body: t.VerifyRequest) -> t.VerifyResult:
        """As the node's, but it does not end before its picture is taken."""
        result = await self._api.verify(body)
        await self.drill_may_end.wait()
        return result

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._api, name)

        async def call(*arguments: Any) -> Any:
            return self._steady(await method(*arguments), name)

        return call

    async def events(self, after: int | None = None) -> AsyncIterator[Event]:
        """Those a person waits for, one every six seconds."""
        number = 0
        async for event in self._api.events(after):
            if event.text and (event.kind in TOLD or self._is_told_step(event)):
                number += 1
                at = iso((NOON - timedelta(hours=1) + timedelta(seconds=6 * number)).timestamp())
                data = self._steady(event.data, "")
                yield Event(number, at, event.kind, self._steady(event.text, ""), data)

    def _is_told_step(self, event: Event) -> bool:
        told = event.kind == "drill" and "component" in event.data and self.drill_steps > 0
        self.drill_steps -= told
        return told

    def _steady(self, value: Any, name: str) -> Any:
        if isinstance(value, msgspec.Struct):
            return self._struct(value)
        if isinstance(value, dict):
            counters = name == "counters"
            return {k: (12 if v else 0) if counters else self._steady(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return self._list(value, name)
        if isinstance(value, str):
            return self._text(value)
        return NUMBERS.get(name, value) if isinstance(value, int | float) else value

    def _struct(self, value: Any) -> Any:
        for field in value.__struct_fields__:
            setattr(value, field, self._steady(getattr(value, field), field))
        if isinstance(value, t.WhoAmI | t.PairView):
            self._person_facing(value)
        if isinstance(value, t.LeaseView):
            self._lease(value)
        if isinstance(value, t.TailPeer) and not value.behind.entries:
            value.acked_seq = value.head_seq = 18
        return value

    @staticmethod
    def _lease(lease: t.LeaseView) -> None:
        """Among machines that are equally good their ids decide, and those are chance."""
        lease.valid_for_ms = 2_400 if lease.expires else lease.valid_for_ms
        lease.evidence.sort(key=lambda row: row.nickname)
        if lease.if_lost.next is not None:
            first = lease.evidence[0]
            lease.if_lost.next, lease.if_lost.next_nickname = first.machine_id, first.nickname

    @staticmethod
    def _person_facing(value: t.WhoAmI | t.PairView) -> None:
        if isinstance(value, t.WhoAmI):
            value.mesh_name = "quiet-river"
        elif value.code and value.join_command:
            value.join_command = value.join_command.replace(value.code, "RIVER-STONE-4071")
            value.code, value.warning = "RIVER-STONE-4071", None  # the address is another one, too

    def _list(self, value: list[Any], name: str) -> list[Any]:
        rows = [self._steady(row, name) for row in value]
        for number, row in enumerate(rows):
            if isinstance(row, t.Step):
                row.at_ms = 8 * (number + 1) - 4
            elif isinstance(row, t.TopicRow):
                row.last_at_ms = 90_000 * (number + 1)
            elif isinstance(row, t.Message):
                row.at = iso((NOON - timedelta(hours=1) + timedelta(seconds=9 * number)).timestamp())
        if rows and isinstance(rows[0], t.E2EResult):
            rows.sort(key=lambda row: row.peer_nickname)
        return rows

    def _text(self, text: str) -> str:
        for real, shown in self._names.items():
            text = text.replace(real, shown)
        for pattern, instead in TEXTS:
            text = pattern.sub(instead, text)
        return text


class SteadyConnection:
    """A connection whose node answers steadily."""

    def __init__(self, connection: Any, machines: Sequence[t.Machine]) -> None:
        self._connection = connection
        self.api = SteadyApi(connection.api, machines)
        self.embedded: bool = connection.embedded

    async def close(self, keep_baton: bool | None = None) -> None:
        """Close the real one."""
        await self._connection.close(keep_baton)
