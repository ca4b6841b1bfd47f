"""What leading and following have in common: the verified copy, the folder, and what is believed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from instar_node.clock import MICROS_PER_SECOND, Clock, iso
from instar_node.contracts import Mesh, PeerError
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.identity.registry import MachineRegistry
from instar_node.sync.folder import StateFolder
from instar_node.sync.memory import RefusedLine, SyncMemory
from instar_node.sync.paths import SECRETS
from instar_node.sync.ports import GARBLED, StateHub, StateLease
from instar_node.sync.rules import Known, Prove
from instar_node.sync.state_copy import StateCopy
from instar_node.sync.transfer import Transfer
from instar_node.sync.tree import File
from instar_node.sync.vouched import VouchedState
from instar_node.sync.wire import AskTip, StateNews, Tip
from instar_node.sync.worker import Worker

log = logging.getLogger("instar.sync")

PASSING = frozenset({"epoch-ahead", "withheld", "object-missing"})
"""Reasons that news of the lease, or the rest of a transfer, may take away: they count as a refusal only when
they stay."""
PATIENCE_S = 60
"""Seconds before a passing reason counts. A machine cut off from the others reads the lease from the hub only
every so often."""
MAX_WAITING = 100
Outcome = Literal["moved", "nothing", "refused", "later"]
"""What came of a line: taken in, known already, broke a rule for good, or to be looked at again."""
ASK_S = 2.0
"""Seconds a machine gets to say how far it is."""
HUB = "hub"
"""As the source of commits: the ref of the git hub."""


@dataclass
class Times:
    """When things last went well, microseconds of our clock; ``None`` for never."""

    pushed: int | None = None
    pulled: int | None = None


@dataclass
class StateCore:
    """The parts, and the steps that both roles take."""

    copy: StateCopy
    vouched: VouchedState
    folder: StateFolder
    memory: SyncMemory
    worker: Worker
    transfer: Transfer
    mesh: Mesh
    lease: StateLease
    registry: MachineRegistry
    find_hub: Callable[[], StateHub | None]
    prove: Prove
    events: EventHub
    clock: Clock
    learn_secrets: Callable[[Mapping[str, bytes]], None]
    """Takes in the sealed secrets of a verified state, by path."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the history or the folder changes."""
    times: Times = field(default_factory=Times)
    hub_error: str | None = None
    _learned: dict[str, File] = field(default_factory=dict)
    """The secrets that were handed on."""
    _learned_at: str | None = None
    """The commit whose secrets those are."""
    _waiting: dict[tuple[str, str], int] = field(default_factory=dict)
    """Commits with a reason that may pass, and since when they wait."""

    @property
    def hub(self) -> StateHub | None:
        """The git hub of this moment; a living mesh may move to another."""
        return self.find_hub()

    # -- what is believed -------------------------------------------------------------------------------

    def known(self) -> Known:
        """What this machine knows of members and epochs at this moment."""
        return Known(self.registry.folded, self.lease.epoch, self._holder_of, self.prove)

    def _holder_of(self, epoch: int) -> str | None:
        if epoch == self.lease.epoch:
            return self.lease.holder
        return self.memory.now.holders.get(epoch)

    def note_holder(self) -> None:
        """The lease changed: remember who holds the newest epoch."""
        if self.lease.holder is not None and self.lease.epoch > 0:
            self.memory.note_holder(self.lease.epoch, self.lease.holder)

    # -- taking lines in --------------------------------------------------------------------------------

    async def fetch_and_take(self, peer: str, tip: str) -> Outcome:
        """Get a line from a machine and take it in if it is good."""
        if await self.worker.run(self.copy.contains, tip):
            return "nothing"
        try:
            await self.transfer.fetch(peer, tip)
        except PeerError as error:
            log.info("state %s was not fetched from %s: %s", tip[:12], peer, error.message)
            return "later"
        except InstarError as error:
            return await self.refuse(tip, peer, error)
        return await self.take_line(tip, peer)

    async def take_line(self, tip: str, source: str) -> Outcome:
        """Take in a line that is here, if it breaks no rule."""
        if tip == GARBLED:
            message = "its ref names no commit: somebody wrote something else into it"
            return await self.refuse(tip, source, InstarError("garbled", message, status=422))
        try:
            moved = await self.worker.run(self.copy.accept, tip, self.known(), self.lease.state_head)
        except InstarError as error:
            return await self.refuse(tip, source, error)
        if not moved:
            return "nothing"
        await self.vouched.look()
        self.vouched.tell()  # whatever becomes of what follows
        self.times.pulled = self.clock.now()
        await self.settle(published=tip)
        self._merge_registry(source)
        await self.hand_on_secrets()
        self.events.publish("sync", "", head=tip, source=source)
        if self.lease.holder is not None:
            self.announce(self.lease.holder)  # who vouches for what all in sync have
        return "moved"

    async def hand_on_secrets(self) -> None:
        """A machine that was away when a secret was set finds it here, whoever is still there to ask.

        It must, before it writes: what it does not know goes from the mesh's own folders.
        """
        head = self.copy.head
        if head == self._learned_at:
            return
        files = {path: file for path, file in self.copy.files.items() if path.startswith(f"{SECRETS}/")}
        news = [path for path, file in files.items() if self._learned.get(path) != file]
        if news:
            self.learn_secrets(await self.contents(news))
        self._learned, self._learned_at = files, head

    async def contents(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Files of the verified state."""
        oids = {path: self.copy.files[path].oid for path in paths}
        return await self.worker.run(lambda: {p: self.copy.repository.blob(oid) for p, oid in oids.items()})

    async def settle(self, published: str | None = None) -> None:
        """After the head moved: bring the folder to it. ``published``: what is not to be lost any more."""
        await self.worker.run(self.folder.bring_up, published)

    def _merge_registry(self, source: str) -> None:
        """Members that the history knows and this machine does not: git is a copy of the registry."""
        assert self.copy.standing is not None
        records = self.copy.standing.registry.records
        if records == self.registry.records:
            return
        try:
            self.registry.merge(records)
        except InstarError as error:
            self.events.publish(
                "machines", f"refused the registry in the state: {error.message}", source=source
            )

    async def ask_tip(self, peer: str) -> Tip | None:
        """How far a machine is; ``None`` when it does not say."""
        try:
            return await self.mesh.request(peer, AskTip(), Tip, within=ASK_S)
        except PeerError as error:
            log.info("%s did not say what state it has: %s", peer, error.message)
            return None

    # -- refusing ---------------------------------------------------------------------------------------

    async def refuse(self, tip: str, source: str, error: InstarError) -> Outcome:
        """Commits were not believed: kept aside, remembered, and told to the person.

        ``later`` while the reason may still pass.
        """
        if error.code == "outranked" and source != HUB:
            log.info("%s still has a line that is over: %s", source, error.message)
            return "nothing"
        if error.code in PASSING:
            if len(self._waiting) > MAX_WAITING:
                self._waiting.clear()
            since = self._waiting.setdefault((tip, error.code), self.clock.now())
            if self.clock.now() - since < PATIENCE_S * MICROS_PER_SECOND:
                log.debug("state %s of %s waits: %s", tip[:12], source, error.message)
                return "later"
        await self.worker.run(self.copy.repository.keep_aside, tip)
        commit = str(error.extra.get("commit", tip))
        at = iso(self.clock.wall())
        if not self.memory.note_refusal(RefusedLine(commit, error.code, error.message, source, at)):
            return "refused"
        name = "the hub" if source == HUB else self.registry.nickname(source)
        log.error("the state that %s shows was refused (%s): %s", name, error.code, error.message)
        self.events.publish(
            "sync", f"refused the state that {name} shows: {error.message}", code=error.code, commit=commit
        )
        return "refused"

    # -- telling ----------------------------------------------------------------------------------------

    def announce(self, *peers: str) -> None:
        """Tell machines (all by default) our newest commit that is not to be lost any more."""
        news = StateNews(self.memory.now.published)
        chosen = peers or tuple(member.machine_id for member in self.registry.active())
        for peer in chosen:
            if peer != self.mesh.me and self.mesh.connected(peer) and not self.mesh.send(peer, news):
                log.info("%s hears of the new state at its next look", peer)
