"""Processes that race for the lease, are killed, are stopped: what was acknowledged stands, nobody blocks.

Every process wins 100 swaps; eight that race over a server, where each loss costs a dozen processes as well,
win fewer here and 100 with ``--long``.
"""

from __future__ import annotations

import contextlib
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
from tests.hubs.conftest import GitServer, served
from tests.hubs.kinds import GitKind
from tests.unit.lease_store_support import epochs, lease_record, swapped, taken, won

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
    history = epochs(kind.repository)
    assert len(acknowledged) == writers * swaps
    assert len(set(acknowledged)) == len(acknowledged)
    assert {record.nonce for record in history} == {first.record.nonce, *acknowledged}
    assert [record.epoch for record in history] == list(range(len(history), 0, -1))


async def new_hub(medium: str, request: pytest.FixtureRequest, folder: Path) -> GitKind:
    """A hub without a lease, on a path or on one of the servers."""
    if medium == "path":
        path = folder / "hub.git"
        kind = GitKind(folder, Hub("path", str(path)), path)
    else:
        kind = served(medium, request, folder)
    await kind.store().create()
    return kind


@pytest.fixture
async def path_kind(request: pytest.FixtureRequest, tmp_path: Path) -> GitKind:
    return await new_hub("path", request, tmp_path)


@pytest.fixture
def swappers(tmp_path: Path, path_kind: GitKind) -> Iterator[Swappers]:
    swappers = Swappers(tmp_path, path_kind.hub)
    yield swappers
    swappers.close()


@pytest.mark.parametrize(
    ("medium", "writers", "swaps"),
    [("path", 2, 100), ("path", 8, 100), ("http", 2, 100), ("http", 8, 2), ("ssh", 2, 100), ("ssh", 8, 2)],
)
async def test_exactly_the_acknowledged_swaps_survive(
    medium: str, writers: int, swaps: int, request: pytest.FixtureRequest, tmp_path: Path, long_run: bool
) -> None:
    kind = await new_hub(medium, request, tmp_path)
    await race(kind, tmp_path, writers, 100 if long_run else swaps)


async def test_a_path_and_a_server_may_lead_to_the_same_repository(web: GitServer, tmp_path: Path) -> None:
    name = f"{secrets.token_hex(4)}.git"
    served = GitKind(tmp_path, Hub("remote", f"{web.url}/git/{name}"), web.root / name)
    mounted = GitKind(tmp_path, Hub("path", str(web.root / name)), web.root / name)
    first = await won(served.store(), lease_record())
    second = await won(mounted.store("m-bea"), taken(first))
    assert await swapped(served.store(), taken(first)) == Lost(second)
    assert isinstance(await swapped(served.store(), taken(second)), Won)


@pytest.mark.parametrize(("medium", "kills"), [("path", 6), ("http", 4), ("ssh", 1)])
async def test_killing_swappers_at_any_moment_stops_nobody_and_loses_nothing(
    medium: str, kills: int, request: pytest.FixtureRequest, tmp_path: Path, long_run: bool
) -> None:
    kind = await new_hub(medium, request, tmp_path)
    store, swappers = kind.store(), Swappers(tmp_path, kind.hub)
    await won(store, lease_record())
    acknowledged: list[str] = []
    chance = random.Random(7)
    try:
        for _ in range(20 if long_run else kills):
            process = swappers.start(100_000, "m-killed")
            assert process.stdout is not None
            acknowledged += process.stdout.readline().split()  # it is swapping now
            time.sleep(chance.uniform(0.0, 0.05 if medium == "path" else 0.3))
            kill_with_children(process.pid)
            acknowledged += process.communicate()[0].split()
    finally:
        swappers.close()
    outcome: object = None
    while not isinstance(outcome, Won):  # the last push of a dead swapper may land even now
        assert not isinstance(outcome, Unknown)
        known = await store.read()
        assert known is not None
        outcome = await swapped(store, taken(known))
    assert {record.nonce for record in epochs(kind.repository)} >= set(acknowledged)


def kill_with_children(pid: int) -> None:
    """SIGKILL a process and the git that it runs at this moment."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for victim in (pid, *children):
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)


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
