"""Keeping the state repository small: many loose objects become one pack, many packs become one. Blocks.

Nothing is ever dropped: refused commits and queued edits may be needed though no branch holds them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pygit2

from instar_node.errors import InstarError

MOST_LOOSE = 2_000
MOST_PACKS = 20
SAMPLE = "17"
"""As git does: the loose objects in one of the 256 folders tell how many there are in all."""


def needs_packing(path: Path) -> bool:
    """Whether the repository at ``path`` has grown untidy; cheap."""
    sampled = path / "objects" / SAMPLE
    loose = 256 * sum(1 for _ in sampled.iterdir()) if sampled.is_dir() else 0
    return loose > MOST_LOOSE or len(list((path / "objects" / "pack").glob("*.pack"))) > MOST_PACKS


def pack_all(path: Path) -> None:
    """Put every object into one pack, and remove what is then held twice. Who has the repository open must
    open it anew afterwards."""
    repository = pygit2.Repository(str(path))
    objects, loose = set(repository.odb), _loose(path)
    repository.pack(pack_delegate=lambda builder: _add(builder, objects))
    packs = list((path / "objects" / "pack").glob("pack-*.pack"))
    whole = next((pack for pack in packs if _count(pack.with_suffix(".idx")) == len(objects)), None)
    if whole is None:
        raise InstarError("packing-failed", f"{path} was not packed: no pack has all of its objects")
    for file in loose:
        file.unlink(missing_ok=True)
    for pack in packs:
        if pack != whole:
            for part in path.glob(f"objects/pack/{pack.stem}.*"):
                part.unlink(missing_ok=True)


def _count(index: Path) -> int:
    """Objects of a pack: the last word of its index's fan-out table (gitformat-pack, version 2)."""
    with index.open("rb") as file:
        file.seek(8 + 255 * 4)
        return int.from_bytes(file.read(4), "big")


def _loose(path: Path) -> list[Path]:
    return [file for file in (path / "objects").glob("[0-9a-f][0-9a-f]/*") if len(file.name) == 38]


def _add(builder: pygit2.PackBuilder, oids: Iterable[pygit2.Oid]) -> None:
    for oid in oids:
        builder.add(oid)
