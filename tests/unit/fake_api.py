"""A scripted ``NodeApi`` in memory: two machines, one conversation, an agent that echoes.

Every method answers with real structs, records its call, and raises what ``errors`` holds for its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

from instar_node.api import types as t
from instar_node.api.doctor import diagnosis, mesh_findings
from instar_node.clock import SystemClock
from instar_node.errors import InstarError
from instar_node.events import Event, EventHub

ME = "m_" + "1" * 32
MINI = "m_" + "2" * 32
AT = "2026-11-23T16:58:03.120Z"
LAG = t.Lag(entries=2, bytes=300, ms=12)


def a_machine(machine_id: str = ME, nickname: str = "desk", **changes: Any) -> t.Machine:
    fields: dict[str, Any] = {
        "machine_id": machine_id,
        "nickname": nickname,
        "fingerprint": "able baker charlie dog easy",
        "role": "awake" if machine_id == ME else "standby",
        "status": "ok",
        "status_text": "in sync",
        "online": True,
        "last_seen": AT,
        "last_seen_ms": 0,
        "rtt_ms": None if machine_id == ME else 1,
        "version": "0.1.0",
        "protocol": (1, 1),
        "electorate": True,
        "lag": None if machine_id == ME else LAG,
        "topics": 1,
        "running": 0,
        "urls": ["http://127.0.0.1:7707"],
        "is_self": machine_id == ME,
    }
    return t.Machine(**{**fields, **changes})


def a_sync_view(**changes: Any) -> t.SyncView:
    """A standby with one edit that waits, a refused commit, a conflict and a file that is left out."""
    fields: dict[str, Any] = {
        "state": "queued",
        "head": "a1" * 20,
        "epoch": 7,
        "signed_by": ME,
        "files": 12,
        "writes": False,
        "last_push": None,
        "last_pull": AT,
        "unpushed": False,
        "hub_error": None,
        "trouble": None,
        "queued": [t.QueuedChange("notes.md", "changed", AT, 4)],
        "refused": [t.RefusedCommit("b2" * 20, "unsigned", "commit b2 is not signed", "the hub", AT)],
        "conflicts": [t.SyncConflict("plan.md", "plan.conflict-mini-3.md", MINI, "mini", AT)],
        "left_out": [t.SyncLeftOut("video.mp4", "it is larger than 16 MiB")],
        "unwritten": [],
        "folder": "/home/me/instar/state",
    }
    return t.SyncView(**{**fields, **changes})


def a_handoff(outcome: Any = "awake", reason: str = "") -> t.HandoffResult:
    return t.HandoffResult(
        outcome=outcome,
        holder=MINI,
        holder_nickname="mini",
        epoch=8,
        took_ms=42,
        steps=[t.Step("asked", 0), t.Step("closed", 12), t.Step("awake", 42)],
        reason=reason,
        kind="handoff",
        source=ME,
        target=MINI,
    )


def a_pairing(state: Any = "open", **changes: Any) -> t.PairView:
    fields: dict[str, Any] = {
        "state": state,
        "code": "ABLE-BAKER-1234" if state == "open" else None,
        "url": "http://127.0.0.1:7707",
        "join_command": "instar join http://127.0.0.1:7707 --code ABLE-BAKER-1234",
        "expires_in_ms": 119_000,
        "lifetime_ms": 120_000,
        "attempts_left": 3,
        "attempts_max": 3,
    }
    return t.PairView(**{**fields, **changes})


class FakeNodeApi:
    """See the module. ``pairings`` are the views ``pair_view`` answers, one after the other."""

    def __init__(self) -> None:
        self.hub = EventHub(SystemClock())
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.errors: dict[str, Exception] = {}
        self.rows: list[t.Message] = []
        self.pairings: list[t.PairView] = []
        self.handoff_outcome: t.HandoffResult = a_handoff()
        self.transfer_outcome = "moved"
        self.broken = False
        """The drill finds something, and the update fails."""
        self.answers = True
        self.confirmed = asyncio.Event()
        self.slow = 0.0

    def _called(self, method: str, *arguments: Any) -> None:
        self.calls.append((method, arguments))
        if method in self.errors:
            raise self.errors[method]

    async def status(self) -> t.Status:
        self._called("status")
        event = self.hub.publish("pulse").n
        return t.Status(
            me=await self.whoami(),
            health=await self.health(),
            lease=await self.lease(),
            machines=(await self.machines()).machines,
            topics=(await self.topics()).topics,
            livetail=await self.livetail(),
            outbox=1,
            handoff=a_handoff("none"),
            at=AT,
            event=event,
        )

    async def health(self) -> t.Health:
        self._called("health")
        return t.Health(
            status="ok",
            version="0.1.0",
            machine_id=ME,
            role="awake",
            epoch=7,
            split_brain=None,
            sync={},
            gates={},
            alerts=[t.Alert("no-failover", "there is no automatic failover", "instar hub URL")],
            counters={"messages-committed": 12},
        )

    async def whoami(self) -> t.WhoAmI:
        self._called("whoami")
        return t.WhoAmI(
            machine_id=ME,
            nickname="desk",
            fingerprint="able baker charlie dog easy",
            signing_public_key="AAAA",
            encryption_public_key="BBBB",
            version="0.1.0",
            role="awake",
            mesh_id="mesh_1",
            mesh_name="quiet-river",
            urls=["http://127.0.0.1:7707"],
            hub="/srv/hub.git",
        )

    async def machines(self) -> t.Machines:
        self._called("machines")
        return t.Machines([a_machine(), a_machine(MINI, "mini")])

    async def lease(self) -> t.LeaseView:
        self._called("lease")
        return t.LeaseView(
            holder=ME,
            holder_nickname="desk",
            epoch=7,
            epoch_text="7",
            is_self=True,
            valid_for_ms=5_800,
            expires=True,
            ttl_ms=6_000,
            round_ms=2_000,
            electorate=[ME, MINI],
            benched=[],
            medium="promise",
            state="held",
            since=AT,
            since_ms=3_700_000,
            renewed_ms_ago=200,
            round_took_ms=2,
            hub=t.HubView("path", "/srv/hub.git", True, 2, 40_000),
            history=[t.EpochRow(7, "7", ME, "desk", "handoff", AT, None, 41)],
            evidence=[t.Evidence(MINI, "mini", True, False, 200, None, None)],
            if_lost=t.IfLost(MINI, "mini", 6_120, None),
            counters={"rounds": 900},
        )

    async def pair(self, body: t.PairRequest) -> t.PairView:
        self._called("pair", body)
        return a_pairing()

    async def pair_view(self) -> t.PairView:
        self._called("pair_view")
        return self.pairings.pop(0) if self.pairings else a_pairing("none")

    async def pair_cancel(self) -> t.PairView:
        self._called("pair_cancel")
        return a_pairing("cancelled")

    async def pair_confirm(self, body: t.PairConfirm) -> t.PairView:
        self._called("pair_confirm", body)
        self.confirmed.set()
        return a_pairing("joined" if body.accept else "cancelled")

    async def join(self, body: t.JoinRequest) -> t.JoinResult:
        self._called("join", body)
        if body.sas:
            await self.confirmed.wait()
        return t.JoinResult(ME, "mesh_1", {"nickname": "mini"}, t.Sas("123456", [], []), "instar-tui")

    async def wakeup(self, body: t.WakeupRequest) -> t.HandoffResult:
        self._called("wakeup", body)
        if body.force and not body.vouch:
            raise InstarError(
                "needs-confirmation",
                "mini cannot be reached",
                "make sure that it is not running",
                extra={"prompt": "Is mini off?", "vouch": [MINI]},
            )
        return self.handoff_outcome

    async def doctor(self) -> t.Doctor:
        self._called("doctor")
        return diagnosis(mesh_findings(await self.status()))

    async def config(self) -> t.ConfigView:
        self._called("config")
        return t.ConfigView("/home/config.toml", {"lease": {"ttl_ms": 6000}})

    async def set_config(self, body: t.ConfigChange) -> t.ConfigChanged:
        self._called("set_config", body)
        return t.ConfigChanged(body.key, body.value, True)

    async def lease_heal(self, body: t.HealRequest) -> t.HandoffResult:
        self._called("lease_heal", body)
        if not body.confirm:
            raise InstarError(
                "needs-confirmation",
                "the hub was rewound",
                "confirm to go on from here",
                extra={"prompt": "Go on from this machine's line?", "vouch": [MINI]},
            )
        return self.handoff_outcome

    async def handoff(self, body: t.HandoffRequest) -> t.HandoffResult:
        self._called("handoff", body)
        return self.handoff_outcome

    async def handoff_view(self) -> t.HandoffResult:
        self._called("handoff_view")
        return a_handoff("aborted", "the target went away")

    async def move_hub(self, body: t.HubRequest) -> t.HubMoved:
        self._called("move_hub", body)
        trouble = t.HubTrouble(MINI, "mini", "there is no repository at /mnt/hub.git; is its disk mounted?")
        return t.HubMoved("moved", "path", body.url, 8, 41, [trouble])

    async def leave(self) -> t.Ok:
        self._called("leave")
        return t.Ok(note="this machine has left")

    async def remove_machine(self, machine: str) -> t.Ok:
        self._called("remove_machine", machine)
        if machine not in ("mini", MINI):
            raise InstarError(
                "unknown-machine", f"there is no {machine}", status=404, extra={"known": ["mini"]}
            )
        return t.Ok(note="revoke its git credentials")

    async def send(self, body: t.SendRequest) -> t.SendResult:
        """Stored at once; the echo comes a moment later, as an event and a row."""
        self._called("send", body)
        key = body.key or f"k{len(self.rows)}"
        row = self.say("user", body.text, key, None)
        if self.answers:
            task = asyncio.create_task(self._answer(body.topic, body.text, key))
            task.add_done_callback(lambda done: done.result())
        return t.SendResult(key, "received", row.seq, body.topic, "desk")

    async def _answer(self, topic: str, text: str, key: str) -> None:
        await asyncio.sleep(self.slow)
        self.say("agent", f"echo: {text}", f"r{key}", key)
        self.hub.publish("message", "answered", topic=topic)

    def say(self, role: Any, text: str, key: str, reply_to: str | None = None) -> t.Message:
        """Add a row to the conversation."""
        state = "received" if role == "user" else None
        row = t.Message(len(self.rows) + 1, role, text, AT, key, reply_to, 7, ME, "desk", state)
        self.rows.append(row)
        return row

    async def topics(self) -> t.Topics:
        self._called("topics")
        row = t.TopicRow("work", MINI, "mini", "pinned", MINI, None, AT, 3_000, "hello", "agent", 0, 2, False)
        return t.Topics([row])

    async def messages(self, topic: str, after: int = 0, limit: int = 200) -> t.Messages:
        self._called("messages", topic, after, limit)
        return t.Messages(topic, [row for row in self.rows if row.seq > after][:limit])

    async def reply(self, topic: str, body: t.ReplyRequest) -> t.SendResult:
        self._called("reply", topic, body)
        return t.SendResult(body.reply_to, "committed", 2, topic, "desk")

    async def outbox(self) -> t.Outbox:
        self._called("outbox")
        return t.Outbox([t.OutboxItem("o1", "r1", "work", "undecided", 7, "the receiver died", "hello")])

    async def outbox_resolve(self, item: str, body: t.OutboxAction) -> t.Ok:
        self._called("outbox_resolve", item, body)
        return t.Ok()

    async def livetail(self) -> t.LiveTail:
        self._called("livetail")
        return t.LiveTail("source", ME, [t.TailPeer(MINI, "mini", None, LAG, 10, 12, 15)])

    async def pool(self) -> t.PoolView:
        self._called("pool")
        machines = (await self.machines()).machines
        return t.PoolView(True, t.PoolRouter(ME, 7), machines, t.PoolTopics(1, 1, 0, 0))

    async def pool_machine(self, machine: str) -> t.Machine:
        self._called("pool_machine", machine)
        return a_machine(MINI, "mini")

    async def rename(self, machine: str, body: t.RenameRequest) -> t.Machine:
        self._called("rename", machine, body)
        return a_machine(ME, body.nickname)

    async def placement(self, topic: str) -> t.PlacementView:
        self._called("placement", topic)
        return self._placed(topic)

    def _placed(self, topic: str) -> t.PlacementView:
        return t.PlacementView(
            topic, MINI, "mini", "pinned", MINI, ME, "desk", "actuated", False, "local", None, (7, 3)
        )

    async def transfer(self, body: t.TransferRequest) -> t.TransferResult:
        self._called("transfer", body)
        if self.transfer_outcome == "ask" and body.confirm != "token-1":
            raise InstarError(
                "needs-confirmation",
                "mini is offline",
                extra={
                    "prompt": "Move work to mini, which is offline?",
                    "conditions": ["offline"],
                    "confirm": "token-1",
                },
            )
        return t.TransferResult("moved", body.topic, MINI, "mini", ME, (7, 3), 12)

    async def unpin(self, body: t.UnpinRequest) -> t.PlacementView:
        self._called("unpin", body)
        return self._placed(body.topic)

    async def sync(self) -> t.SyncView:
        self._called("sync")
        return a_sync_view()

    async def sync_seen(self) -> t.SyncView:
        self._called("sync_seen")
        return a_sync_view()

    async def secrets(self) -> t.Secrets:
        self._called("secrets")
        row = t.SecretRow("TOKEN", 3, AT, ["desk", "mini"], ["lap"], readable_here=True)
        return t.Secrets(names=["TOKEN"], secrets=[row])

    async def secret(self, name: str) -> t.Secret:
        self._called("secret", name)
        return t.Secret(name, "s3cr3t value")

    async def set_secret(self, name: str, body: t.SecretValue) -> t.Ok:
        self._called("set_secret", name, body)
        return t.Ok()

    async def remove_secret(self, name: str) -> t.Ok:
        self._called("remove_secret", name)
        return t.Ok()

    async def verify(self, body: t.VerifyRequest) -> t.VerifyResult:
        self._called("verify", body)
        passed = not self.broken
        finding = "acknowledged in 3 ms" if passed else "a push was not acknowledged within 10 s"
        steps = [t.DrillStep("livetail", passed, finding, 3)]
        drill = t.Drill(
            peer=MINI,
            peer_nickname="mini",
            signed_by=ME,
            signed_by_nickname="desk",
            passed=passed,
            live=not body.rehearse,
            failed=None if passed else "livetail",
            finding="" if passed else finding,
            at=AT,
            epoch=7,
            took_ms=40,
            versions={ME: "0.1.0", MINI: "0.1.0"},
            steps=steps,
        )
        return t.VerifyResult(passed, [drill])

    async def e2e_results(self) -> t.E2EResults:
        self._called("e2e_results")
        return t.E2EResults([])

    async def flags(self) -> t.Flags:
        self._called("flags")
        return self._flags(None)

    async def set_flag(self, body: t.FlagChange) -> t.Flags:
        self._called("set_flag", body)
        return self._flags(None if body.state == "auto" else body.state)

    def _flags(self, override: Literal["open", "shut"] | None) -> t.Flags:
        peer = t.GatePeer(MINI, "mini", "shut", "its drill failed", AT)
        gate = t.GateView(
            "livetail", "shut", "mini: its drill failed", "a push", ["handing over"], override, [peer]
        )
        return t.Flags([gate])

    async def updates(self) -> t.Updates:
        self._called("updates")
        row = t.MachineVersion(MINI, "mini", False, "standby", True, "0.2.0", (2, 2), None, "held back: 2")
        return t.Updates("0.1.0", (1, 1), "0.1.0", [row], [MINI], None, False, [])

    async def update(self, body: t.UpdateRequest) -> t.UpdateResult:
        self._called("update", body)
        steps = [t.UpdateStep(MINI, "mini", "updated", 900, "runs 0.2.0")]
        if self.broken:
            return t.UpdateResult("failed", "mini: it came up with version 0.1.0 instead of 0.2.0", steps)
        return t.UpdateResult("updated", "", steps)

    async def events(self, after: int | None = None) -> AsyncIterator[Event]:
        async for event in self.hub.subscribe(after):
            yield event
