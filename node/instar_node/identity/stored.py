"""The registry as a home has it on disk, for commands that run without a node."""

from __future__ import annotations

from pathlib import Path

from instar_node.identity.chain import Folded, RegistryRecord, fold
from instar_node.storage.atomic import read_json


def stored_registry(folder: Path) -> Folded | None:
    """The verified registry in ``<home>/machine``; ``None`` before this machine belongs to a mesh.

    Reads the file as ``identity.registry`` writes it; that module itself would load asyncio, which takes too
    long for a command. Raises ``file-damaged`` or ``registry-refused``.
    """
    path = folder / "registry.json"
    return fold(read_json(path, dict[str, list[RegistryRecord]])["records"]) if path.exists() else None
