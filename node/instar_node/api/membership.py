"""Who belongs to the mesh: registry and lease record changed together, by the awake machine alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from instar_node.api.parts import Base
from instar_node.background import Background
from instar_node.build import Build, overlap
from instar_node.errors import InstarError
from instar_node.identity.address_book import AddressBook
from instar_node.identity.registry_sync import RegistrySync
from instar_node.pairing.wire import JoinerInfo, PairingGrant
from instar_node.sync.state_sync import StateSync

log = logging.getLogger("instar.membership")

RETRY_S = 2.0


class Membership:
    """Admits, removes, and brings the lease record back in line with the registry when the two differ.

    They differ after a crash between the two writes, after a machine left, or when a holder was elected that
    had not heard of the newest member.
    """

    def __init__(
        self,
        base: Base,
        sync: RegistrySync,
        state: StateSync,
        addresses: AddressBook,
        free_orphans: Callable[[], Awaitable[None]],
    ) -> None:
        """``free_orphans()`` frees the topics that are pinned to machines which run no agent any more."""
        self._base = base
        self._sync = sync
        self._state = state
        self._addresses = addresses
        self._free_orphans = free_orphans
        self._joining: set[str] = set()
        self._going: set[str] = set()
        """Machines whose removal is under way: out of the record already, not yet out of the registry."""
        self._look = asyncio.Event()
        self._task = Background("membership", self._keep_in_line)

    def start(self) -> None:
        """Begin to watch."""
        self._base.lease.on_change(self._look.set)
        self._base.registry.on_change(self._look.set)
        self._task.start()

    async def stop(self) -> None:
        """Watch no more."""
        await self._task.stop()

    async def admit(self, joiner: JoinerInfo) -> PairingGrant:
        """Make a machine that proved the pairing code a standby, and tell it all it needs.

        The lease is asked first: it can be undone, while a registry entry is for good. Raises
        ``versions-apart``, ``state-behind``, ``not-awake``, ``hub-unreachable``, or why the registry refuses;
        then nothing of the joiner is left.
        """
        _require_common_protocol(joiner, self._base.build)
        await self._state.require_current()
        lease, registry, machine = self._base.lease, self._base.registry, joiner.identity.machine_id
        self._joining.add(machine)
        try:
            if not joiner.witness:
                await lease.admit(machine)
            try:
                epoch = lease.require_acting()
                registry.admit(
                    joiner.identity, joiner.nickname, joiner.urls, epoch=epoch, witness=joiner.witness
                )
            except InstarError:
                if not joiner.witness:
                    await lease.expel(machine)
                raise
        finally:
            self._joining.discard(machine)
        self._addresses.record()  # the joiner may be on this host, and reach us where others do not
        return self._grant()

    def _grant(self) -> PairingGrant:
        base, hub = self._base, self._base.lease.hub
        return PairingGrant(
            identity=base.identity.public,
            nickname=base.registry.nickname(base.me),
            mesh_id=base.registry.mesh_id,
            records=base.registry.records,
            hub_kind=hub.kind,
            hub_url="" if hub.kind == "embedded" else hub.url,
            lease=msgspec.json.encode(base.lease.known),
        )

    async def remove(self, machine: str) -> str:
        """Remove a member for good: out of the lease, then out of the registry, its topics freed; its id.

        Raises ``unknown-machine``, ``is-awake`` for this machine itself, ``not-awake``, ``hub-unreachable``.
        """
        base = self._base
        epoch = base.lease.require_acting()
        member = base.registry.resolve(machine)
        if member is None:
            raise unknown_machine(base, machine)
        if member.machine_id == base.me:
            raise InstarError(
                "is-awake",
                "the awake machine cannot be removed",
                "hand off first (`instar handoff MACHINE`), then `instar leave` here",
            )
        self._going.add(member.machine_id)
        try:
            if not member.witness:
                await base.lease.expel(member.machine_id)
            await self._sync.remove(member.machine_id, epoch)
        finally:
            self._going.discard(member.machine_id)
        try:
            await self._free_orphans()
        except InstarError as error:  # the removal stands; the next holder frees them when it looks around
            log.warning("topics pinned to %s were not freed yet: %s", member.nickname, error)
        return member.machine_id

    async def leave(self) -> None:
        """Take this machine out for good. Raises ``is-awake``, or why the holder could not record it."""
        await self._sync.leave()

    # -- keeping registry and record in line ------------------------------------------------------------

    async def _keep_in_line(self) -> None:
        self._look.set()
        while True:
            await self._look.wait()
            self._look.clear()
            own = self._base.registry.get(self._base.me)
            if own is not None and own.removed:
                self._base.lease.coordinator.eligible = False
                continue
            try:
                await self._align()
            except InstarError as error:
                log.warning("lease record and registry differ and could not be aligned yet: %s", error)
                await self._base.clock.sleep(RETRY_S)
                self._look.set()

    async def _align(self) -> None:
        lease, known = self._base.lease, self._base.lease.known
        if lease.acting_epoch() is None or known is None:
            return
        active = {
            member.machine_id for member in self._base.registry.active() if not member.witness
        } | self._joining
        recorded = {*known.record.electorate, *known.record.benched}
        for machine in sorted(recorded - active):
            await lease.expel(machine)
        for machine in sorted(active - recorded - self._joining - self._going):
            await lease.admit(machine)
        await self._free_orphans()


def _require_common_protocol(joiner: JoinerInfo, own: Build) -> None:
    """Two programs that cannot talk are told so before one of them is a member for good."""
    if not overlap(joiner.protocol, own.protocol):
        raise InstarError(
            "versions-apart",
            f"{joiner.nickname} runs version {joiner.version}, which cannot work with {own.version} here",
            "update instar-tui on the older of the two machines, then pair again; nothing was registered",
        )


def unknown_machine(base: Base, name: str) -> InstarError:
    """404 that lists the names there are."""
    known = [member.nickname for member in base.registry.active()]
    return InstarError(
        "unknown-machine",
        f"no machine is called {name}",
        f"known: {', '.join(known)}",
        status=404,
        extra={"known": known},
    )
