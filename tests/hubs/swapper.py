"""A machine that does nothing but take the lease, as a process: ``python -m tests.hubs.swapper``.

Arguments: kind and URL of the hub, a home, how often to win, a name. It prints the nonce of every swap that
was acknowledged. With a sixth argument ``stop`` it stops itself (SIGSTOP) under the locks of its first swap,
and prints how that swap ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from instar_node.coordination import git_disk
from instar_node.coordination.git_lease_store import GitLeaseStore
from instar_node.coordination.hub import Hub
from instar_node.coordination.lease_store import LeaseStore, StoreUnavailable, SwapOutcome, Unknown, Won
from instar_node.coordination.record import KnownRecord
from instar_node.storage.home import Home
from tests.unit.lease_store_support import swapped, taken


async def contend(store: LeaseStore, swaps: int, name: str) -> None:
    """Take the lease ``swaps`` times against all others, each time from what the last swap came to."""
    known = await _read(store)
    while swaps:
        record = taken(known, name)
        candidate = await store.prepare(record)
        while isinstance(outcome := await store.compare_and_swap(record.prev, candidate), Unknown):
            await asyncio.sleep(0.05)
        if isinstance(outcome, Won):
            print(record.nonce, flush=True)
            swaps -= 1
        assert outcome.known is not None
        known = outcome.known


async def _read(store: LeaseStore) -> KnownRecord:
    while True:
        try:
            known = await store.read()
        except StoreUnavailable:  # it moves on faster than it can be fetched
            continue
        assert known is not None
        return known


async def swap_and_stop(store: LeaseStore, name: str) -> SwapOutcome:
    """One swap in which this process stands still between reading the ref under its locks and setting it."""
    read_ref, stopped = git_disk.tip_of, False

    def read_and_stop(*arguments: object) -> str | None:
        nonlocal stopped
        value = read_ref(*arguments)  # type: ignore[arg-type]
        if not stopped:
            stopped = True
            os.kill(os.getpid(), signal.SIGSTOP)
        return value

    known = await _read(store)
    git_disk.tip_of = read_and_stop
    return await swapped(store, taken(known, name))


def main(kind: str, url: str, home: str, swaps: str, name: str, stop: str = "") -> None:
    """Run as the arguments say."""
    hub = Hub("path", url) if kind == "path" else Hub("remote", url)
    store = GitLeaseStore(hub, Home(Path(home)))
    if stop:
        print(type(asyncio.run(swap_and_stop(store, name))).__name__, flush=True)
    else:
        asyncio.run(contend(store, int(swaps), name))


if __name__ == "__main__":
    main(*sys.argv[1:])
