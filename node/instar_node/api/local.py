"""``LocalNodeApi``: the methods of ``NodeApi`` on the running parts of this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

import msgspec

from instar_node.api import routes
from instar_node.api import types as t
from instar_node.api.decoding import checked
from instar_node.api.doctor import diagnosis, home_findings, mesh_findings
from instar_node.api.forwarding import Forwarding
from instar_node.api.holder_api import farewell, handoff_result, hub_moved, placement_view, pool_disabled
from instar_node.api.membership import Membership
from instar_node.api.parts import NodeParts
from instar_node.api.settings_view import change_config, config_view
from instar_node.api.sync_view import sync_view
from instar_node.api.topic_view import describe
from instar_node.api.update_view import updates_view
from instar_node.api.verification_view import gate_views, result_views
from instar_node.api.views import Views, counted_by
from instar_node.errors import InstarError, bad_input
from instar_node.events import Event
from instar_node.identity.secret_record import check_value
from instar_node.pairing.comparison import Comparison
from instar_node.pairing.host import PairingHost
from instar_node.pairing.refusals import joining_already
from instar_node.pairing.view import PairState
from instar_node.storage.home import Home

log = logging.getLogger("instar.api")
R = TypeVar("R", bound=msgspec.Struct)


class Joiner(Protocol):
    """Takes this machine into another mesh while it runs."""

    @property
    def under_way(self) -> bool:
        """Whether it is joining, or has joined and this node is about to end."""

    @property
    def comparison(self) -> Comparison:
        """The person here, comparing the short string."""

    async def join(self, body: t.JoinRequest) -> t.JoinResult: ...


class LocalNodeApi:
    """Implements ``NodeApi``. Reads are answered here; writes go to whichever machine is awake."""

    def __init__(
        self,
        parts: NodeParts,
        views: Views,
        forwarding: Forwarding,
        membership: Membership,
        pairing: PairingHost,
        joiner: Joiner,
        home: Home,
    ) -> None:
        self._parts = parts
        self._home = home
        self._base = parts.base
        self._views = views
        self._forwarding = forwarding
        self._membership = membership
        self._pairing = pairing
        self._joiner = joiner

    # -- looking -----------------------------------------------------------------------------------------

    async def status(self) -> t.Status:
        return await self._views.status(await self.handoff_view())

    async def health(self) -> t.Health:
        return self._views.health()

    async def whoami(self) -> t.WhoAmI:
        return self._views.whoami()

    async def machines(self) -> t.Machines:
        return t.Machines(await self._views.machines())

    async def lease(self) -> t.LeaseView:
        return await self._views.lease()

    async def livetail(self) -> t.LiveTail:
        return await self._views.livetail()

    def events(self, after: int | None = None) -> AsyncIterator[Event]:
        return self._base.events.subscribe(after)

    # -- pairing and membership --------------------------------------------------------------------------

    async def pair(self, body: t.PairRequest) -> t.PairView:
        self._require_member()
        self._base.lease.require_acting()
        if self._joiner.under_way:
            raise joining_already()
        return _pair_view(self._pairing.mint(body.sas))

    async def pair_view(self) -> t.PairView:
        return _pair_view(self._joiner.comparison.view() or self._pairing.view())

    async def pair_cancel(self) -> t.PairView:
        return _pair_view(self._pairing.cancel())

    async def pair_confirm(self, body: t.PairConfirm) -> t.PairView:
        """By whoever asks now: the machine that admits, or this one while it joins."""
        if self._joiner.comparison.view() is not None:
            return _pair_view(self._joiner.comparison.answer(body.accept))
        return _pair_view(self._pairing.confirm(body.accept))

    async def join(self, body: t.JoinRequest) -> t.JoinResult:
        """Possible while this node's mesh is its own, alone and empty; it is given up then."""
        return await self._joiner.join(body)

    async def leave(self) -> t.Ok:
        self._require_member()
        readable = self._base.vault.readable_by(self._base.me)
        await self._membership.leave()
        return farewell(readable)

    async def remove_machine(self, machine: str) -> t.Ok:
        self._require_member()
        return await self._forwarding.perform(routes.REMOVE_MACHINE, machine=machine)

    async def doctor(self) -> t.Doctor:
        files = await asyncio.to_thread(lambda: list(home_findings(self._home)))
        return diagnosis([*files, *mesh_findings(await self.status())])

    async def config(self) -> t.ConfigView:
        return config_view(self._home)

    async def set_config(self, body: t.ConfigChange) -> t.ConfigChanged:
        changed = change_config(self._home, body)
        log.info("setting changed: %s", body.key)
        return changed

    # -- roles -------------------------------------------------------------------------------------------

    async def wakeup(self, body: t.WakeupRequest) -> t.HandoffResult:
        self._require_member()
        return handoff_result(await self._parts.handoff.wakeup.wakeup(body.force, tuple(body.vouch)))

    async def lease_heal(self, body: t.HealRequest) -> t.HandoffResult:
        self._require_member()
        return handoff_result(await self._parts.handoff.wakeup.heal(body.confirm, tuple(body.vouch)))

    async def handoff(self, body: t.HandoffRequest) -> t.HandoffResult:
        self._require_member()
        return await self._forwarding.perform(routes.HANDOFF, body=body)

    async def handoff_view(self) -> t.HandoffResult:
        return handoff_result(self._parts.handoff.board.view())

    async def move_hub(self, body: t.HubRequest) -> t.HubMoved:
        self._require_member()
        if body.force:
            return hub_moved(self._base, await self._base.lease.move.force(body.url, tuple(body.vouch)))
        return await self._forwarding.perform(routes.MOVE_HUB, body=body)

    # -- conversation ------------------------------------------------------------------------------------

    async def send(self, body: t.SendRequest) -> t.SendResult:
        self._require_member()
        body = checked(body)
        self._require_no_secret(topic=body.topic, key=body.key)
        if body.key is None:  # given here, so that a repeat towards the next holder is the same message
            body = msgspec.structs.replace(body, key=self._base.clock.token_hex(8))
        return await self._forwarding.perform(routes.SEND, body=body)

    async def topics(self) -> t.Topics:
        return t.Topics(self._views.topics())

    async def messages(self, topic: str, after: int = 0, limit: int = 200) -> t.Messages:
        return await self._views.messages(topic, after, limit)

    async def reply(self, topic: str, body: t.ReplyRequest) -> t.SendResult:
        self._require_member()
        return await self._forwarding.perform(routes.REPLY, topic=topic, body=checked(body))

    async def outbox(self) -> t.Outbox:
        return t.Outbox(self._views.outbox())

    async def outbox_resolve(self, item: str, body: t.OutboxAction) -> t.Ok:
        self._require_member()
        return await self._forwarding.perform(routes.OUTBOX_RESOLVE, item=item, body=body)

    # -- pool --------------------------------------------------------------------------------------------

    async def pool(self) -> t.PoolView:
        self._require_pool()
        own, newest = await self._views.pool(), await self._by_holder(routes.POOL)
        return own if newest is None else counted_by(newest, own)

    async def pool_machine(self, machine: str) -> t.Machine:
        self._require_pool()
        return await self._views.machine(machine)

    async def rename(self, machine: str, body: t.RenameRequest) -> t.Machine:
        self._require_member()
        self._require_pool()
        self._require_no_secret(nickname=body.nickname)
        renamed = await self._forwarding.perform(routes.RENAME, machine=machine, body=body)
        seen_here = await self._views.machine(
            renamed.machine_id
        )  # the registry's news may still be under way
        return msgspec.structs.replace(seen_here, nickname=renamed.nickname)

    async def placement(self, topic: str) -> t.PlacementView:
        self._require_pool()
        newest = await self._by_holder(routes.PLACEMENT, topic=topic)
        return newest or placement_view(describe(self._base, self._parts.pool, topic), "local", self._base.me)

    async def transfer(self, body: t.TransferRequest) -> t.TransferResult:
        self._require_member()
        self._require_pool()
        self._require_no_secret(topic=body.topic)
        return await self._forwarding.perform(routes.TRANSFER, body=body)

    async def unpin(self, body: t.UnpinRequest) -> t.PlacementView:
        self._require_member()
        self._require_pool()
        return await self._forwarding.perform(routes.UNPIN, body=body)

    # -- the shared state --------------------------------------------------------------------------------

    async def sync(self) -> t.SyncView:
        return sync_view(self._parts)

    async def sync_seen(self) -> t.SyncView:
        self._parts.state.forget_notices()
        return sync_view(self._parts)

    # -- secrets -----------------------------------------------------------------------------------------

    async def secrets(self) -> t.Secrets:
        self._require_member()
        return self._views.secrets()

    async def secret(self, name: str) -> t.Secret:
        self._require_member()
        return self._views.secret(name)

    async def set_secret(self, name: str, body: t.SecretValue) -> t.Ok:
        self._require_member()
        check_value(body.value)
        return await self._forwarding.perform(routes.SET_SECRET, name=name, body=body)

    async def remove_secret(self, name: str) -> t.Ok:
        self._require_member()
        return await self._forwarding.perform(routes.REMOVE_SECRET, name=name)

    # -- verification ------------------------------------------------------------------------------------

    async def verify(self, body: t.VerifyRequest) -> t.VerifyResult:
        self._require_member()
        return await self._forwarding.perform(routes.VERIFY, body=body)

    async def e2e_results(self) -> t.E2EResults:
        self._require_pool()
        return t.E2EResults(result_views(self._base, self._parts.verification.verification.store))

    async def flags(self) -> t.Flags:
        return t.Flags(gate_views(self._base, self._parts.verification))

    async def set_flag(self, body: t.FlagChange) -> t.Flags:
        self._require_member()
        return await self._forwarding.perform(routes.SET_FLAG, body=body)

    # -- versions ----------------------------------------------------------------------------------------

    async def updates(self) -> t.Updates:
        return await updates_view(self._base, self._parts.updates)

    async def update(self, body: t.UpdateRequest) -> t.UpdateResult:
        self._require_member()
        return await self._forwarding.perform(routes.UPDATE, body=body)

    # -- inside ------------------------------------------------------------------------------------------

    async def _by_holder(self, route: routes.Route[R], **arguments: Any) -> R | None:
        """What the awake machine answers, when this one's rows may be behind and that one can be asked."""
        if not self._may_be_behind():
            return None
        try:
            return await self._forwarding.perform(route, **arguments)
        except InstarError as error:
            if error.code in ("holder-unreachable", "not-awake"):
                return None
            raise

    def _may_be_behind(self) -> bool:
        """Whether the holder can be asked and this machine's rows need not be the newest."""
        lease, known = self._base.lease, self._base.lease.known
        if lease.acting_epoch() is not None or known is None:
            return False
        record = known.record
        return self._base.me not in record.electorate and self._base.mesh.connected(record.holder)

    def _require_no_secret(self, **names: str | None) -> None:
        """Texts lose the values of secrets on their way; a name is kept and shown as it is, or refused."""
        for field, name in names.items():
            if name is not None and self._base.known.blank(name) != name:
                raise bad_input(
                    field, "contains the value of a secret", "choose another: it is shown everywhere"
                )

    def _require_pool(self) -> None:
        if self._parts.pool is None:
            raise pool_disabled()

    def _require_member(self) -> None:
        own = self._base.registry.get(self._base.me)
        if own is None or own.removed:
            raise InstarError(
                "removed-machine",
                "this machine was removed from the mesh, or left it",
                "to come back it needs a new identity: use a fresh --home and `instar join`",
                status=403,
            )


def _pair_view(state: PairState) -> t.PairView:
    return msgspec.convert(msgspec.to_builtins(state), t.PairView)
