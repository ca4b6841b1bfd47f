"""Drills, gates and versions of the scripted node: one other machine, where everything works."""

from __future__ import annotations

from instar_node.api import types as t


class FakeChecks:
    """The part of ``NodeApi`` that no screen of these tests is about."""

    async def verify(self, body: t.VerifyRequest) -> t.VerifyResult:
        return t.VerifyResult(True, [])

    async def e2e_results(self) -> t.E2EResults:
        return t.E2EResults([])

    async def flags(self) -> t.Flags:
        return t.Flags([t.GateView("livetail", "open", "mini: acknowledged", "a push", [], None, [])])

    async def set_flag(self, body: t.FlagChange) -> t.Flags:
        return await self.flags()

    async def updates(self) -> t.Updates:
        return t.Updates("0.1.0", (1, 1), "0.1.0", [], [], None, False, [])

    async def update(self, body: t.UpdateRequest) -> t.UpdateResult:
        return t.UpdateResult("nothing-to-do", "", [])
