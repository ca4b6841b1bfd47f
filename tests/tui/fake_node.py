"""A scripted node in memory: four machines, topics, history and a pairing session under attack.

Only the tests use it. It answers every method of ``NodeApi`` the screens call, keeps what it was asked in
``calls``, and publishes real events through a real ``EventHub``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from instar_node import __version__
from instar_node.api import types as t
from instar_node.api.doctor import diagnosis, mesh_findings
from instar_node.clock import Clock, SystemClock
from instar_node.errors import InstarError
from instar_node.events import Event, EventHub
from tests.tui.fake_checks import FakeChecks

DESK, MINI, ATTIC, LAPTOP = ("m_" + digit * 32 for digit in "dea1")
NAMES = {DESK: "desk", MINI: "mini", ATTIC: "attic", LAPTOP: "laptop"}
PRINTS = {
    DESK: "amber canoe lunar pelican drift",
    MINI: "velvet orbit mango thrive cedar",
    ATTIC: "crystal badge winter poet onion",
    LAPTOP: "silver tunnel gospel eager hawk",
}


def machine(machine_id: str, **changes: Any) -> t.Machine:
    """A healthy standby; ``changes`` replace fields."""
    fields: dict[str, Any] = {
        "machine_id": machine_id,
        "nickname": NAMES[machine_id],
        "fingerprint": PRINTS[machine_id],
        "role": "standby",
        "status": "ok",
        "status_text": "in sync",
        "online": True,
        "last_seen": "2026-11-23T16:58:00.000Z",
        "last_seen_ms": 120,
        "rtt_ms": 3,
        "version": "0.1.0",
        "protocol": (1, 1),
        "electorate": True,
        "lag": t.Lag(entries=0, bytes=0, ms=12),
        "topics": 2,
        "running": 0,
        "urls": [f"http://192.168.1.{20 + int(machine_id[2], 16)}:7707"],
        "is_self": False,
    }
    return t.Machine(**{**fields, **changes})


def topic(name: str, owner: str | None, reason: str, text: str, age_ms: int, **changes: Any) -> t.TopicRow:
    """A row of the topic table."""
    fields: dict[str, Any] = {
        "topic": name,
        "owner": owner,
        "owner_nickname": NAMES.get(owner or ""),
        "reason": reason,
        "pinned_to": owner if reason == "pinned" else None,
        "pending_reason": None,
        "last_at": "2026-11-23T16:58:00.000Z",
        "last_at_ms": age_ms,
        "last_text": text,
        "last_role": "user",
        "unread": 0,
        "queued": 0,
        "running": False,
    }
    return t.TopicRow(**{**fields, **changes})


class FakeNode(FakeChecks):
    """``NodeApi`` without a node.

    Attributes:
        machines_: The machines, changed freely by tests.
        hung: Cleared, no picture is answered until it is set again.
        failing: An error every call raises while it is set (a daemon that went away).
        version: What this node runs.
        confirm: Whether the next transfer asks for confirmation.
    """

    def __init__(self, machines: int = 4, *, expires: bool = True, clock: Clock | None = None) -> None:
        super().__init__()
        self.clock = clock or SystemClock()
        self.hub = EventHub(self.clock)
        self.expires = expires
        self.born = self.clock.now()
        self.calls: list[tuple[str, Any]] = []
        self.failing: InstarError | None = None
        self.confirm = False
        self.gate: asyncio.Event | None = None
        self.hung = asyncio.Event()
        self.hung.set()
        self.epoch = 7
        self.version = __version__
        self.opened = 0
        self.alerts: list[t.Alert] = []
        self.split_brain: dict[str, Any] | None = None
        self.undecided: list[t.OutboxItem] = []
        self.session = self._no_session()
        everyone = [
            machine(
                DESK,
                role="awake",
                status_text="awake",
                is_self=True,
                lag=None,
                topics=4,
                running=1,
                rtt_ms=None,
            ),
            machine(MINI),
            machine(ATTIC, rtt_ms=21, lag=t.Lag(entries=2, bytes=840, ms=40), topics=0),
            machine(
                LAPTOP,
                online=False,
                status="benched",
                status_text="benched: missed 3 rounds; back after catch-up",
                electorate=False,
                last_seen_ms=7_500_000,
                rtt_ms=None,
                lag=t.Lag(entries=214, bytes=88_000, ms=7_500_000),
                topics=1,
            ),
        ]
        self.machines_ = everyone[:machines]
        self.sync_ = t.SyncView(
            state="in-sync",
            head="a1" * 20,
            epoch=7,
            signed_by=DESK,
            files=12,
            writes=True,
            last_push=None,
            last_pull=None,
            unpushed=False,
            hub_error=None,
            trouble=None,
            queued=[],
            refused=[],
            conflicts=[],
            left_out=[],
            unwritten=[],
            folder="/home/me/instar/state",
        )
        self.topics_ = [
            topic("42", DESK, "placed", "can you check the build on the mini", 2_000, queued=1, running=True),
            topic("release", MINI, "pinned", "done, tagged v2.3", 240_000, last_role="agent"),
            topic("kitchen", DESK, "placed", "the light timer is set for 7", 1_080_000, last_role="agent"),
            topic(
                "17",
                None,
                "pinned",
                "are the photos sorted",
                7_200_000,
                queued=3,
                pinned_to=LAPTOP,
                pending_reason="laptop is asleep; moves when it is back",
            ),
            topic(
                "garden",
                DESK,
                "placed",
                "\x1b[31mwater\x07 the [bold]tomatoes[/bold] 🍅 日本語",
                9_000_000,
                unread=2,
            ),
            topic("taxes", MINI, "pinned", "which receipts are missing?", 90_000_000),
        ]
        self.messages_: dict[str, list[t.Message]] = {"42": self._conversation()}
        self._script()

    def _script(self) -> None:
        say = self.hub.publish
        say("lease", "desk founded the mesh, epoch 1")
        say("pair", "mini joined as a standby", machine_id=MINI)
        say("pair", "attic joined as a standby", machine_id=ATTIC)
        say("lease", "mini took over: desk was not heard for 6.1 s, epoch 6")
        say("wakeup", "asked on desk")
        say("handoff", "mini → desk, epoch 6 → 7, 52 ms", step="committed")
        say("machines", "laptop benched: missed 3 rounds", machine_id=LAPTOP)
        say("transfer", "topic release: desk → mini, 38 ms", topic="release")
        say("message", "42: can you check the build on the mini", topic="42")

    def _conversation(self) -> list[t.Message]:
        def said(
            seq: int, role: str, text: str, where: str, epoch: int, state: str | None, reply_to: str | None
        ) -> t.Message:
            return t.Message(
                seq=seq,
                role="agent" if role == "agent" else "user",
                text=text,
                at=f"2026-11-23T16:{40 + seq}:03.000Z",
                key=f"local:42:{seq}",
                reply_to=reply_to,
                epoch=epoch,
                machine_id=where,
                machine=NAMES[where],
                state=state,
            )

        return [
            said(1, "user", "is the nightly build green?", MINI, 6, "committed", None),
            said(
                2,
                "agent",
                "It is: 412 tests passed, the slowest in 14 s.\nThe log is state/builds/nightly.log.",
                MINI,
                6,
                None,
                "local:42:1",
            ),
            said(
                3,
                "user",
                "good. and on the desk? I moved there a minute ago, so take the working copy "
                "from here and not the one on the mini, please",
                DESK,
                7,
                "cursor_advanced",
                None,
            ),
            said(
                4,
                "agent",
                "Green as well. The working copy here is two commits ahead; I ran those too.",
                DESK,
                7,
                None,
                "local:42:3",
            ),
            said(5, "user", "can you check the build on the mini", DESK, 7, "processing", None),
            said(
                6, "user", "\x1b]0;owned\x07 and what is [red]this[/red] 日本語 🍅", DESK, 7, "waiting", None
            ),
        ]

    # -- helpers of tests ---------------------------------------------------------------------------------

    def say(self, kind: str, text: str = "", **data: Any) -> None:
        """Publish an event."""
        self.hub.publish(kind, text, **data)

    def wrong_guess(self) -> None:
        """Somebody guesses the code wrong."""
        self.session.attempts_left -= 1
        if self.session.attempts_left == 0:
            self.session.state = "locked"
        left = self.session.attempts_left
        self.hub.publish("pair", f"wrong guess from 192.168.1.77, {left} left", attempts_left=left)

    def falls_asleep(self) -> None:
        """Another machine takes over, which voids a code."""
        desk, mini = self._find(DESK), self._find(MINI)
        desk.role, mini.role, self.epoch = "standby", "awake", self.epoch + 1
        self.session.state, self.session.code = "cancelled", None
        self.session.last_refusal = "mini is the awake machine now"
        self.hub.publish("handoff", "desk → mini", step="committed")
        self.hub.publish("pair", "the pairing code is void: mini is the awake machine now")

    def joined(self) -> None:
        """The other machine used the code."""
        self.session.state = "joined"
        self.session.joiner = {"machine_id": LAPTOP, "nickname": "laptop", "fingerprint": PRINTS[LAPTOP]}
        self.session.sas = t.Sas(
            digits="407193", emoji=["🦊", "⚓", "🌵", "🎺"], names=["fox", "anchor", "cactus", "trumpet"]
        )
        self.hub.publish("pair", "laptop joined as a standby", machine_id=LAPTOP)

    @staticmethod
    def _no_session() -> t.PairView:
        return t.PairView(
            state="none",
            code=None,
            url=None,
            join_command=None,
            expires_in_ms=0,
            lifetime_ms=120_000,
            attempts_left=3,
            attempts_max=3,
        )

    def _enter(self, name: str, argument: Any = None) -> None:
        if self.failing is not None:
            raise self.failing
        if name not in ("status", "handoff_view"):
            self.calls.append((name, argument))

    def called(self, name: str) -> list[Any]:
        """The arguments of every call of a method."""
        return [argument for method, argument in self.calls if method == name]

    def _holder(self) -> t.Machine | None:
        return next((m for m in self.machines_ if m.role == "awake"), None)

    def _find(self, name: str) -> t.Machine:
        found = next((m for m in self.machines_ if name in (m.machine_id, m.nickname)), None)
        if found is None:
            raise InstarError(
                "unknown-machine", f"no machine is called {name}", status=404, extra={"known": []}
            )
        return found

    # -- NodeApi ------------------------------------------------------------------------------------------

    async def status(self) -> t.Status:
        self._enter("status")
        await self.hung.wait()
        return t.Status(
            me=await self.whoami(),
            health=await self.health(),
            lease=await self.lease(),
            machines=list(self.machines_),
            topics=list(self.topics_),
            livetail=await self.livetail(),
            outbox=len(self.undecided),
            handoff=await self.handoff_view(),
            at="2026-11-23T16:58:03.000Z",
            event=self.hub._next - 1,
        )

    async def health(self) -> t.Health:
        holder = self._holder()
        awake = holder is not None and holder.is_self
        return t.Health(
            status="alarm" if self.split_brain else ("degraded" if self.alerts else "ok"),
            version=self.version,
            machine_id=DESK,
            role="awake" if awake else "standby",
            epoch=self.epoch,
            split_brain=self.split_brain,
            sync={"pushed_ms_ago": 20_000, "queued_changes": 0, "refused_commits": 0, "head": "9f31c2a"},
            gates={
                "handoff": {"open": True, "verified": True},
                "livetail": {"open": True, "verified": False},
            },
            alerts=self.alerts,
            counters={"messages": 18_412, "replies": 18_401, "stale_refused": 3, "tunnel_reconnects": 2},
        )

    async def whoami(self) -> t.WhoAmI:
        return t.WhoAmI(
            machine_id=DESK,
            nickname="desk",
            fingerprint=PRINTS[DESK],
            signing_public_key="…",
            encryption_public_key="…",
            version=self.version,
            role="awake",
            mesh_id="mesh_1",
            mesh_name="quiet-river",
            urls=["http://192.168.1.20:7707"],
            hub="git@host:me/agent.git",
        )

    async def machines(self) -> t.Machines:
        return t.Machines(machines=list(self.machines_))

    async def lease(self) -> t.LeaseView:
        holder = self._holder()
        since = (self.clock.now() - self.born) // 1_000
        valid = 6_000 - since % 2_000 if self.expires else 6_000
        others = [m for m in self.machines_ if not m.is_self]
        standby = next((m for m in others if m.role == "standby" and m.electorate), None)
        state = "split-brain" if self.split_brain else "held"
        return t.LeaseView(
            holder=holder.machine_id if holder else None,
            holder_nickname=holder.nickname if holder else None,
            epoch=self.epoch,
            epoch_text=str(self.epoch),
            is_self=bool(holder and holder.is_self),
            valid_for_ms=valid,
            expires=self.expires,
            ttl_ms=6_000,
            round_ms=2_000,
            electorate=[m.machine_id for m in self.machines_ if m.electorate],
            benched=[m.machine_id for m in self.machines_ if m.status == "benched"],
            medium="promise" if self.expires else "hub",
            state=state if holder else "none",
            since="2026-11-23T14:02:00.000Z",
            since_ms=11_520_000 + since,
            renewed_ms_ago=since % 2_000 if self.expires else None,
            round_took_ms=3,
            hub=t.HubView(
                kind="remote" if self.expires else "embedded",
                url="git@host:me/agent.git",
                reachable=True,
                latency_ms=41,
                last_write_ms_ago=11_520_000,
            ),
            history=[
                t.EpochRow(7, "7", DESK, "desk", "handoff", "2026-11-23T14:02:00Z", None, 52),
                t.EpochRow(6, "6", MINI, "mini", "failover", "2026-11-23T09:31:00Z", 16_260_000, 6_400),
                t.EpochRow(5, "5", DESK, "desk", "handoff", "2026-11-22T22:10:00Z", 40_860_000, 61),
                t.EpochRow(1, "1", DESK, "desk", "founded", "2026-11-22T18:44:00Z", 12_360_000, None),
            ],
            evidence=[
                t.Evidence(
                    m.machine_id,
                    m.nickname,
                    m.electorate,
                    m.status == "benched",
                    since % 2_000 if m.online else None,
                    11_520_000,
                    5_800 if m.online else None,
                )
                for m in others
            ],
            if_lost=t.IfLost(standby.machine_id, standby.nickname, 6_200, None)
            if standby and self.expires
            else t.IfLost(
                None,
                None,
                None,
                "there is no second machine" if not others else "the lease lies on this machine",
                "" if not others else "instar hub URL gives automatic failover",
            ),
            counters={"rounds": 5_760, "swaps": 7},
        )

    async def livetail(self) -> t.LiveTail:
        peers = [
            t.TailPeer(m.machine_id, m.nickname, None, m.lag, 18_400 - m.lag.entries, 18_400, m.last_seen_ms)
            for m in self.machines_
            if not m.is_self and m.lag is not None
        ]
        return t.LiveTail(role="source", source=DESK, peers=peers)

    async def pair(self, body: t.PairRequest) -> t.PairView:
        self._enter("pair", body)
        holder = self._holder()
        if holder is not None and not holder.is_self:
            raise InstarError(
                "not-awake", "this machine is not awake", f"{holder.nickname} is: run this there"
            )
        if self.gate is not None:
            await self.gate.wait()
        self.opened = self.clock.now()
        self.session = t.PairView(
            state="open",
            code="RIVER-STONE-4071",
            url="http://192.168.1.20:7707",
            join_command="instar join http://192.168.1.20:7707 --code RIVER-STONE-4071",
            expires_in_ms=120_000,
            lifetime_ms=120_000,
            attempts_left=3,
            attempts_max=3,
        )
        self.hub.publish("pair", "a code is open for two minutes", state="open")
        return self.session

    async def pair_view(self) -> t.PairView:
        self._enter("pair_view")
        if self.session.state == "open":
            self.session.expires_in_ms = max(0, 120_000 - (self.clock.now() - self.opened) // 1_000)
        return self.session

    async def pair_cancel(self) -> t.PairView:
        self._enter("pair_cancel")
        self.session.state = "cancelled"
        return self.session

    async def pair_confirm(self, body: t.PairConfirm) -> t.PairView:
        self._enter("pair_confirm", body)
        self.session.state = "joined" if body.accept else "cancelled"
        return self.session

    async def join(self, body: t.JoinRequest) -> t.JoinResult:
        self._enter("join", body)
        raise InstarError(
            "already-member", "this home already belongs to mesh quiet-river", "use a fresh home"
        )

    async def wakeup(self, body: t.WakeupRequest) -> t.HandoffResult:
        self._enter("wakeup", body)
        return await self._pass_to(self._find(DESK))

    async def doctor(self) -> t.Doctor:
        self._enter("doctor")
        return diagnosis([*self.findings, *mesh_findings(await self.status())])

    async def set_config(self, body: t.ConfigChange) -> t.ConfigChanged:
        self._enter("set_config", body)
        return t.ConfigChanged(body.key, body.value, False)

    async def lease_heal(self, body: t.HealRequest) -> t.HandoffResult:
        self._enter("lease_heal", body)
        return await self._pass_to(self._find(DESK))

    async def handoff(self, body: t.HandoffRequest) -> t.HandoffResult:
        self._enter("handoff", body)
        if self.gate is not None:
            await self.gate.wait()
        return await self._pass_to(self._find(body.to))

    async def move_hub(self, body: t.HubRequest) -> t.HubMoved:
        self._enter("move_hub", body)
        self.epoch += 1
        return t.HubMoved("moved", "path", body.url, self.epoch, 41, [])

    async def _pass_to(self, target: t.Machine) -> t.HandoffResult:
        old = self._holder()
        if old is not None:
            old.role, old.lag = "standby", t.Lag(0, 0, 3)
        target.role, self.epoch = "awake", self.epoch + 1
        steps = [
            t.Step("prepare", 2),
            t.Step("tail synced", 9),
            t.Step("fenced", 11),
            t.Step("drained", 30),
            t.Step("committed", 52),
        ]
        self.hub.publish("handoff", f"{target.nickname} is awake, epoch {self.epoch}", step="committed")
        return t.HandoffResult(
            "awake", target.machine_id, target.nickname, self.epoch, 52, steps, kind="handoff"
        )

    async def handoff_view(self) -> t.HandoffResult:
        holder = self._holder()
        return t.HandoffResult("none", holder.machine_id if holder else None, None, self.epoch, 0, [])

    async def remove_machine(self, machine: str) -> t.Ok:
        self._enter("remove_machine", machine)
        self.machines_ = [m for m in self.machines_ if m.machine_id != machine]
        return t.Ok()

    async def leave(self) -> t.Ok:
        self._enter("leave")
        return t.Ok()

    async def topics(self) -> t.Topics:
        self._enter("topics")
        return t.Topics(list(self.topics_))

    async def pool(self) -> t.PoolView:
        self._enter("pool")
        holder = self._holder()
        router = t.PoolRouter(holder.machine_id if holder else None, self.epoch)
        return t.PoolView(True, router, list(self.machines_), t.PoolTopics(len(self.topics_), 3, 3, 0))

    async def pool_machine(self, machine: str) -> t.Machine:
        self._enter("pool_machine", machine)
        return self._find(machine)

    async def placement(self, topic: str) -> t.PlacementView:
        self._enter("placement", topic)
        row = next(r for r in self.topics_ if r.topic == topic)
        return t.PlacementView(
            topic, row.owner, row.owner_nickname, row.reason, None, DESK, "desk", "none", True, "local"
        )

    async def send(self, body: t.SendRequest) -> t.SendResult:
        self._enter("send", body)
        said = self.messages_.setdefault(body.topic, [])
        seq = len(said) + 1
        said.append(
            t.Message(
                seq,
                "user",
                body.text,
                "2026-11-23T16:59:00Z",
                f"k{seq}",
                None,
                self.epoch,
                DESK,
                "desk",
                "received",
            )
        )
        self.hub.publish("message", f"{body.topic}: {body.text}", topic=body.topic)
        return t.SendResult(f"k{seq}", "received", seq, body.topic, DESK)

    async def messages(self, topic: str, after: int = 0, limit: int = 200) -> t.Messages:
        self._enter("messages", (topic, after))
        return t.Messages(topic, [m for m in self.messages_.get(topic, []) if m.seq > after][:limit])

    async def reply(self, topic: str, body: t.ReplyRequest) -> t.SendResult:
        self._enter("reply", body)
        said = self.messages_[topic]
        for message in said:
            if message.key == body.reply_to:
                message.state = "committed"
        said.append(
            t.Message(
                len(said) + 1,
                "agent",
                body.text,
                "2026-11-23T16:59:01Z",
                "r1",
                body.reply_to,
                self.epoch,
                DESK,
                "desk",
            )
        )
        return t.SendResult(body.reply_to, "committed", len(said), topic, DESK)

    async def outbox(self) -> t.Outbox:
        self._enter("outbox")
        return t.Outbox(list(self.undecided))

    async def outbox_resolve(self, item: str, body: t.OutboxAction) -> t.Ok:
        self._enter("outbox_resolve", (item, body.action))
        self.undecided = [row for row in self.undecided if row.id != item]
        return t.Ok()

    async def rename(self, machine: str, body: t.RenameRequest) -> t.Machine:
        self._enter("rename", (machine, body.nickname))
        found = self._find(machine)
        found.nickname = body.nickname
        return found

    async def transfer(self, body: t.TransferRequest) -> t.TransferResult:
        self._enter("transfer", body)
        if self.gate is not None:
            await self.gate.wait()
        if self.confirm and body.confirm is None:
            raise InstarError(
                "needs-confirmation",
                "topic 42 has running work",
                "",
                extra={
                    "prompt": "42 is being answered on desk; moving it to mini starts that answer again.",
                    "conditions": ["running"],
                    "confirm": "token-1",
                },
            )
        row = next(r for r in self.topics_ if r.topic == body.topic)
        target = self._find(DESK if body.undo else body.to)
        source, row.owner, row.owner_nickname, row.reason = (
            row.owner,
            target.machine_id,
            target.nickname,
            "pinned",
        )
        steps = [t.Step("drained", 4), t.Step("tail", 13), t.Step("owner", 38)]
        self.hub.publish("transfer", f"topic {body.topic} → {target.nickname}, 38 ms", topic=body.topic)
        return t.TransferResult(
            "moved", body.topic, target.machine_id, target.nickname, source, (7, 2), 38, steps
        )

    async def unpin(self, body: t.UnpinRequest) -> t.PlacementView:
        self._enter("unpin", body)
        row = next(r for r in self.topics_ if r.topic == body.topic)
        row.reason, row.pinned_to = "placed", None
        return t.PlacementView(
            body.topic, row.owner, row.owner_nickname, "placed", None, DESK, "desk", "none", True, "local"
        )

    async def sync(self) -> t.SyncView:
        self._enter("sync")
        return self.sync_

    async def sync_seen(self) -> t.SyncView:
        self._enter("sync_seen")
        self.sync_.refused, self.sync_.conflicts = [], []
        return self.sync_

    async def secret(self, name: str) -> t.Secret:
        self._enter("secret", name)
        raise InstarError("unknown-secret", f"there is no secret {name}", status=404)

    async def set_secret(self, name: str, body: t.SecretValue) -> t.Ok:
        self._enter("set_secret", name)
        return t.Ok()

    async def remove_secret(self, name: str) -> t.Ok:
        self._enter("remove_secret", name)
        return t.Ok()

    async def events(self, after: int | None = None) -> AsyncIterator[Event]:
        if self.failing is not None:
            raise self.failing
        async for event in self.hub.subscribe(after):
            if self.failing is not None:
                raise self.failing
            yield event


class FakeConnection:
    """A connection to a ``FakeNode``."""

    def __init__(self, node: FakeNode, *, embedded: bool = True) -> None:
        self._node = node
        self._embedded = embedded
        self.closed = False
        self.keep_baton: bool | None = None

    @property
    def api(self) -> Any:
        return self._node

    @property
    def embedded(self) -> bool:
        return self._embedded

    async def close(self, keep_baton: bool | None = None) -> None:
        self.closed, self.keep_baton = True, keep_baton
