"""Joining a mesh: pairing, in it a look at the hub, then the files of the new mesh in one step.

A home may join when it is new, or holds a mesh of its own that is empty: who started ``instar-tui`` to look
around, and only then wants to join, has lost nothing.
"""

from __future__ import annotations

from functools import partial

import msgspec

from instar_node.api import types as t
from instar_node.build import Build, this_build
from instar_node.clock import Clock, SystemClock
from instar_node.config import load_config
from instar_node.config_file import write_default_config
from instar_node.coordination.hub import Hub, parse_hub
from instar_node.coordination.hub_troubles import another_hub, hub_error, of_another_mesh
from instar_node.coordination.hubs import open_store
from instar_node.coordination.lease_store import LeaseStore, StoreUnavailable
from instar_node.coordination.record import PURPOSE, KnownRecord, is_authentic
from instar_node.delivery.loading import count_messages
from instar_node.errors import InstarError
from instar_node.identity.chain import Folded, fold
from instar_node.identity.keys import MachineIdentity, fingerprint, verify
from instar_node.identity.nicknames import nickname_from_host
from instar_node.identity.registry import MachineRegistry
from instar_node.identity.vault import Vault
from instar_node.mesh.http import post_bytes
from instar_node.pairing.joiner import Confirm, JoinOutcome, join
from instar_node.pairing.wire import HubTerms, PairingGrant
from instar_node.storage.database import SqliteDatabase
from instar_node.storage.home import Home
from instar_node.storage.lock import HomeLock
from instar_node.wiring.mesh_change import (
    JoinedMesh,
    commit_join,
    complete_join,
    require_lone,
)
from instar_node.wiring.mesh_file import MeshFile
from instar_node.wiring.own_urls import OwnUrls

POST_WITHIN_S = 60.0
"""An admission includes a swap on the hub, which may be a slow remote one."""


async def join_home(
    home: Home,
    url: str,
    code: str,
    nickname: str | None,
    *,
    sas: bool = False,
    witness: bool = False,
    confirm: Confirm | None = None,
) -> t.JoinResult:
    """Make this home, on which no node runs, a standby of the mesh whose awake machine answers at ``url``.

    Nothing of the mesh is written unless everything has succeeded. ``sas`` and ``confirm`` are those of
    ``pairing.joiner.join``. Raises ``InstarError`` naming the step that failed: ``already-running``,
    ``already-member``, those of ``pairing.joiner.join``, those of ``coordination.hub_troubles``.
    """
    home.prepare()
    with HomeLock(home):
        write_default_config(home.config)
        config, clock = load_config(home.config), SystemClock()
        identity = MachineIdentity.load_or_create(home.machine)
        complete_join(home, identity, clock)
        await _require_free(home, identity, clock)
        urls = OwnUrls(config.node.urls, config.node.listen)()
        standing = config.node.nickname
        witness = witness or config.node.witness
        joining = Joining(
            home, identity, clock, this_build(), urls=urls, standing_name=standing, witness=witness
        )
        result = await joining.run(url, code, nickname, sas=sas, confirm=confirm)
        complete_join(home, identity, clock)
    return result


async def _require_free(home: Home, identity: MachineIdentity, clock: Clock) -> None:
    """Raise ``already-member`` unless the home belongs to no mesh, or to an empty one of its own."""
    registry = MachineRegistry.load(home.machine, identity, clock)
    if registry is None:
        return
    messages = 0
    if home.database.exists():
        database = SqliteDatabase.open(home.database)
        try:
            messages = await database.read(count_messages)
        finally:
            await database.close()
    vault = Vault.load(home.machine, identity, registry, clock)
    require_lone(registry, identity.machine_id, vault, messages)


class Joining:
    """One attempt to join, up to the point where the home belongs to the new mesh (``commit_join``).

    Args:
        build: The program of this machine.
        urls: Where peers reach this machine.
        standing_name: The name that settings ask for at every start; it does not undo that of the join.
        witness: Whether this machine is to keep the register only.
    """

    def __init__(
        self,
        home: Home,
        identity: MachineIdentity,
        clock: Clock,
        build: Build,
        *,
        urls: tuple[str, ...],
        standing_name: str,
        witness: bool,
    ) -> None:
        self._home = home
        self._identity = identity
        self._clock = clock
        self._urls = urls
        self._standing_name = standing_name
        self._witness = witness
        self._build = build

    async def run(
        self, url: str, code: str, nickname: str | None, *, sas: bool, confirm: Confirm | None
    ) -> t.JoinResult:
        """Pair, check what was granted, and commit. Raises what ``join_home`` raises."""
        outcome = await join(
            url,
            code,
            self._identity,
            nickname or self._standing_name or nickname_from_host(),
            self._urls,
            post=_post,
            clock=self._clock,
            witness=self._witness,
            version=self._build.version,
            protocol=self._build.protocol,
            sas=sas,
            confirm=confirm,
            check_hub=partial(_check_hub, self._home),
        )
        grant = outcome.grant
        settings = MeshFile(grant.hub_url, self._standing_name)
        joined = JoinedMesh(grant.mesh_id, grant.records, _lease_of(grant), settings)
        commit_join(self._home, joined)
        return self._result(outcome)

    def _result(self, outcome: JoinOutcome) -> t.JoinResult:
        grant = outcome.grant
        where = "" if self._home == Home.default() else f" --home {self._home.path}"
        return t.JoinResult(
            machine_id=self._identity.machine_id,
            mesh_id=grant.mesh_id,
            peer={
                "machine_id": grant.identity.machine_id,
                "nickname": grant.nickname,
                "fingerprint": fingerprint(grant.identity.signing_public),
                "url": outcome.url,
            },
            sas=t.Sas(outcome.sas.digits, list(outcome.sas.emoji), list(outcome.sas.names)),
            next=f"instar-tui{where}" + (" --daemon" if self._witness else ""),
        )


async def _post(url: str, body: bytes) -> tuple[int, bytes]:
    try:
        return await post_bytes(url, body, POST_WITHIN_S)
    except InstarError as error:
        if error.code != "unreachable":
            raise
        raise InstarError("host-unreachable", error.message, error.hint, status=error.status) from error


async def _check_hub(home: Home, terms: HubTerms) -> None:
    """See whether this machine can use the hub of the mesh, before it is admitted.

    A witness is reached through the tunnel, which only members have: nothing to look at yet. Raises what is
    wrong with the hub, by the codes of ``hub_troubles``; the other machine keeps nothing of this one.
    """
    if terms.kind == "witness":
        return
    try:
        hub = parse_hub(terms.url, home)
        store = open_store(hub, home)
        try:
            await _require_hub_of_the_mesh(store, hub, terms.id)
            await store.probe()
        finally:
            await store.close()
    except InstarError as error:
        raise _unusable_hub(error) from error


async def _require_hub_of_the_mesh(store: LeaseStore, hub: Hub, hub_id: str) -> None:
    """The address may lead elsewhere from here: to another disk mounted there, another server so named."""
    try:
        register, found = await store.read(), await store.hub_id()
    except StoreUnavailable as trouble:
        raise hub_error(trouble) from trouble
    if register is None:
        raise hub_error(another_hub(hub.shown))
    if hub_id and found != hub_id:
        raise of_another_mesh(hub.shown)


def _lease_of(grant: PairingGrant) -> KnownRecord:
    """The lease record that came with the admission, believed. Raises ``bad-grant``."""
    try:
        known = msgspec.json.decode(grant.lease, type=KnownRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad_lease(grant, str(error)) from error
    if not _believed(known, fold(grant.records)):
        raise _bad_lease(grant, "no member signed it")
    return known


def _believed(known: KnownRecord, folded: Folded) -> bool:
    def signed(machine: str, data: bytes, signature: bytes) -> bool:
        member = folded.members.get(machine)
        return member is not None and verify(member.signing_public, PURPOSE, folded.mesh_id, data, signature)

    return is_authentic(known.record, signed)


def _unusable_hub(error: InstarError) -> InstarError:
    return InstarError(
        error.code,
        f"the code is right, but the mesh's hub cannot be used from this machine: {error.message}",
        f"{error.hint}. Then `instar pair` there again; nothing was registered",
        status=error.status,
    )


def _bad_lease(grant: PairingGrant, why: str) -> InstarError:
    return InstarError(
        "bad-grant",
        f"{grant.nickname} admitted this machine, but the lease it sent cannot be trusted: {why}",
        "remove this machine there (`instar machines remove`), update both, and join again",
        status=502,
    )
