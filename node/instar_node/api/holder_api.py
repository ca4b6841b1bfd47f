"""What only the awake machine does, for people here and for standbys that pass a wish on."""

from __future__ import annotations

import msgspec

from instar_node.api import types as t
from instar_node.api.membership import Membership, unknown_machine
from instar_node.api.parts import NodeParts, PoolParts
from instar_node.api.topic_view import describe
from instar_node.api.views import Views
from instar_node.delivery.dispatcher import Accepted
from instar_node.errors import InstarError
from instar_node.handoff.steps import HandoffOutcome
from instar_node.known_secrets import SHORTEST
from instar_node.pool.transfers import TransferRequest


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
        to = via if body.to.casefold() == "here" else body.to
        wish = TransferRequest(body.topic, to, body.confirm, body.undo)
        moved = await self._pool().transfers.transfer(wish)
        return msgspec.convert(msgspec.to_builtins(moved), t.TransferResult)

    async def unpin(self, via: str, body: t.UnpinRequest) -> t.PlacementView:
        """Let a topic run anywhere again."""
        self._base.lease.require_acting()
        await self._pool().transfers.unpin(body.topic)
        return await self.placement(via, body.topic)

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

    async def remove_machine(self, via: str, machine: str) -> t.Ok:
        """Remove a machine for good; the answer names what it could read."""
        removed = await self._membership.remove(machine)
        return farewell(self._base.vault.readable_by(removed))

    async def set_secret(self, via: str, name: str, body: t.SecretValue) -> t.Ok:
        """Keep a secret; done when every machine in sync has it."""
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
    return msgspec.convert(msgspec.to_builtins(outcome), t.HandoffResult)


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
