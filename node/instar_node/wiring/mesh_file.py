"""What a home remembers of its mesh beside the registry: where the lease register lies."""

from __future__ import annotations

import msgspec

from instar_node.api import types as t
from instar_node.coordination.hub import Hub, parse_hub
from instar_node.storage.atomic import read_json, write_atomic
from instar_node.storage.home import Home

FILE_NAME = "mesh.json"


class MeshFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of ``machine/mesh.json``."""

    hub: str
    """As ``[hub] url``; empty for the embedded hub."""
    nickname: str = ""
    """The name that was last asked for by ``--nickname`` or ``config.toml``. Asking for it again changes
    nothing, so that a later rename stands."""


def read_mesh_file(home: Home) -> MeshFile | None:
    """What is recorded; ``None`` when nothing is. Raises ``file-damaged``, naming the file."""
    path = home.machine / FILE_NAME
    if not path.exists():
        return None
    return read_json(path, MeshFile, f"remove {path} and name the mesh's hub once with --hub")


def write_mesh_file(home: Home, content: MeshFile) -> None:
    """Record it durably."""
    write_atomic(home.machine / FILE_NAME, msgspec.json.encode(content) + b"\n")


def hub_of(home: Home, recorded: MeshFile | None, wanted: str) -> tuple[Hub, list[t.Alert]]:
    """The hub to use, and a warning when it is not the one that was asked for.

    The signed record of the mesh says where its lease lies: a setting that says otherwise would split it.
    Raises ``bad-hub`` and the like.
    """
    if recorded is None:
        return parse_hub(wanted, home), []
    hub = parse_hub(recorded.hub, home)
    if not wanted or parse_hub(wanted, home) == hub:
        return hub, []
    warning = t.Alert(
        "hub-differs",
        f"the mesh keeps its lease in {hub.shown} ({hub.kind}); the hub that was asked for is ignored",
        "`instar hub URL` moves a mesh to another hub; otherwise remove --hub and hub.url",
    )
    return hub, [warning]
