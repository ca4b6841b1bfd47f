"""Joining a mesh from a home on which no node runs: pairing, in it a look at the hub, then the files."""

from __future__ import annotations

from functools import partial

import msgspec

from instar_node import __version__
from instar_node.api import types as t
from instar_node.clock import Clock, SystemClock
from instar_node.config import load_config
from instar_node.config_file import write_default_config
from instar_node.coordination.hub import Hub, parse_hub
from instar_node.coordination.hubs import open_store
from instar_node.coordination.lease_state import DurableLease
from instar_node.coordination.lease_store import StoreUnavailable
from instar_node.coordination.record import PURPOSE, KnownRecord, is_authentic
from instar_node.errors import InstarError
from instar_node.identity.chain import Folded, fold
from instar_node.identity.keys import MachineIdentity, fingerprint, mesh_name, verify
from instar_node.identity.nicknames import nickname_from_host
from instar_node.identity.registry import MachineRegistry
from instar_node.mesh.http import post_bytes
from instar_node.pairing.joiner import Confirm, JoinOutcome, join
from instar_node.pairing.wire import PairingGrant
from instar_node.storage.atomic import write_atomic
from instar_node.storage.home import Home
from instar_node.storage.lock import HomeLock
from instar_node.wiring.mesh_file import MeshFile, write_mesh_file
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
    """Make this home a standby of the mesh whose awake machine answers at ``url`` and shows ``code``.

    ``confirm`` asks the person here whether both machines show the same short string; with ``sas`` this side
    demands that it be asked.

    Nothing of a mesh is written unless everything has succeeded. Raises ``InstarError`` naming the step that
    failed: ``already-running``, ``already-member``, those of ``pairing.joiner.join``, ``hub-unreachable``.
    """
    home.prepare()
    with HomeLock(home):
        write_default_config(home.config)
        config, clock = load_config(home.config), SystemClock()
        identity = MachineIdentity.load_or_create(home.machine)
        _refuse_member(MachineRegistry.load(home.machine, identity, clock), url)
        asked = nickname or config.node.nickname
        witness = witness or config.node.witness
        outcome = await join(
            url,
            code,
            identity,
            asked or nickname_from_host(),
            OwnUrls(config.node.urls, config.node.listen)(),
            post=_post,
            clock=clock,
            sas=sas,
            confirm=confirm,
            witness=witness,
            version=__version__,
            check_hub=partial(_check_hub, home),
        )
        known = _lease_of(outcome.grant)
        _settle(home, identity, clock, outcome.grant, known, asked)
    return _result(home, identity, witness, outcome)


async def _post(url: str, body: bytes) -> tuple[int, bytes]:
    try:
        return await post_bytes(url, body, POST_WITHIN_S)
    except InstarError as error:
        if error.code != "unreachable":
            raise
        raise InstarError("host-unreachable", error.message, error.hint, status=error.status) from error


def _refuse_member(registry: MachineRegistry | None, url: str) -> None:
    if registry is not None:
        raise InstarError(
            "already-member",
            f"this home already belongs to mesh {mesh_name(registry.mesh_id)}; a home joins one mesh only",
            f"use a fresh home: instar --home NEW-FOLDER join {url} --code CODE",
        )


async def _check_hub(home: Home, kind: str, url: str) -> None:
    """See whether this machine can use the hub of the mesh, before it is admitted.

    A witness is reached through the tunnel, which only members have: nothing to look at yet. Raises
    ``hub-unreachable`` saying what to mend; the other machine keeps nothing of this one.
    """
    hub = parse_hub(url, home)
    if hub.kind == "witness":
        return
    store = open_store(hub, home)
    try:
        seen = await store.read()
        await store.probe()
    except StoreUnavailable as error:
        raise _hub_unreachable(hub, error.message) from error
    finally:
        await store.close()
    if seen is None:
        raise _hub_unreachable(hub, "it holds no lease: is it another repository of that name?")


def _lease_of(grant: PairingGrant) -> KnownRecord:
    """The lease record that came with the admission, believed. Raises ``bad-grant``."""
    try:
        known = msgspec.json.decode(grant.lease, type=KnownRecord)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _bad_lease(grant, str(error)) from error
    if not _believed(known, fold(grant.records)):
        raise _bad_lease(grant, "no member signed it")
    return known


def _believed(known: KnownRecord, folded: Folded) -> bool:
    def signed(machine: str, data: bytes, signature: bytes) -> bool:
        member = folded.members.get(machine)
        return member is not None and verify(member.signing_public, PURPOSE, folded.mesh_id, data, signature)

    return is_authentic(known.record, signed)


def _settle(
    home: Home, identity: MachineIdentity, clock: Clock, grant: PairingGrant, known: KnownRecord, asked: str
) -> None:
    """Write what makes this home a member; the registry last, because it decides whether it is one."""
    write_atomic(home.machine / "lease-state.json", msgspec.json.encode(DurableLease(newest=known)))
    write_mesh_file(home, MeshFile(grant.hub_url, asked))
    MachineRegistry.adopt(home.machine, identity, clock, grant.records, grant.mesh_id)


def _result(home: Home, identity: MachineIdentity, witness: bool, outcome: JoinOutcome) -> t.JoinResult:
    grant = outcome.grant
    where = "" if home == Home.default() else f" --home {home.path}"
    return t.JoinResult(
        machine_id=identity.machine_id,
        mesh_id=grant.mesh_id,
        peer={
            "machine_id": grant.identity.machine_id,
            "nickname": grant.nickname,
            "fingerprint": fingerprint(grant.identity.signing_public),
            "url": outcome.url,
        },
        sas=t.Sas(outcome.sas.digits, list(outcome.sas.emoji), list(outcome.sas.names)),
        next=f"instar-tui{where}" + (" --daemon" if witness else ""),
    )


def _hub_unreachable(hub: Hub, why: str) -> InstarError:
    return InstarError(
        "hub-unreachable",
        f"the code is right, but the mesh's hub {hub.shown} cannot be used from this machine: {why}",
        "make it reachable here (mount it, check the network and your git credentials), then `instar pair` "
        "there again; nothing was registered",
        status=502,
    )


def _bad_lease(grant: PairingGrant, why: str) -> InstarError:
    return InstarError(
        "bad-grant",
        f"{grant.nickname} admitted this machine, but the lease it sent cannot be trusted: {why}",
        "remove this machine there (`instar machines remove`), update both, and join again",
        status=502,
    )
