"""The shared state in the running node: one loop that either writes (awake) or follows (all others)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from instar_node.background import Background
from instar_node.clock import MICROS_PER_SECOND, Clock, wait_for
from instar_node.contracts import Checkpoints, Mesh
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.identity.keys import MachineIdentity
from instar_node.identity.registry import MachineRegistry
from instar_node.storage.home import Home
from instar_node.sync.core import StateCore
from instar_node.sync.facts import SyncFacts
from instar_node.sync.folder import StateFolder
from instar_node.sync.follower import StateFollower
from instar_node.sync.leader import StateLeader
from instar_node.sync.memory import FILE_NAME, SyncMemory
from instar_node.sync.ports import StateHub, StateLease
from instar_node.sync.repository import StateRepository
from instar_node.sync.rules import Prove
from instar_node.sync.state_copy import StateCopy
from instar_node.sync.transfer import Transfer
from instar_node.sync.vouched import ARRIVES_S, VouchedState
from instar_node.sync.watch import FolderWatch
from instar_node.sync.wire import AskTip, ChangesTaken, OfferChanges, StateNews, Tip
from instar_node.sync.worker import Worker
from instar_node.sync.writer import StateWriter

log = logging.getLogger("instar.sync")

RESCAN_S = 60.0
"""Seconds after which the folder is looked at even if nothing was noticed (network disks, lost notices)."""
FAILED_S = 5.0
"""Seconds until the next try after a step that failed."""


OPENED_S = 5.0
"""Seconds that who needs the state waits for it to be opened at a start."""


class StateSync:
    """Owns ``<home>/state`` and ``<home>/state.git``."""

    def __init__(
        self,
        *,
        home: Home,
        identity: MachineIdentity,
        registry: MachineRegistry,
        mesh: Mesh,
        lease: StateLease,
        find_hub: Callable[[], StateHub | None],
        prove: Prove,
        events: EventHub,
        clock: Clock,
        own_files: Callable[[], Mapping[str, bytes]],
        learn_secrets: Callable[[Mapping[str, bytes]], None],
        checkpoints: Checkpoints,
    ) -> None:
        """``find_hub`` gives the git hub of the moment, if any; ``own_files`` the mesh's own files (below the
        reserved folders) as they should be now; ``learn_secrets`` takes in the sealed secrets of a state
        that others wrote."""
        self.folder = home.state
        repository = StateRepository(home.state_repository, home.state)
        worker, copy = Worker("state"), StateCopy(repository)
        memory = SyncMemory(home.machine / FILE_NAME, clock.token_hex(8))
        self._vouched = VouchedState(lease, copy, worker, clock)
        self._core = core = StateCore(
            copy=copy,
            vouched=self._vouched,
            folder=StateFolder(identity.machine_id, copy, memory, clock),
            memory=memory,
            worker=worker,
            transfer=Transfer(mesh, repository, worker),
            mesh=mesh,
            lease=lease,
            registry=registry,
            find_hub=find_hub,
            prove=prove,
            events=events,
            clock=clock,
            learn_secrets=learn_secrets,
        )
        writer = StateWriter(copy, identity, registry, clock)
        self._leader = StateLeader(core, writer, own_files, checkpoints)
        self._wake = asyncio.Event()
        self._follower = StateFollower(core, self._wake.set)
        self._watch = FolderWatch(home.state, self._on_folder)
        self._opened = asyncio.Event()
        self._noticed = 1
        self._looked = 0
        """The folder was looked at since this many notices; fewer than there were means: look again."""
        self._look_at = 0
        self._failure: str | None = None
        self._task = Background("state-sync", self._run)

    # -- life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin. The repository is opened by the first step: a node does not wait for it to be ready, and one
        that cannot open it still runs, and says so."""
        self._core.transfer.serve()
        mesh = self._core.mesh
        mesh.on_request(AskTip, self._on_ask_tip)
        mesh.on_request(OfferChanges, self._on_offer)
        mesh.on_notice(StateNews, self._on_news)
        mesh.on_peer(self._on_peer)
        self._core.lease.on_change(self._on_lease)
        self._core.registry.on_change(self._wake.set)
        for member in self._core.registry.active():  # tunnels that were up before anybody listened here
            if mesh.connected(member.machine_id):
                self._on_peer(member.machine_id, True)
        self._on_lease()
        self._vouched.start()
        self._task.start()

    async def stop(self) -> None:
        """Take no more part. What was edited and is not captured yet is found at the next start."""
        await self._watch.stop()
        await self._task.stop()
        await self._vouched.stop()
        await self._follower.stop()
        await asyncio.to_thread(self._core.worker.close)

    def _open(self) -> None:
        self._core.copy.repository.open()
        self._core.copy.load()
        self._core.folder.open()

    async def flush(self, within: float) -> bool:
        """Capture what was edited and, while awake, bring it to safety; ``False`` if time ran out."""
        self._on_folder()
        wanted = self._noticed
        try:
            async with asyncio.timeout(within):
                while self._looked < wanted or (self._writes() and not self._is_safe()):
                    await self._core.clock.sleep(0.01)
        except TimeoutError:
            return False
        return True

    def _is_safe(self) -> bool:
        core = self._core
        return not core.memory.now.queue and core.copy.head == core.memory.now.published

    # -- the loop ---------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            pause = await self._step()
            try:
                async with asyncio.timeout(max(pause, 0.01)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _step(self) -> float:
        """One round; a failure is told and tried again, because without the loop nothing is shared."""
        try:
            async with self._core.lock:
                pause = await self._do_step()
        except InstarError as error:
            self._fail(f"{error.message}{f' ({error.hint})' if error.hint else ''}")
            return FAILED_S
        except Exception as error:
            log.exception("a step of the state sync failed")
            self._fail(f"{type(error).__name__}: {error}")
            return FAILED_S
        self._failure = None
        return min(pause, self._until_look())

    async def _do_step(self) -> float:
        core = self._core
        if not self._opened.is_set():
            await core.worker.run(self._open)
            self._opened.set()
            self._watch.start()
            await core.hand_on_secrets()
        own = core.registry.get(core.mesh.me)
        if own is None or own.removed:  # locked out: neither writes nor reads any more
            return RESCAN_S
        await self._look_if_due()
        epoch = core.lease.acting_epoch()
        if epoch is None:
            return await self._follower.follow()
        await core.hand_on_secrets()  # what could not be stored when it came
        return await self._leader.lead(epoch)

    async def _look_if_due(self) -> None:
        core = self._core
        if self._looked == self._noticed and self._until_look() > 0:
            return
        noticed = self._noticed
        self._look_at = core.clock.now() + round(RESCAN_S * MICROS_PER_SECOND)
        if await core.worker.run(core.copy.repository.tidy):
            log.info("the state repository was packed")
        tied = core.copy.repository.tied
        if await core.worker.run(core.folder.look):
            core.events.publish("sync", "", queued=len(core.memory.now.queue))
        self._looked = noticed
        for path in core.folder.undone:
            core.events.publish("sync", f"{path} belongs to the mesh itself; an edit of it was undone")
        if not tied:
            core.events.publish("sync", "the state folder was gone and has been written anew")
            self._watch.start()

    def _until_look(self) -> float:
        return max(0.0, (self._look_at - self._core.clock.now()) / MICROS_PER_SECOND)

    def _fail(self, what: str) -> None:
        if what != self._failure:
            self._failure = what
            self._core.events.publish("sync", f"the state is not in step: {what}")

    def look_again(self) -> None:
        """One of the mesh's own files changed: it is brought to the others soon."""
        self._wake.set()

    # -- what wakes it ----------------------------------------------------------------------------------

    def _on_folder(self) -> None:
        self._noticed += 1
        self._wake.set()

    def _on_lease(self) -> None:
        self._core.note_holder()
        self._follower.on_lease_change()
        self._wake.set()

    def _on_peer(self, peer: str, up: bool) -> None:
        if up:
            self._core.announce(peer)
            self._follower.on_peer(peer)
        self._wake.set()

    def _on_news(self, peer: str, news: StateNews) -> None:
        if news.head is not None:
            self._leader.on_news(peer, news.head)
            self._follower.on_news(peer, news.head)
            if not self._writes():  # who writes only reckons with what others took in
                self._wake.set()

    async def _on_ask_tip(self, peer: str, question: AskTip) -> Tip:
        return Tip(self._core.copy.head, self._core.memory.now.published)

    async def _on_offer(self, peer: str, offer: OfferChanges) -> ChangesTaken:
        reply = await self._leader.on_offer(peer, offer)
        self._wake.set()
        return reply

    async def require_current(self, within: float = ARRIVES_S) -> None:
        """Nobody takes over, admits a machine or seals a secret on a state older than the lease vouches for:
        a host that takes its copy back must not have anything built upon it.

        Waits ``within`` seconds for what may be on its way. Raises ``InstarError("state-behind")``.
        """
        if not (self._opened.is_set() or await wait_for(self._core.clock, self._opened, OPENED_S)):
            message = "this machine cannot open its copy of the state"
            raise InstarError("state-behind", message, "`instar sync` says why", status=503)
        await self._vouched.require(within)

    # -- views ------------------------------------------------------------------------------------------

    def _writes(self) -> bool:
        epoch = self._core.lease.acting_epoch()
        return epoch is not None and self._leader.fenced == epoch

    @property
    def vouched(self) -> str:
        """The commit that a lease record of ours may vouch for; empty for none."""
        return self._leader.vouched

    @property
    def current(self) -> bool:
        """Whether this machine has what the newest lease record vouches for: else it does not take over."""
        return self._vouched.here

    def on_current(self, callback: Callable[[], None]) -> None:
        """Be called when ``current`` may have become true."""
        self._vouched.on_here(callback)

    @property
    def head(self) -> str | None:
        """The newest verified commit."""
        return self._core.copy.head

    def forget_notices(self) -> None:
        """A person has looked at the refusals and conflicts."""
        self._core.memory.change(refused=(), conflicts=())

    def _behind(self) -> str | None:
        core = self._core
        if core.lease.acting_epoch() is not None:
            return self._leader.behind
        if not self._vouched.missing:
            return None
        return f"the lease vouches for state {self._vouched.commit[:12]}, which has not arrived here"

    def facts(self) -> SyncFacts:
        """One consistent picture."""
        core, now = self._core, self._core.clock.now()
        memory, standing, times = core.memory.now, core.copy.standing, core.times
        return SyncFacts(
            head=core.copy.head,
            published=memory.published,
            epoch=None if standing is None else standing.epoch,
            signer=None if standing is None else standing.signer,
            files=len(core.copy.files),
            writes=self._writes(),
            behind=self._behind(),
            pushed_us_ago=None if times.pushed is None else now - times.pushed,
            pulled_us_ago=None if times.pulled is None else now - times.pulled,
            hub_error=core.hub_error,
            trouble=self._failure or core.folder.trouble,
            queue=memory.queue,
            refused=memory.refused,
            conflicts=memory.conflicts,
            left_out=dict(core.folder.left_out),
            unwritten=dict(core.folder.unwritten),
        )
