"""Drills, gates, versions, secrets and the doctor of the scripted node: mostly, everything works."""

from __future__ import annotations

from typing import Any

from instar_node.api import types as t


class FakeChecks:
    """The part of ``NodeApi`` that only the health screen asks for."""

    def __init__(self) -> None:
        self.gates_ = [t.GateView("livetail", "open", "mini: acknowledged", "a push", [], None, [])]
        self.results_: list[t.E2EResult] = []
        self.updates_ = t.Updates("0.1.0", (1, 1), "0.1.0", [], [], None, False, [])
        self.findings = [
            t.Finding("settings", "ok", "no config.toml: all defaults"),
            t.Finding("disk", "warning", "only 120.0 MB free on the disk of /home/me", "free some space"),
        ]
        self.secrets_ = [
            t.SecretRow("API_KEY", 1, "2026-11-20T09:00:00.000Z", ["desk", "mini", "attic"], [], True),
            t.SecretRow("OLD_TOKEN", 2, "2026-11-02T09:00:00.000Z", ["desk", "mini"], ["tower"], True),
        ]
        self.settings: dict[str, Any] = {
            "agent": {"env_secrets": ["API_KEY"]},
            "channels": {"telegram": {"token_secret": "BOT_TOKEN"}},
        }

    async def config(self) -> t.ConfigView:
        return t.ConfigView("/home/me/instar/config.toml", self.settings)

    async def secrets(self) -> t.Secrets:
        return t.Secrets([row.name for row in self.secrets_], self.secrets_)

    async def verify(self, body: t.VerifyRequest) -> t.VerifyResult:
        self._enter("verify", body)
        if self.gate is not None:
            await self.gate.wait()
        return t.VerifyResult(True, [])

    async def e2e_results(self) -> t.E2EResults:
        return t.E2EResults(list(self.results_))

    async def flags(self) -> t.Flags:
        return t.Flags(self.gates_)

    async def set_flag(self, body: t.FlagChange) -> t.Flags:
        return await self.flags()

    async def updates(self) -> t.Updates:
        return self.updates_

    async def update(self, body: t.UpdateRequest) -> t.UpdateResult:
        self._enter("update")
        return t.UpdateResult("nothing-to-do", "", [])

    def _enter(self, name: str, argument: Any = None) -> None:
        raise NotImplementedError
