"""Changing the mesh of a home: what allows it, and doing it as one whole step.

``machine/joined.json`` is the step: once it is written the home belongs to the new mesh, and whatever was not
put in place yet is put in place at the next opening. Before it is written, nothing has changed.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import msgspec

from instar_node.clock import Clock
from instar_node.coordination.lease_state import DurableLease
from instar_node.coordination.record import KnownRecord
from instar_node.errors import InstarError
from instar_node.identity.chain import RegistryRecord
from instar_node.identity.keys import MachineIdentity, mesh_name
from instar_node.identity.registry import FILE_NAME as REGISTRY_FILE
from instar_node.identity.registry import MachineRegistry
from instar_node.identity.vault import FILE_NAME as VAULT_FILE
from instar_node.identity.vault import Vault
from instar_node.storage.atomic import read_json, write_atomic
from instar_node.storage.home import Home
from instar_node.sync.memory import FILE_NAME as SYNC_FILE
from instar_node.sync.paths import RESERVED
from instar_node.wiring.mesh_file import FILE_NAME as MESH_FILE
from instar_node.wiring.mesh_file import MeshFile, write_mesh_file

log = logging.getLogger("instar.node")

FILE_NAME = "joined.json"
LEASE_FILE = "lease-state.json"


class JoinedMesh(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of ``machine/joined.json``: all that makes this home a member of the mesh that admitted it."""

    mesh_id: str
    records: tuple[RegistryRecord, ...]
    lease: KnownRecord
    settings: MeshFile


def require_lone(registry: MachineRegistry, me: str, vault: Vault, messages: int) -> None:
    """Raise ``already-member`` unless the mesh of this home is empty and nobody else's: then nothing is lost
    when it is given up."""
    others = [member.nickname for member in registry.active() if member.machine_id != me]
    own = registry.get(me)
    if own is None or own.removed:
        why = "this machine was removed from its mesh, or left it; to come back it needs a new identity"
    elif others:
        why = f"this home belongs to mesh {mesh_name(registry.mesh_id)} with {', '.join(others)}"
    elif messages:
        why = f"this home holds {messages} {'message' if messages == 1 else 'messages'} of a mesh of its own"
    elif vault.names():
        why = f"this home holds secrets of a mesh of its own: {', '.join(vault.names())}"
    else:
        return
    raise InstarError(
        "already-member",
        f"{why}; a home joins one mesh only",
        "use a fresh home: instar --home NEW-FOLDER join URL --code CODE",
    )


def commit_join(home: Home, joined: JoinedMesh) -> None:
    """From here on the home belongs to the new mesh; ``complete_join`` puts its files in place."""
    write_atomic(home.machine / FILE_NAME, msgspec.json.encode(joined) + b"\n")


def complete_join(home: Home, identity: MachineIdentity, clock: Clock) -> None:
    """Finish a join that was committed: the old mesh goes, the new one is in place. Harmless when there is
    none; may be cut off anywhere and done again."""
    path = home.machine / FILE_NAME
    if not path.exists():
        return
    joined = read_json(path, JoinedMesh, f"remove {path}, and pair this machine anew")
    _give_up(home, joined.settings)
    write_atomic(home.machine / LEASE_FILE, msgspec.json.encode(DurableLease(newest=joined.lease)))
    write_mesh_file(home, joined.settings)
    MachineRegistry.adopt(home.machine, identity, clock, joined.records, joined.mesh_id)
    path.unlink()


def _give_up(home: Home, settings: MeshFile) -> None:
    """Remove what belonged to the mesh of before: it was empty. The identity stays, and so does a hub that
    lies on another disk or server, with the last lease of that mesh in it."""
    for name in (REGISTRY_FILE, LEASE_FILE, MESH_FILE, VAULT_FILE, SYNC_FILE):
        (home.machine / name).unlink(missing_ok=True)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{home.database}{suffix}").unlink(missing_ok=True)
    if home.hub.exists() and settings.hub != str(home.hub):
        shutil.rmtree(home.hub)
    if home.state_repository.exists():
        shutil.rmtree(home.state_repository)
    _put_aside(home.state)


def _put_aside(folder: Path) -> None:
    """Files of a person are not mixed into the state of another mesh, and not thrown away either."""
    if not folder.exists():
        return
    for generated in (*RESERVED, ".git"):
        path = folder / generated
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if not any(path.is_file() for path in folder.rglob("*")):
        shutil.rmtree(folder)
        return
    number = 1
    while (aside := folder.with_name(f"{folder.name}.before-{number}")).exists():
        number += 1
    folder.rename(aside)
    log.warning("what was in %s is kept in %s", folder, aside)
