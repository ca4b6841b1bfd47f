"""What only the awake machine does, for people here and for standbys that pass a wish on."""

from __future__ import annotations

import msgspec

from instar_node.api import types as t
from instar_node.api.durations import told
from instar_node.api.lease_picture import hub_name
from instar_node.api.membership import Membership, unknown_machine
from instar_node.api.parts import Base, NodeParts, PoolParts
from instar_node.api.topic_view import describe
from instar_node.api.update_view import update_result
from instar_node.api.verification_view import drill_view, gate_views
from instar_node.api.views import Views
from instar_node.coordination.hub_move import HubMoved
from instar_node.delivery.dispatcher import Accepted
from instar_node.errors import InstarError, bad_input
from instar_node.handoff.steps import HandoffOutcome
from instar_node.known_secrets import SHORTEST
from instar_node.pool.transfer_report import TransferRequest


class HolderApi:
    """Methods of ``NodeApi`` that write. ``via`` is the machine on which the wish arrived, authenticated.

    Every method raises ``not-awake`` when this machine may not act, before anything is changed.
    """

    def __init__(self, parts: NodeParts, membership: Membership, views: Views) -> None:
        self._parts = parts
        self._base = parts.base
        self._delivery = parts.delivery.delivery
        self._membership = membership
        self._views = views

    async def send(self, via: str, body: t.SendRequest) -> t.SendResult:
        """Take a message in."""
        sender = body.sender or ""
        return _result(await self._delivery.submit(body.topic, body.text, body.key, sender, via))

    async def reply(self, via: str, topic: str, body: t.ReplyRequest) -> t.SendResult:
        """Answer a message by hand."""
        return _result(await self._delivery.reply(topic, body.reply_to, body.text))

    async def outbox_resolve(self, via: str, item: str, body: t.OutboxAction) -> t.Ok:
        """Decide about a reply nobody is sure of."""
        await self._delivery.resolve(item, body.action)
        return t.Ok()

    async def transfer(self, via: str, body: t.TransferRequest) -> t.TransferResult:
        """Move a topic. ``here`` in ``to`` means the machine on which the wish arrived."""
        self._base.lease.require_acting()
        if not (body.to or body.undo):
            raise bad_input("to", "no machine is named", "a nickname or id, or undo")
        to = via if body.to.casefold() == "here" else body.to
        wish = TransferRequest(body.topic, to, body.confirm, body.undo)
        moved = await self._pool().transfers.transfer(wish)
        return told(moved, t.TransferResult)

    async def unpin(self, via: str, body: t.UnpinRequest) -> t.PlacementView:
        """Let a topic run anywhere again."""
        self._base.lease.require_acting()
        await self._pool().transfers.unpin(body.topic)
        return await self.placement(via, body.topic)

    async def pool(self, via: str) -> t.PoolView:
        """The pool, for a standby whose rows may be behind."""
        self._pool()
        return await self._views.pool()

    async def placement(self, via: str, topic: str) -> t.PlacementView:
        """Where a topic runs, as the machine that decides it knows."""
        found = describe(self._base, self._parts.pool, topic)
        return placement_view(found, "holder", via)

    async def rename(self, via: str, machine: str, body: t.RenameRequest) -> t.Machine:
        """Give a machine another nickname."""
        epoch = self._base.lease.require_acting()
        member = self._base.registry.resolve(machine)
        if member is None:
            raise unknown_machine(self._base, machine)
        self._base.registry.rename(member.machine_id, body.nickname, epoch=epoch)
        return await self._views.machine(member.machine_id)

    async def handoff(self, via: str, body: t.HandoffRequest) -> t.HandoffResult:
        """Make another machine the awake one."""
        return handoff_result(await self._parts.handoff.sentinel.hand_off(body.to))

    async def verify(self, via: str, body: t.VerifyRequest) -> t.VerifyResult:
        """Run the drill with one machine, or with all that are there, one after the other."""
        self._base.lease.require_acting()
        verification = self._parts.verification.verification
        drills = []
        for machine in self._drill_partners(via, body.machine):
            reports = await verification.drill(machine, live=not body.rehearse)
            drills.append(drill_view(self._base, reports))
        return t.VerifyResult(all(drill.passed for drill in drills), drills)

    def _drill_partners(self, via: str, name: str) -> list[str]:
        base = self._base
        if not name:
            others = [m.machine_id for m in base.registry.active() if not m.witness]
            partners = [machine for machine in others if machine != base.me and base.mesh.connected(machine)]
            if not partners:
                raise InstarError(
                    "no-peer",
                    "there is no other machine to verify with",
                    "`instar pair` lets one join; `instar machines` says which can be reached",
                )
            return partners
        member = base.registry.resolve(name)
        if member is None:
            raise unknown_machine(base, name)
        # From a standby, a drill with the awake machine is a drill of the awake machine with it.
        partner = via if member.machine_id == base.me else member.machine_id
        if partner == base.me or member.witness:
            raise bad_input("machine", f"{member.nickname} is no machine to drill with from here")
        if not base.mesh.connected(partner):
            raise InstarError(
                "peer-unreachable",
                f"{member.nickname} cannot be reached",
                "see `instar machines`",
                status=502,
            )
        return [partner]

    async def update(self, via: str, body: t.UpdateRequest) -> t.UpdateResult:
        """Bring the mesh to another version, this machine last."""
        self._base.lease.require_acting()
        return update_result(await self._parts.updates.updater.update(body.to))

    async def set_flag(self, via: str, body: t.FlagChange) -> t.Flags:
        """Open or shut a gate for the whole mesh."""
        parts = self._parts.verification
        await parts.verification.decide(body.gate, None if body.state == "auto" else body.state, via)
        return t.Flags(gate_views(self._base, parts))

    async def move_hub(self, via: str, body: t.HubRequest) -> t.HubMoved:
        """Move the lease to another hub, as this machine reaches it."""
        return hub_moved(self._base, await self._base.lease.move.move(body.url))

    async def remove_machine(self, via: str, machine: str) -> t.Ok:
        """Remove a machine for good; the answer names what it could read."""
        removed = await self._membership.remove(machine)
        return farewell(self._base.vault.readable_by(removed))

    async def set_secret(self, via: str, name: str, body: t.SecretValue) -> t.Ok:
        """Keep a secret; done when every machine in sync has it."""
        await self._parts.state.require_current()
        self._base.vault.set(name, body.value, epoch=self._base.lease.require_acting())
        await self._parts.secrets.copied()
        short = len(body.value.strip()) < SHORTEST
        return t.Ok(note=f"shorter than {SHORTEST} characters: not blanked out of texts") if short else t.Ok()

    async def remove_secret(self, via: str, name: str) -> t.Ok:
        """Remove a secret everywhere."""
        self._base.vault.remove(name, epoch=self._base.lease.require_acting())
        await self._parts.secrets.copied()
        return t.Ok()

    def _pool(self) -> PoolParts:
        if self._parts.pool is None:
            raise pool_disabled()
        return self._parts.pool


def farewell(readable: list[str]) -> t.Ok:
    """What a person has to do after a machine went: its access to the past cannot be taken back."""
    todo = ["revoke its access to the git host, if it has any"]
    if readable:
        todo.append(
            f"it could read {', '.join(readable)}: change them where they come from, then set them anew"
        )
    return t.Ok(note="; ".join(todo))


def handoff_result(outcome: HandoffOutcome) -> t.HandoffResult:
    """A change of holder as the API tells it."""
    return told(outcome, t.HandoffResult)


def hub_moved(base: Base, moved: HubMoved) -> t.HubMoved:
    """A move of the hub as the API tells it."""
    nickname = base.registry.nickname
    return t.HubMoved(
        outcome="moved" if moved.moved else "already-there",
        kind=moved.hub.kind,
        url=hub_name(base, moved.hub),
        epoch=moved.epoch,
        took_ms=moved.took_ms,
        unreachable=[t.HubTrouble(m, nickname(m), why) for m, why in moved.unreachable.items()],
    )


def placement_view(found: object, answered_by: str, reader: str) -> t.PlacementView:
    """The placement as one machine reads it."""
    fields = {**msgspec.to_builtins(found), "answered_by": answered_by}
    fields["is_this_machine"] = fields["owner"] == reader
    return msgspec.convert(fields, t.PlacementView)


def pool_disabled() -> InstarError:
    """503: this node runs without the pool."""
    return InstarError(
        "pool-disabled",
        "the pool is disabled on the awake machine: every topic runs there",
        "set [pool] enabled = true in config.toml and restart the node",
        status=503,
    )


def _result(accepted: Accepted) -> t.SendResult:
    return t.SendResult(
        key=accepted.key,
        state=accepted.state,
        seq=accepted.seq,
        topic=accepted.topic,
        handled_by=accepted.handled_by,
        duplicate=accepted.duplicate,
    )
