"""Keeping the vault the same on all machines that run the agent, and sealed for exactly those.

A change is announced by a digest; who holds another digest pulls what it lacks. Every record is verified by
``Vault.merge``: the peer it came from adds no trust. The holder alone writes: when the members change, it
seals every secret anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from instar_node.background import Background
from instar_node.clock import MICROS_PER_SECOND, Clock
from instar_node.contracts import Authority, Mesh, PeerError
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.identity.registry import MachineRegistry
from instar_node.identity.sealing import WrappedKey
from instar_node.identity.secret_names import SecretName
from instar_node.identity.secret_record import SecretRecord, Stamp, read_record
from instar_node.identity.vault import MAX_RECORDS, Vault

log = logging.getLogger("instar.vault")

REQUEST_S = 5.0
COPIED_WITHIN_S = 10.0
"""How long a change may take to reach every machine in sync; one that does not answer is benched sooner."""
PAGE_BYTES = 1 << 20
RESEALED_AT_ONCE = 8
"""Between so many secrets other work gets its turn: sealing must not delay a lease round."""
RETRY_S = 2.0


class VaultNews(msgspec.Struct, frozen=True, tag="vault.news"):
    """One-way: the digest of all records that I hold."""

    digest: Annotated[bytes, Meta(max_length=32)]


class VaultPull(msgspec.Struct, frozen=True, tag="vault.pull"):
    """Give me what is newer than these. Who sees from them that it lacks something pulls in turn, unless
    this is such an answer already (``in_turn``): two machines never ask each other for ever."""

    known: Annotated[dict[SecretName, Stamp], Meta(max_length=MAX_RECORDS)]
    in_turn: bool = False


class VaultRecords(msgspec.Struct, frozen=True, tag="vault.records"):
    """Records; ``more``: ask again, there are others."""

    records: Annotated[tuple[SecretRecord, ...], Meta(max_length=MAX_RECORDS)]
    more: bool


class VaultAsk(msgspec.Struct, frozen=True, tag="vault.ask"):
    """From the holder: I cannot open this writing; wrap its key for me."""

    name: SecretName
    stamp: Stamp


class VaultKey(msgspec.Struct, frozen=True, tag="vault.key"):
    """The key, for who asked; ``None`` when this machine cannot open it either."""

    wrapped: WrappedKey | None


class VaultSync:
    """Copies the vault between machines, and reseals it as the holder."""

    def __init__(
        self,
        mesh: Mesh,
        vault: Vault,
        registry: MachineRegistry,
        authority: Authority,
        events: EventHub,
        clock: Clock,
    ) -> None:
        self._mesh = mesh
        self._vault = vault
        self._registry = registry
        self._authority = authority
        self._events = events
        self._clock = clock
        self._holds: dict[str, bytes] = {}
        """The digest each connected reader said last."""
        self._heard = asyncio.Event()
        self._look = asyncio.Event()
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._keeper = Background("vault", self._keep)
        self.require_current: Callable[[], Awaitable[None]] = _always
        """Set by the composition root: raises while this machine lacks state that the lease vouches for. What
        it does not know may be a removal, so it seals nothing for anybody."""

    def start(self) -> None:
        """Begin to listen, to tell and, as the holder, to reseal."""
        self._mesh.on_notice(VaultNews, self._on_news)
        self._mesh.on_request(VaultPull, self._on_pull)
        self._mesh.on_request(VaultAsk, self._on_ask)
        self._mesh.on_peer(self._on_peer)
        self._vault.on_change(self._on_change)
        self._registry.on_change(self._on_change)
        self._authority.on_change(self._look.set)
        self._keeper.start()

    async def stop(self) -> None:
        """End what runs in the background."""
        await self._keeper.stop()
        tasks = list(self._pulls.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def copied(self) -> None:
        """Wait until every machine in sync holds what this one holds.

        Raises ``InstarError("secret-not-copied")`` naming those that do not.
        """
        deadline = self._clock.now() + int(COPIED_WITHIN_S * MICROS_PER_SECOND)
        while missing := self._missing():
            left = (deadline - self._clock.now()) / MICROS_PER_SECOND
            self._heard.clear()
            try:
                async with asyncio.timeout(max(0.0, min(left, 0.5))):  # the machines in sync change too
                    await self._heard.wait()
            except TimeoutError:
                if left <= 0:
                    raise _not_copied([self._registry.nickname(machine) for machine in missing]) from None

    def _missing(self) -> list[str]:
        digest, readers = self._vault.digest, self._vault.readers()
        needed = self._authority.ack_set() & readers.keys()
        return sorted(machine for machine in needed if self._holds.get(machine) != digest)

    # -- the copies in the shared state ---------------------------------------------------------------------

    def learn(self, files: Mapping[str, bytes]) -> None:
        """Take over what the shared state holds and this machine lacks: ``secrets/NAME.json`` to content."""
        if not self._is_reader(self._mesh.me):
            return
        records: list[SecretRecord] = []
        for path, raw in files.items():
            try:
                records.append(read_record(raw))
            except InstarError as error:
                self._tell_refused(f"{path} of the state", [error])
        self._tell_refused("the state", self._vault.merge(records))

    def _tell_refused(self, source: str, refused: list[InstarError]) -> None:
        if refused:
            text = f"refused a secret from {source}: {refused[0].message}"
            self._events.publish("secrets", text, source=source, refusals=self._vault.refusals)

    # -- telling ----------------------------------------------------------------------------------------

    def _on_peer(self, peer: str, up: bool) -> None:
        self._holds.pop(peer, None)
        if up and self._is_reader(peer):
            self._mesh.send(peer, VaultNews(self._vault.digest))
            self._look.set()

    def _on_change(self) -> None:
        """Of the vault, or of the members: a record that was refused may be good now."""
        self._look.set()
        self._tell_all()

    def _tell_all(self) -> None:
        news = VaultNews(self._vault.digest)
        for peer in self._vault.readers():
            if peer != self._mesh.me and self._mesh.connected(peer) and not self._mesh.send(peer, news):
                log.info(
                    "news of the vault did not go out to %s; it hears at the next tunnel or change", peer
                )

    # -- hearing ----------------------------------------------------------------------------------------

    def _on_news(self, peer: str, news: VaultNews) -> None:
        if not self._is_reader(peer) or not self._is_reader(self._mesh.me):
            return
        self._holds[peer] = news.digest
        self._heard.set()
        if news.digest != self._vault.digest:
            self._pull_soon(peer, in_turn=False)

    def _pull_soon(self, peer: str, *, in_turn: bool) -> None:
        if peer not in self._pulls:
            task = self._pulls[peer] = asyncio.create_task(self._pull(peer, in_turn), name=f"vault {peer}")
            task.add_done_callback(lambda _: self._pulls.pop(peer, None))

    async def _pull(self, peer: str, in_turn: bool) -> None:
        """Fetch what the peer has and we lack."""
        more = True
        while more:
            before = self._vault.digest
            question = VaultPull(self._vault.stamps(), in_turn)
            try:
                page = await self._mesh.request(peer, question, VaultRecords, within=REQUEST_S)
            except PeerError as error:
                log.info("the vault of %s was not fetched: %s", peer, error.message)
                return
            self._tell_refused(self._registry.nickname(peer), self._vault.merge(page.records))
            more = page.more and self._vault.digest != before

    # -- answering --------------------------------------------------------------------------------------

    async def _on_pull(self, peer: str, question: VaultPull) -> VaultRecords:
        self._require_reader(peer)
        if not question.in_turn and self._vault.lacks(question.known):
            self._pull_soon(peer, in_turn=True)
        chosen: list[SecretRecord] = []
        size = 0
        lacking = self._vault.newer_than(question.known)
        for record in lacking:
            size += len(record.sealed) + 128 * len(record.wrapped) + 256
            if chosen and size > PAGE_BYTES:
                break
            chosen.append(record)
        return VaultRecords(tuple(chosen), len(chosen) < len(lacking))

    async def _on_ask(self, peer: str, question: VaultAsk) -> VaultKey:
        self._require_reader(peer)
        return VaultKey(self._vault.share(question.name, question.stamp, peer))

    def _is_reader(self, machine: str) -> bool:
        return machine in self._vault.readers()

    def _require_reader(self, peer: str) -> None:
        if not self._is_reader(peer):
            raise InstarError("not-a-reader", "this machine is given no secrets", status=403)

    # -- resealing, as the holder -----------------------------------------------------------------------

    async def _keep(self) -> None:
        self._look.set()
        while True:
            await self._look.wait()
            self._look.clear()
            own = self._registry.get(self._mesh.me)
            if own is not None and own.removed:
                self._vault.erase()
                continue
            try:
                await self._realign()
            except InstarError as error:
                log.warning("the secrets could not be sealed anew yet: %s", error.message)
                await self._clock.sleep(RETRY_S)
                self._look.set()

    async def _realign(self) -> None:
        if self._authority.acting_epoch() is None:
            return
        for name in set(self._vault.misfits()) & set(self._vault.locked()):
            await self._unlock(name)
        if self._vault.misfits():
            await self.require_current()
        while (epoch := self._authority.acting_epoch()) is not None:
            done = self._vault.realign(epoch, RESEALED_AT_ONCE)
            if not done:
                return
            self._tell_exposed(done)
            await asyncio.sleep(0)

    async def _unlock(self, name: str) -> None:
        """Ask the other readers for the key of a secret that this machine cannot open."""
        record = self._vault.record(name)
        if record is None:
            return
        stamp = record.stamp
        for peer in sorted(record.readers):
            if not self._mesh.connected(peer):
                continue
            try:
                answer = await self._mesh.request(peer, VaultAsk(name, stamp), VaultKey, within=REQUEST_S)
            except PeerError as error:
                log.info("%s did not share the key of %s: %s", peer, name, error.message)
                continue
            if answer.wrapped is not None:
                self._vault.unlock(name, stamp, answer.wrapped)
                return

    def _tell_exposed(self, records: list[SecretRecord]) -> None:
        exposed = [record for record in records if record.exposed_to]
        if exposed:
            names = [record.name for record in exposed]
            machines = sorted({machine for record in exposed for machine in record.exposed_to})
            who = ", ".join(self._registry.nickname(machine) for machine in machines)
            self._events.publish(
                "secrets",
                f"{who} could read {', '.join(names)}: change them where they come from, then set them here",
                names=names,
                machines=machines,
            )


def _not_copied(names: list[str]) -> InstarError:
    return InstarError(
        "secret-not-copied",
        f"it is kept here, and {', '.join(names)} does not have it yet",
        "it goes there as soon as that machine answers; until then a takeover could lose this change",
        status=503,
        extra={"missing": names},
    )


async def _always() -> None:
    """Nothing is vouched for where nobody shares a state."""
