"""The repository stays small, and packing loses nothing, also not what no branch holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from instar_node.sync import packing
from instar_node.sync.repository import StateRepository
from tests.unit import sync_support as _fsync_off  # noqa: F401 - importing it switches syncing off
from tests.unit.sync_support import git


def loose(repository: StateRepository) -> int:
    return len(list((repository.path / "objects").glob("??/*")))


def packs(repository: StateRepository) -> int:
    return len(list((repository.path / "objects" / "pack").glob("*.pack")))


def test_many_loose_objects_and_packs_become_one_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MOST_LOOSE", 300)
    repository = StateRepository(tmp_path / "state.git", tmp_path / "state")
    repository.open()
    kept = {}
    for round_ in range(3):
        for n in range(70):
            data = f"{round_} {n}".encode()
            kept[repository.write("blob", data)] = data
        if round_ < 2:
            packing.pack_all(repository.path)
    assert (loose(repository), packs(repository)) == (70, 1)
    assert not repository.tidy()
    for n in range(900):
        data = f"more {n}".encode()
        kept[repository.write("blob", data)] = data
    assert repository.tidy()
    assert (loose(repository), packs(repository)) == (0, 1)
    assert all(repository.blob(oid) == data for oid, data in kept.items())
    assert git(repository.worktree, "fsck", "--strict").returncode == 0
    packing.pack_all(repository.path)
    assert (loose(repository), packs(repository)) == (0, 1)
