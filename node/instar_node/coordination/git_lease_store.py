"""The lease register in git: one ref, whose commit holds ``lease.json``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from instar_node.coordination.git_refs import UNREADABLE, Refs, in_thread
from instar_node.coordination.hub import Hub, may_become_repository
from instar_node.coordination.hub_troubles import closed, hub_error, not_a_repository, refusal
from instar_node.coordination.lease_store import (
    Lost,
    RefusedSwap,
    StoreUnavailable,
    SwapOutcome,
    Unknown,
    Won,
)
from instar_node.coordination.record import KnownRecord, LeaseRecord
from instar_node.storage.home import Home

T = TypeVar("T")

_LOG = logging.getLogger("instar.coordination")

LEASE_REF = "refs/instar/lease"
HUB_REF = "refs/instar/hub"
"""Its value is the hub's own id."""

_DISK_SECONDS = 5.0
_REMOTE_SECONDS = 15.0
_READ_TRIES = 3


class GitLeaseStore:
    """``LeaseStore`` on any hub that is git: embedded, path or remote. Safe to call from several tasks.

    Args:
        hub: Where the register lies.
        home: This node's folder; a remote hub's objects are kept in ``hub-objects.git`` there.
        within: Seconds one exchange with the hub may take; by default 5 for a disk, 15 for a remote.
    """

    def __init__(self, hub: Hub, home: Home, *, within: float | None = None) -> None:
        self._hub = hub
        self._cache = home.path / "hub-objects.git"
        self._within = within or (_REMOTE_SECONDS if hub.kind == "remote" else _DISK_SECONDS)
        self._refs: Refs | None = None
        self._opening = asyncio.Lock()
        self._seen: KnownRecord | None = None

    async def create(self) -> None:
        """As ``LeaseStore.create``: make the repository of an embedded or path hub if it is not there. A path
        hub is made only here: where it is missing later, a disk is not mounted."""
        try:
            refs = await self._opened()
            if self._hub.kind != "remote":
                await self._blocking(lambda: self._make_repository(refs))
            if await refs.tip(HUB_REF, None) is None:
                await self._mark(refs)
        except StoreUnavailable as error:
            raise hub_error(error) from error

    def _make_repository(self, refs: Refs) -> None:
        path = Path(self._hub.url)
        try:
            if self._hub.kind == "path" and not path.parent.is_dir():
                raise StoreUnavailable(f"there is no folder {path.parent}", "hub-missing")
            if not refs.objects.exists() and not may_become_repository(path):
                raise not_a_repository(path)
        except PermissionError as error:
            raise closed(path) from error
        refs.objects.create()

    async def _mark(self, refs: Refs) -> None:
        try:
            await refs.swap(HUB_REF, None, await refs.scratch())
        except RefusedSwap as refused:
            if await refs.tip(HUB_REF, None) is None:  # and no other machine was quicker
                message = f"{self._hub.shown} refuses to set {HUB_REF}: {refused}"
                raise refusal("hub-refuses", message) from refused

    async def hub_id(self) -> str | None:
        """As ``LeaseStore.hub_id``."""
        refs = await self._opened()
        return await refs.tip(HUB_REF, None)

    async def read(self) -> KnownRecord | None:
        refs = await self._opened()
        for _ in range(_READ_TRIES):
            version = await refs.tip(LEASE_REF, self._seen.version if self._seen else None)
            if version is None:
                return None
            known = await self._record_at(refs, version)
            if known is not None:
                await self._remember(known)
                return known
            # Replaced and dropped by a renewal between the two steps: look again.
        raise StoreUnavailable(
            f"the register's commit {version} is missing from {self._hub.shown}", "hub-foreign", version
        )

    async def _record_at(self, refs: Refs, version: str) -> KnownRecord | None:
        if version == UNREADABLE:
            raise StoreUnavailable(f"{LEASE_REF} of {self._hub.shown} is garbled", "hub-foreign", version)
        try:
            return await self._blocking(partial(refs.objects.record_at, version))
        except StoreUnavailable as error:
            raise StoreUnavailable(error.message, error.code, version) from error

    async def prepare(self, record: LeaseRecord) -> KnownRecord:
        refs = await self._opened()
        if self._hub.kind == "embedded":
            await self._blocking(refs.objects.create)
        base = await self._base_of(refs, record)
        version = await self._blocking(lambda: refs.objects.build(record, base))
        return KnownRecord(record, version)

    async def compare_and_swap(self, expected: str | None, candidate: KnownRecord) -> SwapOutcome:
        try:
            refs = await self._opened()
            try:
                await refs.swap(LEASE_REF, expected, candidate.version)
            except RefusedSwap as refused:
                return await self._after_refusal(expected, candidate, str(refused))
            await self._remember(candidate)
        except StoreUnavailable as error:
            return Unknown(error.message)
        return Won(candidate)

    async def probe(self) -> None:
        """As ``LeaseStore.probe``. An embedded hub has one writer: nothing to ask."""
        if self._hub.kind == "embedded":
            return
        from instar_node.coordination.hub_probe import probe_hub

        try:
            refs = await self._opened()
        except StoreUnavailable as error:
            raise hub_error(error) from error
        await probe_hub(refs, self._hub.shown, "refs/instar/")

    async def close(self) -> None:
        """Nothing is kept open between calls; a git process of a cancelled call is killed with it."""

    async def _opened(self) -> Refs:
        async with self._opening:
            if self._refs is None:
                self._refs = await self._open()
            return self._refs

    async def _open(self) -> Refs:
        # pygit2 is loaded with the first use of a store, not with this module.
        from instar_node.coordination.git_disk import DiskRefs
        from instar_node.coordination.git_remote import RemoteRefs
        from instar_node.coordination.git_repository import LeaseRepository

        if self._hub.kind != "remote":
            repository = LeaseRepository(Path(self._hub.url))
            embedded = self._hub.kind == "embedded"
            return DiskRefs(repository, absent_is_empty=embedded, within=self._within)
        cache = LeaseRepository(self._cache)
        await self._blocking(cache.create)
        return RemoteRefs(self._hub.url, self._hub.shown, cache, self._within)

    async def _base_of(self, refs: Refs, record: LeaseRecord) -> str | None:
        """The version to build on: the one the record replaces. A record that opens this register from a
        closing in another one replaces what is not here, and continues this register's history."""
        if record.prev is None or await self._blocking(partial(refs.objects.has, record.prev)):
            return record.prev
        return await refs.tip(LEASE_REF, self._seen.version if self._seen else None)

    async def _after_refusal(self, expected: str | None, ours: KnownRecord, why: str) -> SwapOutcome:
        """What a refused swap came to: an earlier attempt may have been applied after all."""
        known = await self.read()
        version = known.version if known else None
        if version == ours.version:
            return Won(ours)
        if version == expected:
            return Unknown(
                f"{self._hub.shown} refused the swap although its value is the expected one: {why}"
            )
        return Lost(known)

    async def _remember(self, known: KnownRecord) -> None:
        """Keep the newest record seen, and drop the objects of the one that it renewed."""
        seen = self._seen
        if seen is not None and known.record.order <= seen.record.order:
            return
        self._seen = known
        if seen is None or self._refs is None:
            return
        try:
            await self._blocking(partial(self._refs.objects.forget_renewed, seen, known))
        except StoreUnavailable as error:  # it only costs room, and must not spoil a swap that was won
            _LOG.warning("a replaced lease record stays in the repository: %s", error)

    async def _blocking(self, job: Callable[[], T]) -> T:
        return await in_thread(job, self._within)
