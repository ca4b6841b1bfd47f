"""Everything a person reads, assembled from the parts. Nothing here changes anything."""

from __future__ import annotations

import base64
from collections import Counter
from typing import Literal

import msgspec

from instar_node.api import types as t
from instar_node.api.alerts import alerts_of, health_of
from instar_node.api.lease_picture import hub_name, lease_view, split_brain
from instar_node.api.machine_view import machine_rows, role_of
from instar_node.api.membership import unknown_machine
from instar_node.api.news import TailPicture
from instar_node.api.parts import NodeParts
from instar_node.api.sync_view import sync_health
from instar_node.api.topic_view import ReadMarks, topic_rows
from instar_node.api.verification_view import gate_views
from instar_node.build import spoken
from instar_node.clock import iso
from instar_node.delivery.conversation import Line
from instar_node.errors import InstarError
from instar_node.identity.keys import mesh_name
from instar_node.identity.vault import unknown_secret
from instar_node.livetail.source import PeerLag


class Views:
    """Pictures of this node and, as far as it knows, of the whole mesh; true on holder and standbys alike."""

    def __init__(self, parts: NodeParts, tail: TailPicture) -> None:
        self._parts = parts
        self._base = parts.base
        self._tail = tail
        self._marks = ReadMarks(parts.delivery.ledger.topics())

    # -- this node ---------------------------------------------------------------------------------------

    def role(self) -> t.Role:
        """What this machine is at this instant."""
        own = self._base.registry.get(self._base.me)
        assert own is not None, "a node runs only as a member"
        return role_of(own, self._base.lease.snapshot(), self._base.me)

    def whoami(self) -> t.WhoAmI:
        """This machine's identity."""
        base, public = self._base, self._base.identity.public
        return t.WhoAmI(
            machine_id=base.me,
            nickname=base.registry.nickname(base.me),
            fingerprint=public.fingerprint,
            signing_public_key=base64.b64encode(public.signing_public).decode(),
            encryption_public_key=base64.b64encode(public.encryption_public).decode(),
            version=base.build.version,
            role=self.role(),
            mesh_id=base.registry.mesh_id,
            mesh_name=mesh_name(base.registry.mesh_id),
            urls=list(base.urls()),
            hub=hub_name(base, base.lease.hub),
        )

    def health(self) -> t.Health:
        """Whether the node is well, and what it counted."""
        base, alerts, snapshot = self._base, alerts_of(self._parts), self._base.lease.snapshot()
        head = self._parts.delivery.ledger.head
        return t.Health(
            status=health_of(alerts),
            version=base.build.version,
            machine_id=base.me,
            role=self.role(),
            epoch=base.lease.epoch,
            split_brain=split_brain(base, snapshot),
            sync={
                "log_position": f"{head.epoch}.{head.seq}",
                "tail_head": self._parts.tail.buffer.head.seq,
                "incomplete": sorted(self._parts.delivery.ledger.incomplete),
                **sync_health(self._parts),
            },
            gates={
                "pool": self._parts.pool is not None,
                "redaction": base.config.livetail.redact,
                "protocol": spoken(base.build.protocol),
                **{gate.gate: gate.state for gate in gate_views(base, self._parts.verification)},
            },
            alerts=alerts,
            counters=self._counters(),
        )

    def _counters(self) -> dict[str, int]:
        parts, base = self._parts, self._base
        counted: Counter[str] = Counter(base.mesh.counters)
        for reason, count in parts.delivery.outbox.refusals.items():
            counted[f"outbox_refused_{reason}"] = count
        counted["replication_refused"] = parts.delivery.replication.refused
        counted["placements_refused"] = parts.delivery.ledger.placements_refused
        counted["registry_refused"] = base.registry.refusals
        counted["secrets_refused"] = base.vault.refusals
        for name, count in parts.tail.transport.follower.counters.items():
            counted[f"tail_{name}"] = count
        return dict(counted)

    # -- the mesh ----------------------------------------------------------------------------------------

    async def lease(self) -> t.LeaseView:
        """The lease, its evidence and its history."""
        return await lease_view(self._base)

    async def machines(self) -> list[t.Machine]:
        """Every machine of the mesh."""
        return machine_rows(self._base, self._parts.pool, await self._copies())

    async def machine(self, name: str) -> t.Machine:
        """One machine, by id or nickname. Raises ``unknown-machine``."""
        member = self._base.registry.resolve(name)
        wanted = name if member is None else member.machine_id
        for row in await self.machines():
            if row.machine_id == wanted:
                return row
        raise unknown_machine(self._base, name)

    async def livetail(self) -> t.LiveTail:
        """How far each copy of the conversation is behind the holder's."""
        base = self._base
        role: Literal["source", "standby"] = "source" if base.lease.acting_epoch() is not None else "standby"
        peers = [row for copy in await self._copies() for row in self._tail_rows(copy)]
        return t.LiveTail(role=role, source=base.lease.holder, peers=peers)

    def _tail_rows(self, copy: PeerLag) -> list[t.TailPeer]:
        """A copy as a whole, then the topics in which it is behind."""
        whole = t.TailPeer(
            machine_id=copy.machine_id,
            nickname=self._base.registry.nickname(copy.machine_id),
            topic=None,
            behind=t.Lag(copy.entries, copy.bytes, copy.ms),
            acked_seq=copy.acked_seq,
            head_seq=copy.head_seq,
            last_ack_ms=copy.last_ack_ms,
        )
        topics = (
            msgspec.structs.replace(whole, topic=one.topic, behind=t.Lag(one.entries, one.bytes, one.ms))
            for one in copy.topics
        )
        return [whole, *topics]

    async def _copies(self) -> list[PeerLag]:
        return await self._tail.copies(self.others())

    def others(self) -> tuple[str, ...]:
        """Every other machine that keeps a copy."""
        members = self._base.registry.active()
        return tuple(m.machine_id for m in members if not m.witness and m.machine_id != self._base.me)

    # -- conversation ------------------------------------------------------------------------------------

    def topics(self) -> list[t.TopicRow]:
        """All conversations."""
        return topic_rows(self._parts, self._marks)

    async def messages(self, topic: str, after: int, limit: int) -> t.Messages:
        """Lines of one conversation; they count as read from then on."""
        lines = await self._parts.delivery.conversation.lines(topic, after, limit)
        if lines:
            self._marks.seen(topic, lines[-1].seq)
        return t.Messages(topic, [self._message(line) for line in lines])

    def _message(self, line: Line) -> t.Message:
        return t.Message(
            seq=line.seq,
            role=line.role,
            text=line.text,
            at=line.at,
            key=line.key,
            reply_to=line.reply_to,
            epoch=line.epoch,
            machine_id=line.machine_id,
            machine=self._base.registry.nickname(line.machine_id),
            state=line.state,
        )

    def outbox(self) -> list[t.OutboxItem]:
        """Replies that are not out yet."""
        return [
            t.OutboxItem(
                id=item.id,
                reply_id=item.reply_id,
                topic=item.topic,
                state=item.state,
                epoch=item.epoch,
                reason=item.reason,
                text=item.text,
            )
            for item in self._parts.delivery.delivery.outbox_items()
        ]

    # -- the pool ----------------------------------------------------------------------------------------

    async def pool(self) -> t.PoolView:
        """The machines that run topics, and how many run where."""
        base, reasons = self._base, Counter(row.reason for row in self.topics())
        return t.PoolView(
            enabled=True,
            router=t.PoolRouter(base.lease.holder, base.lease.epoch),
            machines=await self.machines(),
            topics=t.PoolTopics(
                count=reasons.total(),
                pinned=reasons["pinned"],
                placed=reasons["placed"],
                unowned=reasons["unowned"],
            ),
        )

    # -- secrets -----------------------------------------------------------------------------------------

    def secrets(self) -> t.Secrets:
        """Every secret without its value."""
        vault = self._base.vault
        rows = [row for name in vault.names() if (row := self._secret_row(name)) is not None]
        return t.Secrets(names=[row.name for row in rows], secrets=rows)

    def _secret_row(self, name: str) -> t.SecretRow | None:
        vault, nickname = self._base.vault, self._base.registry.nickname
        record = vault.record(name)
        if record is None:
            return None
        return t.SecretRow(
            name=name,
            version=record.version,
            set_at=record.set_at,
            readers=sorted(nickname(machine) for machine in record.readers),
            exposed_to=sorted(nickname(machine) for machine in record.exposed_to),
            readable_here=vault.value(name) is not None,
        )

    def secret(self, name: str) -> t.Secret:
        """One value. Raises ``unknown-secret``, or ``secret-locked`` where it cannot be opened."""
        vault = self._base.vault
        value = vault.value(name)
        if value is not None:
            return t.Secret(name, value)
        if vault.record(name) is None:
            raise unknown_secret(name, vault.names())
        raise InstarError(
            "secret-locked",
            f"{name} is not sealed for this machine yet",
            "the awake machine seals it for this one as soon as the two are connected",
        )

    # -- the whole ---------------------------------------------------------------------------------------

    async def status(self, handoff: t.HandoffResult) -> t.Status:
        """One picture of all that the overview shows."""
        event = self._base.events.newest  # read first: what happens while the rest is read is told again
        return t.Status(
            me=self.whoami(),
            health=self.health(),
            lease=await self.lease(),
            machines=await self.machines(),
            topics=self.topics(),
            livetail=await self.livetail(),
            outbox=len(self._parts.delivery.ledger.outbox()),
            handoff=handoff,
            at=iso(self._base.clock.wall()),
            event=event,
        )


def counted_by(newest: t.PoolView, own: t.PoolView) -> t.PoolView:
    """The pool as this machine sees it, with the topics as the awake machine counts them."""
    topics = {row.machine_id: row.topics for row in newest.machines}
    machines = [msgspec.structs.replace(row, topics=topics.get(row.machine_id, 0)) for row in own.machines]
    return msgspec.structs.replace(own, machines=machines, topics=newest.topics)
