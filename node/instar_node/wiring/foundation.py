"""Opening a home: identity, mesh, hub and database, in the order in which a failure leaves nothing behind."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from instar_node.api import types as t
from instar_node.build import Build, this_build
from instar_node.clock import Clock
from instar_node.config import Config, NodeOptions
from instar_node.coordination.hub import Hub
from instar_node.coordination.hub_troubles import hub_error, of_another_mesh
from instar_node.coordination.hubs import open_store
from instar_node.coordination.lease_store import LeaseStore, StoreUnavailable
from instar_node.errors import InstarError
from instar_node.identity.addresses import reachable
from instar_node.identity.keys import MachineIdentity
from instar_node.identity.nicknames import nickname_from_host
from instar_node.identity.registry import MachineRegistry
from instar_node.identity.vault import Vault
from instar_node.storage.home import Home
from instar_node.wiring.mesh_change import complete_join
from instar_node.wiring.mesh_file import MeshFile, hub_of, read_mesh_file, write_mesh_file
from instar_node.wiring.own_urls import DEFAULT_LISTEN, OwnUrls


@dataclass
class Foundation:
    """What was read from the home, or made there at the first start."""

    home: Home
    identity: MachineIdentity
    registry: MachineRegistry
    vault: Vault
    hub: Hub
    urls: OwnUrls
    port_is_default: bool
    witness: bool
    wanted_nickname: str | None
    """A name asked for that was not asked for before."""
    recorded: MeshFile
    warnings: list[t.Alert]
    build: Build
    """The program that runs."""

    def record(self, **changes: str) -> None:
        """Note durably what the home has to remember of its mesh."""
        self.recorded = msgspec.structs.replace(self.recorded, **changes)
        write_mesh_file(self.home, self.recorded)


async def lay_foundation(home: Home, config: Config, options: NodeOptions, clock: Clock) -> Foundation:
    """Read the home; a fresh one founds a mesh of its own.

    Raises ``InstarError`` naming the damaged file, or what is wrong with the hub; a home whose hub does not
    serve is not founded.
    """
    home.prepare()
    identity = MachineIdentity.load_or_create(home.machine)
    complete_join(home, identity, clock)
    registry = MachineRegistry.load(home.machine, identity, clock)
    recorded = read_mesh_file(home) if registry is not None else None
    wanted_hub = options.hub or config.hub.url
    hub, warnings = hub_of(home, recorded, wanted_hub)
    listen = options.listen or config.node.listen
    urls = OwnUrls(config.node.urls, listen)
    witness = options.witness or config.node.witness
    nickname = options.nickname or config.node.nickname
    if registry is None:
        await _prepare_hub(hub, home, witness)
        recorded = MeshFile(hub.wire_url, nickname)
        write_mesh_file(home, recorded)
        name = nickname or nickname_from_host()
        told = reachable(urls(), same_host=False)
        registry = MachineRegistry.found(home.machine, identity, clock, name, told, epoch=1)
    elif recorded is None:
        recorded = MeshFile(hub.wire_url, nickname)
        write_mesh_file(home, recorded)
    own = registry.get(identity.machine_id)
    if own is not None and own.witness:
        witness = True
    elif witness:
        _require_others(registry)
    fresh_name = bool(nickname) and nickname != recorded.nickname
    return Foundation(
        home=home,
        identity=identity,
        registry=registry,
        vault=Vault.load(home.machine, identity, registry, clock),
        hub=hub,
        urls=urls,
        port_is_default=options.listen is None and config.node.listen == DEFAULT_LISTEN,
        witness=witness,
        wanted_nickname=nickname if fresh_name else None,
        recorded=recorded,
        warnings=warnings,
        build=options.build or this_build(),
    )


async def _prepare_hub(hub: Hub, home: Home, witness: bool) -> None:
    """Set up the hub of a new mesh and see that it can keep a lease, before anything of the mesh exists."""
    if witness:
        raise _alone()
    if hub.kind == "witness":
        raise InstarError(
            "no-witness",
            "a new mesh has no witness yet",
            "found it without --hub, pair the witness, then move the lease: `instar hub witness:MACHINE`",
            status=400,
        )
    store = open_store(hub, home)
    try:
        await _look_at_hub(hub, store)
        if hub.kind == "embedded":
            home.hub.chmod(0o700)  # git follows the umask; nobody else has any business in it
    finally:
        await store.close()


def _require_others(registry: MachineRegistry) -> None:
    if len(registry.active()) < 2:
        raise _alone()


def _alone() -> InstarError:
    return InstarError(
        "witness-alone",
        "a witness keeps the register for others; it cannot have a mesh of its own",
        "join one first: `instar join URL --code CODE --witness`",
        status=400,
    )


async def _look_at_hub(hub: Hub, store: LeaseStore) -> None:
    await store.create()
    if hub.kind != "embedded" and await _read(store) is not None:
        raise of_another_mesh(hub.shown)
    await store.probe()


async def is_unfounded(foundation: Foundation) -> bool:
    """Whether the first lease of this mesh was never written.

    Only the founding machine, alone in its registry, can be in that state; and then the register is empty,
    or, after a crash between writing it and noting that it was written, holds our own first record.
    """
    records = foundation.registry.records
    if len(foundation.registry.active()) > 1 or records[0].machine_id != foundation.identity.machine_id:
        return False
    store = open_store(foundation.hub, foundation.home)
    try:
        return await _read(store) is None
    finally:
        await store.close()


async def _read(store: LeaseStore) -> object | None:
    try:
        return await store.read()
    except StoreUnavailable as error:
        raise hub_error(error) from error
