"""What every other machine was last heard to run, over restarts: ``machine/versions.json``."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from instar_node.build import Build
from instar_node.contracts import Mesh
from instar_node.errors import InstarError
from instar_node.storage.atomic import read_json, write_atomic

log = logging.getLogger("instar.updates")


class HeardBuilds:
    """Notes each greeting; so a machine that is away is known to be held back, too."""

    def __init__(self, path: Path, mesh: Mesh) -> None:
        """A file that cannot be read is begun anew: every machine greets again."""
        self._path = path
        self._mesh = mesh
        self._builds: dict[str, Build] = {}
        try:
            self._builds = read_json(path, dict[str, Build]) if path.exists() else {}
        except InstarError as error:
            log.warning("begun anew: %s", error.message)
        mesh.on_peer(self._on_peer)

    def of(self, machine: str) -> Build | None:
        """What a machine runs, or ran when it was last heard; ``None`` when it never was."""
        info = self._mesh.info(machine)
        if info is not None and info.version:
            return Build(info.version, info.protocol)
        return self._builds.get(machine)

    def _on_peer(self, machine: str, up: bool) -> None:
        build = self.of(machine) if up else None
        if build is None or build == self._builds.get(machine):
            return
        self._builds[machine] = build
        try:
            write_atomic(self._path, msgspec.json.format(msgspec.json.encode(self._builds)) + b"\n")
        except InstarError as error:  # it will greet again
            log.warning("the version of %s was not noted: %s", machine, error.message)
