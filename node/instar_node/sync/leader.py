"""The awake machine: first the fence, then everybody's edits, and what it wrote onto the hub."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from instar_node.clock import MICROS_PER_SECOND
from instar_node.contracts import Checkpoints
from instar_node.errors import InstarError
from instar_node.sync.bench import BenchCheckpoints
from instar_node.sync.changes import ChangeSet
from instar_node.sync.core import HUB, StateCore
from instar_node.sync.follower import rewound
from instar_node.sync.paths import MAX_FILE_BYTES, is_reserved, refusal_of
from instar_node.sync.ports import HubRefusedError, HubUnavailableError
from instar_node.sync.wire import ChangesTaken, OfferChanges
from instar_node.sync.writer import StateWriter

log = logging.getLogger("instar.sync")

RETRY_S = 1.0
LONGEST_RETRY_S = 30.0
NOWHERE = "which no machine in reach has, nor the hub"
PUSH_TRIES = 3
"""Times in a row that a hub's foreign value is replaced by ours."""


class StateLeader:
    """The holder's part of a step."""

    def __init__(
        self,
        core: StateCore,
        writer: StateWriter,
        own_files: Callable[[], Mapping[str, bytes]],
        checkpoints: Checkpoints,
    ) -> None:
        """``own_files`` gives the mesh's own files as they should be now."""
        self._core = core
        self._writer = writer
        self._own_files = own_files
        self._bench = BenchCheckpoints(core, checkpoints)
        self.fenced: int | None = None
        """The epoch in which the fence stands: only then is anything else written."""
        self.behind: str | None = None
        """Why the fence cannot be set yet."""
        self._hub_tip: str | None = None
        self._push_at = 0
        self._retry_s = RETRY_S
        self._heads: dict[str, str] = {}
        self._vouched: str | None = None

    async def lead(self, epoch: int) -> float:
        """Do what is due; returns the seconds until there may be more."""
        core = self._core
        if self.fenced != epoch and not await self._take_up(epoch):
            return self._backed_off()
        await self._bench.take_in(epoch)
        await self._take_in_own(epoch)
        files = {**self._own_files(), **await self._bench.files()}
        await core.worker.run(self._writer.publish, files, epoch, core.known())
        await core.settle()
        pause, checkpoint = await self._push_if_due(epoch), self._bench.pause_us()
        return pause if checkpoint is None else min(pause, checkpoint / MICROS_PER_SECOND)

    # -- beginning an epoch -----------------------------------------------------------------------------

    async def _take_up(self, epoch: int) -> bool:
        """Get all there is, then set the fence: from then on a late push of an earlier holder fails."""
        core = self._core
        self._vouched = None
        try:
            await self._gather()
            if not await self._may_fence():
                return False
            return await self._set_fence(epoch)
        except HubUnavailableError as error:
            core.hub_error = self.behind = error.message
            return False

    async def _gather(self) -> None:
        """What the hub shows, and what the machines that can be reached have."""
        core = self._core
        if core.hub is not None:
            self._hub_tip = await core.hub.tip(core.copy.head)
            core.hub_error = None
            if self._hub_tip is not None:
                await core.take_line(self._hub_tip, HUB)
        others = [member.machine_id for member in core.registry.active() if member.machine_id != core.mesh.me]
        reached = [peer for peer in others if core.mesh.connected(peer)]
        tips = await asyncio.gather(*(core.ask_tip(peer) for peer in reached))
        for peer, tip in zip(reached, tips, strict=True):
            if tip is not None and tip.head is not None:
                await core.fetch_and_take(peer, tip.head)

    async def _may_fence(self) -> bool:
        """Nobody writes on a state older than the one that the newest lease record vouches for."""
        core = self._core
        if await core.vouched.look():
            self.behind = None
            return True
        self.behind = f"the lease vouches for state {core.vouched.commit[:12]}, {NOWHERE}"
        log.warning("the state is not written yet: %s", self.behind)
        return False

    async def _set_fence(self, epoch: int) -> bool:
        core = self._core
        for _ in range(PUSH_TRIES):
            if core.lease.acting_epoch() != epoch:
                return False
            fence = await core.worker.run(self._writer.fence, epoch, core.lease.proof(), core.known())
            if core.hub is not None and not await self._push(fence.commit, epoch):
                continue  # an earlier holder's last push came first: the fence goes on top of it
            await core.worker.run(core.copy.become, fence)
            self.fenced = epoch
            await self._published(fence.commit)
            return True
        return False

    # -- edits ------------------------------------------------------------------------------------------

    async def _take_in_own(self, epoch: int) -> None:
        core = self._core
        queue = core.memory.now.queue
        if queue:
            core.memory.offer(queue[-1].number)
            await self._take_in(core.mesh.me, core.memory.now.queue_id, core.memory.now.queue, epoch)

    async def on_offer(self, peer: str, offer: OfferChanges) -> ChangesTaken:
        """Another machine's edits. Raises ``not-awake``, or ``bad-change`` naming the path."""
        core = self._core
        for change in offer.changes:
            _check(change)
        wanted = {edit.now.oid for change in offer.changes for edit in change.edits if edit.now is not None}
        await core.transfer.fetch_objects(peer, sorted(wanted))
        async with core.lock:
            epoch = core.lease.acting_epoch()
            if epoch is None or epoch != self.fenced:
                raise InstarError("not-awake", "this machine does not write the state now", "ask again")
            await core.worker.run(self._check_contents, wanted)
            await self._take_in(peer, offer.queue_id, offer.changes, epoch)
            await core.settle()
        return ChangesTaken(offer.changes[-1].number)

    def _check_contents(self, wanted: set[str]) -> None:
        for oid in wanted:
            if self._core.copy.repository.size(oid) > MAX_FILE_BYTES:
                raise _bad_change(oid[:12], f"it is larger than {MAX_FILE_BYTES >> 20} MiB")

    async def _take_in(
        self, machine_id: str, queue_id: str, changes: tuple[ChangeSet, ...], epoch: int
    ) -> None:
        core = self._core
        before = core.copy.head
        conflicts = await core.worker.run(
            self._writer.take_in, machine_id, queue_id, changes, epoch, core.known()
        )
        if core.copy.head == before:
            return
        name = core.registry.nickname(machine_id)
        core.memory.note_conflicts(conflicts)
        for conflict in conflicts:
            kept = f"; {name}'s is in {conflict.kept_as}" if conflict.kept_as else ", so it was not deleted"
            core.events.publish("sync", f"{conflict.path} was changed on two machines{kept}")
        core.events.publish("sync", "", head=core.copy.head, author=machine_id)

    # -- the hub ----------------------------------------------------------------------------------------

    async def _push_if_due(self, epoch: int) -> float:
        core = self._core
        head = core.copy.head
        assert head is not None, "the fence stands"
        if head == core.memory.now.published:
            return 3_600.0
        if core.hub is None:
            await self._published(head)
            return 3_600.0
        wait = (self._push_at - core.clock.now()) / MICROS_PER_SECOND
        if wait > 0:
            return wait
        try:
            done = await self._push(head, epoch)
        except HubUnavailableError as error:
            core.hub_error = error.message
            return self._backed_off()
        if not done:
            return self._backed_off()
        await self._published(head)
        return 3_600.0

    async def _push(self, commit: str, epoch: int) -> bool:
        """Put a commit onto the hub in the place of what it was last seen to hold.

        ``False`` when ours has to follow what it holds, or when we may not write any more.
        """
        core = self._core
        assert core.hub is not None
        for _ in range(PUSH_TRIES):
            if core.lease.acting_epoch() != epoch:
                return False
            try:
                await core.hub.push(self._hub_tip, commit)
            except HubRefusedError:
                if not await self._meet_foreign(commit):
                    return False
                if self._hub_tip != commit:
                    continue
            self._hub_tip = commit
            self._push_at = core.clock.now() + round(core.hub.push_pause_s * MICROS_PER_SECOND)
            core.hub_error = None
            return True
        return False

    async def _meet_foreign(self, ours: str) -> bool:
        """The hub holds another commit than we left there; ``True`` if ours may replace it (or is there)."""
        core = self._core
        assert core.hub is not None
        tip = await core.hub.tip(core.copy.head)
        if tip is not None and tip != ours and not await core.worker.run(core.copy.contains, tip):
            outcome = await core.take_line(tip, HUB)
            if outcome == "moved":
                self._hub_tip = tip
                return False
            if outcome == "later":  # no: while our lease is valid, no later epoch exists
                await core.refuse(tip, HUB, _impossible(tip))
        elif tip != ours and core.memory.now.published not in (None, tip):
            published = core.memory.now.published
            assert published is not None
            await core.refuse(tip or published, HUB, rewound(tip, published))
        self._hub_tip = tip
        return True

    async def _published(self, commit: str) -> None:
        core = self._core
        core.times.pushed = core.clock.now()
        await core.settle(published=commit)
        self._retry_s = RETRY_S
        self._reckon()
        core.announce()
        core.events.publish("sync", "", pushed=commit)

    def _backed_off(self) -> float:
        pause, self._retry_s = self._retry_s, min(2 * self._retry_s, LONGEST_RETRY_S)
        return pause

    # -- vouching ---------------------------------------------------------------------------------------

    def on_news(self, peer: str, head: str) -> None:
        """Another machine has this commit."""
        self._heads[peer] = head
        self._reckon()

    def _reckon(self) -> None:
        """With a git hub every published commit is safe; without, one that electorate and witnesses have."""
        core = self._core
        published = core.memory.now.published
        if self.fenced is None or self.fenced != core.lease.acting_epoch():
            return
        needed = core.lease.ack_set() | self._witnesses() if core.hub is None else frozenset()
        if all(self._heads.get(peer) == published for peer in needed):
            self._vouched = published

    def _witnesses(self) -> frozenset[str]:
        """Machines that keep the register for others: who comes from the bench finds the state there."""
        return frozenset(member.machine_id for member in self._core.registry.active() if member.witness)

    @property
    def vouched(self) -> str:
        """The newest commit that a lease record of ours may vouch for; empty for none of this epoch."""
        if self.fenced is None or self.fenced != self._core.lease.epoch:
            return ""
        return self._vouched or ""


def _check(change: ChangeSet) -> None:
    for edit in change.edits:
        why = refusal_of(edit.path)
        if why is None and is_reserved(edit.path):
            why = "this name belongs to the mesh itself"
        if why is not None:
            raise _bad_change(repr(edit.path), why)


def _bad_change(what: str, why: str) -> InstarError:
    return InstarError("bad-change", f"{what} cannot be shared: {why}", status=422)


def _impossible(tip: str) -> InstarError:
    return InstarError(
        "not-holder",
        f"commit {tip[:12]} claims what cannot be while this machine is awake",
        status=422,
        extra={"commit": tip},
    )
