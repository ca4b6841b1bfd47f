"""Processes that race for the lease, are killed, are stopped: what was acknowledged stands, nobody blocks.

Most races are short here; ``--long`` runs 100 swaps in every process.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from instar_node.coordination.git_lease_store import GitLeaseStore
from instar_node.coordination.hub import Hub
from instar_node.coordination.lease_store import Lost, Unknown, Won
from instar_node.storage.home import Home
from tests.hubs.conftest import GitServer
from tests.hubs.kinds import GitKind
from tests.unit.lease_store_support import lease_record, swapped, taken, won

ROOT = Path(__file__).parents[2]


class Swappers:
    """Processes on one hub; all of them are killed in the end."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self._folder = folder
        self._hub = hub
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, swaps: int, name: str, *more: str) -> subprocess.Popen[str]:
        home = self._folder / name
        home.mkdir(exist_ok=True)
        arguments = [self._hub.kind, self._hub.url, str(home), str(swaps), name, *more]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.hubs.swapper", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


async def race(kind: GitKind, folder: Path, writers: int, swaps: int) -> None:
    """Let processes contend; then what they were told they won, and nothing else, must be the history."""
    store = kind.store()
    first = await won(store, lease_record())
    swappers = Swappers(folder, kind.hub)
    try:
        processes = [swappers.start(swaps, f"m-{n}") for n in range(writers)]
        outputs = [process.communicate()[0].split() for process in processes]
    finally:
        swappers.close()
    assert [process.returncode for process in processes] == [0] * writers
    acknowledged = [nonce for output in outputs for nonce in output]
    history = await store.epochs(100_000)
    assert len(acknowledged) == writers * swaps
    assert len(set(acknowledged)) == len(acknowledged)
    assert {record.nonce for record in history} == {first.record.nonce, *acknowledged}
    assert [record.epoch for record in history] == list(range(len(history), 0, -1))


@pytest.fixture
async def path_kind(tmp_path: Path) -> GitKind:
    path = tmp_path / "hub.git"
    kind = GitKind(tmp_path, Hub("path", str(path)), path)
    await kind.store().create()
    return kind


@pytest.fixture
def swappers(tmp_path: Path, path_kind: GitKind) -> Iterator[Swappers]:
    swappers = Swappers(tmp_path, path_kind.hub)
    yield swappers
    swappers.close()


@pytest.mark.parametrize(("writers", "swaps"), [(2, 100), (8, 20)])
async def test_on_a_path_exactly_the_acknowledged_swaps_survive(
    path_kind: GitKind, tmp_path: Path, writers: int, swaps: int, long_run: bool
) -> None:
    await race(path_kind, tmp_path, writers, 100 if long_run else swaps)


@pytest.mark.parametrize(("writers", "swaps"), [(2, 6), (8, 1)])
async def test_over_http_exactly_the_acknowledged_swaps_survive(
    web: GitServer, tmp_path: Path, writers: int, swaps: int, long_run: bool
) -> None:
    name = f"{secrets.token_hex(4)}.git"
    kind = GitKind(tmp_path, Hub("remote", f"{web.url}/git/{name}"), web.root / name)
    await race(kind, tmp_path, writers, 100 if long_run else swaps)


@pytest.mark.parametrize(("writers", "swaps"), [(2, 2), (8, 1)])
async def test_over_ssh_exactly_the_acknowledged_swaps_survive(
    ssh: GitServer,
    tmp_path: Path,
    writers: int,
    swaps: int,
    long_run: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GIT_SSH_COMMAND", ssh.ssh_command)
    name = f"{secrets.token_hex(4)}.git"
    kind = GitKind(tmp_path, Hub("remote", f"{ssh.url}/{name}"), ssh.root / name)
    await race(kind, tmp_path, writers, 100 if long_run else swaps)


async def test_a_path_and_a_server_may_lead_to_the_same_repository(web: GitServer, tmp_path: Path) -> None:
    name = f"{secrets.token_hex(4)}.git"
    served = GitKind(tmp_path, Hub("remote", f"{web.url}/git/{name}"), web.root / name)
    mounted = GitKind(tmp_path, Hub("path", str(web.root / name)), web.root / name)
    first = await won(served.store(), lease_record())
    second = await won(mounted.store("m-bea"), taken(first))
    assert await swapped(served.store(), taken(first)) == Lost(second)
    assert isinstance(await swapped(served.store(), taken(second)), Won)


async def test_killing_swappers_at_any_moment_stops_nobody_and_loses_nothing(
    path_kind: GitKind, swappers: Swappers
) -> None:
    store = path_kind.store()
    await won(store, lease_record())
    acknowledged: list[str] = []
    chance = random.Random(7)
    for _ in range(6):
        process = swappers.start(100_000, "m-killed")
        assert process.stdout is not None
        acknowledged += process.stdout.readline().split()  # it is swapping now
        time.sleep(chance.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        acknowledged += process.communicate()[0].split()
    known = await store.read()
    assert known is not None
    assert isinstance(await swapped(store, taken(known)), Won)
    assert {record.nonce for record in await store.epochs(100_000)} >= set(acknowledged)


async def test_a_swapper_that_stands_still_under_its_locks_is_passed_over_and_learns_that_it_failed(
    path_kind: GitKind, swappers: Swappers
) -> None:
    store = path_kind.store()
    first = await won(store, lease_record())
    stopped = swappers.start(1, "m-stopped", "stop")
    os.waitid(os.P_PID, stopped.pid, os.WSTOPPED)
    assert (path_kind.repository / "refs/instar/lease.lock").exists()
    second = await won(store, taken(first, "m-next"))
    stopped.send_signal(signal.SIGCONT)
    assert stopped.communicate(timeout=30)[0].strip() in (Lost.__name__, Unknown.__name__)
    assert await store.read() == second
    assert isinstance(await swapped(store, taken(second)), Won)


async def test_locks_that_change_hands_are_waited_for_however_long_it_takes(
    path_kind: GitKind, swappers: Swappers, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instar_node.coordination import git_disk

    def never(path: Path) -> None:
        raise AssertionError("a lock in use was broken")

    monkeypatch.setattr(git_disk, "_replace", never)
    store = GitLeaseStore(path_kind.hub, Home(path_kind.repository.parent / "m-ada"))
    known = await won(store, lease_record())
    for n in range(3):
        swappers.start(100_000, f"m-{n}")
    outcomes = []
    for _ in range(20):
        outcomes.append(await swapped(store, taken(known)))
        seen = await store.read()
        assert seen is not None
        known = seen
    assert not [outcome for outcome in outcomes if isinstance(outcome, Unknown)]
